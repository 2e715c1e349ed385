//! The canonical form of a name, under which a user is looked up, limited and logged, however it was typed.
//!
//! Does not say whether a user with that name exists.

use std::fmt;

use caseless::Caseless as _;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;

/// Maximum length of a canonical name in bytes: the longest mail address of RFC 5321.
const MAX_BYTES: usize = 254;

/// Maximum length of a typed name: compatibility forms shrink, but never this much in a real name.
const MAX_TYPED_BYTES: usize = 4 * MAX_BYTES;

/// An e-mail address or user name: without invisible characters, trimmed, NFKC, case-folded, its domain as in DNS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct CanonicalName(String);

impl CanonicalName {
    /// The canonical form of a typed name; `None` if no user could have it.
    pub fn parse(typed: &str) -> Option<Self> {
        if typed.len() > MAX_TYPED_BYTES {
            return None;
        }
        let seen: String = typed.chars().filter(|&c| !is_invisible(c)).nfkc().collect();
        let seen = seen.trim();
        let name = match seen.rsplit_once('@') {
            Some((local, domain)) => format!("{}@{}", folded(local), in_dns(domain)),
            None => folded(seen),
        };
        let refused = |c: char| c.is_control() || c.is_whitespace();
        (!name.is_empty() && name.len() <= MAX_BYTES && !name.contains(refused)).then_some(Self(name))
    }

    /// A name that this program wrote to the database earlier.
    pub(super) fn from_stored(name: String) -> Self {
        Self(name)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a character is invisible, so that two names which differ in it look the same: Unicode's default ignorable
/// code points, which a copied address may contain, and annotations.
pub fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

fn folded(text: &str) -> String {
    text.chars().default_case_fold().nfkc().collect()
}

/// A domain in its ASCII form in DNS (UTS 46), so that an international domain and its `xn--…` are the same. Anything
/// else is case-folded.
fn in_dns(domain: &str) -> String {
    let folded = folded(domain);
    if folded.is_ascii() && domain.is_ascii() && !folded.contains("xn--") {
        return folded;
    }
    // The ASCII form can encode invisible characters as well.
    let (decoded, _) = idna::domain_to_unicode(domain);
    let decoded: String = decoded.chars().filter(|&c| !is_invisible(c)).collect();
    idna::domain_to_ascii(&decoded).unwrap_or(folded)
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
            "ada@example。com",
            "ada@example.com\u{200b}",
            "\u{feff}ada@example.com",
            " \u{200b}ada@example.com \u{feff}",
            "a\u{ad}da@exam\u{200d}ple.com",
            "\u{202a}ada@example.com\u{202c}",
            "ada\u{fe0f}@example.com",
            "\u{2067}ada\u{2069}@example.com",
            "ada\u{3164}@example.com",
            "ada@\u{e0041}example.com",
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
    fn an_international_domain_is_one_however_it_is_written() {
        for (a, b) in [
            ("ada@b\u{fc}cher.example", "ada@xn--bcher-kva.example"),
            ("ada@BU\u{308}CHER.example", "ADA@XN--BCHER-KVA.EXAMPLE"),
            ("ada@例え.テスト", "ada@xn--r8jz45g.xn--zckzah"),
            ("ada@例え。テスト", "ada@例え．テスト"),
            ("ada@stra\u{df}e.example", "ada@xn--strae-oqa.example"),
            ("ada@\u{200b}b\u{fc}cher.example", "ada@bu\u{308}cher.example"),
            ("ada@نامه\u{200c}ای.example", "ada@نامهای.example"),
            ("ada@xn--mgba3gch31f060k.example", "ada@نامه‌ای.example"),
        ] {
            assert_eq!(CanonicalName::parse(a).unwrap(), CanonicalName::parse(b).unwrap(), "{a} {b}");
        }
        // Two domains with two owners.
        assert_ne!(
            CanonicalName::parse("ada@stra\u{df}e.example"),
            CanonicalName::parse("ada@strasse.example")
        );
        // A domain that DNS cannot have is still a name.
        for odd in ["ada@xn--a", "ada@xn--\u{fc}", "ada@-.\u{fc}", "ada@[::1]", "ada@", "@"] {
            let name = CanonicalName::parse(odd).unwrap();
            assert_eq!(CanonicalName::parse(name.as_str()), Some(name), "{odd}");
        }
    }

    #[test]
    fn the_canonical_form_of_every_character_is_stable() {
        let changes = |c: &char| {
            let folded = [*c].into_iter().nfkc().default_case_fold().nfd();
            !folded.eq([*c]) && !('\u{ac00}'..='\u{d7a3}').contains(c)
        };
        for c in ('\0'..=char::MAX).filter(changes) {
            let shapes = ["a{}b", "{}\u{345}", "\u{3b1}{}\u{308}", "a@b{}.example", "a@\u{fc}{}", "{}@{}"];
            for typed in shapes.map(|shape| shape.replace("{}", &c.to_string())) {
                if let Some(name) = CanonicalName::parse(&typed) {
                    assert!(!name.as_str().contains(is_invisible), "{typed:?}");
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
