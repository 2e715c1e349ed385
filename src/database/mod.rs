//! The durable store: one pool of connections, the migrations, and the change feed that other processes read.
//!
//! Knows no table but its own; each module that keeps facts here writes its own SQL, in text that SQLite and
//! PostgreSQL both run.

mod changes;
mod facts;
mod migrate;

use std::{path::Path, time::Duration};

pub use changes::Change;
use sqlx::{Any, AnyConnection, AnyPool, Connection as _, Transaction, any::AnyPoolOptions};

/// Where the durable store is.
#[derive(Clone, Debug)]
pub struct Config {
    /// `sqlite:PATH`.
    pub url: String,
}

/// Why the durable store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("cannot create the database's file or its folder")]
    Create(#[source] std::io::Error),
    #[error("cannot open the database {url}")]
    Open {
        url: String,
        #[source]
        source: sqlx::Error,
    },
    #[error("cannot bring the database to this version's schema")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error("the database did not answer")]
    Query(#[from] sqlx::Error),
    #[error("the database holds something unreadable: {0}")]
    Corrupt(&'static str),
}

/// A handle on the durable store; clones share one pool.
#[derive(Clone, Debug)]
pub struct Database {
    pool: AnyPool,
}

impl Database {
    /// Opens the store, making the file and its folder when absent, and migrates it.
    pub async fn open(config: &Config) -> Result<Self, DatabaseError> {
        sqlx::any::install_default_drivers();
        if let Some(path) = sqlite_path(&config.url) {
            create(path).map_err(DatabaseError::Create)?;
        }
        let failed = |source| DatabaseError::Open { url: config.url.clone(), source };
        let url = with_create(&config.url);
        // A pool would try again and again, and say only that it took too long.
        let mut first = AnyConnection::connect(&url).await.map_err(failed)?;
        prepare(&mut first).await.map_err(failed)?;
        first.close().await.map_err(failed)?;
        let pool = AnyPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(5))
            .after_connect(|connection, _| Box::pin(prepare(connection)))
            .connect(&url)
            .await
            .map_err(failed)?;
        migrate::run(&pool).await?;
        Ok(Self { pool })
    }

    /// The pool, for single statements.
    pub fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// A transaction that takes the write lock at once, so that two writers queue instead of failing half-way.
    pub async fn write(&self) -> Result<Transaction<'static, Any>, DatabaseError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Whether the store answers.
    pub async fn ping(&self) -> Result<(), DatabaseError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Lets every connection finish and closes the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Sets a connection up.
async fn prepare(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    // FULL: what a transaction has committed survives a power cut, used one-time codes above all.
    for pragma in [
        "PRAGMA busy_timeout = 5000",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "PRAGMA foreign_keys = ON",
    ] {
        sqlx::query(pragma).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Makes the file, and its folder, for nobody else to read: password hashes are in there. What the database keeps beside
/// the file takes over its mode.
fn create(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(|_| ())
}

fn sqlite_path(url: &str) -> Option<&Path> {
    url.strip_prefix("sqlite:").map(|rest| Path::new(rest.trim_start_matches("//")))
}

fn with_create(url: &str) -> String {
    if url.contains('?') { url.to_owned() } else { format!("{url}?mode=rwc") }
}
