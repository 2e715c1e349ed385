//! The most sessions that one user may have: the oldest logins end when there are more.
//!
//! Counts after a session was made, not before: of logins that finish at once each sees its own session, the last of
//! them sees all, and all agree on which are the oldest. So there are too many for a moment, and never too few.

use super::{SessionError, SessionSummary, Sessions};

impl Sessions {
    /// Ends the oldest logins of a user, by id, beyond the most that there may be, and gives them out.
    pub async fn thin_out(&self, user: &str) -> Result<Vec<SessionSummary>, SessionError> {
        let Some(most) = self.max_per_user else { return Ok(Vec::new()) };
        let mut sessions = self.list(Some(user)).await?;
        sessions.sort_by_key(|session| std::cmp::Reverse((session.created_at, session.id)));
        let beyond = sessions.split_off(most.min(sessions.len()));
        for session in &beyond {
            self.revoke(&session.id).await?;
        }
        Ok(beyond)
    }
}
