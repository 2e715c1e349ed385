//! CSRF tokens, which tie a form to the browser it was shown in.
//!
//! A token contains a digest of the browser's cookie and the time, under a MAC. It proves two separate things: that we
//! made it recently, and that it was made for this browser state.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::{
    clock::{Clock, Timestamp},
    login::Pending,
    sealing::Sealer,
    secret::TokenHash,
    users::UserId,
};

/// How long a form stays valid. Longer than a login, so that the login expires first.
const LIFETIME: Duration = Duration::from_hours(12);
const BINDING: usize = 16;
const TIME: usize = 8;
const MAC: usize = 32;

/// What a token proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CsrfVerdict {
    /// It was made for this browser state.
    Bound,
    /// It is ours and recent, but for another browser state: another tab has changed it since.
    Elsewhere,
    Invalid,
}

/// What a token proves for a step of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepVerdict {
    /// It was made for a login of this user in this browser.
    Bound,
    /// It is ours and recent, but for another login of the same user.
    SameUser,
    /// It is ours and recent, but for another user, or for no step.
    OtherUser,
    Invalid,
}

/// Makes and checks tokens.
#[derive(Clone, Debug)]
pub(super) struct Csrf {
    key: hmac::Key,
    clock: Arc<dyn Clock>,
}

impl Csrf {
    pub(super) fn new(sealer: &Sealer, clock: Arc<dyn Clock>) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, sealer.derive("form tokens").as_slice()), clock }
    }

    /// A token for the browser whose cookie has this hash.
    pub(super) fn token(&self, holder: &TokenHash) -> String {
        self.token_for(self.binding(holder))
    }

    /// A token for a step of a login. It names the user as well, since another login may have begun in the same
    /// browser.
    pub(super) fn step_token(&self, pending: &Pending) -> String {
        self.token_for(self.step(pending.user(), &pending.browser))
    }

    fn token_for(&self, binding: [u8; BINDING]) -> String {
        let mut bytes = Vec::with_capacity(BINDING + TIME + MAC);
        bytes.extend_from_slice(&binding);
        bytes.extend_from_slice(&self.clock.now().unix_millis().to_be_bytes());
        let mac = hmac::sign(&self.key, &message(&bytes));
        bytes.extend_from_slice(mac.as_ref());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(super) fn check(&self, token: &str, holder: Option<&TokenHash>) -> CsrfVerdict {
        match (self.read(token), holder) {
            (None, _) => CsrfVerdict::Invalid,
            (Some((binding, _)), Some(holder)) if binding == self.binding(holder) => CsrfVerdict::Bound,
            (Some(_), _) => CsrfVerdict::Elsewhere,
        }
    }

    /// Checks a token against a login of this user, and against the browser if there is one.
    pub(super) fn check_step(&self, token: &str, user: &UserId, browser: Option<&TokenHash>) -> StepVerdict {
        let Some((binding, _)) = self.read(token) else { return StepVerdict::Invalid };
        match browser {
            Some(browser) if binding == self.step(user, browser) => StepVerdict::Bound,
            _ if binding[..BINDING / 2] == self.user(user) => StepVerdict::SameUser,
            _ => StepVerdict::OtherUser,
        }
    }

    /// When a valid token was made.
    pub(super) fn made(&self, token: &str) -> Option<Timestamp> {
        self.read(token).map(|(_, made)| made)
    }

    /// The binding of a valid token, and when it was made.
    fn read(&self, token: &str) -> Option<([u8; BINDING], Timestamp)> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        let (claim, mac) = bytes.split_last_chunk::<MAC>()?;
        hmac::verify(&self.key, &message(claim), mac).ok()?;
        let (binding, time) = claim.split_last_chunk::<TIME>()?;
        let made = Timestamp::from_unix_millis(i64::from_be_bytes(*time));
        let counts = self.clock.now().since(made) < LIFETIME;
        binding.try_into().ok().filter(|_| counts).map(|binding| (binding, made))
    }

    fn step(&self, user: &UserId, browser: &TokenHash) -> [u8; BINDING] {
        let mut binding = self.binding(browser);
        binding[..BINDING / 2].copy_from_slice(&self.user(user));
        binding
    }

    fn user(&self, user: &UserId) -> [u8; BINDING / 2] {
        let digest = hmac::sign(&self.key, &[b"user:", user.as_str().as_bytes()].concat());
        let mut half = [0; BINDING / 2];
        half.copy_from_slice(&digest.as_ref()[..BINDING / 2]);
        half
    }

    fn binding(&self, holder: &TokenHash) -> [u8; BINDING] {
        let digest = hmac::sign(&self.key, &[b"holder:", holder.as_bytes().as_slice()].concat());
        let mut binding = [0; BINDING];
        binding.copy_from_slice(digest.as_ref().get(..BINDING).unwrap_or_default());
        binding
    }
}

/// Separated from the message of [`Csrf::binding`] by its first word.
fn message(claim: &[u8]) -> Vec<u8> {
    [b"token:", claim].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_token_counts_for_one_browser_state_and_a_while() {
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1000)));
        let csrf = Csrf::new(&Sealer::from_key(&[1; 32]), clock.clone());
        let (mine, other) = (TokenHash::from_bytes([1; 32]), TokenHash::from_bytes([2; 32]));
        let token = csrf.token(&mine);
        assert_eq!(csrf.check(&token, Some(&mine)), CsrfVerdict::Bound);
        assert_eq!(csrf.check(&token, Some(&other)), CsrfVerdict::Elsewhere);
        assert_eq!(csrf.check(&token, None), CsrfVerdict::Elsewhere);

        let (ada, bob) = (UserId::of("ada"), UserId::of("bob"));
        let step = csrf.token_for(csrf.step(&ada, &mine));
        for (user, browser, verdict) in [
            (&ada, Some(&mine), StepVerdict::Bound),
            (&ada, Some(&other), StepVerdict::SameUser),
            (&ada, None, StepVerdict::SameUser),
            (&bob, Some(&mine), StepVerdict::OtherUser),
            (&bob, None, StepVerdict::OtherUser),
        ] {
            assert_eq!(csrf.check_step(&step, user, browser), verdict, "{user} {browser:?}");
        }
        assert_eq!(csrf.check_step(&token, &ada, Some(&mine)), StepVerdict::OtherUser, "of no step");
        assert_eq!(csrf.check(&step, Some(&mine)), CsrfVerdict::Elsewhere);
        assert_eq!(csrf.made(&step), Some(clock.now()));

        let foreign = Csrf::new(&Sealer::from_key(&[2; 32]), clock.clone()).token(&mine);
        let mut damaged = token.clone();
        damaged.replace_range(..1, if token.starts_with('A') { "B" } else { "A" });
        for bad in ["", "x", &token[1..], &format!("{token}AAAA"), &damaged, &foreign] {
            assert_eq!(csrf.check(bad, Some(&mine)), CsrfVerdict::Invalid, "{bad}");
            assert_eq!(csrf.check_step(bad, &ada, Some(&mine)), StepVerdict::Invalid, "{bad}");
        }
        clock.advance(LIFETIME);
        assert_eq!(csrf.check(&token, Some(&mine)), CsrfVerdict::Invalid);
        assert_eq!(csrf.check_step(&step, &ada, Some(&mine)), StepVerdict::Invalid);
        assert_eq!(csrf.made(&step), None);
    }
}
