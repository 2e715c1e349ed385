//! The identity of a request, and how the portal is told: in plain headers, and in an assertion that it can verify.

mod assertion;
mod encoding;
mod groups;
mod headers;
mod key_store;
mod reserved;
mod rotation;
mod signing_key;
mod signing_keys;
#[cfg(test)]
mod tests;
mod wire_forms;

use std::time::Duration;

use http::HeaderName;

use crate::http1::spelling::Spelled;

pub use self::{
    assertion::{Assertions, Unsigned},
    encoding::Encoding,
    groups::{GroupChoice, GroupPattern},
    headers::{IdentityHeaders, Unrepresentable},
    rotation::{HANDOVER, NOTICE, State, Term},
    signing_keys::{ListedKey, PublicKeys, Rotation, SigningKeys, SigningKeysError},
    wire_forms::SiteSlot,
};

/// How the portal is told who the user is.
#[derive(Clone, Debug)]
pub struct Config {
    /// The names of the identity headers.
    pub headers: HeaderNames,
    /// The encoding of non-ASCII text in them.
    pub encoding: Encoding,
    /// The groups that the portal is told.
    pub groups: GroupChoice,
    /// Headers that clients may send although some portals trust them.
    pub pass_headers: Vec<HeaderName>,
    /// `None`: no assertions.
    pub assertion: Option<AssertionConfig>,
}

/// The header of each value; `None`: the value is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderNames {
    pub user: Option<Spelled>,
    pub email: Option<Spelled>,
    pub name: Option<Spelled>,
    pub groups: Option<Spelled>,
}

impl HeaderNames {
    /// In the order of the fields.
    pub fn all(&self) -> [Option<&HeaderName>; 4] {
        [&self.user, &self.email, &self.name, &self.groups]
            .map(|spelled| spelled.as_ref().map(|spelled| &spelled.name))
    }
}

/// The claims of the signed assertion, and the rotation of its keys.
#[derive(Clone, Debug)]
pub struct AssertionConfig {
    /// The `iss` claim: the public origin.
    pub issuer: String,
    /// The `aud` claim.
    pub audience: String,
    /// The lifetime of an assertion, in whole seconds; at most five minutes.
    pub lifetime: Duration,
    /// How long one key signs.
    pub rotation: Duration,
}
