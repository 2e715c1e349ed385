//! The durable store: one pool of connections, the migrations, and the change feed that other processes read.
//!
//! Knows only its own tables; each module that stores facts here writes its own SQL, in a form that both SQLite and
//! PostgreSQL run.

mod alongside;
mod change_feed;
mod changes;
mod connection;
mod copy;
mod facts;
mod migrate;
mod named;
mod pool;
pub mod postgres;
mod sealed;
mod sqlite;
mod tables;
#[cfg(test)]
pub(crate) mod test_database;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;
mod watched;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use alongside::{Alongside, BoundValue};
pub use change_feed::ChangeFeed;
pub use changes::Change;
pub use connection::{Connection, Transaction};
pub use copy::{CopyError, TableRows};
use sqlx::Row as _;
use tokio::sync::Notify;

use self::{
    named::named,
    pool::{ConnectionPool, ConnectionSource, Purpose},
    postgres::Servers,
    tables::TABLES,
};
use crate::{
    clock::Timestamp,
    permission::{Need, explained},
};

/// Timeout of the embedded store's statements; its own limit on waiting for another writer is shorter.
const EMBEDDED_PATIENCE: Duration = Duration::from_secs(30);
/// The longest wait for one of its connections, and their number.
const EMBEDDED_QUEUE: Duration = Duration::from_secs(5);
const EMBEDDED_CONNECTIONS: u32 = 4;

/// The address of the durable store. Displayed without a password.
#[derive(Clone, Debug)]
pub enum Config {
    /// `sqlite:PATH`.
    Sqlite {
        url: String,
    },
    Postgres(postgres::Config),
}

impl Config {
    /// The file of an embedded store.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite { url } => Some(sqlite::path(url)),
            Self::Postgres(_) => None,
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { url } => f.write_str(url),
            Self::Postgres(config) => config.fmt(f),
        }
    }
}

