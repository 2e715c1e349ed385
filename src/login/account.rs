//! What a user may see and confirm of the own account once logged in.

use secrecy::SecretString;

use super::{Login, LoginError, Source};
use crate::{
    audit::{AuditEvent, Context},
    clock::Timestamp,
    credentials::{Device, WrongTries},
    secret::TokenHash,
    sessions::{Session, SessionSummary},
    throttle::Networks,
    users::{User, UserId},
};

/// A user's devices, codes and sessions.
#[derive(Debug)]
pub struct Account {
    pub devices: Vec<Device>,
    pub recovery_left: u32,
    pub sessions: Vec<SessionSummary>,
}

/// Wrong tries from where somebody logs in that need no word.
const OWN_SLIPS: u32 = 4;

impl Login {
    pub async fn account(&self, session: &Session) -> Result<Account, LoginError> {
        let user = user_id(session)?;
        Ok(Account {
            devices: self.devices.list(&user).await?,
            recovery_left: self.recovery_codes.remaining(&user).await?,
            sessions: self.sessions.list(Some(&session.user)).await?,
        })
    }

    pub async fn recovery_codes_left(&self, session: &Session) -> Result<u32, LoginError> {
        Ok(self.recovery_codes.remaining(&user_id(session)?).await?)
    }

    pub async fn has_unseen_recovery_codes(&self, session: &Session) -> Result<bool, LoginError> {
        Ok(self.recovery_codes.has_unseen(&user_id(session)?).await?)
    }

    /// Wrong tries since the last login that a user is to be told of, by network, the latest first.
    pub async fn wrong_tries(&self, session: &Session) -> Result<Vec<WrongTries>, LoginError> {
        Ok(self.tries.list(&user_id(session)?).await?)
    }

    /// They have been told, up to then.
    pub async fn forget_wrong_tries(&self, session: &Session, until: Timestamp) -> Result<(), LoginError> {
        Ok(self.tries.forget(&user_id(session)?, until).await?)
    }

    /// Whether there is more to tell than somebody's own slips: a few, from where the login comes from now.
    pub(super) async fn has_wrong_tries(&self, user: &User, source: &Source) -> Result<bool, LoginError> {
        let here = Networks::of(source.client_ip).name();
        let tries = self.tries.list(&user.id).await?;
        Ok(tries.iter().any(|from| {
            from.network.as_deref() != Some(here.as_str()) || from.passwords + from.codes > OWN_SLIPS
        }))
    }

    /// Others in the place of all recovery codes, which the user has to save then.
    pub async fn renew_recovery_codes(&self, session: &Session, source: &Source) -> Result<(), LoginError> {
        if self.recovery_codes.renew(&user_id(session)?).await? {
            self.audit.record(AuditEvent::RecoveryCodesReplaced, &source.of_session(session));
        }
        Ok(())
    }

    /// The recovery codes that wait to be confirmed as stored.
    pub async fn unseen_recovery_codes(
        &self,
        session: &Session,
        source: &Source,
    ) -> Result<Option<Vec<SecretString>>, LoginError> {
        let codes = self.recovery_codes.unseen(&user_id(session)?).await?;
        if codes.is_some() {
            self.audit.record(AuditEvent::RecoveryCodesShown, &source.of_session(session));
        }
        Ok(codes)
    }

    /// From here on they are never shown again.
    pub async fn acknowledge_recovery_codes(
        &self,
        session: &Session,
        source: &Source,
    ) -> Result<(), LoginError> {
        let user = user_id(session)?;
        if self.recovery_codes.has_unseen(&user).await? {
            self.recovery_codes.acknowledge(&user).await?;
            self.audit.record(AuditEvent::RecoveryCodesAcknowledged, &source.of_session(session));
        }
        Ok(())
    }

    /// Ends those sessions of the same user that are not `session`: the one whose id begins with `which`, or all. That takes
    /// both factors: whoever knows the password alone must not put the user out.
    pub async fn end_others(
        &self,
        session: &Session,
        which: Option<&str>,
        source: &Source,
    ) -> Result<(), LoginError> {
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

    /// Ends a session, and a login in progress beside it.
    pub async fn log_out(
        &self,
        session: &Session,
        pending: Option<&TokenHash>,
        source: &Source,
    ) -> Result<(), LoginError> {
        self.sessions.revoke(&session.id).await?;
        if let Some(pending) = pending {
            self.pending.remove(pending).await?;
        }
        self.audit.record(AuditEvent::Logout, &source.of_session(session));
        Ok(())
    }
}

fn user_id(session: &Session) -> Result<UserId, LoginError> {
    UserId::parse(&session.user).ok_or(LoginError::Session)
}
