//! Counts in the database, for all gateways that share it, kept over restarts: by the database's clock if it has one.
//!
//! Read first: a refused attempt writes nothing. Keys contain no names or addresses, not even in a form that can be
//! guessed.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use aws_lc_rs::hmac;
use futures_util::future::{BoxFuture, FutureExt as _};
use sqlx::{AssertSqlSafe, Row as _, any::AnyRow};

use super::{
    budget::Record,
    store::{Counted, Key, Kind, Meter, Settlement, ThrottleError, ThrottleStore, Verdict, Window},
};
use crate::{
    clock::{Clock, Timestamp},
    database::{Database, DatabaseError, Transaction},
};

/// Attempts between two removals of expired records, and the maximum number of records in one.
const SWEEP_EVERY: u32 = 32;
const SWEEP: i64 = 1000;

/// The counts in the database.
pub struct SqlThrottle {
    database: Database,
    names: hmac::Key,
    clock: Arc<dyn Clock>,
    attempts: AtomicU32,
    /// Whether the database's own clock is used, if it has one.
    pub(super) asks_the_time: bool,
}

/// The key of a meter in the table.
type Name = Vec<u8>;

impl SqlThrottle {
    /// `names` derives the keys, the same on every gateway.
    pub fn new(database: Database, names: hmac::Key, clock: Arc<dyn Clock>) -> Self {
        Self { database, names, clock, attempts: AtomicU32::new(0), asks_the_time: true }
    }

    fn name(&self, kind: Kind, key: &Key) -> Name {
        let mut context = hmac::Context::with_key(&self.names);
        context.update(&[kind.letter() as u8]);
        context.update(key);
        context.sign().as_ref().get(..16).unwrap_or_default().to_vec()
    }

    async fn now(&self) -> Result<Timestamp, DatabaseError> {
        let asked = if self.asks_the_time { self.database.time().await? } else { None };
        Ok(asked.unwrap_or_else(|| self.clock.now()))
    }

    async fn admit(&self, meters: &[Meter]) -> Result<Verdict, DatabaseError> {
        let names: Vec<_> = meters.iter().map(|meter| self.name(meter.kind, &meter.key)).collect();
        let now = self.now().await?;
        let known = bind(sqlx::query(AssertSqlSafe(select(names.len(), ""))), &names)
            .fetch_all(&self.database)
            .await?;
        if let Some(wait) = longest(meters, &records(&known, &names)?, now) {
            return Ok(wait);
        }
        let mut transaction = self.database.write().await?;
        if self.attempts.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY) {
            self.sweep(&mut transaction, now).await?;
        }
        // One row each, so that there is a row to lock.
        for name in sorted(&names) {
            sqlx::query(
                "INSERT INTO failed_logins (name, first_at, last_at, failures, expires_at) VALUES ($1, $2, $2, 0, $2) \
                 ON CONFLICT (name) DO NOTHING",
            )
            .bind(name.clone())
            .bind(now.unix_millis())
            .execute(&mut *transaction)
            .await?;
        }
        let locked = select(names.len(), self.database.locking());
        let rows = bind(sqlx::query(AssertSqlSafe(locked)), &names).fetch_all(&mut *transaction).await?;
        let before = records(&rows, &names)?;
        if let Some(wait) = longest(meters, &before, now) {
            transaction.rollback().await?;
            return Ok(wait);
        }
        let mut windows = Vec::with_capacity(meters.len());
        for ((meter, name), before) in meters.iter().zip(&names).zip(before) {
            let (record, before) = meter.budget.count(before, now);
            let lasts = meter.budget.lasts(record.failures);
            sqlx::query(
                "UPDATE failed_logins SET first_at = $1, last_at = $2, failures = $3, expires_at = $4 WHERE name = $5",
            )
            .bind(record.first.unix_millis())
            .bind(record.last.unix_millis())
            .bind(i64::from(record.failures))
            .bind(now.plus(lasts).unix_millis())
            .bind(name.clone())
            .execute(&mut *transaction)
            .await?;
            windows.push(Window { first: record.first, last: record.last, before });
        }
        transaction.commit().await?;
        Ok(Verdict::Counted(windows))
    }

    /// Deletes expired records.
    async fn sweep(&self, transaction: &mut Transaction, now: Timestamp) -> Result<(), DatabaseError> {
        let free = self.database.locking_free();
        let statement = format!(
            "DELETE FROM failed_logins WHERE name IN \
             (SELECT name FROM failed_logins WHERE expires_at < $1 ORDER BY name LIMIT $2{free})"
        );
        sqlx::query(AssertSqlSafe(statement))
            .bind(now.unix_millis())
            .bind(SWEEP)
            .execute(&mut **transaction)
            .await?;
        Ok(())
    }

    async fn settle(&self, counted: &[(Counted, Settlement)]) -> Result<(), DatabaseError> {
        let settled: Vec<_> = counted
            .iter()
            .filter(|(_, settlement)| *settlement != Settlement::Keep)
            .map(|(counted, settlement)| (self.name(counted.kind, &counted.key), counted.window, *settlement))
            .collect();
        if settled.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = settled.iter().map(|(name, ..)| name.clone()).collect();
        let mut transaction = self.database.write().await?;
        let locked = select(names.len(), self.database.locking());
        let rows = bind(sqlx::query(AssertSqlSafe(locked)), &names).fetch_all(&mut *transaction).await?;
        let mut forgiven = 1;
        for ((name, window, settlement), record) in settled.iter().zip(records(&rows, &names)?) {
            let Some(record) = record else { continue };
            let left = match settlement {
                Settlement::Keep => continue,
                Settlement::Clear => {
                    forgiven = record.failures.max(1);
                    0
                }
                Settlement::TakeBack | Settlement::TakeBackAll if record.first != window.first => continue,
                Settlement::TakeBack => record.failures.saturating_sub(1),
                Settlement::TakeBackAll => record.failures.saturating_sub(forgiven),
            };
            let last = if record.last == window.last { window.before } else { record.last };
            sqlx::query("UPDATE failed_logins SET failures = $1, last_at = $2 WHERE name = $3")
                .bind(i64::from(left))
                .bind(last.unix_millis())
                .bind(name.clone())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await
    }
}

