//! The outbox: mail that waits, and for some days what became of it.

use std::{sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, Row as _, any::AnyRow};

use super::{Letter, is_address};
use crate::{
    clock::{Clock, Timestamp},
    database::{Alongside, BoundValue, Change, Database, DatabaseError},
    random::Random,
    sealing::Sealer,
    secret::hex,
};

/// The time that whoever has taken a mail has for it. Longer than one attempt can last.
pub(super) const LEASE: Duration = Duration::from_mins(3);
/// How long a mail is tried.
const LASTS: Duration = Duration::from_hours(24);
/// How long it is kept in mind what became of a mail.
const KEPT: Duration = Duration::from_hours(7 * 24);
const HOUR: Duration = Duration::from_hours(1);
/// The pauses after the first attempts; the last one is repeated.
const PAUSES: [Duration; 4] =
    [Duration::from_mins(1), Duration::from_mins(5), Duration::from_mins(15), Duration::from_hours(1)];

/// Mail that waits to be sent.
#[derive(Clone)]
pub struct Outbox {
    pub(super) database: Database,
    sealer: Arc<Sealer>,
    pub(super) clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// Whether there is a mail server.
    is_on: bool,
}

/// A mail to be written.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// What it is about, as in logs.
    pub kind: &'static str,
    /// The user, by id.
    pub subject: &'a str,
    pub to: &'a str,
    pub letter: &'a Letter,
    /// How long it is worth sending, at most a day.
    pub lasts: Duration,
    /// How many of this kind, about this user or to this address, are written in an hour. Further ones are not.
    pub most_an_hour: u32,
}

/// A mail that this process has taken to send it.
pub(super) struct Taken {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) to: String,
    pub(super) made_at: Timestamp,
    /// `None` if it cannot be opened.
    pub(super) letter: Option<Letter>,
    until: Timestamp,
    attempt: i64,
}

/// What waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub waiting: u64,
    /// Of the oldest.
    pub since: Option<Timestamp>,
    pub last_error: Option<String>,
}

/// A mail in the operator's list.
#[derive(Clone, Debug)]
pub struct Listed {
    pub id: String,
    pub kind: String,
    pub to: String,
    pub state: String,
    pub made_at: Timestamp,
    pub due_at: Timestamp,
    pub attempts: i64,
    pub last_error: Option<String>,
}

impl Outbox {
    pub fn new(
        database: Database,
        sealer: Arc<Sealer>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        is_on: bool,
    ) -> Self {
        Self { database, sealer, clock, random, is_on }
    }

    /// Whether there is a mail server.
    pub const fn is_on(&self) -> bool {
        self.is_on
    }

    /// What writes a mail in the transaction of a change. Nothing, if there is no mail server or `to` is not an address.
    pub fn draft(&self, draft: &Draft<'_>) -> Alongside {
        const WRITE: &str = "INSERT INTO outbox \
             (id, kind, subject_id, recipient, letter, state, made_at, due_at, until, attempts) \
             SELECT $1, $2, $3, $4, $5, 'waiting', $6, $6, $7, 0 WHERE $9 > (SELECT COUNT(*) FROM outbox \
             WHERE made_at > $8 AND kind = $2 AND (recipient = $4 OR subject_id = $3))";
        let mut alongside = Alongside::nothing();
        if !self.is_on || !is_address(draft.to) {
            return alongside;
        }
        let id = hex(&self.random.bytes::<16>());
        // Our own structs of strings can always be serialized.
        let plain = serde_json::to_vec(draft.letter).unwrap_or_default();
        let now = self.clock.now();
        let values = vec![
            BoundValue::Text(id.clone()),
            BoundValue::Text(draft.kind.to_owned()),
            BoundValue::Text(draft.subject.to_owned()),
            BoundValue::Text(draft.to.to_owned()),
            BoundValue::Bytes(self.sealer.seal(&place(&id), &plain)),
            BoundValue::Number(now.unix_millis()),
            BoundValue::Number(now.plus(draft.lasts.min(LASTS)).unix_millis()),
            BoundValue::Number(now.minus(HOUR).unix_millis()),
            BoundValue::Number(draft.most_an_hour.into()),
        ];
        alongside.add(WRITE, values);
        alongside.announcing(Change::Mail);
        alongside
    }

    /// Writes what has been drafted in a transaction of its own.
    pub async fn write(&self, drafted: &Alongside) -> Result<(), DatabaseError> {
        self.database.make(drafted, self.clock.now()).await
    }

    /// Takes the next mail that is due, or that is to be given up.
    pub(super) async fn take(&self, only_overdue: bool) -> Result<Option<Taken>, DatabaseError> {
        let now = self.clock.now();
        let free = self.database.locking_free();
        let due = if only_overdue { "until" } else { "due_at" };
        let next = format!(
            "SELECT * FROM outbox WHERE state = 'waiting' AND due_at <= $1 AND {due} <= $1 \
             ORDER BY due_at, id LIMIT 1{free}"
        );
        let mut transaction = self.database.write().await?;
        let row = sqlx::query(AssertSqlSafe(next))
            .bind(now.unix_millis())
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else {
            transaction.rollback().await?;
            return Ok(None);
        };
        let id: String = row.try_get("id")?;
        sqlx::query("UPDATE outbox SET due_at = $1, attempts = attempts + 1 WHERE id = $2")
            .bind(now.plus(LEASE).unix_millis())
            .bind(id.as_str())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        let sealed: Vec<u8> = row.try_get("letter")?;
        let opened = self.sealer.open(&place(&id), &sealed).ok();
        Ok(Some(Taken {
            letter: opened.and_then(|plain| serde_json::from_slice(&plain).ok()),
            kind: row.try_get("kind")?,
            to: row.try_get("recipient")?,
            made_at: at(&row, "made_at")?,
            until: at(&row, "until")?,
            attempt: row.try_get::<i64, _>("attempts")? + 1,
            id,
        }))
    }

