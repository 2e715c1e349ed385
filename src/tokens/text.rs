//! The text of a token: `pcl_`, an id, a secret, and a checksum by which secret scanners recognise it.
//!
//! A [`TokenText`] holds the id and a hash; the text itself is shown once and never stored.

use crate::{
    random::Random,
    secret::{TokenHash, sha256},
};

/// The prefix of every token.
pub(super) const PREFIX: &str = "pcl_";
/// Letters and digits, in the order of their values.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Length of the id, which names a row in the store.
const ID: usize = 10;
/// Length of the secret: 256 bits.
const SECRET: usize = 43;
/// Length of the checksum: CRC-32 of everything before it.
const CHECKSUM: usize = 6;
const LENGTH: usize = PREFIX.len() + ID + SECRET + CHECKSUM;

/// A well-formed token that a request carried; nothing else is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenText {
    id: String,
    hash: TokenHash,
}

impl TokenText {
    /// The minimum length of a token in base64, at any offset.
    pub(super) const ENCODED: usize = LENGTH * 4 / 3;

    /// Generates a token. The text is only for whoever asked for it.
    pub fn generate(random: &dyn Random) -> (String, Self) {
        let mut text = String::with_capacity(LENGTH);
        text.push_str(PREFIX);
        text.extend(letters(random).take(ID + SECRET));
        let checksum = checksum(text.as_bytes());
        text.push_str(&checksum);
        let made = Self::of(&text);
        (text, made)
    }

    /// Parses a token; `None` if a single character is wrong.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        if text.len() != LENGTH || !text.starts_with(PREFIX) {
            return None;
        }
        if !text.bytes().skip(PREFIX.len()).all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        let (body, sum) = text.split_at(LENGTH - CHECKSUM);
        (checksum(body.as_bytes()) == sum).then(|| Self::of(text))
    }

    /// Whether the text begins with a whole token.
    pub(super) fn begins(text: &[u8]) -> bool {
        text.get(..LENGTH).is_some_and(|start| Self::parse(start).is_some())
    }

    fn of(text: &str) -> Self {
        let id = text.get(PREFIX.len()..PREFIX.len() + ID).unwrap_or_default().to_owned();
        Self { id, hash: TokenHash::from_bytes(sha256(text.as_bytes())) }
    }

    /// The id under which it is stored, which is not secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The hash of the whole text.
    pub fn hash(&self) -> TokenHash {
        self.hash
    }
}

/// An endless sequence of letters, all equally likely.
fn letters(random: &dyn Random) -> impl Iterator<Item = char> {
    // The largest multiple of 62 that a byte holds.
    const EVEN: u8 = 248;
    std::iter::repeat_with(|| random.bytes::<64>())
        .flatten()
        .filter(|&byte| byte < EVEN)
        .map(|byte| char::from(ALPHABET[usize::from(byte % 62)]))
}

/// CRC-32 (ISO 3309, as in zip and PNG) in base 62, the first digit first.
fn checksum(bytes: &[u8]) -> String {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    let mut rest = !crc;
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[usize::try_from(rest % 62).unwrap_or_default()];
        rest /= 62;
    }
    digits.map(char::from).iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{OsRandom, SeededRandom};

    #[test]
    fn a_token_is_read_back_and_no_change_of_one_character_is() {
        let (text, made) = TokenText::generate(&SeededRandom::new(7));
        assert_eq!(text.len(), LENGTH);
        assert_eq!(TokenText::parse(text.as_bytes()), Some(made));
        for at in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'x' { b'y' } else { b'x' };
            assert_eq!(TokenText::parse(&other), None, "{at}");
        }
        for bad in [
            "",
            "pcl_",
            &text[..LENGTH - 1],
            &format!("{text}0"),
            &format!(" {text}"),
            &text.to_uppercase(),
            &text.replace("pcl_", "ghp_"),
            &"é".repeat(LENGTH / 2),
        ] {
            assert_eq!(TokenText::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(TokenText::parse(&[0xff; LENGTH]), None);
    }

    #[test]
    fn the_checksum_is_the_one_that_everybody_knows() {
        // The check value of CRC-32: 0xcbf43926.
        let expected = 0xcbf4_3926_u32;
        let value = checksum(b"123456789").bytes().fold(0_u64, |value, digit| {
            value * 62 + ALPHABET.iter().position(|&known| known == digit).unwrap() as u64
        });
        assert_eq!(value, u64::from(expected));
    }

    #[test]
    fn each_letter_is_as_likely_as_any_other() {
        let mut counts = [0_u32; 62];
        for letter in letters(&OsRandom).take(62_000) {
            counts[ALPHABET.iter().position(|&known| char::from(known) == letter).unwrap()] += 1;
        }
        assert!(counts.iter().all(|&count| (800..1200).contains(&count)), "{counts:?}");
    }

    #[test]
    fn no_debug_output_shows_it() {
        let (text, made) = TokenText::generate(&SeededRandom::new(8));
        assert!(!format!("{made:?}").contains(&text[PREFIX.len() + ID..]));
    }
}
