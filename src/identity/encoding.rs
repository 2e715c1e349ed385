//! The encodings of non-ASCII text in headers. HTTP defines none (RFC 9110 §5.5), and servers expect different ones.

use std::borrow::Cow;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// The characters that are encoded, including `%` itself, so that the value can be decoded.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');
/// Bytes of text in one encoded word, which may have 75 characters in all (RFC 2047 §2).
const WORD: usize = 45;

/// An encoding of values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Unchanged.
    Utf8,
    /// Percent-encoded UTF-8: the one form that every server accepts.
    #[default]
    Percent,
    /// Encoded words, as in mail (RFC 2047).
    Rfc2047,
}

impl Encoding {
    pub(super) fn encode(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Utf8 => Cow::Borrowed(text),
            Self::Percent => utf8_percent_encode(text, ENCODED).into(),
            Self::Rfc2047 if is_plain(text) => Cow::Borrowed(text),
            Self::Rfc2047 => Cow::Owned(encoded_words(text)),
        }
    }
}

/// Whether the text cannot be mistaken for an encoded word.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) && !text.contains("=?")
}

/// Words of whole characters, since each is decoded on its own.
fn encoded_words(mut text: &str) -> String {
    let mut words = Vec::new();
    while !text.is_empty() {
        let (word, rest) = text.split_at(text.floor_char_boundary(WORD));
        words.push(format!("=?UTF-8?B?{}?=", BASE64_STANDARD.encode(word)));
        text = rest;
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 9] = [
        "",
        "Ada Lovelace",
        "Céline",
        "李小龍",
        "100 %",
        "a%20b",
        "=?UTF-8?B?QQ==?=",
        "👩‍🚀 🇺🇦",
        "Zoë \u{202e}x",
    ];

    #[test]
    fn what_is_ascii_stays_readable_and_the_rest_is_as_documented() {
        for encoding in [Encoding::Utf8, Encoding::Percent, Encoding::Rfc2047] {
            assert_eq!(encoding.encode("Ada Lovelace"), "Ada Lovelace");
        }
        assert_eq!(Encoding::Utf8.encode("Céline"), "Céline");
        assert_eq!(Encoding::Percent.encode("Céline 100%"), "C%C3%A9line 100%25");
        assert_eq!(Encoding::Rfc2047.encode("Céline"), "=?UTF-8?B?Q8OpbGluZQ==?=");
    }

    #[test]
    fn percent_and_encoded_words_are_ascii_and_can_be_read_back() {
        let long = "é李x".repeat(100);
        for name in NAMES.into_iter().chain([long.as_str()]) {
            let percent = Encoding::Percent.encode(name);
            assert!(percent.is_ascii() && !percent.contains(char::is_control), "{percent}");
            assert_eq!(percent_encoding::percent_decode_str(&percent).decode_utf8().unwrap(), name);
            let words = Encoding::Rfc2047.encode(name);
            assert!(words.is_ascii(), "{words}");
            if !is_plain(name) {
                let read = words.split(' ').map(|word| {
                    assert!(word.len() <= 75, "{word}");
                    let text = word.strip_prefix("=?UTF-8?B?").unwrap().strip_suffix("?=").unwrap();
                    String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap()
                });
                assert_eq!(read.collect::<String>(), name);
            }
        }
    }
}