    /// Notes that the server has accepted it.
    pub(super) async fn sent(&self, mail: &Taken) -> Result<(), DatabaseError> {
        self.end(mail, "sent", None).await
    }

    /// Notes that it failed. Returns whether it is tried again.
    pub(super) async fn failed(
        &self,
        mail: &Taken,
        error: &str,
        is_final: bool,
    ) -> Result<bool, DatabaseError> {
        let now = self.clock.now();
        if is_final || now >= mail.until {
            self.end(mail, "failed", Some(error)).await?;
            return Ok(false);
        }
        let pause = usize::try_from(mail.attempt - 1).ok().and_then(|at| PAUSES.get(at));
        let pause = pause.or(PAUSES.last()).copied().unwrap_or(HOUR);
        // Once more at the very end.
        let due = now.plus(pause).min(mail.until);
        sqlx::query("UPDATE outbox SET due_at = $1, last_error = $2 WHERE id = $3 AND attempts = $4")
            .bind(due.unix_millis())
            .bind(error.to_owned())
            .bind(mail.id.as_str())
            .bind(mail.attempt)
            .execute(&self.database)
            .await?;
        Ok(true)
    }

    /// The content goes: it may have a link in it. Changes nothing if somebody else has taken the mail meanwhile.
    async fn end(&self, mail: &Taken, state: &str, error: Option<&str>) -> Result<(), DatabaseError> {
        sqlx::query(
            "UPDATE outbox SET state = $1, letter = $2, due_at = $3, last_error = $4 \
             WHERE id = $5 AND attempts = $6",
        )
        .bind(state.to_owned())
        .bind(Vec::new())
        .bind(self.clock.now().unix_millis())
        .bind(error.map(str::to_owned))
        .bind(mail.id.as_str())
        .bind(mail.attempt)
        .execute(&self.database)
        .await?;
        Ok(())
    }

    /// When the next mail is due.
    pub(super) async fn next_due(&self) -> Result<Option<Timestamp>, DatabaseError> {
        let row = sqlx::query("SELECT MIN(due_at) AS due FROM outbox WHERE state = 'waiting'")
            .fetch_one(&self.database)
            .await?;
        Ok(row.try_get::<Option<i64>, _>("due")?.map(Timestamp::from_unix_millis))
    }

    pub async fn backlog(&self) -> Result<Backlog, DatabaseError> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS waiting, MIN(made_at) AS since, MAX(last_error) AS last_error \
             FROM outbox WHERE state = 'waiting'",
        )
        .fetch_one(&self.database)
        .await?;
        Ok(Backlog {
            waiting: u64::try_from(row.try_get::<i64, _>("waiting")?).unwrap_or(0),
            since: row.try_get::<Option<i64>, _>("since")?.map(Timestamp::from_unix_millis),
            last_error: row.try_get("last_error")?,
        })
    }

    /// The mail of the last days, the newest first; to one address, or to all.
    pub async fn list(&self, to: Option<&str>) -> Result<Vec<Listed>, DatabaseError> {
        let only = if to.is_some() { "WHERE LOWER(recipient) = LOWER($1)" } else { "" };
        let query = format!("SELECT * FROM outbox {only} ORDER BY made_at DESC, id LIMIT 200");
        let mut query = sqlx::query(AssertSqlSafe(query));
        if let Some(to) = to {
            query = query.bind(to.to_owned());
        }
        let rows = query.fetch_all(&self.database).await?;
        rows.iter()
            .map(|row| {
                Ok(Listed {
                    id: row.try_get("id")?,
                    kind: row.try_get("kind")?,
                    to: row.try_get("recipient")?,
                    state: row.try_get("state")?,
                    made_at: at(row, "made_at")?,
                    due_at: at(row, "due_at")?,
                    attempts: row.try_get("attempts")?,
                    last_error: row.try_get("last_error")?,
                })
            })
            .collect()
    }

    /// Forgets what became of old mail.
    pub(super) async fn purge(&self) -> Result<(), DatabaseError> {
        sqlx::query("DELETE FROM outbox WHERE made_at <= $1 AND state <> 'waiting'")
            .bind(self.clock.now().minus(KEPT).unix_millis())
            .execute(&self.database)
            .await?;
        Ok(())
    }
}

fn place(id: &str) -> [&str; 3] {
    ["outbox", id, "letter"]
}

fn at(row: &AnyRow, column: &str) -> Result<Timestamp, DatabaseError> {
    Ok(Timestamp::from_unix_millis(row.try_get(column)?))
}
