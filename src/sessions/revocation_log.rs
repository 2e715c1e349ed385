//! The ended sessions, in the durable store: for a session store that may lose its latest writes.
//!
//! Redis loses its latest writes in a fail-over, and more when it is restored from an old dump. An end in this log is
//! permanent, is announced to every gateway, and does not depend on Redis. All sessions of a user, or of everybody, end
//! by incrementing a number: sessions of an earlier generation are over.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, Row as _, any::AnyRow};

use super::cache::Facts;
use crate::{
    clock::{Clock, Timestamp},
    database::{Change, Database, DatabaseError, Transaction},
    secret::TokenHash,
    users::UserId,
};

/// Sessions per query.
const BATCH: usize = 500;
/// The user id that stands for everybody.
const EVERYBODY: &str = "";

/// The current generation for the user whose id is in the column or parameter `$user`.
macro_rules! generation_of {
    ($user:literal) => {
        concat!(
            "(SELECT CAST(COALESCE(SUM(g.generation), 0) AS BIGINT) FROM session_generations g WHERE g.user_id IN (",
            $user,
            ", ''))"
        )
    };
}
pub(super) use generation_of;

/// Stores the ends of sessions.
#[derive(Clone)]
pub struct RevocationLog {
    database: Database,
    clock: Arc<dyn Clock>,
    /// The maximum age of a session, and so how long its end has to be stored.
    expiration: Duration,
}

/// The generations at one moment.
#[derive(Default)]
pub(super) struct Generations {
    everybody: i64,
    users: HashMap<UserId, i64>,
}

impl Generations {
    /// Whether a session of this user and generation has ended.
    pub(super) fn are_past(&self, user: &UserId, generation: i64) -> bool {
        self.everybody + self.users.get(user).copied().unwrap_or(0) > generation
    }
}

impl RevocationLog {
    pub fn new(database: Database, clock: Arc<dyn Clock>, expiration: Duration) -> Self {
        Self { database, clock, expiration }
    }

    /// The generation of a new session of this user.
    pub(super) async fn generation(&self, user: &UserId) -> Result<i64, DatabaseError> {
        let row = sqlx::query(concat!("SELECT ", generation_of!("$1"), " AS generation"))
            .bind(user.to_string())
            .fetch_one(&self.database)
            .await?;
        Ok(row.try_get("generation")?)
    }

    /// Whether a user's session of `generation` has ended.
    pub(super) async fn has_ended(
        &self,
        id: &TokenHash,
        user: &UserId,
        generation: i64,
    ) -> Result<bool, DatabaseError> {
        let row = sqlx::query(concat!(
            "SELECT (SELECT COUNT(*) FROM ended_sessions WHERE id = $1) + (CASE WHEN ",
            generation_of!("$2"),
            " > $3 THEN 1 ELSE 0 END) AS ends"
        ))
        .bind(id.to_hex())
        .bind(user.to_string())
        .bind(generation)
        .fetch_one(&self.database)
        .await?;
        Ok(row.try_get::<i64, _>("ends")? > 0)
    }

    /// The ended ones among these sessions.
    pub(super) async fn ended_among(
        &self,
        sessions: &[(TokenHash, Facts)],
    ) -> Result<Vec<TokenHash>, DatabaseError> {
        let mut ended = Vec::new();
        for batch in sessions.chunks(BATCH) {
            let users = batch.iter().map(|(_, facts)| facts.user.to_string());
            let generations = self.generations(users.chain([EVERYBODY.to_owned()]).collect()).await?;
            let ids = batch.iter().map(|(id, _)| id.to_hex()).collect();
            let listed = self.among("SELECT id FROM ended_sessions WHERE id IN", ids).await?;
            let listed: Vec<String> = listed.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
            let is_over = |(id, facts): &&(TokenHash, Facts)| {
                generations.are_past(&facts.user, facts.generation) || listed.contains(&id.to_hex())
            };
            ended.extend(batch.iter().filter(is_over).map(|(id, _)| *id));
        }
        Ok(ended)
    }

    /// The generations of everybody, and of all users whose sessions were ended together.
    pub(super) async fn all_generations(&self) -> Result<Generations, DatabaseError> {
        let rows = sqlx::query("SELECT user_id, generation FROM session_generations")
            .fetch_all(&self.database)
            .await?;
        read(&rows)
    }

    async fn generations(&self, users: Vec<String>) -> Result<Generations, DatabaseError> {
        let query = "SELECT user_id, generation FROM session_generations WHERE user_id IN";
        read(&self.among(query, users).await?)
    }

    async fn among(&self, query: &str, keys: Vec<String>) -> Result<Vec<AnyRow>, DatabaseError> {
        let marks: Vec<_> = (1..=keys.len()).map(|at| format!("${at}")).collect();
        let mut query = sqlx::query(AssertSqlSafe(format!("{query} ({})", marks.join(", "))));
        for key in keys {
            query = query.bind(key);
        }
        Ok(query.fetch_all(&self.database).await?)
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

    /// Ends all sessions of a user, including `known`.
    pub(super) async fn end_user(&self, user: &UserId, known: &[TokenHash]) -> Result<(), DatabaseError> {
        let mut transaction = self.database.write().await?;
        raise(&mut transaction, Some(user)).await?;
        self.announce_user(&mut transaction, user, known).await?;
        transaction.commit().await
    }

    /// Announces the end of a user's sessions.
    pub(super) async fn announce_user(
        &self,
        transaction: &mut Transaction,
        user: &UserId,
        known: &[TokenHash],
    ) -> Result<(), DatabaseError> {
        let now = self.clock.now();
        // One by one as well: a gateway that is just loading one does not know its user yet.
        for id in known {
            self.database.announce(transaction, &Change::Session(*id), now).await?;
        }
        self.database.announce(transaction, &Change::User(user.to_string()), now).await
    }

    /// Ends every session once `transaction` commits, which must be soon. Takes no longer for a million.
    pub(super) async fn end_everybody(&self, transaction: &mut Transaction) -> Result<(), DatabaseError> {
        raise(transaction, None).await?;
        self.database.announce(transaction, &Change::All, self.clock.now()).await
    }

    /// Deletes ends of sessions that have expired anyway, and returns their number.
    pub(super) async fn purge(&self, now: Timestamp) -> Result<u64, DatabaseError> {
        let gone = sqlx::query("DELETE FROM ended_sessions WHERE until <= $1")
            .bind(now.unix_millis())
            .execute(&self.database)
            .await?;
        Ok(gone.rows_affected())
    }
}

/// Begins a new generation of a user's sessions; `None`: of everybody's.
pub(super) async fn raise(transaction: &mut Transaction, user: Option<&UserId>) -> Result<(), DatabaseError> {
    sqlx::query(
        "INSERT INTO session_generations (user_id, generation) VALUES ($1, 1) \
         ON CONFLICT (user_id) DO UPDATE SET generation = session_generations.generation + 1",
    )
    .bind(user.map_or(EVERYBODY, UserId::as_str).to_owned())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

fn read(rows: &[AnyRow]) -> Result<Generations, DatabaseError> {
    let mut generations = Generations::default();
    for row in rows {
        let (user, generation): (String, i64) = (row.try_get("user_id")?, row.try_get("generation")?);
        if user == EVERYBODY {
            generations.everybody = generation;
        } else if let Some(user) = UserId::parse(&user) {
            generations.users.insert(user, generation);
        }
    }
    Ok(generations)
}
