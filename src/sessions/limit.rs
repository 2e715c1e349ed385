//! The maximum number of one user's sessions, and which of them end above it.
//!
//! Counted after a session was made, not before: of concurrent logins each sees its own session, the last sees all, and
//! all agree on the order. So for a moment there are too many, but never too few: whoever counts ends all surplus
//! sessions, not just its own, since the others may have counted before they could see it.

use super::{SessionError, SessionSummary, Sessions};
use crate::users::UserId;

/// What happens to a login beyond the maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It gets in, and the oldest login ends.
    EndOldest,
    /// The new login ends.
    Refuse,
}

impl Sessions {
    /// Whether the new login ends. Otherwise a login that ends at once was overtaken by later ones.
    pub fn refuses_when_full(&self) -> bool {
        self.when_full == WhenFull::Refuse
    }

    /// Ends the user's sessions beyond the maximum, and returns them.
    pub async fn evict_excess(&self, user: &UserId) -> Result<Vec<SessionSummary>, SessionError> {
        let Some(most) = self.max_per_user else { return Ok(Vec::new()) };
        let mut sessions = self.list(Some(user)).await?;
        sessions.sort_by_key(|session| (session.created_at, session.id));
        if !self.refuses_when_full() {
            sessions.reverse();
        }
        let beyond = sessions.split_off(most.min(sessions.len()));
        for session in &beyond {
            self.revoke(&session.id).await?;
        }
        Ok(beyond)
    }
}