fn select(names: usize, locking: &str) -> String {
    let marks: Vec<_> = (1..=names).map(|number| format!("${number}")).collect();
    let marks = marks.join(", ");
    format!(
        "SELECT name, first_at, last_at, failures FROM failed_logins WHERE name IN ({marks}) ORDER BY name{locking}"
    )
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments>;

fn bind<'q>(query: Query<'q>, names: &[Name]) -> Query<'q> {
    names.iter().fold(query, |query, name| query.bind(name.clone()))
}

/// In the order in which all writers lock them.
fn sorted(names: &[Name]) -> Vec<&Name> {
    let mut sorted: Vec<_> = names.iter().collect();
    sorted.sort();
    sorted
}

/// The records of `names`, in their order.
fn records(rows: &[AnyRow], names: &[Name]) -> Result<Vec<Option<Record>>, DatabaseError> {
    let mut records = vec![None; names.len()];
    for row in rows {
        let name: Name = row.try_get("name")?;
        let record = Record {
            first: Timestamp::from_unix_millis(row.try_get("first_at")?),
            last: Timestamp::from_unix_millis(row.try_get("last_at")?),
            failures: u32::try_from(row.try_get::<i64, _>("failures")?).unwrap_or(u32::MAX),
        };
        for (place, _) in names.iter().enumerate().filter(|(_, other)| **other == name) {
            if let Some(slot) = records.get_mut(place) {
                *slot = Some(record);
            }
        }
    }
    Ok(records)
}

fn longest(meters: &[Meter], records: &[Option<Record>], now: Timestamp) -> Option<Verdict> {
    meters
        .iter()
        .zip(records)
        .enumerate()
        .filter_map(|(place, (meter, record))| Some((place, meter.budget.wait(record.as_ref()?, now)?)))
        .max_by_key(|(_, wait)| *wait)
        .map(|(meter, wait)| Verdict::Wait { meter, wait })
}

impl ThrottleStore for SqlThrottle {
    fn admit<'a>(&'a self, meters: &'a [Meter]) -> BoxFuture<'a, Result<Verdict, ThrottleError>> {
        async move { Ok(self.admit(meters).await?) }.boxed()
    }

    fn settle<'a>(
        &'a self,
        counted: &'a [(Counted, Settlement)],
    ) -> BoxFuture<'a, Result<(), ThrottleError>> {
        async move { Ok(self.settle(counted).await?) }.boxed()
    }
}
