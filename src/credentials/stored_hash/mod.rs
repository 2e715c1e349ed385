//! A password hash as stored: argon2id made here, or one of another system with costs that this gateway accepts.
//!
//! Hashes in memory that it is given; [`super::hashing`] decides on which thread.

mod argon;
mod foreign;

use std::fmt;

pub(super) use self::argon::Scratch;
use self::{argon::Argon, foreign::Foreign};
use crate::random::Random;

/// Why a text is not a hash that passwords can be checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashRefusal {
    #[error("this is not a password hash of a form that is known here")]
    Unknown,
    #[error("this hash of {0} is cut off or malformed")]
    Malformed(&'static str),
    #[error(
        "this hash of {0} costs too much, more than a second or 256 MiB: whoever stores one could stop logins with it"
    )]
    Costs(&'static str),
    #[error("{0} is too weak to be kept: give this user a new password")]
    Weak(&'static str),
    #[error("{0} is not supported: give this user a new password")]
    Unsupported(&'static str),
}

/// A checked hash.
#[derive(Clone)]
pub struct StoredHash(Kind);

#[derive(Clone)]
enum Kind {
    Argon(Argon),
    Foreign(Box<Foreign>),
}

impl StoredHash {
    /// Parses the text of a hash: argon2, bcrypt, PBKDF2, scrypt, SHA-crypt, yescrypt or salted SHA, as PHC string, as crypt(3)
    /// writes it, or in the forms of passlib, Django and LDAP.
    pub fn parse(text: &str) -> Result<Self, HashRefusal> {
        let text = text.trim();
        let text = text.strip_prefix("{CRYPT}").or_else(|| text.strip_prefix("{crypt}")).unwrap_or(text);
        // Django's, before the text of the scheme itself.
        let bare = ["argon2", "bcrypt$"].iter().find_map(|name| text.strip_prefix(name));
        let text = bare.filter(|rest| rest.starts_with('$')).unwrap_or(text);
        if text.starts_with("$argon2") {
            return Argon::parse(text).map(|argon| Self(Kind::Argon(argon)));
        }
        Foreign::parse(text).map(|foreign| Self(Kind::Foreign(Box::new(foreign))))
    }

    /// Hashes `password` at the current costs.
    pub(super) fn compute(
        password: &[u8],
        salt: [u8; 16],
        scratch: &mut Scratch,
    ) -> Result<Self, argon2::Error> {
        Argon::compute(password, salt, scratch).map(|argon| Self(Kind::Argon(argon)))
    }

    /// A hash that takes as long to check as a real one, and that no password matches.
    pub(super) fn dummy(random: &dyn Random) -> Self {
        Self(Kind::Argon(Argon::dummy(random)))
    }

    /// Whether this is the hash of `password`.
    pub(super) fn matches(&self, password: &[u8], scratch: &mut Scratch) -> Result<bool, argon2::Error> {
        match &self.0 {
            Kind::Argon(argon) => argon.matches(password, scratch),
            Kind::Foreign(foreign) => Ok(foreign.matches(password)),
        }
    }

    /// Whether a new hash would be harder to guess from.
    pub fn is_weaker_than_today(&self) -> bool {
        match &self.0 {
            Kind::Argon(argon) => argon.is_weaker_than_today(),
            Kind::Foreign(_) => true,
        }
    }

    /// Whether another system has made it. Not told of argon2: there it makes no difference.
    pub(super) fn is_foreign(&self) -> bool {
        matches!(self.0, Kind::Foreign(_))
    }

    /// The name of the scheme, for people.
    pub fn scheme(&self) -> &'static str {
        match &self.0 {
            Kind::Argon(argon) => argon.name(),
            Kind::Foreign(foreign) => foreign.name(),
        }
    }

    /// The text that [`Self::parse`] reads.
    pub fn to_text(&self) -> String {
        match &self.0 {
            Kind::Argon(argon) => argon.to_phc(),
            Kind::Foreign(foreign) => foreign.text().to_owned(),
        }
    }
}

impl fmt::Debug for StoredHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredHash(…)")
    }
}
