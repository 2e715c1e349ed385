//! How long a session has left, for its user to be told in time. Asking is no use of the session.

use std::time::Duration;

use tokio::time::timeout;

use super::{Live, PATIENCE, SessionError, Sessions};

/// So close to the end the store is asked as well: the session may be in use at another gateway.
const CLOSE: Duration = Duration::from_mins(3);

/// What a session has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Unless somebody uses it.
    pub unused: Duration,
    /// However it is used.
    pub whole: Duration,
}

impl Sessions {
    /// What `live` has left now. An error is a store that did not answer.
    pub async fn left(&self, live: &Live) -> Result<Left, SessionError> {
        let left = self.left_here(live);
        if left.unused > CLOSE {
            return Ok(left);
        }
        let asked = timeout(PATIENCE, self.store.load(&live.session.id)).await;
        if let Some(stored) = asked.unwrap_or(Err(SessionError::Slow))? {
            live.state.saw(stored.last_seen.min(self.clock.now()));
        }
        Ok(self.left_here(live))
    }

    fn left_here(&self, live: &Live) -> Left {
        let now = self.clock.now();
        let inactivity = self.limits.inactivity(live.session.remembered);
        Left {
            unused: inactivity.saturating_sub(now.since(live.last_seen())),
            whole: live.session.expires_at.since(now),
        }
    }
}
