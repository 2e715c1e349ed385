//! The one form of a name under which a user is looked up, limited and logged, however it was typed.
//!
//! Says nothing about whether a user of that name exists.

use std::fmt;

use caseless::Caseless as _;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;

/// Longest canonical name in bytes, which is the longest mail address of RFC 5321.
const MAX_BYTES: usize = 254;

/// Longest name looked at as typed: compatibility forms shrink, though never this much in anything sensible.
const MAX_TYPED_BYTES: usize = 4 * MAX_BYTES;

/// An e-mail address or user name: trimmed, NFKC, case-folded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct CanonicalName(String);

impl CanonicalName {
    /// The canonical form of what somebody typed; absent when no user could be called that.
    pub fn parse(typed: &str) -> Option<Self> {
        let typed = typed.trim();
        if typed.is_empty() || typed.len() > MAX_TYPED_BYTES {
            return None;
        }
        let name: String = typed.nfkc().default_case_fold().nfkc().collect();
        let refused = |c: char| c.is_control() || c.is_whitespace();
        (!name.is_empty() && name.len() <= MAX_BYTES && !name.contains(refused)).then_some(Self(name))
    }

    /// What this very process wrote to the database earlier.
    pub(super) fn from_stored(name: String) -> Self {
        Self(name)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CanonicalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for CanonicalName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not a name")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_name_is_one_name() {
        let ada = CanonicalName::parse("ada@example.com").unwrap();
        for typed in [
            "ada@example.com",
            "ADA@EXAMPLE.COM",
            "Ada@Example.Com",
            " ada@example.com",
            "ada@example.com\t",
            "\u{a0}ada@example.com\u{3000}",
            "\r\nada@example.com\r\n",
            "ａｄａ＠ｅｘａｍｐｌｅ．ｃｏｍ",
            "ＡＤＡ@example.com",
            "𝒶𝒹𝒶@example.com",
            "𝐀𝐃𝐀@example.com",
            "ⓐⓓⓐ@example.com",
            "ada@ex\u{1d43}mple.com",
            "ada@example．com",
        ] {
            assert_eq!(CanonicalName::parse(typed), Some(ada.clone()), "{typed:?}");
        }
    }

    #[test]
    fn folding_is_full_and_composition_does_not_matter() {
        for (a, b) in [
            ("straße@example.com", "STRASSE@example.com"),
            ("zoe\u{308}@example.com", "zo\u{eb}@example.com"),
            ("ΣΊΣΥΦΟΣ@example.com", "σίσυφος@example.com"),
            ("\u{212a}ELVIN@example.com", "kelvin@example.com"),
            ("ﬁona@example.com", "FIONA@example.com"),
        ] {
            assert_eq!(CanonicalName::parse(a).unwrap(), CanonicalName::parse(b).unwrap());
        }
        assert_ne!(CanonicalName::parse("ada@example.com"), CanonicalName::parse("adä@example.com"));
    }

    #[test]
    fn the_canonical_form_of_every_character_is_stable() {
        let changes = |c: &char| {
            let folded = [*c].into_iter().nfkc().default_case_fold().nfd();
            !folded.eq([*c]) && !('\u{ac00}'..='\u{d7a3}').contains(c)
        };
        for c in ('\0'..=char::MAX).filter(changes) {
            for typed in [format!("a{c}b"), format!("{c}\u{345}"), format!("\u{3b1}{c}\u{308}")] {
                if let Some(name) = CanonicalName::parse(&typed) {
                    assert_eq!(CanonicalName::parse(name.as_str()), Some(name.clone()), "{typed:?}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        for typed in ["", " ", "a b", "a\nb", "a\0b", "a\u{7f}", "a\u{85}b", "a\u{2028}b", "a\u{a8}"] {
            assert_eq!(CanonicalName::parse(typed), None, "{typed:?}");
        }
        assert!(CanonicalName::parse(&"a".repeat(254)).is_some());
        assert_eq!(CanonicalName::parse(&"a".repeat(255)), None);
        assert_eq!(CanonicalName::parse(&"a".repeat(1_000_000)), None);
        // Expands to three times its length.
        assert_eq!(CanonicalName::parse(&"ﷺ".repeat(80)), None);
    }

    #[test]
    fn a_name_read_back_is_checked_again() {
        let name: CanonicalName = serde_json::from_str("\"Ada@Example.com\"").unwrap();
        assert_eq!(name.as_str(), "ada@example.com");
        assert!(serde_json::from_str::<CanonicalName>("\"a b\"").is_err());
    }
}
