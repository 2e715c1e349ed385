//! The change feed: the changes of one process, so that every other drops what it has cached.
//!
//! How others are notified is in `change_feed`.

use sqlx::AssertSqlSafe;

use super::{Database, DatabaseError, Dialect, Transaction};
use crate::{clock::Timestamp, secret::TokenHash};

/// The advisory lock of PostgreSQL that an announcement holds until its commit.
const LOCK: i64 = 0x706f_7274_6375_0002;
/// The channel of PostgreSQL's notifications.
pub(super) const CHANNEL: &str = "portcullis_changes";
pub(super) const LATEST: &str = "SELECT COALESCE(MAX(id), 0) FROM changes";
/// The announcement at `$1` and all after it.
pub(super) const SINCE: &str = "SELECT id, subject FROM changes WHERE id >= $1 ORDER BY id";

const SIGNING_KEYS: &str = "signing-keys";
const MAIL: &str = "mail";

/// A change that may make cached data stale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Rights, devices, password or state of one user, by id.
    User(String),
    /// One session.
    Session(TokenHash),
    /// One token of a machine, by id.
    Token(String),
    /// The keys that sign assertions.
    SigningKeys,
    /// Mail that waits to be sent.
    Mail,
    /// Everything.
    All,
}

impl Change {
    fn encode(&self) -> String {
        match self {
            Self::User(id) => format!("user:{id}"),
            Self::Session(hash) => format!("session:{}", hash.to_hex()),
            Self::Token(id) => format!("token:{id}"),
            Self::SigningKeys => SIGNING_KEYS.to_owned(),
            Self::Mail => MAIL.to_owned(),
            Self::All => "all".to_owned(),
        }
    }

    /// An unknown change counts as a change of everything: forgetting too much is safe.
    fn decode(text: &str) -> Self {
        if let Some(id) = text.strip_prefix("user:") {
            return Self::User(id.to_owned());
        }
        if let Some(id) = text.strip_prefix("token:") {
            return Self::Token(id.to_owned());
        }
        if text == SIGNING_KEYS {
            return Self::SigningKeys;
        }
        if text == MAIL {
            return Self::Mail;
        }
        text.strip_prefix("session:").and_then(TokenHash::from_hex).map_or(Self::All, Self::Session)
    }
}

impl Database {
    /// Announces `change` in the transaction that makes it, which must end soon and take no lock after this: on
    /// PostgreSQL, announcements queue from here to the commit. So positions in the feed grow in the order of commits,
    /// and a follower that has read up to one misses none.
    pub async fn announce(
        &self,
        transaction: &mut Transaction,
        change: &Change,
        now: Timestamp,
    ) -> Result<(), DatabaseError> {
        if self.dialect == Dialect::Postgres {
            // Listeners are notified at the commit, and once however much is announced.
            sqlx::query("SELECT pg_advisory_xact_lock($1), pg_notify($2, '')")
                .bind(LOCK)
                .bind(CHANNEL)
                .execute(&mut **transaction)
                .await?;
        }
        sqlx::query("INSERT INTO changes (subject, at) VALUES ($1, $2)")
            .bind(change.encode())
            .bind(now.unix_millis())
            .execute(&mut **transaction)
            .await?;
        Ok(())
    }

    /// The newest position of the feed, from which a new process begins.
    pub async fn latest_change(&self) -> Result<i64, DatabaseError> {
        let (newest,) = sqlx::query_as(LATEST).fetch_one(self).await?;
        Ok(newest)
    }

    /// Everything announced after `position`, and the newest position. If `position` itself is no longer in the feed,
    /// as in a stand-by that lacked it when it took over, everything has changed.
    pub async fn changes_after(&self, position: i64) -> Result<(i64, Vec<Change>), DatabaseError> {
        let rows = sqlx::query_as(SINCE).bind(position).fetch_all(self).await?;
        match after(position, rows) {
            Some(changes) => Ok(changes),
            None => Ok((self.latest_change().await?, vec![Change::All])),
        }
    }

    /// Deletes announcements older than `before`; the newest always stays, so that positions never go back.
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

/// The announcements after `position`; `None` if its own row is missing.
pub(super) fn after(position: i64, mut rows: Vec<(i64, String)>) -> Option<(i64, Vec<Change>)> {
    if position > 0 {
        if rows.first().is_none_or(|&(first, _)| first != position) {
            return None;
        }
        rows.remove(0);
    }
    let newest = rows.last().map_or(position, |&(at, _)| at);
    Some((newest, rows.iter().map(|(_, subject)| Change::decode(subject)).collect()))
}
