//! Known browsers: a cookie with a signed mark for each account that has logged in there.
//!
//! A mark lets nobody in. It gives the account a budget of guesses in this browser that nobody else can use up.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    clock::Timestamp, random::Random, sealing::Sealer, secret::constant_time_eq, throttle::KnownBrowser,
};

/// How long a browser is known after a login.
pub const KNOWN_FOR: Duration = Duration::from_hours(90 * 24);
/// How long a browser is known after a code before the password.
pub(super) const KNOWN_BY_CODE: Duration = Duration::from_mins(10);

/// Maximum number of accounts in one cookie.
const MOST: usize = 6;
const ID: usize = 16;
const EXPIRY: usize = 4;
const MARK: usize = ID + EXPIRY + 16;

/// Signs and verifies marks.
#[derive(Clone, Debug)]
pub struct KnownBrowsers(hmac::Key);

impl KnownBrowsers {
    pub fn new(sealer: &Sealer) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, sealer.derive("known browsers").as_slice()))
    }

    /// The browser with this `cookie`, if it is known to `account`.
    pub fn find(&self, cookie: &str, account: &str, now: Timestamp) -> Option<KnownBrowser> {
        let marks = decode(cookie);
        let mark = self.mark_of(&marks, account, now)?;
        Some(KnownBrowser::new(account, mark.get(..ID)?))
    }

    /// The cookie that makes the browser known to `account`, besides the accounts that it was known to. The same
    /// browser keeps its budget.
    pub(super) fn with(
        &self,
        cookie: Option<&str>,
        account: &str,
        now: Timestamp,
        random: &dyn Random,
    ) -> String {
        let marks = cookie.map(decode).unwrap_or_default();
        let id = self.mark_of(&marks, account, now).and_then(|mark| mark.get(..ID));
        let id = id.map_or_else(|| random.bytes::<ID>().to_vec(), <[u8]>::to_vec);
        self.sign(&marks, account, id, now.plus(KNOWN_FOR), now)
    }

    /// The same for a short time, with an unused budget.
    pub(super) fn afresh(
        &self,
        cookie: Option<&str>,
        account: &str,
        now: Timestamp,
        random: &dyn Random,
    ) -> String {
        let marks = cookie.map(decode).unwrap_or_default();
        self.sign(&marks, account, random.bytes::<ID>().to_vec(), now.plus(KNOWN_BY_CODE), now)
    }

    /// The marks with a new one for `account`, which replaces its old ones.
    fn sign(&self, marks: &[u8], account: &str, mut id: Vec<u8>, until: Timestamp, now: Timestamp) -> String {
        id.extend(expiry(until).to_be_bytes());
        let signature = self.signature(account, &id);
        id.extend(signature);
        let others = marks
            .chunks_exact(MARK)
            .filter(|mark| self.mark_of(mark, account, now).is_none() && expiry_of(mark) > expiry(now));
        let all: Vec<u8> = others.take(MOST - 1).fold(id, |all, mark| [&all, mark].concat());
        URL_SAFE_NO_PAD.encode(all)
    }

    fn mark_of<'a>(&self, marks: &'a [u8], account: &str, now: Timestamp) -> Option<&'a [u8]> {
        marks.chunks_exact(MARK).find(|mark| {
            let (signed, signature) = mark.split_at(ID + EXPIRY);
            constant_time_eq(&self.signature(account, signed), signature) && expiry_of(mark) > expiry(now)
        })
    }

    fn signature(&self, account: &str, signed: &[u8]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(signed);
        context.update(account.as_bytes());
        let mut signature = [0; 16];
        signature.copy_from_slice(&context.sign().as_ref()[..16]);
        signature
    }
}

/// The marks in a cookie; empty if it is malformed or longer than one of ours.
fn decode(cookie: &str) -> Vec<u8> {
    let marks = URL_SAFE_NO_PAD.decode(cookie).unwrap_or_default();
    if marks.len().is_multiple_of(MARK) && marks.len() <= MOST * MARK { marks } else { Vec::new() }
}

fn expiry(at: Timestamp) -> u32 {
    u32::try_from(at.unix_seconds()).unwrap_or(u32::MAX)
}

fn expiry_of(mark: &[u8]) -> u32 {
    let bytes = mark.get(ID..ID + EXPIRY).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsRandom;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    fn browsers() -> KnownBrowsers {
        KnownBrowsers::new(&Sealer::from_key(&[1; 32]))
    }

    fn known(cookie: Option<&str>, account: &str) -> String {
        browsers().with(cookie, account, NOW, &OsRandom)
    }

    #[test]
    fn a_browser_is_known_to_whoever_has_logged_in_there_and_to_nobody_else() {
        let cookie = known(None, "ada");
        let browser = browsers().find(&cookie, "ada", NOW);
        assert!(browser.is_some());
        assert_eq!(browsers().find(&cookie, "bob", NOW), None);
        let both = known(Some(&cookie), "bob");
        assert_eq!(browsers().find(&both, "ada", NOW), browser);
        assert!(browsers().find(&both, "bob", NOW).is_some());
        // Another login does not refill the budget.
        assert_eq!(browsers().find(&known(Some(&both), "ada"), "ada", NOW), browser);
    }

    #[test]
    fn it_is_forgotten_in_time_and_a_code_makes_it_known_for_less() {
        let cookie = known(None, "ada");
        assert!(browsers().find(&cookie, "ada", NOW.plus(KNOWN_FOR).minus(Duration::from_secs(1))).is_some());
        assert_eq!(browsers().find(&cookie, "ada", NOW.plus(KNOWN_FOR)), None);
        let brief = browsers().afresh(Some(&cookie), "ada", NOW, &OsRandom);
        assert_ne!(browsers().find(&brief, "ada", NOW), browsers().find(&cookie, "ada", NOW));
        assert_eq!(browsers().find(&brief, "ada", NOW.plus(KNOWN_BY_CODE)), None);
        assert_eq!(brief.len(), cookie.len(), "in the place of the other");
    }

    #[test]
    fn no_cookie_counts_that_we_did_not_make() {
        let cookie = known(None, "ada");
        let other = KnownBrowsers::new(&Sealer::from_key(&[2; 32]));
        assert_eq!(other.find(&cookie, "ada", NOW), None);
        let bytes = URL_SAFE_NO_PAD.decode(&cookie).unwrap();
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            assert_eq!(browsers().find(&URL_SAFE_NO_PAD.encode(changed), "ada", NOW), None, "{place}");
        }
        for malformed in ["", "x", "=", &cookie[1..], &cookie.repeat(100), "%%%"] {
            assert_eq!(browsers().find(malformed, "ada", NOW), None);
            assert!(browsers().find(&known(Some(malformed), "ada"), "ada", NOW).is_some());
        }
    }

    #[test]
    fn a_shared_browser_knows_the_last_few() {
        let accounts: Vec<_> = (0..20).map(|number| format!("user-{number}")).collect();
        let cookie = accounts.iter().fold(String::new(), |cookie, account| known(Some(&cookie), account));
        let of = |account: &String| browsers().find(&cookie, account, NOW).is_some();
        assert!(accounts[14..].iter().all(of) && !accounts[..14].iter().any(of));
        assert!(cookie.len() < 300);
    }
}
