//! The schema's history. A file that has been released is never edited: a change is a new file.

use sqlx::{
    AnyPool, SqlSafeStr as _,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

const HISTORY: &[(i64, &str, &str)] = &[
    (1, "changes", include_str!("migrations/0001_changes.sql")),
    (2, "users", include_str!("migrations/0002_users.sql")),
    (3, "credentials", include_str!("migrations/0003_credentials.sql")),
    (4, "sessions", include_str!("migrations/0004_sessions.sql")),
    (5, "pending logins", include_str!("migrations/0005_pending_logins.sql")),
    (6, "facts", include_str!("migrations/0006_facts.sql")),
    (7, "signing keys", include_str!("migrations/0007_signing_keys.sql")),
    (9, "ended sessions", include_str!("migrations/0009_ended_sessions.sql")),
];

pub(super) async fn run(pool: &AnyPool) -> Result<(), MigrateError> {
    let migrations = HISTORY
        .iter()
        .map(|&(version, name, sql)| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        })
        .collect();
    Migrator::with_migrations(migrations).run(pool).await
}
