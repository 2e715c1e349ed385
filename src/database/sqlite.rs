//! The embedded store: one file, made on first start.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use sqlx::{AnyConnection, Connection as _};

use crate::permission::{self, Need};

/// Sets a connection up.
pub(super) async fn prepare(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    // FULL: a commit survives a power cut, used one-time codes above all.
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

/// Makes the file and its folder, readable only by this user: it contains password hashes. The files beside it inherit
/// its mode.
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

/// A URL that does not make the file: a deleted file must not reappear, empty, while it is in use.
pub(super) fn existing(url: &str) -> String {
    if url.contains('?') { url.to_owned() } else { format!("{url}?mode=rw") }
}

/// Whether anybody else has the file open: in the mode that we use, every process with the file open holds a lock.
pub(super) async fn is_in_use(url: &str) -> Result<bool, sqlx::Error> {
    let mut connection = AnyConnection::connect(url).await?;
    for pragma in ["PRAGMA busy_timeout = 0", "PRAGMA locking_mode = EXCLUSIVE"] {
        sqlx::query(pragma).execute(&mut connection).await?;
    }
    let looked = sqlx::query("SELECT COUNT(*) FROM sqlite_schema").execute(&mut connection).await;
    connection.close().await?;
    match looked {
        Ok(_) => Ok(false),
        Err(error) if is_busy(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// `SQLITE_BUSY` of any kind.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == 5)
}

/// The write-ahead log.
pub(super) fn log(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Advice about files that this user may not write, if there are any.
pub(super) fn advice(path: &Path) -> Option<String> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let files = [path.to_owned(), log(path), beside(path, "-shm"), folder.to_owned()];
    let unwritable = files.iter().find(|file| file.exists() && access(*file, Access::WRITE_OK).is_err())?;
    permission::advice(unwritable, Need::Write)
}
