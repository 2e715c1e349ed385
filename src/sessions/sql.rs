//! Sessions in the durable store, next to the users. Its change feed announces removed sessions.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt as _, TryFutureExt as _};
use sqlx::{AssertSqlSafe, Row as _, any::AnyRow};

use super::{
    RevocationLog, SessionError, SessionStore, StoredSession,
    revocation_log::{generation_of, raise},
};
use crate::{
    clock::{Clock, Timestamp},
    database::{Change, Database, DatabaseError},
    secret::TokenHash,
    users::UserId,
};

/// Sessions deleted in one transaction.
const BATCH: usize = 1000;

/// The sessions whose generation has not ended.
const GOOD: &str = concat!(
    "SELECT id, user_id, record, last_seen, expires_at, generation FROM sessions WHERE generation >= ",
    generation_of!("sessions.user_id")
);

/// The store that needs only the database.
pub struct SqlSessions {
    database: Database,
    /// For look-ups by requests.
    lookups: Database,
    revocations: RevocationLog,
    inactivity: Duration,
    clock: Arc<dyn Clock>,
}

impl SqlSessions {
    /// `inactivity` is how long an unused session is stored.
    pub fn new(database: Database, inactivity: Duration, clock: Arc<dyn Clock>) -> Self {
        // Ended sessions are deleted: the ends of single sessions need not be stored.
        let revocations = RevocationLog::new(database.clone(), Arc::clone(&clock), Duration::ZERO);
        Self { lookups: database.for_sessions(), database, revocations, inactivity, clock }
    }

    async fn insert(&self, session: &StoredSession) -> Result<(), DatabaseError> {
        sqlx::query(concat!(
            "INSERT INTO sessions (id, user_id, record, last_seen, expires_at, generation) \
             VALUES ($1, $2, $3, $4, $5, ",
            generation_of!("$2"),
            ")"
        ))
        .bind(bytes(&session.id))
        .bind(session.user.to_string())
        .bind(session.record.clone())
        .bind(session.last_seen.unix_millis())
        .bind(session.expires_at.unix_millis())
        .execute(&self.database)
        .await?;
        Ok(())
    }

    async fn load(&self, id: &TokenHash) -> Result<Option<StoredSession>, DatabaseError> {
        sqlx::query(AssertSqlSafe(format!("{GOOD} AND id = $1")))
            .bind(bytes(id))
            .fetch_optional(&self.lookups)
            .await?
            .map_or(Ok(None), |row| read(&row))
    }

    async fn touch(&self, seen: &[(TokenHash, Timestamp)]) -> Result<Vec<TokenHash>, DatabaseError> {
        let mut missing = Vec::new();
        // In a fixed order, so that two gateways that update the same sessions queue instead of deadlocking.
        let mut seen = seen.to_vec();
        seen.sort_unstable_by_key(|(id, _)| *id.as_bytes());
        let mut transaction = self.database.write().await?;
        for (id, at) in &seen {
            let touched = sqlx::query(
                "UPDATE sessions SET last_seen = CASE WHEN last_seen < $2 THEN $2 ELSE last_seen END \
                 WHERE id = $1",
            )
            .bind(bytes(id))
            .bind(at.unix_millis())
            .execute(&mut *transaction)
            .await?;
            if touched.rows_affected() == 0 {
                missing.push(*id);
            }
        }
        transaction.commit().await?;
        Ok(missing)
    }

    async fn remove(&self, id: &TokenHash) -> Result<(), DatabaseError> {
        let mut transaction = self.database.write().await?;
        sqlx::query("DELETE FROM sessions WHERE id = $1").bind(bytes(id)).execute(&mut *transaction).await?;
        self.database.announce(&mut transaction, &Change::Session(*id), self.clock.now()).await?;
        transaction.commit().await
    }

    async fn remove_user(&self, user: &UserId) -> Result<Vec<TokenHash>, DatabaseError> {
        let mut transaction = self.database.write().await?;
        // A session that is just being made belongs to the generation before.
        raise(&mut transaction, Some(user)).await?;
        // In the same order as the updates.
        let lock = self.database.locking();
        let lock = format!("SELECT id FROM sessions WHERE user_id = $1 ORDER BY id{lock}");
        sqlx::query(AssertSqlSafe(lock)).bind(user.to_string()).fetch_all(&mut *transaction).await?;
        let rows = sqlx::query("DELETE FROM sessions WHERE user_id = $1 RETURNING id")
            .bind(user.to_string())
            .fetch_all(&mut *transaction)
            .await?;
        let ids = rows.iter().map(id).collect::<Result<Vec<_>, _>>()?;
        self.revocations.announce_user(&mut transaction, user, &ids).await?;
        transaction.commit().await?;
        Ok(ids)
    }

