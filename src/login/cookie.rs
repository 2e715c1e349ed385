//! The cookie of a login: half of it is chance, half says that we made it.
//!
//! A script of the portal can plant a cookie of this name, but none that counts unless a browser was given it by us.

use aws_lc_rs::hmac;

use crate::{
    random::Random,
    sealing::Sealer,
    secret::{Token, constant_time_eq},
};

const HALF: usize = 16;

/// Makes the tokens of logins, and knows them again.
#[derive(Clone, Debug)]
pub struct LoginCookies(hmac::Key);

impl LoginCookies {
    pub(super) fn new(sealer: &Sealer) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, sealer.derive("login cookies").as_slice()))
    }

    pub fn generate(&self, random: &dyn Random) -> Token {
        let chance = random.bytes::<HALF>();
        let mut bytes = [0; 2 * HALF];
        bytes[..HALF].copy_from_slice(&chance);
        bytes[HALF..].copy_from_slice(&self.mark(&chance));
        Token::from_bytes(bytes)
    }

    /// Whether a token is one of ours.
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
    fn only_a_cookie_that_we_made_counts() {
        let ours = LoginCookies::new(&Sealer::from_key(&[1; 32]));
        let token = ours.generate(&OsRandom);
        assert!(ours.made(&token));
        assert!(!LoginCookies::new(&Sealer::from_key(&[2; 32])).made(&token));
        for place in 0..2 * HALF {
            let mut bytes = *token.as_bytes();
            bytes[place] ^= 1;
            assert!(!ours.made(&Token::from_bytes(bytes)), "{place}");
        }
        assert!(!ours.made(&Token::from_bytes([0; 32])));
        assert!(!ours.made(&Token::generate(&OsRandom)));
    }
}
