//! The most sessions that one user may have, and who has to go when there are more.
//!
//! Counts after a session was made, not before: of logins that finish at once each sees its own session, the last of
//! them sees all, and all agree on their order. So there are too many for a moment, and never too few: whoever counts
//! ends all that are beyond, not just its own, since the others may have counted before they could see it.

use super::{SessionError, SessionSummary, Sessions};
use crate::users::UserId;

/// What becomes of a login beyond the most sessions that its user may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It gets in, and the oldest login ends.
    EndOldest,
    /// The latest login ends, which is the one that has just come.
    Refuse,
}

impl Sessions {
    /// Whether it is the new login that goes. Else one that goes at once has been overtaken by later ones.
    pub fn refuses_when_full(&self) -> bool {
        self.when_full == WhenFull::Refuse
    }

    /// Ends the logins of a user beyond the most that there may be, and gives them out.
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
