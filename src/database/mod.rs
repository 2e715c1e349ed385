//! The durable store: one pool of connections, the migrations, and the change feed that other processes read.
//!
//! Knows no table but its own; each module that keeps facts here writes its own SQL, in text that SQLite and
//! PostgreSQL both run.

mod changes;
mod connection;
mod copy;
mod facts;
mod migrate;
mod news;
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

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use changes::Change;
pub use connection::{Connection, Transaction};
pub use copy::{CopyError, TableRows};
pub use news::News;
use sqlx::{AnyConnection, AnyPool, Connection as _, Row as _, any::AnyPoolOptions};
use tokio::time::timeout;

use self::postgres::Servers;
use crate::{
    clock::Timestamp,
    permission::{Need, explained},
};

/// How long statements of the embedded store may take; its own limit on waiting for another writer is shorter.
const EMBEDDED_PATIENCE: Duration = Duration::from_secs(30);
/// After how long without a connection the other servers are looked at.
const DOUBT: Duration = Duration::from_millis(300);

/// Where the durable store is. Displayed without a password.
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

/// Why the durable store did not do what it was asked.
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
    #[error("cannot bring the database to this version's schema{}", advice.as_ref().map(|advice| format!(": {advice}")).unwrap_or_default())]
    Migrate {
        advice: Option<String>,
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    #[error(
        "the database's schema has version {theirs}, and this program knows versions up to {ours}: \
         use the newer program that brought it there, or restore the copy from before"
    )]
    Newer { theirs: i64, ours: i64 },
    #[error("the database did not answer")]
    Query(#[from] sqlx::Error),
    #[error("the database refused a part of a change, so that nothing of it was kept")]
    Aborted,
    #[error("the database holds something unreadable: {0}")]
    Corrupt(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Sqlite,
    Postgres,
}

/// A handle on the durable store; clones share one pool. Runs single statements by itself (`&database`).
#[derive(Clone, Debug)]
pub struct Database {
    pool: AnyPool,
    dialect: Dialect,
    patience: Duration,
    servers: Option<Arc<Servers>>,
}

impl Database {
    /// Opens the store, making the file and its folder when absent, and migrates it.
    pub async fn open(config: &Config) -> Result<Self, DatabaseError> {
        if let Some(path) = config.file() {
            sqlite::create(path).map_err(|source| unusable(path, source))?;
        }
        let database = Self::connect(config).await?;
        database.migrate(config).await?;
        Ok(database)
    }

    /// Opens a store that is there, and migrates it. Makes none.
    pub async fn open_existing(config: &Config) -> Result<Self, DatabaseError> {
        let database = Self::existing(config).await?;
        database.migrate(config).await?;
        Ok(database)
    }

    /// Opens a store that is there, whatever its schema. Makes none.
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
            Config::Sqlite { url } => Ok(sqlite::is_in_use(url).await?),
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
                let (pool, servers) =
                    Servers::open(postgres).await.map_err(|source| DatabaseError::Open {
                        store: config.to_string(),
                        advice: postgres::advice(postgres, &source),
                        source,
                    })?;
                let (dialect, patience) = (Dialect::Postgres, postgres::PATIENCE);
                Ok(Self { pool, dialect, patience, servers: Some(servers) })
            }
        }
    }

    async fn connect_sqlite(url: &str) -> Result<Self, sqlx::Error> {
        let url = sqlite::with_create(url);
        // A pool would try again and again, and say only that it took too long.
        let mut first = AnyConnection::connect(&url).await?;
        sqlite::prepare(&mut first).await?;
        first.close().await?;
        let pool = AnyPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(5))
            // Nothing is at the other end that could have gone away.
            .test_before_acquire(false)
            .after_connect(|connection, _| Box::pin(sqlite::prepare(connection)))
            .connect(&url)
            .await?;
        Ok(Self { pool, dialect: Dialect::Sqlite, patience: EMBEDDED_PATIENCE, servers: None })
    }

    /// A connection of one's own.
    pub async fn acquire(&self) -> Result<Connection, DatabaseError> {
        Ok(self.take().await?)
    }

    async fn take(&self) -> Result<Connection, sqlx::Error> {
        let live = match self.servers.as_deref().filter(|servers| servers.are_several()) {
            None => self.pool.acquire().await?,
            Some(servers) => match timeout(DOUBT, self.pool.acquire()).await {
                Ok(Ok(live)) => live,
                Ok(Err(_)) | Err(_) => {
                    servers.search(&self.pool).await?;
                    self.pool.acquire().await?
                }
            },
        };
        Ok(Connection::new(live, self.patience))
    }

    /// A transaction that changes something. On SQLite it takes the write lock at once, so that two writers queue
    /// instead of failing half-way. On PostgreSQL writers of different rows go on side by side: whoever decides by
    /// what a row says must have locked it before, by a change of that row or with [`Self::locking`].
    pub async fn write(&self) -> Result<Transaction, DatabaseError> {
        let statement = match self.dialect {
            Dialect::Sqlite => "BEGIN IMMEDIATE",
            Dialect::Postgres => "BEGIN",
        };
        Transaction::begin(self.take().await?, statement).await
    }

    /// What a `SELECT` in a transaction ends in to lock its rows; they must come in an order that all writers of the
    /// table keep. SQLite's writers are alone anyhow.
    pub const fn locking(&self) -> &'static str {
        match self.dialect {
            Dialect::Sqlite => "",
            Dialect::Postgres => " FOR UPDATE",
        }
    }

    /// The same, leaving out rows that somebody else holds.
    pub const fn locking_free(&self) -> &'static str {
        match self.dialect {
            Dialect::Sqlite => "",
            Dialect::Postgres => " FOR UPDATE SKIP LOCKED",
        }
    }

    /// A reader of the change feed, from now on.
    pub fn news(&self) -> News {
        News::of(self)
    }

    fn is_closed(&self) -> bool {
        self.pool.is_closed()
    }

    /// The server's time; absent where the store is a file, and its time the machine's.
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

    /// Lets every connection finish and closes the store.
    pub async fn close(&self) {
        // A server that hangs is not waited for.
        let _ = timeout(self.patience, self.pool.close()).await;
    }
}

fn unusable(path: &Path, source: io::Error) -> DatabaseError {
    DatabaseError::File { path: path.into(), source: explained(path, Need::Write, source) }
}
