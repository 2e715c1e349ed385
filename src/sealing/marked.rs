//! Tokens that prove that we made them: one half is random, the other is a MAC.
//!
//! A script of the portal can set a cookie, but a valid one only if we gave it to some browser; and a made-up token costs no
//! look-up in a store.

use std::sync::Arc;

use aws_lc_rs::hmac;

use super::Sealer;
use crate::{
    random::Random,
    secret::{Token, constant_time_eq},
};

const HALF: usize = 16;

/// Makes and verifies the tokens of one purpose; clones share the key.
#[derive(Clone, Debug)]
pub struct MarkedTokens(Arc<hmac::Key>);

impl MarkedTokens {
    pub fn new(sealer: &Sealer, purpose: &str) -> Self {
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, sealer.derive(purpose).as_slice())))
    }

    pub fn generate(&self, random: &dyn Random) -> Token {
        let chance = random.bytes::<HALF>();
        let mut bytes = [0; 2 * HALF];
        bytes[..HALF].copy_from_slice(&chance);
        bytes[HALF..].copy_from_slice(&self.mark(&chance));
        Token::from_bytes(bytes)
    }

    /// Whether we made this token.
    pub fn made(&self, token: &Token) -> bool {
        let (chance, mark) = token.as_bytes().split_at(HALF);
        constant_time_eq(&self.mark(chance), mark)
    }

    fn mark(&self, chance: &[u8]) -> [u8; HALF] {
        let mut mark = [0; HALF];
        mark.copy_from_slice(&hmac::sign(&self.0, chance).as_ref()[..HALF]);
        mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsRandom;

    #[test]
    fn only_a_token_that_we_made_for_the_purpose_counts() {
        let ours = MarkedTokens::new(&Sealer::from_key(&[1; 32]), "a");
        let token = ours.generate(&OsRandom);
        assert!(ours.made(&token));
        for (key, purpose) in [([2; 32], "a"), ([1; 32], "b")] {
            assert!(!MarkedTokens::new(&Sealer::from_key(&key), purpose).made(&token));
        }
        for place in 0..2 * HALF {
            let mut bytes = *token.as_bytes();
            bytes[place] ^= 1;
            assert!(!ours.made(&Token::from_bytes(bytes)), "{place}");
        }
        assert!(!ours.made(&Token::from_bytes([0; 32])));
        assert!(!ours.made(&Token::generate(&OsRandom)));
    }
}
