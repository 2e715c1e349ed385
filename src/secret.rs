//! Bearer tokens and their hashes: browsers have the tokens, stores only the hashes.
//!
//! Passwords and other secret texts use `secrecy::SecretString`; this module is about our own random ids.

use std::fmt;

use aws_lc_rs::{constant_time, digest};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::random::Random;

/// 256 random bits that a browser proves something with. Stores only have its [`TokenHash`].
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Token([u8; 32]);

impl Token {
    pub fn generate(random: &dyn Random) -> Self {
        Self(random.bytes())
    }

    /// A token from other bytes than a generator's.
    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses 43 characters of unpadded base64url; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 43 {
            return None;
        }
        let mut bytes = [0; 32];
        match BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(32) => Some(Self(bytes)),
            _ => None,
        }
    }

    /// The text for a cookie.
    pub fn expose(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0)
    }

    pub fn hash(&self) -> TokenHash {
        TokenHash(sha256(&self.0))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// SHA-256 of a [`Token`]: the key under which a store keeps what the token stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// All 64 hexadecimal digits.
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }

    /// Parses the output of [`Self::to_hex`].
    pub fn from_hex(digits: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        unhex(digits, &mut bytes)?;
        Some(Self(bytes))
    }

    /// The first 16 hexadecimal digits: names a session in logs and on the command line, and grants nothing.
    pub fn short(self) -> String {
        hex(&self.0[..8])
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({}…)", self.short())
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Parses two hexadecimal digits, in either case, into each of `bytes`. `None` if `digits` is anything else.
pub fn unhex(digits: &str, bytes: &mut [u8]) -> Option<()> {
    if digits.len() != 2 * bytes.len() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(())
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Compares in constant time.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{OsRandom, SeededRandom};

    #[test]
    fn a_token_survives_its_cookie_and_nothing_else_parses() {
        let token = Token::generate(&SeededRandom::new(1));
        let text = token.expose();
        assert_eq!(Token::parse(&text), Some(token));
        for bad in
            ["", "x", &text[1..], &format!("{text}A"), &format!("{text}="), &text.replace(&text[..1], "+")]
        {
            assert_eq!(Token::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_of_the_256_bits_is_left_to_chance() {
        let tokens: Vec<Token> = (0..100).map(|_| Token::generate(&OsRandom)).collect();
        for bit in 0..256 {
            let set = tokens.iter().filter(|token| token.0[bit / 8] >> (bit % 8) & 1 == 1).count();
            assert!((1..100).contains(&set), "bit {bit} is set in {set} of 100");
        }
    }

    #[test]
    fn debug_output_hides_the_token() {
        let token = Token::generate(&SeededRandom::new(2));
        assert!(!format!("{token:?}").contains(&token.expose()));
        assert_eq!(token.hash().to_hex().len(), 64);
    }

    #[test]
    fn only_64_hexadecimal_digits_are_an_id() {
        let id = TokenHash::from_bytes([0xa7; 32]);
        assert_eq!(TokenHash::from_hex(&id.to_hex()), Some(id));
        for text in ["", "a7", &"+1".repeat(32), &"é".repeat(32), &id.to_hex()[1..]] {
            assert_eq!(TokenHash::from_hex(text), None, "{text}");
        }
    }
}
