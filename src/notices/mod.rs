//! What users are written: links that they have asked for, and notices of what has happened to their accounts.
//!
//! Each is drafted here, and written in the transaction of the change that it is about. No mail has a secret in it but a
//! link that works once.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    database::Alongside,
    links::{LinkPurpose, Links},
    mail::{Draft, Letter, Outbox, date},
    rollout::DueDate,
    secret::Token,
    users::{User, UserId},
};

/// How many links of a kind one user is sent in an hour.
const LINKS_AN_HOUR: u32 = 5;
/// The same for notices: more than anybody's changes, and less than a flood.
const NOTICES_AN_HOUR: u32 = 20;
const DAY: Duration = Duration::from_hours(24);

/// Something that a user is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// With its name.
    DeviceAdded(&'a str),
    DeviceRemoved(&'a str),
    RecoveryCodeUsed,
    RecoveryCodesReplaced,
    NewBrowser,
    PasswordChanged,
    SessionsEnded,
    /// With the new address; goes to both.
    EmailChanged {
        old: &'a str,
        new: &'a str,
    },
}

/// Where something came from.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// `None`: an operator's command.
    pub network: Option<String>,
    /// In words that are ours: what a client says of itself gets into no mail.
    pub browser: Option<String>,
}

/// Drafts what users are written.
#[derive(Clone)]
pub struct Notices {
    pub outbox: Outbox,
    pub links: Links,
    pub portal_name: String,
    /// The public origin, without a trailing slash.
    pub origin: String,
    /// Who is told when a user says "this was not me".
    pub operator: Option<String>,
}

impl Notices {
    /// A link to set a new password.
    pub fn password_link(&self, user: &User) -> Alongside {
        let (token, link) = self.links.draft(LinkPurpose::Password, &user.id);
        let letter = Letter::new(format!("Set a new password for {}", self.portal_name))
            .paragraph(format!("Somebody, probably you, has asked for a new password for {}.", self.portal_name))
            .link("Set a new password", self.url(&token))
            .paragraph("The link works once, for 15 minutes. After that, sign in with the new password and your code, as always.")
            .paragraph("If it wasn't you, ignore this message: nothing has changed.");
        self.linked("password_link", user, &letter, LinkPurpose::Password, link)
    }

    /// A link to set a first password.
    pub fn invitation(&self, user: &User) -> Alongside {
        let (token, link) = self.links.draft(LinkPurpose::Invitation, &user.id);
        let letter = Letter::new(format!("Your access to {}", self.portal_name))
            .paragraph(format!("You've been given access to {}. You sign in as {}.", self.portal_name, user.email))
            .link("Set your password", self.url(&token))
            .paragraph(
                "The link works once, for 7 days. Then sign in. You'll be shown a QR code to scan with an authenticator app, such as \
                 Microsoft Authenticator or Google Authenticator, so have your phone at hand.",
            );
        self.linked("invitation", user, &letter, LinkPurpose::Invitation, link)
    }

    /// Reminds a user without a device of the roll-out, at most once an hour. Its link signs nobody in and is no secret.
    pub fn reminder(&self, user: &User, due: Option<DueDate>) -> Alongside {
        let portal = &self.portal_name;
        let when = match due {
            Some(due) => {
                format!("From {}, you'll need a code from your phone to sign in to {portal}.", due.in_words())
            }
            None => format!("You need a code from your phone to sign in to {portal}."),
        };
        let letter = Letter::new(format!("Set up your phone for {portal}"))
            .paragraph(when)
            .paragraph(
                "Setting it up takes about a minute: have your phone at hand, sign in, and scan the QR code with an authenticator app, such as \
                 Microsoft Authenticator or Google Authenticator.",
            )
            .link("Sign in", format!("{}/.portcullis/enrol", self.origin));
        self.outbox.draft(&Draft {
            kind: "reminder",
            subject: user.id.as_str(),
            to: &user.email,
            letter: &letter,
            lasts: DAY,
            most_an_hour: 1,
        })
    }

    fn linked(
        &self,
        kind: &'static str,
        user: &User,
        letter: &Letter,
        purpose: LinkPurpose,
        link: Alongside,
    ) -> Alongside {
        if !self.outbox.is_on() {
            return Alongside::nothing();
        }
        link.and(self.outbox.draft(&Draft {
            kind,
            subject: user.id.as_str(),
            to: &user.email,
            letter,
            // A minute is left to use it.
            lasts: purpose.lasts().min(DAY).saturating_sub(Duration::from_mins(1)),
            most_an_hour: LINKS_AN_HOUR,
        }))
    }

