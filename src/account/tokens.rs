//! Tokens that act as a user, where users may make some for themselves.

use super::{AccountError, Accounts};
use crate::{
    audit::{AuditEvent, Context},
    login::Source,
    sessions::Session,
    tokens::{NewOwnToken, TokenRecord},
};

impl Accounts {
    /// All that act as the user, operators' included.
    pub async fn tokens(&self, session: &Session) -> Result<Vec<TokenRecord>, AccountError> {
        Ok(self.tokens.of_user(&session.user).await?)
    }

    /// Makes one. Takes both factors, proved lately: it opens as much as the session does, for longer.
    pub async fn create_token(
        &self,
        session: &Session,
        new: NewOwnToken,
        source: &Source,
    ) -> Result<(String, TokenRecord), AccountError> {
        let made = self.tokens.create_own(&session.user, new).await?;
        let context = Context { token: Some(&made.1.name), ..source.of_session(session) };
        self.audit.record(AuditEvent::TokenCreated, &context);
        Ok(made)
    }

    /// Ends one that the user has made, with all that it has open.
    pub async fn revoke_token(
        &self,
        session: &Session,
        id: &str,
        source: &Source,
    ) -> Result<(), AccountError> {
        if let Some(record) = self.tokens.revoke_own(&session.user, id).await? {
            let context = Context { token: Some(&record.name), ..source.of_session(session) };
            self.audit.record(AuditEvent::TokenRevoked, &context);
        }
        Ok(())
    }
}
