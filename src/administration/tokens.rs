//! What operators do to tokens.

use std::time::Duration;

use super::{Administration, AdministrationError};
use crate::{
    audit::{AuditEvent, Context},
    clock::Timestamp,
    tokens::{Holder, NewToken, Scope, TokenRecord, TokensError},
    users::{CanonicalName, SERVICE, User, UserId},
};

/// Who a token is for.
#[derive(Clone, Copy, Debug)]
pub enum For<'a> {
    /// By e-mail.
    User(&'a str),
    Service(&'a str),
}

impl Administration {
    /// Makes a token. The text is shown only this once.
    pub async fn create_token(
        &self,
        name: &str,
        whom: For<'_>,
        scope: Scope,
        expires_at: Option<Timestamp>,
    ) -> Result<(String, TokenRecord), AdministrationError> {
        let holder = match whom {
            For::User(email) => Holder::User(self.user(email).await?.id),
            For::Service(service) => Holder::Service(service.to_owned()),
        };
        let new = NewToken { name: name.to_owned(), holder, scope, expires_at };
        let made = self.tokens.create(new).await?;
        self.note_token(AuditEvent::TokenCreated, &made.1).await;
        Ok(made)
    }

    /// Replaces the current token, which stays valid for `overlap`.
    pub async fn rotate_token(
        &self,
        name: &str,
        expires_at: Option<Timestamp>,
        overlap: Duration,
    ) -> Result<(String, TokenRecord), AdministrationError> {
        let made = self.tokens.rotate(name, expires_at, overlap).await?;
        self.note_token(AuditEvent::TokenRotated, &made.1).await;
        Ok(made)
    }

    /// Ends the token of this name and those that it has replaced. Their open connections end within a second, at every
    /// gateway.
    pub async fn revoke_token(&self, name: &str) -> Result<usize, AdministrationError> {
        let ended = self.tokens.revoke(name).await?;
        self.audit.record(AuditEvent::TokenRevoked, &Context { token: Some(name), ..Context::default() });
        Ok(ended)
    }

    /// Every token that has had this name, the current one first, and who it is for.
    pub async fn tokens_named(&self, name: &str) -> Result<Vec<(TokenRecord, String)>, AdministrationError> {
        let named = self.tokens.named(name).await?;
        if named.is_empty() {
            return Err(TokensError::NoToken(name.to_owned()).into());
        }
        self.with_holders(named).await
    }

    /// The holder of the current token of this name, as the portal is told of them.
    pub async fn token_holder(&self, name: &str) -> Result<(TokenRecord, User), AdministrationError> {
        let named = self.tokens.named(name).await?;
        let record = named.into_iter().next().ok_or_else(|| TokensError::NoToken(name.to_owned()))?;
        let user = match &record.holder {
            Holder::User(id) => {
                let gone = || AdministrationError::NoUser(id.to_string());
                let user = self.users.by_id(id).await?.ok_or_else(gone)?;
                User { groups: record.scope.groups_of_user(user.groups), ..user }
            }
            Holder::Service(service) => service_as_user(service, &record.scope, record.created_at)?,
        };
        Ok((record, user))
    }

    pub async fn all_tokens(&self) -> Result<Vec<(TokenRecord, String)>, AdministrationError> {
        let all = self.tokens.list().await?;
        self.with_holders(all).await
    }

    /// The name under which the portal knows a token's holder.
    pub async fn holder(&self, holder: &Holder) -> Result<String, AdministrationError> {
        match holder {
            Holder::Service(service) => Ok(format!("{SERVICE}{service}")),
            Holder::User(id) => self.name_of(id).await,
        }
    }

    async fn with_holders(
        &self,
        records: Vec<TokenRecord>,
    ) -> Result<Vec<(TokenRecord, String)>, AdministrationError> {
        let mut shown = Vec::with_capacity(records.len());
        for record in records {
            let holder = self.holder(&record.holder).await?;
            shown.push((record, holder));
        }
        Ok(shown)
    }

    async fn name_of(&self, id: &UserId) -> Result<String, AdministrationError> {
        let user = self.users.by_id(id).await?;
        // The user was removed at this very moment, and the token with them.
        Ok(user.map_or_else(|| id.to_string(), |user| user.name.to_string()))
    }

    async fn note_token(&self, event: AuditEvent, record: &TokenRecord) {
        let holder = self.holder(&record.holder).await.ok();
        let context = Context { user: holder.as_deref(), token: Some(&record.name), ..Context::default() };
        self.audit.record(event, &context);
    }
}

/// A service, as the portal is told of it.
pub fn service_as_user(service: &str, scope: &Scope, created_at: Timestamp) -> Result<User, TokensError> {
    let name = CanonicalName::parse(&format!("{SERVICE}{service}"));
    Ok(User {
        id: UserId::of_service(service),
        name: name.ok_or_else(|| TokensError::Service(service.to_owned()))?,
        email: String::new(),
        display_name: service.to_owned(),
        groups: scope.groups.clone(),
        disabled: false,
        frozen: false,
        created_at,
        last_login_at: None,
        first_login_at: None,
        qr_seen_at: None,
        skips: 0,
    })
}
