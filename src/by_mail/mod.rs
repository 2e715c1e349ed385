//! What users do by mail: set a forgotten password, accept an invitation, say "this was not me". Sees no HTTP.
//!
//! A link stands for the mailbox and nothing else: it lets nobody in. Whoever has set a password with one signs in with it
//! and a code, as always.

use secrecy::SecretString;

use crate::{
    administration::{Administration, AdministrationError},
    audit::{AuditEvent, Context},
    credentials::{PasswordError, password_policy::Weakness},
    database::DatabaseError,
    errors::Chain,
    links::{Link, LinkPurpose},
    login::Source,
    notices::Event,
    throttle::{Networks, Throttle, ThrottleError, Throttled},
    users::{CanonicalName, User, UsersError},
};

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ByMailError {
    #[error("cannot read or change links")]
    Database(#[from] DatabaseError),
    #[error("cannot read or change the user")]
    Users(#[from] UsersError),
    #[error("cannot count requests for mail")]
    Throttle(#[from] ThrottleError),
    #[error(transparent)]
    Administration(Box<AdministrationError>),
}

impl From<AdministrationError> for ByMailError {
    fn from(error: AdministrationError) -> Self {
        Self::Administration(Box::new(error))
    }
}

/// What became of a new password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordByLink {
    Done,
    Weak(Weakness),
    /// The link is not good, or not any more.
    Gone,
}

/// What users do by mail.
#[derive(Clone)]
pub struct ByMail {
    pub administration: Administration,
    pub throttle: Throttle,
}

impl ByMail {
    /// Whether there is a mail server.
    pub fn is_on(&self) -> bool {
        self.administration.notices.outbox.is_on()
    }

    /// Sends a link to whoever has this name, if there is such a user. Neither the response nor its time depends on that:
    /// it is looked up in the background.
    pub async fn forgot(&self, email: &str, source: &Source) -> Result<Result<(), Throttled>, ByMailError> {
        let networks = Networks::of(source.client_ip);
        let context = Context {
            client_ip: Some(source.client_ip),
            request_id: Some(&source.request_id),
            ..Context::default()
        };
        match self.throttle.admit_mail(networks).await? {
            Err(throttled) => {
                self.administration.audit.record(AuditEvent::LoginThrottled, &context);
                return Ok(Err(throttled));
            }
            // It stays counted.
            Ok(counted) => drop(counted),
        }
        let (by_mail, email, source) = (self.clone(), email.to_owned(), source.clone());
        tokio::spawn(async move {
            if let Err(error) = by_mail.send_link(&email, &source).await {
                tracing::error!(error = %Chain(&error), "a link for a forgotten password could not be written");
            }
        });
        Ok(Ok(()))
    }

    async fn send_link(&self, email: &str, source: &Source) -> Result<(), ByMailError> {
        let Administration { users, notices, audit, .. } = &self.administration;
        let user = match CanonicalName::parse(email) {
            Some(name) => users.find(&name).await?.filter(|user| !user.disabled),
            None => None,
        };
        let context = Context {
            user: user.as_ref().map(|user| user.name.as_str()),
            client_ip: Some(source.client_ip),
            request_id: Some(&source.request_id),
            ..Context::default()
        };
        audit.record(AuditEvent::PasswordLinkRequested, &context);
        if let Some(user) = &user {
            notices.outbox.write(&notices.password_link(user)).await?;
        }
        Ok(())
    }

    /// The link of this token with its user, if both are good. Changes nothing.
    pub async fn open(&self, token: &str) -> Result<Option<(Link, User)>, ByMailError> {
        let Administration { users, notices, .. } = &self.administration;
        let Some(link) = notices.links.find(token).await? else { return Ok(None) };
        let user = users.by_id(&link.user).await?.filter(|user| !user.disabled);
        Ok(user.map(|user| (link, user)))
    }

    /// Sets a password and uses the link up. Sessions and logins in progress end; the second factor stays as it is.
    pub async fn set_password(
        &self,
        token: &str,
        password: SecretString,
        source: &Source,
    ) -> Result<PasswordByLink, ByMailError> {
        let Some((link, user)) = self.open(token).await? else { return Ok(PasswordByLink::Gone) };
        if link.purpose == LinkPurpose::NotMe {
            return Ok(PasswordByLink::Gone);
        }
        let administration = &self.administration;
        if let Err(weakness) = administration.check_password(&password, &user.email) {
            return Ok(PasswordByLink::Weak(weakness));
        }
        let spent = administration.notices.links.use_up(&link);
        let alongside = match link.purpose {
            // A first password is no change.
            LinkPurpose::Invitation => spent,
            _ => spent.and(administration.notice(&Event::PasswordChanged, &user, &source.place())),
        };
        administration.end_everything(&user).await?;
        match administration.passwords.set_with(&user.id, password, &alongside).await {
            Err(PasswordError::Database(DatabaseError::Overtaken)) => return Ok(PasswordByLink::Gone),
            set => set.map_err(AdministrationError::from)?,
        }
        administration.end_everything(&user).await?;
        administration.audit.record(AuditEvent::PasswordSetByLink, &source.context(user.name.as_str()));
        Ok(PasswordByLink::Done)
    }

    /// Freezes the account: it is disabled, and its sessions end. False if the link is not good.
    pub async fn not_me(&self, token: &str, source: &Source) -> Result<bool, ByMailError> {
        let Some((link, user)) = self.open(token).await? else { return Ok(false) };
        if link.purpose != LinkPurpose::NotMe {
            return Ok(false);
        }
        let administration = &self.administration;
        let Administration { users, notices, .. } = administration;
        let alongside =
            notices.links.use_up(&link).and(notices.frozen(&user, &source.place(), administration.now()));
        match users.clone().carrying(alongside).freeze(&user.id).await {
            Err(UsersError::Database(DatabaseError::Overtaken)) => return Ok(false),
            frozen => frozen?,
        };
        administration.audit.record(AuditEvent::UserFrozen, &source.context(user.name.as_str()));
        tracing::warn!(
            user.name = user.name.as_str(),
            client.ip = %source.client_ip,
            "a user has said \"this was not me\": the account is disabled"
        );
        administration.end_everything(&user).await?;
        Ok(true)
    }
}
