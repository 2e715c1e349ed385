//! One saved form: its id, and its encoding before it is sealed.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::random::Random;

/// The id of a saved form, used in an address. It gives no access by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormId(String);

impl FormId {
    /// Length of its text.
    pub const LENGTH: usize = 22;

    pub(super) fn generate(random: &dyn Random) -> Self {
        Self(BASE64_URL_SAFE_NO_PAD.encode(random.bytes::<16>()))
    }

    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == Self::LENGTH
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        fits.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The parts of a form that are sent to the portal later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedForm {
    pub head: SavedHead,
    pub body: Bytes,
}

/// Everything but the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedHead {
    /// Path and query, as the browser sent them.
    pub target: String,
    pub content_type: String,
    pub referer: Option<String>,
}

impl SavedForm {
    /// The head's length, the head as JSON, the body.
    pub(super) fn encode(&self) -> Vec<u8> {
        // Three texts have a JSON form.
        let head = serde_json::to_vec(&self.head).unwrap_or_default();
        let length = u32::try_from(head.len()).unwrap_or(0).to_be_bytes();
        [&length, head.as_slice(), &self.body].concat()
    }

    pub(super) fn decode(plain: &[u8]) -> Option<Self> {
        let (length, rest) = plain.split_first_chunk::<4>()?;
        let (head, body) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        Some(Self { head: serde_json::from_slice(head).ok()?, body: Bytes::copy_from_slice(body) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_comes_back_byte_for_byte() {
        for body in [&b""[..], b"a=1&b=%F0", b"\0\xff{}\r\n"] {
            let head = SavedHead {
                target: "/sims?q=\u{fc}".into(),
                content_type: "multipart/form-data; boundary=x".into(),
                referer: None,
            };
            let form = SavedForm { head, body: Bytes::copy_from_slice(body) };
            assert_eq!(SavedForm::decode(&form.encode()), Some(form.clone()));
            assert_eq!(SavedForm::decode(&form.encode()[..6]), None);
        }
        assert_eq!(SavedForm::decode(b""), None);
    }

    #[test]
    fn only_a_name_of_ours_is_one() {
        assert!(FormId::parse("AbCdEfGhIjKlMnOpQrSt-_").is_some());
        for text in ["", "AbCdEfGhIjKlMnOpQrSt-", "AbCdEfGhIjKlMnOpQrSt-_x", "AbCdEfGhIjKlMnOpQrSt/."] {
            assert_eq!(FormId::parse(text), None, "{text}");
        }
    }
}
