//! Watches the embedded store's file: every other process that changes the store writes to the log beside it.

use std::{fmt, io, path::Path};

use futures_util::{FutureExt as _, StreamExt as _};
use inotify::{EventMask, EventStream, Inotify, WatchMask};

use super::sqlite;

/// Buffer for some events, which have no names.
const EVENTS: usize = 1024;

/// A watch on the log of one store.
pub(super) struct Watched(EventStream<[u8; EVENTS]>);

impl Watched {
    /// # Errors
    ///
    /// If nobody has the store open, so that there is no log, or if the system watches no more files.
    pub(super) fn log_of(database: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        inotify.watches().add(sqlite::log(database), WatchMask::MODIFY)?;
        Ok(Self(inotify.into_event_stream([0; EVENTS])?))
    }

    /// Waits until somebody has written. If the future is dropped, no event is lost.
    ///
    /// # Errors
    ///
    /// If the log has been deleted; a new one is not watched.
    pub(super) async fn written(&mut self) -> io::Result<()> {
        let mut event = self.0.next().await;
        // One read takes all events that have arrived.
        loop {
            match event {
                Some(Ok(one)) if one.mask.contains(EventMask::IGNORED) => break,
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => break,
            }
            event = match self.0.next().now_or_never() {
                Some(next) => next,
                None => return Ok(()),
            };
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Watched")
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, time::Duration};

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn each_writing_is_told_once_and_the_end_of_the_log_as_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        let log = sqlite::log(&database);
        assert_eq!(Watched::log_of(&database).unwrap_err().kind(), io::ErrorKind::NotFound);
        let mut file = std::fs::File::create(&log).unwrap();
        let mut watched = Watched::log_of(&database).unwrap();
        for _ in 0..3 {
            assert!(watched.written().now_or_never().is_none());
            file.write_all(b"x").unwrap();
            file.write_all(b"y").unwrap();
            timeout(PATIENCE, watched.written()).await.unwrap().unwrap();
        }
        drop(file);
        std::fs::remove_file(&log).unwrap();
        let gone = async { while watched.written().await.is_ok() {} };
        timeout(PATIENCE, gone).await.unwrap();
    }
}
