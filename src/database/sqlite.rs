//! The embedded store: one file, made on first start.

use std::path::Path;

use sqlx::AnyConnection;

/// Sets a connection up.
pub(super) async fn prepare(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
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
pub(super) fn create(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(|_| ())
}

pub(super) fn path(url: &str) -> &Path {
    let rest = url.strip_prefix("sqlite:").unwrap_or(url);
    Path::new(rest.split('?').next().unwrap_or(rest).trim_start_matches("//"))
}

pub(super) fn with_create(url: &str) -> String {
    if url.contains('?') { url.to_owned() } else { format!("{url}?mode=rwc") }
}
