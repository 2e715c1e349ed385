//! Whether users can log in now: a login writes, and a store may answer but reject writes.
//!
//! Signed-in users are not affected, and another instance would have the same stores, so a gateway without logins is
//! ready all the same.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{database::Database, errors::Chain, sessions::Sessions};

/// How long a result is used.
const GOOD_FOR: Duration = Duration::from_secs(2);
/// The longest that the stores may take to write.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tests the writes of a login.
pub struct Logins {
    database: Database,
    sessions: Arc<Sessions>,
    last: Mutex<Option<(Instant, String)>>,
}

impl Logins {
    pub fn new(database: Database, sessions: Arc<Sessions>) -> Self {
        Self { database, sessions, last: Mutex::default() }
    }

    /// `ok`, or why nobody can log in.
    pub(super) async fn state(&self) -> String {
        let mut last = self.last.lock().await;
        if let Some((at, state)) = &*last
            && at.elapsed() < GOOD_FOR
        {
            return state.clone();
        }
        let state = self.try_out().await.map_or_else(|reason| reason, |()| "ok".to_owned());
        let before = last.as_ref().map_or("ok", |(_, state)| state);
        if state != "ok" && before == "ok" {
            tracing::warn!(reason = state, "nobody can log in");
        }
        *last = Some((Instant::now(), state.clone()));
        state
    }

    async fn try_out(&self) -> Result<(), String> {
        let late = |store: &str| format!("{store} takes too long to write");
        let (database, sessions) = tokio::join!(
            timeout(PATIENCE, self.database.takes_changes()),
            timeout(PATIENCE, self.sessions.takes_changes()),
        );
        database
            .map_err(|_| late(&format!("the database ({})", self.database.store())))?
            .map_err(|error| Chain(&error).to_string())?;
        sessions.map_err(|_| late("the store of sessions"))?.map_err(|error| Chain(&error).to_string())
    }
}
