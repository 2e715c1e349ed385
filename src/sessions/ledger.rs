//! Which sessions were ended, in the durable store: for a store of sessions that may forget it.
//!
//! Redis loses what it was told last when it fails over, and all when it is restored from an old dump. An end that
//! stands here holds, is announced to every gateway, and needs no Redis to do so.

use std::{sync::Arc, time::Duration};

use sqlx::Row as _;

use crate::{
    clock::{Clock, Timestamp},
    database::{Change, Database, DatabaseError},
    secret::TokenHash,
};

/// Keeps the ends of sessions.
pub struct Ledger {
    database: Database,
    clock: Arc<dyn Clock>,
    /// How old a session can become, and so how long its end is worth keeping.
    expiration: Duration,
}

impl Ledger {
    pub fn new(database: Database, clock: Arc<dyn Clock>, expiration: Duration) -> Self {
        Self { database, clock, expiration }
    }

    /// The generation that a session of this user belongs to which is made now.
    pub(super) async fn generation(&self, user: &str) -> Result<i64, DatabaseError> {
        let row = sqlx::query("SELECT generation FROM session_generations WHERE user_id = $1")
            .bind(user.to_owned())
            .fetch_optional(&self.database)
            .await?;
        Ok(row.map(|row| row.try_get("generation")).transpose()?.unwrap_or(0))
    }

    /// Whether a session of a user, which belongs to `generation`, has been ended.
    pub(super) async fn has_ended(
        &self,
        id: &TokenHash,
        user: &str,
        generation: i64,
    ) -> Result<bool, DatabaseError> {
        let row = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM ended_sessions WHERE id = $1) + \
             (SELECT COUNT(*) FROM session_generations WHERE user_id = $2 AND generation > $3) AS ends",
        )
        .bind(id.to_hex())
        .bind(user.to_owned())
        .bind(generation)
        .fetch_one(&self.database)
        .await?;
        Ok(row.try_get::<i64, _>("ends")? > 0)
    }

    /// Ends one session.
    pub(super) async fn end(&self, id: &TokenHash) -> Result<(), DatabaseError> {
        let now = self.clock.now();
        let mut transaction = self.database.write().await?;
        sqlx::query(
            "INSERT INTO ended_sessions (id, until) VALUES ($1, $2) \
             ON CONFLICT (id) DO UPDATE SET until = excluded.until",
        )
        .bind(id.to_hex())
        .bind(now.plus(self.expiration).unix_millis())
        .execute(&mut *transaction)
        .await?;
        self.database.announce(&mut transaction, &Change::Session(*id), now).await?;
        transaction.commit().await
    }

    /// Ends all sessions that a user has, `known` among them.
    pub(super) async fn end_user(&self, user: &str, known: &[TokenHash]) -> Result<(), DatabaseError> {
        let now = self.clock.now();
        let mut transaction = self.database.write().await?;
        sqlx::query(
            "INSERT INTO session_generations (user_id, generation) VALUES ($1, 1) \
             ON CONFLICT (user_id) DO UPDATE SET generation = session_generations.generation + 1",
        )
        .bind(user.to_owned())
        .execute(&mut *transaction)
        .await?;
        // One by one as well: a gateway that is just loading one of them does not know whose it is.
        for id in known {
            self.database.announce(&mut transaction, &Change::Session(*id), now).await?;
        }
        self.database.announce(&mut transaction, &Change::User(user.to_owned()), now).await?;
        transaction.commit().await
    }

    /// Forgets ends that nothing can undo any more, and says how many.
    pub(super) async fn purge(&self, now: Timestamp) -> Result<u64, DatabaseError> {
        let gone = sqlx::query("DELETE FROM ended_sessions WHERE until <= $1")
            .bind(now.unix_millis())
            .execute(&self.database)
            .await?;
        Ok(gone.rows_affected())
    }
}
