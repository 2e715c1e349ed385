//! Administration: what operators do to users, their devices and their sessions. Sees neither HTTP nor a terminal.
//!
//! Whatever takes a right away ends the sessions that were made with it.

pub mod import;
mod tokens;

use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    audit::{Audit, AuditEvent, Context},
    clock::{Clock, Timestamp},
    credentials::{
        self, CredentialsError, Device, Devices, PasswordError, Passwords, RecoveryCodes,
        password_policy::{self, Weakness},
    },
    database::{Alongside, Database, DatabaseError},
    errors::Chain,
    login::PendingLogins,
    notices::{Event, Notices, Place},
    rollout::{self, Standing},
    saved_forms::SavedForms,
    secret::TokenHash,
    sessions::{SessionError, SessionSummary, Sessions},
    tokens::{TokenStore, TokensError},
    users::{CanonicalName, NewUser, User, Users, UsersError},
};

pub use self::tokens::{For, service_as_user};

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum AdministrationError {
    #[error("there is no user {0}")]
    NoUser(String),
    #[error("{user} has no device {device}")]
    NoDevice { user: String, device: String },
    #[error("there is no session {0}")]
    NoSession(String),
    #[error("{0} matches more than one session: give more digits")]
    ManySessions(String),
    #[error("{0}")]
    Weak(Weakness),
    #[error("cannot add {email}")]
    Add {
        email: String,
        #[source]
        source: UsersError,
    },
    #[error("cannot change the user")]
    Users(#[from] UsersError),
    #[error("cannot set the password")]
    Password(#[from] PasswordError),
    #[error("cannot change the devices")]
    Credentials(#[from] CredentialsError),
    #[error("cannot change the sessions")]
    Sessions(#[from] SessionError),
    #[error(transparent)]
    Tokens(#[from] TokensError),
    #[error("cannot end the user's logins in progress")]
    Begun(#[from] DatabaseError),
}

/// The stores that administration works on.
#[derive(Clone)]
pub struct Administration {
    pub database: Database,
    pub users: Users,
    pub passwords: Arc<Passwords>,
    pub devices: Devices,
    pub recovery_codes: RecoveryCodes,
    pub sessions: Arc<Sessions>,
    pub pending: PendingLogins,
    pub saved_forms: SavedForms,
    pub tokens: TokenStore,
    pub audit: Arc<Audit>,
    pub notices: Notices,
    pub policy: credentials::Config,
    pub rollout: rollout::Config,
    pub clock: Arc<dyn Clock>,
    /// Words that no password may be made of: the portal's name and host.
    pub context_words: Vec<String>,
}

/// A user with devices, recovery codes and sessions.
#[derive(Debug)]
pub struct UserDetails {
    pub user: User,
    pub devices: Vec<Device>,
    pub recovery_left: u32,
    pub sessions: Vec<SessionSummary>,
}

impl Administration {
    /// Adds a user. The password is checked first, so that a refused one leaves no user behind.
    pub async fn add_user(
        &self,
        new: NewUser,
        password: Option<SecretString>,
    ) -> Result<User, AdministrationError> {
        if let Some(password) = &password {
            self.check_password(password, &new.email).map_err(AdministrationError::Weak)?;
        }
        let email = new.email.trim().to_owned();
        let user = self.users.add(new).await.map_err(|source| AdministrationError::Add { email, source })?;
        if let Some(password) = password {
            self.passwords.set(&user.id, password).await?;
        }
        self.note(AuditEvent::UserAdded, &user);
        Ok(user)
    }

    /// Sets a password. Sessions made with the old one end.
    pub async fn set_password(&self, email: &str, password: SecretString) -> Result<(), AdministrationError> {
        let user = self.user(email).await?;
        self.check_password(&password, &user.email).map_err(AdministrationError::Weak)?;
        // Once before as well: if this is interrupted, no session made with the old password is left under the new one.
        self.end_everything(&user).await?;
        let notice = self.notice(&Event::PasswordChanged, &user, &Place::default());
        self.passwords.set_with(&user.id, password, &notice).await?;
        self.end_everything(&user).await?;
        self.note(AuditEvent::UserPasswordSet, &user);
        Ok(())
    }

    /// Disables or enables a user. Returns whether that changed anything.
    pub async fn set_disabled(&self, email: &str, disabled: bool) -> Result<bool, AdministrationError> {
        let user = self.user(email).await?;
        let changed = self.users.set_disabled(&user.id, disabled).await?;
        if disabled {
            self.end_everything(&user).await?;
        } else {
            // An old "this was not me" is not to freeze the account again.
            self.notices.links.void(&user.id).await?;
        }
        self.note(if disabled { AuditEvent::UserDisabled } else { AuditEvent::UserEnabled }, &user);
        Ok(changed)
    }

    /// Changes the display name, also in live sessions and in what the portal is told.
    pub async fn set_name(&self, email: &str, name: &str) -> Result<User, AdministrationError> {
        let user = self.user(email).await?;
        self.users.set_display_name(&user.id, name).await?;
        self.note(AuditEvent::UserNameSet, &user);
        self.changed(user).await
    }

    /// Replaces the groups of a user, also in live sessions.
    pub async fn set_groups(&self, email: &str, groups: Vec<String>) -> Result<User, AdministrationError> {
        let user = self.user(email).await?;
        self.users.set_groups(&user.id, groups).await?;
        self.note(AuditEvent::UserGroupsSet, &user);
        self.changed(user).await
    }

    /// Changes the e-mail, by which the user logs in and the portal knows the user, also in live sessions; password and
    /// devices stay.
    pub async fn set_email(&self, email: &str, new: &str) -> Result<User, AdministrationError> {
        let before = self.user(email).await?;
        let event = Event::EmailChanged { old: &before.email, new: new.trim() };
        let users = self.users.clone().carrying(self.notice(&event, &before, &Place::default()));
        users.set_email(&before.id, new).await?;
        let user = self.changed(before.clone()).await?;
        self.audit.record(
            AuditEvent::UserEmailSet,
            &Context {
                user: Some(user.name.as_str()),
                previous: Some(before.name.as_str()),
                ..Context::default()
            },
        );
        Ok(user)
    }

    /// The user after the change.
    async fn changed(&self, user: User) -> Result<User, AdministrationError> {
        self.users.by_id(&user.id).await?.ok_or(AdministrationError::NoUser(user.email))
    }

    pub async fn remove_user(&self, email: &str) -> Result<(), AdministrationError> {
        let user = self.user(email).await?;
        self.users.remove(&user.id).await?;
        self.end_everything(&user).await?;
        self.note(AuditEvent::UserRemoved, &user);
        Ok(())
    }

    /// The user with this e-mail, if there is one.
    pub async fn find(&self, email: &str) -> Result<Option<User>, AdministrationError> {
        match CanonicalName::parse(email) {
            Some(name) => Ok(self.users.find(&name).await?),
            None => Ok(None),
        }
    }

    /// All users by name, with their number of devices.
    pub async fn roster(&self) -> Result<Vec<(User, u32)>, AdministrationError> {
        let mut roster = Vec::new();
        self.users.each(|user, devices| roster.push((user, devices))).await?;
        Ok(roster)
    }

    /// Takes each user who may log in, by name, with where they stand at an instant.
    pub async fn standings(
        &self,
        at: Timestamp,
        take: &mut dyn FnMut(User, Standing),
    ) -> Result<(), AdministrationError> {
        let take = |user: User, devices| {
            if let Some(standing) = Standing::of(&user, devices, &self.rollout, at) {
                take(user, standing);
            }
        };
        Ok(self.users.each(take).await?)
    }

    /// The time that everything here goes by.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub async fn users(&self) -> Result<Vec<User>, AdministrationError> {
        Ok(self.users.list().await?)
    }

    pub async fn user_details(&self, email: &str) -> Result<UserDetails, AdministrationError> {
        let user = self.user(email).await?;
        Ok(UserDetails {
            devices: self.devices.list(&user.id).await?,
            recovery_left: self.recovery_codes.remaining(&user.id).await?,
            sessions: self.sessions.list(Some(&user.id)).await?,
            user,
        })
    }

    /// Removes a device, by id or name. The sessions that it opened end.
    pub async fn remove_device(&self, email: &str, device: &str) -> Result<Device, AdministrationError> {
        let user = self.user(email).await?;
        let devices = self.devices.list(&user.id).await?;
        let found = devices.into_iter().find(|known| known.id == device || known.name == device);
        let found = found.ok_or_else(|| AdministrationError::NoDevice {
            user: user.email.clone(),
            device: device.to_owned(),
        })?;
        let notice = self.notice(&Event::DeviceRemoved(&found.name), &user, &Place::default());
        self.devices.clone().carrying(notice).remove(&user.id, &found.id).await?;
        self.end_everything(&user).await?;
        self.note(AuditEvent::DeviceRemoved, &user);
        Ok(found)
    }

    /// The sessions of one user, or of all.
    pub async fn sessions(&self, email: Option<&str>) -> Result<Vec<SessionSummary>, AdministrationError> {
        let user = match email {
            Some(email) => Some(self.user(email).await?),
            None => None,
        };
        Ok(self.sessions.list(user.as_ref().map(|user| &user.id)).await?)
    }

    /// Ends the session whose id begins with `digits`.
    pub async fn revoke_session(&self, digits: &str) -> Result<TokenHash, AdministrationError> {
        let digits = digits.to_ascii_lowercase();
        // Whether it is over by the caller's clock does not matter: what is in the store can be ended.
        let matching = self.sessions.beginning_with(&digits).await?;
        let (id, name) = match &*matching {
            [(id, name)] if digits.len() >= 8 => (*id, name.as_deref()),
            [] => return Err(AdministrationError::NoSession(digits)),
            _ => return Err(AdministrationError::ManySessions(digits)),
        };
        self.sessions.revoke(&id).await?;
        if let Some(user) = name.and_then(CanonicalName::parse) {
            self.tell_of_ended_sessions(self.users.find(&user).await?.as_ref()).await;
        }
        self.audit.record(
            AuditEvent::SessionRevoked,
            &Context { user: name, session: Some(id), ..Context::default() },
        );
        Ok(id)
    }

    /// Ends every session of a user.
    pub async fn revoke_user(&self, email: &str) -> Result<usize, AdministrationError> {
        let user = self.user(email).await?;
        let ended = self.end_everything(&user).await?;
        if ended > 0 {
            self.tell_of_ended_sessions(Some(&user)).await;
        }
        self.note(AuditEvent::SessionRevoked, &user);
        Ok(ended)
    }

    /// Ends every session, every login in progress and every saved form in one transaction, independent of the session
    /// store and of any clock. Returns how many sessions there were, unless their store is silent.
    pub async fn revoke_all(&self) -> Result<Option<usize>, AdministrationError> {
        let mut transaction = self.database.write().await?;
        self.pending.remove_all(&mut transaction).await?;
        self.saved_forms.remove_all(&mut transaction).await?;
        self.sessions.end_all(&mut transaction).await?;
        transaction.commit().await?;
        self.audit.record(AuditEvent::SessionRevoked, &Context::default());
        Ok(self.sessions.clear_ended().await)
    }

    /// Whether a user with this e-mail may have this password.
    pub fn check_password(&self, password: &SecretString, email: &str) -> Result<(), Weakness> {
        let local_part = email.split('@').next().unwrap_or_default();
        let mut words: Vec<&str> = self.context_words.iter().map(String::as_str).collect();
        words.extend([email, local_part]);
        password_policy::check(&self.policy, password.expose_secret(), &words)
    }

    async fn user(&self, email: &str) -> Result<User, AdministrationError> {
        self.find(email).await?.ok_or_else(|| AdministrationError::NoUser(email.to_owned()))
    }

    /// Sends a user a link to set a first password.
    pub async fn invite(&self, user: &User) -> Result<(), AdministrationError> {
        self.notices.outbox.write(&self.notices.invitation(user)).await?;
        self.note(AuditEvent::UserInvited, user);
        Ok(())
    }

    /// Mails a reminder of the roll-out to a user without a device.
    pub async fn remind(&self, user: &User) -> Result<(), AdministrationError> {
        let now = self.now();
        let due = self.rollout.due(&user.id, &user.groups, user.first_login_at.unwrap_or(now));
        let ahead = due.filter(|due| now < due.at);
        self.notices.outbox.write(&self.notices.reminder(user, ahead)).await?;
        self.note(AuditEvent::UserReminded, user);
        Ok(())
    }

    /// What tells a user of a change, in its transaction.
    pub(crate) fn notice(&self, event: &Event<'_>, user: &User, place: &Place) -> Alongside {
        self.notices.of(event, (&user.id, &user.email), place, self.now())
    }

    /// The sessions have ended, whether or not the user hears of it.
    async fn tell_of_ended_sessions(&self, user: Option<&User>) {
        let Some(user) = user else { return };
        let notice = self.notice(&Event::SessionsEnded, user, &Place::default());
        if let Err(error) = self.notices.outbox.write(&notice).await {
            tracing::warn!(user.id = %user.id, error = %Chain(&error), "a notice could not be written");
        }
    }

    pub(crate) async fn end_everything(&self, user: &User) -> Result<usize, AdministrationError> {
        self.pending.remove_user(&user.id).await?;
        self.saved_forms.remove_user(&user.id).await?;
        Ok(self.sessions.revoke_user(&user.id).await?)
    }

    fn note(&self, event: AuditEvent, user: &User) {
        self.audit.record(event, &Context { user: Some(user.name.as_str()), ..Context::default() });
    }
}
