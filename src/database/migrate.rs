//! The migrations of the schema. A released file is never edited: a change is a new file.
//!
//! Written for SQLite; for PostgreSQL, [`translated`] replaces the few words that it does not know.

use sqlx::{
    AnyConnection, AssertSqlSafe, Connection as _, Row as _, SqlSafeStr as _,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use super::{Config, Database, DatabaseError, Dialect, pool::Purpose, postgres, sqlite};

const HISTORY: &[(i64, &str, &str)] = &[
    (1, "changes", include_str!("migrations/0001_changes.sql")),
    (2, "users", include_str!("migrations/0002_users.sql")),
    (3, "credentials", include_str!("migrations/0003_credentials.sql")),
    (4, "sessions", include_str!("migrations/0004_sessions.sql")),
    (5, "pending logins", include_str!("migrations/0005_pending_logins.sql")),
    (6, "facts", include_str!("migrations/0006_facts.sql")),
    (7, "signing keys", include_str!("migrations/0007_signing_keys.sql")),
    (8, "ended sessions", include_str!("migrations/0008_ended_sessions.sql")),
    (10, "kept forms", include_str!("migrations/0010_kept_forms.sql")),
    (13, "browsers of pending logins", include_str!("migrations/0013_pending_browsers.sql")),
    (15, "session generations", include_str!("migrations/0015_session_generations.sql")),
    (17, "last logins", include_str!("migrations/0017_last_logins.sql")),
    (20, "guessing", include_str!("migrations/0020_guessing.sql")),
    (24, "tokens", include_str!("migrations/0024_tokens.sql")),
    (28, "hand-overs", include_str!("migrations/0028_hand_overs.sql")),
    (30, "the roll-out", include_str!("migrations/0030_rollout.sql")),
    (31, "outbox", include_str!("migrations/0031_outbox.sql")),
    (32, "links", include_str!("migrations/0032_links.sql")),
];

/// The advisory lock of PostgreSQL that a migration holds.
const LOCK: i64 = 0x706f_7274_6375_0001;

impl Database {
    /// Migrates the store to this program's schema. Of concurrent processes one does it and the others wait.
    pub(super) async fn migrate(&self, config: &Config) -> Result<(), DatabaseError> {
        let failed = |source: MigrateError| match source {
            MigrateError::VersionMissing(theirs) => DatabaseError::Newer { theirs, ours: newest() },
            source => {
                let advice = match (config, &source) {
                    (
                        Config::Postgres(config),
                        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _),
                    ) => postgres::advice(config, error),
                    (Config::Sqlite { url }, _) => sqlite::advice(sqlite::path(url)),
                    _ => None,
                };
                DatabaseError::Migrate { store: config.to_string(), advice, source }
            }
        };
        // A migration has no timeout.
        let mut lease = self.pool.take(Purpose::Anything).await.map_err(|error| failed(error.into()))?;
        let connection = lease.live().map_err(|error| failed(error.into()))?;
        let migrated = run(connection, self.dialect).await;
        if migrated.is_err() {
            lease.abandon();
        }
        migrated.map_err(failed)
    }

    /// The version of the store's schema, 0 for none, and this program's.
    pub async fn versions(&self) -> Result<(i64, i64), DatabaseError> {
        let query = match self.dialect {
            Dialect::Sqlite => "SELECT COUNT(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'",
            Dialect::Postgres => {
                "SELECT COUNT(*) FROM pg_catalog.pg_class WHERE oid = to_regclass('_sqlx_migrations')"
            }
        };
        let tables: i64 = sqlx::query(query).fetch_one(self).await?.try_get(0)?;
        if tables == 0 {
            return Ok((0, newest()));
        }
        let row =
            sqlx::query("SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations").fetch_one(self).await?;
        Ok((row.try_get(0)?, newest()))
    }
}

async fn run(connection: &mut AnyConnection, dialect: Dialect) -> Result<(), MigrateError> {
    let begin = match dialect {
        Dialect::Sqlite => "BEGIN IMMEDIATE",
        Dialect::Postgres => "BEGIN",
    };
    let mut transaction = connection.begin_with(begin).await?;
    if dialect == Dialect::Postgres {
        // Without the usual limit on waiting for a lock.
        sqlx::raw_sql("SET LOCAL lock_timeout = 0").execute(&mut *transaction).await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    }
    let migrations = HISTORY.iter().map(|&(version, name, sql)| {
        let sql = AssertSqlSafe(translated(sql, dialect)).into_sql_str();
        Migration::new(version, name.into(), MigrationType::Simple, sql, false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.set_locking(false);
    migrator.run_direct(None, &mut *transaction, false).await?;
    transaction.commit().await?;
    Ok(())
}

fn translated(sql: &str, dialect: Dialect) -> String {
    match dialect {
        Dialect::Sqlite => sql.to_owned(),
        Dialect::Postgres => sql
            .replace("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
            .replace(" BLOB", " BYTEA"),
    }
}

fn newest() -> i64 {
    HISTORY.last().map_or(0, |&(version, ..)| version)
}
