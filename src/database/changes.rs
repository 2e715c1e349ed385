//! The change feed: what one process changed, so that every other drops what it remembers of it.

use sqlx::{Any, Row as _, Transaction};

use super::{Database, DatabaseError};
use crate::{clock::Timestamp, secret::TokenHash};

/// Something that a gateway may remember and now must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Rights, devices, password or state of one user, by id.
    User(String),
    /// One session.
    Session(TokenHash),
    /// Everything.
    All,
}

impl Change {
    fn encode(&self) -> String {
        match self {
            Self::User(id) => format!("user:{id}"),
            Self::Session(hash) => format!("session:{}", hash.to_hex()),
            Self::All => "all".to_owned(),
        }
    }

    /// What cannot be understood changes everything: forgetting too much is safe.
    fn decode(text: &str) -> Self {
        if let Some(id) = text.strip_prefix("user:") {
            return Self::User(id.to_owned());
        }
        text.strip_prefix("session:").and_then(token_hash).map_or(Self::All, Self::Session)
    }
}

fn token_hash(hex: &str) -> Option<TokenHash> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(TokenHash::from_bytes(bytes))
}

impl Database {
    /// Announces `change` as part of the transaction that makes it.
    pub async fn announce(
        transaction: &mut Transaction<'static, Any>,
        change: &Change,
        now: Timestamp,
    ) -> Result<(), DatabaseError> {
        sqlx::query("INSERT INTO changes (subject, at) VALUES ($1, $2)")
            .bind(change.encode())
            .bind(now.unix_millis())
            .execute(&mut **transaction)
            .await?;
        Ok(())
    }

    /// The newest position of the feed: what a process that starts now need not read.
    pub async fn latest_change(&self) -> Result<i64, DatabaseError> {
        let row =
            sqlx::query("SELECT COALESCE(MAX(id), 0) AS id FROM changes").fetch_one(self.pool()).await?;
        Ok(row.try_get("id")?)
    }

    /// Everything announced after `position`, with the position of each.
    pub async fn changes_after(&self, position: i64) -> Result<Vec<(i64, Change)>, DatabaseError> {
        let rows = sqlx::query("SELECT id, subject FROM changes WHERE id > $1 ORDER BY id")
            .bind(position)
            .fetch_all(self.pool())
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get("id")?, Change::decode(&row.try_get::<String, _>("subject")?))))
            .collect()
    }

    /// Drops announcements older than `before`; the newest always stays, so that positions never go back.
    pub async fn forget_changes(&self, before: Timestamp) -> Result<(), DatabaseError> {
        sqlx::query("DELETE FROM changes WHERE at < $1 AND id < (SELECT MAX(id) FROM changes)")
            .bind(before.unix_millis())
            .execute(self.pool())
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Config;

    #[tokio::test]
    async fn another_process_reads_what_was_announced() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("a/b.db").display());
        let writer = Database::open(&Config { url: url.clone() }).await.unwrap();
        let reader = Database::open(&Config { url }).await.unwrap();
        let start = reader.latest_change().await.unwrap();

        let now = Timestamp::from_unix_seconds(100);
        let announced =
            [Change::User("u1".into()), Change::Session(TokenHash::from_bytes([7; 32])), Change::All];
        let mut transaction = writer.write().await.unwrap();
        for change in &announced {
            Database::announce(&mut transaction, change, now).await.unwrap();
        }
        assert_eq!(reader.changes_after(start).await.unwrap(), []);
        transaction.commit().await.unwrap();

        let seen: Vec<_> =
            reader.changes_after(start).await.unwrap().into_iter().map(|(_, change)| change).collect();
        assert_eq!(seen, announced);
        writer.forget_changes(Timestamp::from_unix_seconds(200)).await.unwrap();
        assert_eq!(reader.latest_change().await.unwrap(), start + 3);
    }
}