    async fn list(&self, user: Option<&UserId>) -> Result<Vec<StoredSession>, DatabaseError> {
        let query = match user {
            Some(user) => {
                sqlx::query(AssertSqlSafe(format!("{GOOD} AND user_id = $1"))).bind(user.to_string())
            }
            None => sqlx::query(GOOD),
        };
        query.fetch_all(&self.database).await?.iter().filter_map(|row| read(row).transpose()).collect()
    }

    async fn clear_ended(&self) -> Result<usize, DatabaseError> {
        let free = self.database.locking_free();
        let clear = format!(
            "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE generation < {} LIMIT {BATCH}{free})",
            generation_of!("sessions.user_id")
        );
        let mut cleared = 0;
        loop {
            let gone = sqlx::query(AssertSqlSafe(clear.clone())).execute(&self.database).await?;
            if gone.rows_affected() == 0 {
                return Ok(cleared);
            }
            cleared += usize::try_from(gone.rows_affected()).unwrap_or(usize::MAX);
        }
    }

    async fn purge(&self, now: Timestamp) -> Result<u64, DatabaseError> {
        let free = self.database.locking_free();
        let purge = format!(
            "DELETE FROM sessions WHERE id IN \
             (SELECT id FROM sessions WHERE expires_at <= $1 OR last_seen <= $2{free})"
        );
        let gone = sqlx::query(AssertSqlSafe(purge))
            .bind(now.unix_millis())
            .bind(now.minus(self.inactivity).unix_millis())
            .execute(&self.database)
            .await?;
        Ok(gone.rows_affected())
    }
}

impl SessionStore for SqlSessions {
    fn insert<'a>(&'a self, session: &'a StoredSession) -> BoxFuture<'a, Result<(), SessionError>> {
        self.insert(session).err_into().boxed()
    }

    fn load<'a>(&'a self, id: &'a TokenHash) -> BoxFuture<'a, Result<Option<StoredSession>, SessionError>> {
        self.load(id).err_into().boxed()
    }

    fn touch<'a>(
        &'a self,
        seen: &'a [(TokenHash, Timestamp)],
    ) -> BoxFuture<'a, Result<Vec<TokenHash>, SessionError>> {
        self.touch(seen).err_into().boxed()
    }

    fn remove<'a>(&'a self, id: &'a TokenHash) -> BoxFuture<'a, Result<(), SessionError>> {
        self.remove(id).err_into().boxed()
    }

    fn remove_user<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Vec<TokenHash>, SessionError>> {
        self.remove_user(user).err_into().boxed()
    }

    fn list<'a>(
        &'a self,
        user: Option<&'a UserId>,
    ) -> BoxFuture<'a, Result<Vec<StoredSession>, SessionError>> {
        self.list(user).err_into().boxed()
    }

    fn clear_ended(&self) -> BoxFuture<'_, Result<usize, SessionError>> {
        self.clear_ended().err_into().boxed()
    }

    fn purge(&self, now: Timestamp) -> BoxFuture<'_, Result<u64, SessionError>> {
        self.purge(now).err_into().boxed()
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), SessionError>> {
        self.database.ping().err_into().boxed()
    }
}

fn bytes(id: &TokenHash) -> Vec<u8> {
    id.as_bytes().to_vec()
}

fn id(row: &AnyRow) -> Result<TokenHash, DatabaseError> {
    let bytes: Vec<u8> = row.try_get("id")?;
    let bytes = bytes.try_into().map_err(|_| DatabaseError::Corrupt("a session's id"))?;
    Ok(TokenHash::from_bytes(bytes))
}

/// `None`, and a warning, if the row has no valid user id.
fn read(row: &AnyRow) -> Result<Option<StoredSession>, DatabaseError> {
    let id = id(row)?;
    let Some(user) = UserId::parse(&row.try_get::<String, _>("user_id")?) else {
        tracing::warn!(session.id = id.short(), "left out a session whose user has no valid id");
        return Ok(None);
    };
    Ok(Some(StoredSession {
        id,
        user,
        record: row.try_get("record")?,
        last_seen: Timestamp::from_unix_millis(row.try_get("last_seen")?),
        expires_at: Timestamp::from_unix_millis(row.try_get("expires_at")?),
        generation: row.try_get("generation")?,
    }))
}
