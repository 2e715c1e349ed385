//! Who a request is from, and how the portal is told: in plain headers, and in an assertion that it can verify.

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

/// How the portal wants to be told who the user is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Names of the headers that carry the identity.
    pub headers: HeaderNames,
    /// How they say what is not ASCII.
    pub encoding: Encoding,
    /// Which of a user's groups the portal hears of.
    pub groups: GroupChoice,
    /// What a client may send although some portals believe it.
    pub pass_headers: Vec<HeaderName>,
    /// Absent: nothing is signed.
    pub assertion: Option<AssertionConfig>,
}

/// The header of each fact; absent: the fact is not sent.
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

/// What the signed assertion says of itself, and how long its keys serve.
#[derive(Clone, Debug)]
pub struct AssertionConfig {
    /// The `iss` claim: the public origin.
    pub issuer: String,
    /// The `aud` claim: whom it is for.
    pub audience: String,
    /// From making an assertion to its end, in whole seconds; at most five minutes.
    pub lifetime: Duration,
    /// For how long one key signs.
    pub rotation: Duration,
}
