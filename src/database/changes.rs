//! The change feed: what one process changed, so that every other drops what it remembers of it.

use sqlx::{AssertSqlSafe, Row as _};

use super::{Database, DatabaseError, Dialect, Transaction};
use crate::{clock::Timestamp, secret::TokenHash};

/// PostgreSQL's advisory lock that whoever announces holds until its commit.
const LOCK: i64 = 0x706f_7274_6375_0002;

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
        text.strip_prefix("session:").and_then(TokenHash::from_hex).map_or(Self::All, Self::Session)
    }
}

impl Database {
    /// Announces `change` as part of the transaction that makes it, which must end soon and take no lock after this:
    /// on PostgreSQL, announcements queue from here to the commit. Positions in the feed grow in the order of commits
    /// that way, so that whoever has read up to one misses none.
    pub async fn announce(
        &self,
        transaction: &mut Transaction,
        change: &Change,
        now: Timestamp,
    ) -> Result<(), DatabaseError> {
        if self.dialect == Dialect::Postgres {
            sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut **transaction).await?;
        }
        sqlx::query("INSERT INTO changes (subject, at) VALUES ($1, $2)")
            .bind(change.encode())
            .bind(now.unix_millis())
            .execute(&mut **transaction)
            .await?;
        Ok(())
    }

    /// The newest position of the feed: what a process that starts now need not read.
    pub async fn latest_change(&self) -> Result<i64, DatabaseError> {
        let row = sqlx::query("SELECT COALESCE(MAX(id), 0) AS id FROM changes").fetch_one(self).await?;
        Ok(row.try_get("id")?)
    }

    /// Everything announced after `position`, with the position of each. When `position` itself is not in the feed any
    /// more, as in a stand-by that lacked it when it took over, everything has changed.
    pub async fn changes_after(&self, position: i64) -> Result<Vec<(i64, Change)>, DatabaseError> {
        let rows = sqlx::query("SELECT id, subject FROM changes WHERE id >= $1 ORDER BY id")
            .bind(position)
            .fetch_all(self)
            .await?;
        let mut changes = Vec::with_capacity(rows.len());
        for row in &rows {
            changes.push((row.try_get("id")?, Change::decode(&row.try_get::<String, _>("subject")?)));
        }
        if position == 0 {
            return Ok(changes);
        }
        if changes.first().is_some_and(|&(at, _)| at == position) {
            changes.remove(0);
            return Ok(changes);
        }
        Ok(vec![(self.latest_change().await?, Change::All)])
    }

    /// Drops announcements older than `before`; the newest always stays, so that positions never go back.
    pub async fn forget_changes(&self, before: Timestamp) -> Result<(), DatabaseError> {
        let free = self.locking_free();
        let purge = format!(
            "DELETE FROM changes WHERE id IN \
             (SELECT id FROM changes WHERE at < $1 AND id < (SELECT MAX(id) FROM changes){free})"
        );
        sqlx::query(AssertSqlSafe(purge)).bind(before.unix_millis()).execute(self).await?;
        Ok(())
    }
}