/// Why the durable store failed.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("there is no database {store}")]
    Absent { store: String },
    #[error("cannot open or make the database {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot open the database {store}{}", advice.as_ref().map(|advice| format!(": {advice}")).unwrap_or_default())]
    Open {
        store: String,
        advice: Option<String>,
        #[source]
        source: sqlx::Error,
    },
    #[error("cannot bring the database {store} to this version's schema{}", advice.as_ref().map(|advice| format!(": {advice}")).unwrap_or_default())]
    Migrate {
        store: String,
        advice: Option<String>,
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    #[error(
        "the database's schema has version {theirs}, and this program knows versions up to {ours}: \
         use the newer program that brought it there, or restore the copy from before"
    )]
    Newer { theirs: i64, ours: i64 },
    #[error("the database failed")]
    Query(#[from] sqlx::Error),
    #[error("the database rejected part of a change and rolled it back")]
    Aborted,
    #[error("somebody else has just made this change, or it is no longer possible")]
    Overtaken,
    #[error("the database contains unreadable data: {0}")]
    Corrupt(&'static str),
}

/// Why the durable store accepts no changes.
#[derive(Debug, thiserror::Error)]
pub enum Unwritable {
    #[error("the table {table} is locked ({store})")]
    Locked { table: &'static str, store: String },
    #[error(transparent)]
    Failed(#[from] DatabaseError),
}

impl From<sqlx::Error> for Unwritable {
    fn from(error: sqlx::Error) -> Self {
        DatabaseError::from(error).into()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Sqlite,
    Postgres,
}

/// A handle to the durable store; clones share one pool. Runs single statements itself (`&database`).
#[derive(Clone, Debug)]
pub struct Database {
    pool: Arc<ConnectionPool>,
    /// The purpose of single statements and connections. Transactions are for anything.
    purpose: Purpose,
    dialect: Dialect,
    patience: Duration,
    servers: Option<Arc<Servers>>,
    /// Notified of changes by the feed, as long as this process reads it.
    signing_keys: Arc<Notify>,
    mail: Arc<Notify>,
}

impl Database {
    /// Opens and migrates the store; makes the file and its folder if they do not exist.
    pub async fn open(config: &Config) -> Result<Self, DatabaseError> {
        if let Some(path) = config.file() {
            sqlite::create(path).map_err(|source| unusable(path, source))?;
        }
        let database = Self::connect(config).await?;
        database.migrate(config).await?;
        Ok(database)
    }

    /// Opens and migrates an existing store.
    pub async fn open_existing(config: &Config) -> Result<Self, DatabaseError> {
        let database = Self::existing(config).await?;
        database.migrate(config).await?;
        Ok(database)
    }

    /// Opens an existing store, whatever its schema.
    pub async fn existing(config: &Config) -> Result<Self, DatabaseError> {
        let absent = || DatabaseError::Absent { store: config.to_string() };
        if let Some(path) = config.file()
            && !path.try_exists().map_err(|source| unusable(path, source))?
        {
            return Err(absent());
        }
        let database = Self::connect(config).await?;
        if database.versions().await?.0 == 0 {
            database.close().await;
            return Err(absent());
        }
        Ok(database)
    }

    /// Whether a gateway or another command has the store open.
    pub async fn is_in_use(config: &Config) -> Result<bool, DatabaseError> {
        sqlx::any::install_default_drivers();
        match config {
            Config::Sqlite { url } => Ok(sqlite::is_in_use(url)
                .await
                .map_err(|error| named(error, &sqlite::path(url).display()))?),
            Config::Postgres(_) => {
                let database = Self::connect(config).await?;
                let others = postgres::others(&mut database.acquire().await?).await;
                database.close().await;
                Ok(others? > 0)
            }
        }
    }

    /// Opens a store, whatever its schema.
    async fn connect(config: &Config) -> Result<Self, DatabaseError> {
        sqlx::any::install_default_drivers();
        match config {
            Config::Sqlite { url } => Self::connect_sqlite(url).await.map_err(|source| DatabaseError::Open {
                store: config.to_string(),
                advice: sqlite::advice(sqlite::path(url)),
                source,
            }),
            Config::Postgres(postgres) => {
                let (servers, first) =
                    Servers::open(postgres).await.map_err(|source| DatabaseError::Open {
                        store: config.to_string(),
                        advice: postgres::advice(postgres, &source),
                        source,
                    })?;
                let patience = postgres::PATIENCE;
                let pool = ConnectionPool::new(
                    ConnectionSource::Postgres(Arc::clone(&servers)),
                    servers.connections(),
                    patience,
                );
                pool.adopt(first);
                Ok(Self {
                    pool,
                    purpose: Purpose::Anything,
                    dialect: Dialect::Postgres,
                    patience,
                    servers: Some(servers),
                    signing_keys: Arc::default(),
                    mail: Arc::default(),
                })
            }
        }
    }

    async fn connect_sqlite(url: &str) -> Result<Self, sqlx::Error> {
        let source = ConnectionSource::Sqlite(sqlite::existing(url));
        let pool = ConnectionPool::new(source, EMBEDDED_CONNECTIONS, EMBEDDED_QUEUE);
        drop(pool.take(Purpose::Sessions).await?);
        Ok(Self {
            pool,
            purpose: Purpose::Anything,
            dialect: Dialect::Sqlite,
            patience: EMBEDDED_PATIENCE,
            servers: None,
            signing_keys: Arc::default(),
            mail: Arc::default(),
        })
    }

    /// Waits until a change of the signing keys is announced; works as long as this process reads the feed.
    pub async fn signing_keys_changed(&self) {
        self.signing_keys.notified().await;
    }

    /// Waits until new mail is announced; works as long as this process reads the feed.
    pub async fn mail_announced(&self) {
        self.mail.notified().await;
    }

    /// A leased connection.
    pub async fn acquire(&self) -> Result<Connection, DatabaseError> {
        Ok(self.take(self.purpose).await?)
    }

    /// The same store for looking up sessions: also on connections that are reserved for that.
    #[must_use]
    pub fn for_sessions(&self) -> Self {
        Self { purpose: Purpose::Sessions, ..self.clone() }
    }

    async fn take(&self, purpose: Purpose) -> Result<Connection, sqlx::Error> {
        let lease = self.pool.take(purpose).await.map_err(|error| match error {
            // Other errors have its address already, or come from the pool.
            error @ sqlx::Error::Database(_) => named(error, &self.pool.store()),
            error => error,
        })?;
        Ok(Connection::new(lease, self.patience))
    }

    /// The name of the store, for messages.
    pub fn store(&self) -> String {
        self.pool.store()
    }

    /// A transaction with changes. On SQLite it takes the write lock at once, so that two writers queue instead of
    /// failing half-way. On PostgreSQL writers of different rows run concurrently: a decision that depends on a row
    /// must lock it first, by a change of that row or with [`Self::locking`].
    pub async fn write(&self) -> Result<Transaction, DatabaseError> {
        let statement = match self.dialect {
            Dialect::Sqlite => "BEGIN IMMEDIATE",
            Dialect::Postgres => "BEGIN",
        };
        Transaction::begin(self.take(Purpose::Anything).await?, statement).await
    }

    /// The suffix of a `SELECT` that locks its rows; they must come in an order that all writers of the table use.
    /// SQLite has only one writer anyway.
    pub const fn locking(&self) -> &'static str {
        match self.dialect {
            Dialect::Sqlite => "",
            Dialect::Postgres => " FOR UPDATE",
        }
    }

    /// The same, skipping rows that are locked.
    pub const fn locking_free(&self) -> &'static str {
        match self.dialect {
            Dialect::Sqlite => "",
            Dialect::Postgres => " FOR UPDATE SKIP LOCKED",
        }
    }

    /// A reader of the change feed, from now on.
    pub fn change_feed(&self) -> ChangeFeed {
        ChangeFeed::of(self)
    }

    fn is_closed(&self) -> bool {
        self.pool.is_closed()
    }

    /// The server's time; `None` if the store is a file, whose time is the machine's.
    pub async fn time(&self) -> Result<Option<Timestamp>, DatabaseError> {
        if self.dialect == Dialect::Sqlite {
            return Ok(None);
        }
        let millis = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT AS millis";
        let row = sqlx::query(millis).fetch_one(self).await?;
        Ok(Some(Timestamp::from_unix_millis(row.try_get("millis")?)))
    }

    /// Whether the store answers.
    pub async fn ping(&self) -> Result<(), DatabaseError> {
        sqlx::query("SELECT 1").execute(self).await?;
        Ok(())
    }

    /// Whether every table can be written to, and a commit succeeds. The error says why not.
    pub async fn takes_changes(&self) -> Result<(), Unwritable> {
        const NOTE: &str = "INSERT INTO facts (name, value) VALUES ('probe', $1) \
                            ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        let mut transaction = self.write().await?;
        if self.dialect == Dialect::Postgres {
            sqlx::raw_sql("SET LOCAL lock_timeout = '300ms'").execute(&mut *transaction).await?;
        }
        for table in TABLES {
            // Takes the locks of a change, and changes no row.
            let touch = sqlx::AssertSqlSafe(format!("DELETE FROM {} WHERE 1 = 0", table.name));
            sqlx::query(touch).execute(&mut *transaction).await.map_err(|error| match error {
                error if is_locked(&error) => Unwritable::Locked { table: table.name, store: self.store() },
                error => error.into(),
            })?;
        }
        sqlx::query(NOTE).bind(Vec::new()).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Waits for every connection, and closes the store.
    pub async fn close(&self) {
        self.pool.close(self.patience).await;
    }
}

/// Whether somebody else has held a lock for too long.
fn is_locked(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some("55P03")
}

fn unusable(path: &Path, source: io::Error) -> DatabaseError {
    DatabaseError::File { path: path.into(), source: explained(path, Need::Write, source) }
}