    /// Tells a user what has happened to the account.
    pub fn of(
        &self,
        event: &Event<'_>,
        (user, email): (&UserId, &str),
        place: &Place,
        at: Timestamp,
    ) -> Alongside {
        if !self.outbox.is_on() {
            return Alongside::nothing();
        }
        match event {
            Event::EmailChanged { old, new } => {
                let to_old = self.notice(event, user, old, place, at);
                to_old.and(self.notice(event, user, new, place, at))
            }
            _ => self.notice(event, user, email, place, at),
        }
    }

    fn notice(&self, event: &Event<'_>, user: &UserId, to: &str, place: &Place, at: Timestamp) -> Alongside {
        let portal = &self.portal_name;
        let (kind, subject, text) = match event {
            Event::DeviceAdded(name) => (
                "device_added",
                format!("A new device for {portal}"),
                format!("The authenticator app “{name}” has been added to your account. Its codes now sign you in."),
            ),
            Event::DeviceRemoved(name) => (
                "device_removed",
                format!("A device was removed from {portal}"),
                format!("The authenticator app “{name}” has been removed from your account. Its codes no longer work."),
            ),
            Event::RecoveryCodeUsed => (
                "recovery_code_used",
                format!("A recovery code was used for {portal}"),
                "Somebody has signed in with your password and one of your recovery codes. That code is used up.".to_owned(),
            ),
            Event::RecoveryCodesReplaced => (
                "recovery_codes_replaced",
                format!("New recovery codes for {portal}"),
                "Your recovery codes have been replaced. The old ones no longer work.".to_owned(),
            ),
            Event::NewBrowser => (
                "new_browser",
                format!("New sign-in to {portal}"),
                "Somebody has signed in to your account in a browser that you haven't used before.".to_owned(),
            ),
            Event::PasswordChanged => (
                "password_changed",
                format!("Your password for {portal} was changed"),
                "Your password has been changed. Everybody who was signed in to your account has been signed out.".to_owned(),
            ),
            Event::SessionsEnded => (
                "sessions_ended",
                format!("You've been signed out of {portal}"),
                "An operator has signed you out. You can sign in again.".to_owned(),
            ),
            Event::EmailChanged { new, .. } => (
                "email_changed",
                format!("Your e-mail for {portal} was changed"),
                format!("You now sign in as {new}. Password and devices are as before."),
            ),
        };
        let (token, link) = self.links.draft(LinkPurpose::NotMe, user);
        let by_operator = place.network.is_none();
        let mut facts = vec![("Account", to.to_owned()), ("Time", date(at))];
        match &place.network {
            Some(network) => facts.push(("Network", network.clone())),
            None => facts.push(("By", format!("an operator of {portal}"))),
        }
        if let Some(browser) = &place.browser {
            facts.push(("Browser", browser.clone()));
        }
        let letter = Letter::new(subject).paragraph(text).facts(facts);
        let letter = if by_operator {
            letter.paragraph(format!(
                "If you didn't expect this, ask the people who run {portal}, or block your account:"
            ))
        } else {
            letter.paragraph(
                "If this was you, there is nothing to do. If it wasn't, block your account at once:",
            )
        };
        let letter = letter.link("This wasn't me", self.url(&token));
        let draft = Draft {
            kind,
            subject: user.as_str(),
            to,
            letter: &letter,
            lasts: DAY,
            most_an_hour: NOTICES_AN_HOUR,
        };
        link.and(self.outbox.draft(&draft))
    }

    /// Tells the operator that a user has frozen the account.
    pub fn frozen(&self, user: &User, place: &Place, at: Timestamp) -> Alongside {
        let Some(operator) = &self.operator else { return Alongside::nothing() };
        let network = place.network.clone().unwrap_or_default();
        let letter = Letter::new(format!("Account blocked by its user: {}", user.name.as_str()))
            .paragraph(format!(
                "The user of {} has opened “This wasn't me” in a notice from {}. The account is disabled, and its sessions have ended.",
                user.email, self.portal_name
            ))
            .facts(vec![
                ("Account", user.email.clone()),
                ("Time", date(at)),
                ("Network", network),
            ])
            .paragraph("Find out what has happened, reset what may be known to others, then enable the user again.");
        self.outbox.draft(&Draft {
            kind: "account_frozen",
            subject: user.id.as_str(),
            to: operator,
            letter: &letter,
            lasts: DAY,
            most_an_hour: NOTICES_AN_HOUR,
        })
    }

    fn url(&self, token: &Token) -> String {
        format!("{}/.portcullis/link/{}", self.origin, token.expose())
    }
}
