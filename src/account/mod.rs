//! Self-service: what users see and change of their own accounts. Sees no HTTP; operators use `administration`.

mod tokens;

use std::sync::Arc;

use secrecy::SecretString;

use crate::{
    audit::{Audit, AuditEvent, Context},
    clock::Timestamp,
    credentials::{CredentialsError, Device, Devices, RecoveryCodes, Tries, WrongTries},
    database::DatabaseError,
    login::{Login, PendingLogins, Source},
    notices::{Event, Notices},
    secret::TokenHash,
    sessions::{Session, SessionError, SessionSummary, Sessions},
    tokens::{TokenStore, TokensError},
};

/// Why an account could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("cannot read or change devices and recovery codes")]
    Credentials(#[from] CredentialsError),
    #[error("cannot remove the login in progress")]
    Pending(#[from] DatabaseError),
    #[error("cannot read or end the session")]
    Sessions(#[from] SessionError),
    #[error("cannot read or change the user's tokens")]
    Tokens(#[from] TokensError),
}

/// A user's devices, recovery codes and sessions.
#[derive(Debug)]
pub struct Overview {
    pub devices: Vec<Device>,
    pub recovery_left: u32,
    pub sessions: Vec<SessionSummary>,
}

/// Users' accounts; every call is for the user of the given session.
#[derive(Clone)]
pub struct Accounts {
    pub devices: Devices,
    pub recovery_codes: RecoveryCodes,
    pub sessions: Arc<Sessions>,
    pub pending: PendingLogins,
    pub tries: Tries,
    pub tokens: TokenStore,
    pub audit: Arc<Audit>,
    pub notices: Notices,
}

impl Accounts {
    /// Uses the stores of the login.
    pub fn new(login: &Login, tokens: TokenStore) -> Self {
        Self {
            tokens,
            devices: login.devices.clone(),
            recovery_codes: login.recovery_codes.clone(),
            sessions: Arc::clone(&login.sessions),
            pending: login.pending.clone(),
            tries: login.tries.clone(),
            audit: Arc::clone(&login.audit),
            notices: login.notices.clone(),
        }
    }

    pub async fn overview(&self, session: &Session) -> Result<Overview, AccountError> {
        let user = &session.user;
        Ok(Overview {
            devices: self.devices.list(user).await?,
            recovery_left: self.recovery_codes.remaining(user).await?,
            sessions: self.sessions.list(Some(user)).await?,
        })
    }

    pub async fn recovery_codes_left(&self, session: &Session) -> Result<u32, AccountError> {
        Ok(self.recovery_codes.remaining(&session.user).await?)
    }

    pub async fn has_unseen_recovery_codes(&self, session: &Session) -> Result<bool, AccountError> {
        Ok(self.recovery_codes.has_unseen(&session.user).await?)
    }

    /// Wrong tries since the last login that the user has not been told of, by network, the latest first.
    pub async fn wrong_tries(&self, session: &Session) -> Result<Vec<WrongTries>, AccountError> {
        Ok(self.tries.list(&session.user).await?)
    }

    /// Forgets the wrong tries up to this time: the user has been told.
    pub async fn forget_wrong_tries(&self, session: &Session, until: Timestamp) -> Result<(), AccountError> {
        Ok(self.tries.forget(&session.user, until).await?)
    }

    /// Replaces all recovery codes; the user then has to save the new ones.
    pub async fn renew_recovery_codes(&self, session: &Session, source: &Source) -> Result<(), AccountError> {
        let (user, place) = ((&session.user, &*session.email), source.place());
        let notice = self.notices.of(&Event::RecoveryCodesReplaced, user, &place, self.sessions.now());
        if self.recovery_codes.clone().carrying(notice).renew(&session.user).await? {
            self.audit.record(AuditEvent::RecoveryCodesReplaced, &source.of_session(session));
        }
        Ok(())
    }

    /// The recovery codes that the user has not confirmed as saved.
    pub async fn unseen_recovery_codes(
        &self,
        session: &Session,
        source: &Source,
    ) -> Result<Option<Vec<SecretString>>, AccountError> {
        let codes = self.recovery_codes.unseen(&session.user).await?;
        if codes.is_some() {
            self.audit.record(AuditEvent::RecoveryCodesShown, &source.of_session(session));
        }
        Ok(codes)
    }

    /// Confirms the recovery codes as saved: they are never shown again.
    pub async fn acknowledge_recovery_codes(
        &self,
        session: &Session,
        source: &Source,
    ) -> Result<(), AccountError> {
        let user = &session.user;
        if self.recovery_codes.has_unseen(user).await? {
            self.recovery_codes.acknowledge(user).await?;
            self.audit.record(AuditEvent::RecoveryCodesAcknowledged, &source.of_session(session));
        }
        Ok(())
    }

    /// Ends other sessions of the same user: the one whose id begins with `which`, or all. Requires both factors, so
    /// that the password alone cannot sign the user out.
    pub async fn end_others(
        &self,
        session: &Session,
        which: Option<&str>,
        source: &Source,
    ) -> Result<(), AccountError> {
        let others = self.sessions.list(Some(&session.user)).await?.into_iter();
        let others = others
            .filter(|other| other.id != session.id && which.is_none_or(|short| other.id.short() == short));
        for other in others {
            self.sessions.revoke(&other.id).await?;
            let context = Context { session: Some(other.id), ..source.of_session(session) };
            self.audit.record(AuditEvent::SessionRevoked, &context);
        }
        Ok(())
    }

    /// Ends a session, and a login in progress in the same browser.
    pub async fn log_out(
        &self,
        session: &Session,
        pending: Option<&TokenHash>,
        source: &Source,
    ) -> Result<(), AccountError> {
        self.sessions.revoke(&session.id).await?;
        if let Some(pending) = pending {
            self.pending.remove(pending).await?;
        }
        self.audit.record(AuditEvent::Logout, &source.of_session(session));
        Ok(())
    }
}
