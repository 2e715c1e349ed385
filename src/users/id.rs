//! The id of a user, which never changes, whatever the mail address does.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::random::Random;

/// The prefix of services' names and ids, which those of users never have.
pub const SERVICE: &str = "service:";

/// 16 random bytes, stored and logged as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct UserId(String);

impl UserId {
    pub fn generate(random: &dyn Random) -> Self {
        Self(BASE64_URL_SAFE_NO_PAD.encode(random.bytes::<16>()))
    }

    /// Parses 22 characters of unpadded base64url; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        (bytes.len() == 16).then(|| Self(text.to_owned()))
    }

    /// An id that no user has: for the same work when there is no user.
    pub fn nobody() -> Option<Self> {
        Self::parse("AAAAAAAAAAAAAAAAAAAAAA")
    }

    /// In place of a user's id for a service. No user has such an id, and none is read back from a store.
    pub fn of_service(name: &str) -> Self {
        Self(format!("{SERVICE}{name}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An id for tests, by a name of at most 21 letters.
    #[cfg(test)]
    pub(crate) fn of(name: &str) -> Self {
        Self::parse(&format!("{name:A<22}")).expect("a short name")
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for UserId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not a user id")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn an_id_survives_its_text_and_nothing_else_parses() {
        let id = UserId::generate(&SeededRandom::new(1));
        assert_eq!(id.as_str().len(), 22);
        assert_eq!(UserId::parse(id.as_str()), Some(id.clone()));
        assert_eq!(serde_json::from_str::<UserId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
        for bad in ["", "x", &id.as_str()[1..], &format!("{id}A"), "../../../../etc/passwd"] {
            assert_eq!(UserId::parse(bad), None, "{bad}");
        }
    }
}
