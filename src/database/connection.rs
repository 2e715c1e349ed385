//! One connection of the pool, alone or in a transaction, with a timeout on every statement.
//!
//! A connection that was abandoned during a statement returns to the pool only once all its replies have arrived:
//! before that, its next reply is unknown.

use std::{
    io,
    ops::{Deref, DerefMut},
    time::Duration,
};

use futures_util::{
    FutureExt as _, StreamExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Any, AnyConnection, Error, Execute, Executor, SqlStr,
    any::{AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo},
};
use tokio::time::timeout;

use super::{Database, DatabaseError, pool::ConnectionLease, postgres::ends_the_connection};

/// A partial result of a statement: the number of changed rows, or a row.
type Step = sqlx::Either<AnyQueryResult, AnyRow>;

/// A leased connection, until it is dropped.
#[derive(Debug)]
pub struct Connection {
    /// `None` once it has been abandoned.
    live: Option<ConnectionLease>,
    /// The longest that the server may be silent.
    patience: Duration,
    /// A statement is in progress, or was when its future was dropped.
    busy: bool,
    failed: bool,
}

impl Connection {
    pub(super) const fn new(live: ConnectionLease, patience: Duration) -> Self {
        Self { live: Some(live), patience, busy: false, failed: false }
    }

    async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut AnyConnection, Duration) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let live = self.live.as_mut().ok_or_else(silent)?;
        self.busy = true;
        let done = work(live.live()?, self.patience).await;
        self.busy = false;
        match done {
            Ok(done) => Ok(done),
            Err(error) => {
                self.failed = true;
                let error = live.heard(error);
                let goes_on = matches!(error, Error::Database(_) | Error::RowNotFound);
                if !goes_on || ends_the_connection(&error) {
                    self.give_up();
                }
                Err(error)
            }
        }
    }

    fn give_up(&mut self) {
        if let Some(live) = self.live.take() {
            live.abandon();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.busy {
            self.give_up();
        }
    }
}

impl<'c> Executor<'c> for &'c mut Connection {
    type Database = Any;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let steps = self.run(async |live, patience| {
            let mut answer = live.fetch_many(query);
            let mut steps = Vec::new();
            while let Some(step) = timeout(patience, answer.next()).await.map_err(|_| silent())? {
                steps.push(step?);
            }
            Ok(steps)
        });
        stream::once(steps).map_ok(|steps| stream::iter(steps.into_iter().map(Ok))).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<AnyRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        self.run(async |live, patience| {
            timeout(patience, live.fetch_optional(query)).await.map_err(|_| silent())?
        })
        .boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [AnyTypeInfo],
    ) -> BoxFuture<'e, Result<AnyStatement, Error>>
    where
        'c: 'e,
    {
        self.run(async |live, patience| {
            timeout(patience, live.prepare_with(sql, parameters)).await.map_err(|_| silent())?
        })
        .boxed()
    }
}

/// Runs single statements, each on the next free connection.
impl<'c> Executor<'c> for &'c Database {
    type Database = Any;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let steps =
            async move { self.take(self.purpose).await?.fetch_many(query).try_collect::<Vec<_>>().await };
        stream::once(steps).map_ok(|steps| stream::iter(steps.into_iter().map(Ok))).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<AnyRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        async move { self.take(self.purpose).await?.fetch_optional(query).await }.boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [AnyTypeInfo],
    ) -> BoxFuture<'e, Result<AnyStatement, Error>>
    where
        'c: 'e,
    {
        async move { self.take(self.purpose).await?.prepare_with(sql, parameters).await }.boxed()
    }
}

/// Changes that are made together or not at all. If dropped without a commit, nothing has happened.
#[derive(Debug)]
pub struct Transaction {
    connection: Connection,
    open: bool,
}

impl Transaction {
    pub(super) async fn begin(
        connection: Connection,
        statement: &'static str,
    ) -> Result<Self, DatabaseError> {
        // Open from the start: a caller that stops waiting may have begun a transaction.
        let mut transaction = Self { connection, open: true };
        sqlx::raw_sql(statement).execute(&mut transaction.connection).await?;
        Ok(transaction)
    }

    /// Commits the changes. After an error they may have been made or not.
    pub async fn commit(mut self) -> Result<(), DatabaseError> {
        // PostgreSQL would report success, and roll back.
        if self.connection.failed {
            return Err(DatabaseError::Aborted);
        }
        self.end("COMMIT").await
    }

    pub async fn rollback(mut self) -> Result<(), DatabaseError> {
        self.end("ROLLBACK").await
    }

    async fn end(&mut self, statement: &'static str) -> Result<(), DatabaseError> {
        sqlx::raw_sql(statement).execute(&mut self.connection).await?;
        self.open = false;
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.open {
            // The server rolls back when its client goes away.
            self.connection.give_up();
        }
    }
}

fn silent() -> Error {
    Error::Io(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
}
