//! A session: its user, the proofs, when and where it began.
//!
//! Knows no cookie and no store; does not say whether the session is still valid.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{clock::Timestamp, secret::TokenHash, users::UserId};

/// A proof given at login. The names are stored, so they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    #[serde(rename = "pwd")]
    Password,
    #[serde(rename = "otp")]
    Totp,
    #[serde(rename = "rec")]
    Recovery,
    /// A certificate, with the key of which the client has signed: in place of a password, or a machine's.
    #[serde(rename = "swk")]
    Certificate,
    /// A token of a machine. No session has it.
    #[serde(rename = "token")]
    Token,
}

impl Method {
    /// The value in an `amr` claim (RFC 8176). It defines none for recovery codes, so that value is ours.
    pub const fn amr(self) -> &'static str {
        match self {
            Self::Password => "pwd",
            Self::Totp => "otp",
            Self::Recovery => "rec",
            // That a key is kept in hardware is not known here.
            Self::Certificate => "swk",
            Self::Token => "token",
        }
    }
}

/// The number of factors that a session has proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    One,
    Two,
}

/// Where a login came from, shown to the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub client_ip: IpAddr,
    /// The `User-Agent`: at most 200 characters, without control characters.
    pub user_agent: String,
}

impl Origin {
    pub fn new(client_ip: IpAddr, user_agent: &str) -> Self {
        let user_agent = user_agent.chars().filter(|character| !character.is_control()).take(200).collect();
        Self { client_ip, user_agent }
    }
}

/// The current properties of a user, whatever they were at login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The canonical name.
    pub name: String,
    pub email: String,
    pub display_name: String,
    pub groups: Vec<String>,
    /// When a first factor of theirs was first accepted, if that is known.
    pub first_login_at: Option<Timestamp>,
    /// Whether the user has a device, so that a password alone does not suffice.
    pub has_device: bool,
}

impl Profile {
    /// Whether the user may be in with this level.
    pub(super) fn admits(&self, level: Level) -> bool {
        level == Level::Two || !self.has_device
    }
}

/// A session that has not ended.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The key under which it is stored; not repeated in the record.
    #[serde(skip, default = "nameless")]
    pub id: TokenHash,
    pub user: UserId,
    /// The canonical name.
    pub name: String,
    pub email: String,
    pub display_name: String,
    pub groups: Vec<String>,
    /// In the order in which they were given.
    pub amr: Vec<Method>,
    /// When the first factor was given. A later proof makes no session younger.
    pub created_at: Timestamp,
    /// The end, however busy the session is.
    pub expires_at: Timestamp,
    pub origin: Origin,
    /// Form tokens are derived from it.
    pub csrf: [u8; 16],
    /// The user asked to be kept signed in. Missing in records from before users could ask.
    #[serde(default)]
    pub remembered: bool,
    /// When the last proof was given; `None`: with the first factor.
    #[serde(default)]
    pub proved_at: Option<Timestamp>,
}

const fn nameless() -> TokenHash {
    TokenHash::from_bytes([0; 32])
}

impl Level {
    /// Two factors are a first one and a code; two of a kind are not.
    pub fn of(amr: &[Method]) -> Self {
        let has = |method| amr.contains(&method);
        if (has(Method::Password) || has(Method::Certificate)) && (has(Method::Totp) || has(Method::Recovery))
        {
            Self::Two
        } else {
            Self::One
        }
    }
}

impl Session {
    pub fn level(&self) -> Level {
        Level::of(&self.amr)
    }

    /// When the user gave the last proof: password, code or recovery code.
    pub fn proved_at(&self) -> Timestamp {
        self.proved_at.unwrap_or(self.created_at)
    }

    pub(super) fn adopt(&mut self, profile: Profile) {
        let Profile { name, email, display_name, groups, first_login_at: _, has_device: _ } = profile;
        (self.name, self.email, self.display_name, self.groups) = (name, email, display_name, groups);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("user", &self.user)
            .field("amr", &self.amr)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// An entry in a list of sessions.
#[derive(Clone, Debug)]
pub struct SessionSummary {
    pub id: TokenHash,
    pub user: UserId,
    /// The canonical name at login.
    pub name: String,
    pub amr: Vec<Method>,
    pub created_at: Timestamp,
    /// As in the store, which lags by some seconds.
    pub last_seen: Timestamp,
    pub expires_at: Timestamp,
    pub origin: Origin,
    /// The user asked to be kept signed in.
    pub remembered: bool,
}

impl SessionSummary {
    pub fn level(&self) -> Level {
        Level::of(&self.amr)
    }
}

/// A session for tests to start from.
#[cfg(test)]
pub(super) fn nobody() -> Session {
    Session {
        id: nameless(),
        user: UserId::of("u1"),
        name: "ada@example.com".into(),
        email: "Ada@example.com".into(),
        display_name: "Ada".into(),
        groups: vec![],
        amr: vec![],
        created_at: Timestamp::from_unix_seconds(1),
        expires_at: Timestamp::from_unix_seconds(2),
        origin: Origin::new([127, 0, 0, 1].into(), "curl"),
        csrf: [0xc5; 16],
        remembered: false,
        proved_at: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(amr: &[Method]) -> Session {
        Session { amr: amr.to_vec(), ..nobody() }
    }

    #[test]
    fn two_factors_take_a_password_and_something_else() {
        use Method::{Certificate, Password, Recovery, Token, Totp};
        for (amr, level) in [
            (&[][..], Level::One),
            (&[Password], Level::One),
            (&[Totp], Level::One),
            (&[Totp, Recovery], Level::One),
            (&[Password, Password], Level::One),
            (&[Password, Totp], Level::Two),
            (&[Recovery, Password], Level::Two),
            (&[Certificate], Level::One),
            (&[Password, Certificate], Level::One),
            (&[Certificate, Totp], Level::Two),
            (&[Recovery, Certificate], Level::Two),
            (&[Token, Totp], Level::One),
        ] {
            assert_eq!(session(amr).level(), level, "{amr:?}");
        }
    }

    #[test]
    fn stored_names_of_methods_are_those_of_the_claim() {
        for method in [Method::Password, Method::Totp, Method::Recovery, Method::Certificate] {
            assert_eq!(serde_json::to_string(&method).unwrap(), format!("\"{}\"", method.amr()));
        }
    }

    #[test]
    fn an_origin_is_short_and_fit_to_print() {
        let origin = Origin::new([127, 0, 0, 1].into(), &format!("\x1b[31m\r\n{}", "ü".repeat(300)));
        assert_eq!(origin.user_agent.chars().count(), 200);
        assert!(origin.user_agent.starts_with("[31mü"));
    }

    #[test]
    fn debug_output_hides_what_forms_are_signed_with() {
        let text = format!("{:?}", session(&[Method::Password]));
        assert!(text.contains("u1") && !text.contains("197"), "{text}");
    }
}
