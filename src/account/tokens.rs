//! Tokens that act as a user, and those that users may make for themselves.

use super::{AccountError, Accounts};
use crate::{
    audit::{AuditEvent, Context},
    login::Source,
    sessions::Session,
    tokens::{NewOwnToken, TokenRecord},
};

impl Accounts {
    /// All tokens that act as the user, including those made by operators.
    pub async fn tokens(&self, session: &Session) -> Result<Vec<TokenRecord>, AccountError> {
        Ok(self.tokens.of_user(&session.user).await?)
    }

    /// Makes a token. Requires a recent proof of both factors: a token opens as much as the session does, for longer.
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

    /// Ends a token that the user has made, and its open connections.
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
