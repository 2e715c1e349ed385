//! Who a request is from, and how the portal is told: in plain headers, and in an assertion that it can verify.

mod assertion;
mod headers;
mod key_store;
mod rotation;
mod signing_key;
mod signing_keys;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::{
    assertion::{Assertions, Unsigned},
    headers::{IdentityHeaders, Unrepresentable},
    rotation::{HANDOVER, NOTICE, State, Term},
    signing_keys::{ListedKey, PublicKeys, Rotation, SigningKeys, SigningKeysError},
};

/// How the portal wants to be told who the user is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Names of the headers that carry the identity.
    pub headers: HeaderNames,
    /// Absent: nothing is signed.
    pub assertion: Option<AssertionConfig>,
}

/// The header of each fact; the defaults are what Authelia's users know.
#[derive(Clone, Debug)]
pub struct HeaderNames {
    pub user: String,
    pub email: String,
    pub name: String,
    pub groups: String,
}

impl Default for HeaderNames {
    fn default() -> Self {
        Self {
            user: "Remote-User".into(),
            email: "Remote-Email".into(),
            name: "Remote-Name".into(),
            groups: "Remote-Groups".into(),
        }
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
