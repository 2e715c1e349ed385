//! The token of a session, or of the browser that saved its forms, as the cookies of one site have it.
//!
//! One session is used at several sites, and each has a cookie of its own: what a browser, a log or a thief has of one site
//! opens no other. Nothing is stored for that. At the first site it is the token itself; at each other a permutation of it,
//! with a key of that site's.

use std::sync::Arc;

use aws_lc_rs::hmac;

use crate::secret::Token;

const HALF: usize = 16;
/// Four make a permutation strong, that nobody tells from a random one in either direction (Luby and Rackoff).
const ROUNDS: [u8; 4] = [0, 1, 2, 3];

/// Turns tokens into those of one site and back.
#[derive(Clone, Debug, Default)]
pub struct SiteTokens(Option<Arc<hmac::Key>>);

impl SiteTokens {
    /// Of the first site, or the only one.
    pub const fn of_first() -> Self {
        Self(None)
    }

    /// Of the site of this origin, by a key that all gateways have.
    pub fn new(key: &[u8], origin: &str) -> Self {
        let of_site = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), origin.as_bytes());
        Self(Some(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, of_site.as_ref()))))
    }

    /// What the browser gets at this site.
    pub fn given(&self, token: &Token) -> Token {
        let Some(key) = &self.0 else { return token.clone() };
        let (left, right) = halves(token);
        let (left, right) =
            ROUNDS.iter().fold((left, right), |(left, right), round| (right, mix(key, *round, &right, left)));
        joined(left, right)
    }

    /// The token of which the browser has shown this.
    pub fn taken(&self, given: &Token) -> Token {
        let Some(key) = &self.0 else { return given.clone() };
        let (left, right) = halves(given);
        let (left, right) = ROUNDS
            .iter()
            .rev()
            .fold((left, right), |(left, right), round| (mix(key, *round, &left, right), left));
        joined(left, right)
    }
}

fn halves(token: &Token) -> ([u8; HALF], [u8; HALF]) {
    let (mut left, mut right) = ([0; HALF], [0; HALF]);
    left.copy_from_slice(&token.as_bytes()[..HALF]);
    right.copy_from_slice(&token.as_bytes()[HALF..]);
    (left, right)
}

fn joined(left: [u8; HALF], right: [u8; HALF]) -> Token {
    let mut bytes = [0; 2 * HALF];
    bytes[..HALF].copy_from_slice(&left);
    bytes[HALF..].copy_from_slice(&right);
    Token::from_bytes(bytes)
}

fn mix(key: &hmac::Key, round: u8, from: &[u8; HALF], mut into: [u8; HALF]) -> [u8; HALF] {
    let mut context = hmac::Context::with_key(key);
    context.update(&[round]);
    context.update(from);
    for (byte, mask) in into.iter_mut().zip(context.sign().as_ref()) {
        *byte ^= mask;
    }
    into
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn a_token_comes_back_at_its_site_and_is_none_elsewhere() {
        let random = SeededRandom::new(1);
        let [a, b] = ["https://a.example", "https://b.example"].map(|site| SiteTokens::new(&[7; 32], site));
        let other_key = SiteTokens::new(&[8; 32], "https://a.example");
        for _ in 0..100 {
            let token = Token::generate(&random);
            let (at_a, at_b) = (a.given(&token), b.given(&token));
            assert_eq!((a.taken(&at_a), b.taken(&at_b)), (token.clone(), token.clone()));
            let others = [
                at_a.clone(),
                at_b.clone(),
                b.taken(&at_a),
                a.taken(&at_b),
                a.taken(&token),
                other_key.taken(&at_a),
            ];
            for other in others {
                assert!(other != token);
            }
            assert!(at_a != at_b);
            assert_eq!(SiteTokens::of_first().taken(&token), token);
        }
    }

    #[test]
    fn a_changed_bit_changes_all() {
        let site = SiteTokens::new(&[7; 32], "https://a.example");
        let token = Token::from_bytes([3; 32]);
        for place in 0..32 {
            let mut bytes = *site.given(&token).as_bytes();
            bytes[place] ^= 1;
            let read = site.taken(&Token::from_bytes(bytes));
            let same = read.as_bytes().iter().zip(token.as_bytes()).filter(|(a, b)| a == b).count();
            assert!(same < 8, "{place}: {same} bytes are the same");
        }
    }
}
