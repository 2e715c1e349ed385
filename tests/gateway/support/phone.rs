//! The authenticator app of one user: reads a key from the enrolment page and shows codes, by RFC 6238 alone.

use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use portcullis::clock::{Clock as _, ManualClock, Timestamp};

/// A phone whose clock is the gateway's.
#[derive(Clone, Debug)]
pub(crate) struct Phone(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Arc<ManualClock>,
    key: String,
    last: Mutex<i64>,
}

impl Phone {
    /// `key` is base32, with or without spaces.
    pub(crate) fn new(clock: Arc<ManualClock>, key: &str) -> Self {
        let key = key.split_whitespace().collect();
        Self(Arc::new(Inner { clock, key, last: Mutex::new(i64::MIN) }))
    }

    pub(crate) fn key(&self) -> &str {
        &self.0.key
    }

    /// What the key stands for.
    pub(crate) fn seed(&self) -> Vec<u8> {
        base32(&self.0.key)
    }

    /// The code shown now.
    pub(crate) fn code(&self) -> String {
        self.code_at(self.0.clock.now())
    }

    pub(crate) fn code_at(&self, at: Timestamp) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &base32(&self.0.key));
        let digest = hmac::sign(&key, &step(at).to_be_bytes());
        let digest = digest.as_ref();
        let start = usize::from(digest[19] & 15);
        let word: [u8; 4] = digest[start..start + 4].try_into().unwrap();
        format!("{:06}", (u32::from_be_bytes(word) & 0x7fff_ffff) % 1_000_000)
    }

    /// A code that this phone has not given before: waits for the next one by turning the clock, if it has to.
    pub(crate) fn fresh_code(&self) -> String {
        let mut last = self.0.last.lock().unwrap();
        if step(self.0.clock.now()) <= *last {
            self.0.clock.set(Timestamp::from_unix_seconds((*last + 1) * 30));
        }
        *last = step(self.0.clock.now());
        self.code()
    }
}

fn step(at: Timestamp) -> i64 {
    at.unix_seconds() / 30
}

fn base32(text: &str) -> Vec<u8> {
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for letter in text.bytes() {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|&known| known == letter);
        bits = (bits << 5) | u32::try_from(value.expect("a key is base32")).unwrap();
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap());
        }
    }
    bytes
}

#[test]
fn a_phone_shows_the_codes_of_the_rfc() {
    // RFC 6238, appendix B, cut to six digits.
    let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(59)));
    let phone = Phone::new(clock, "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ");
    assert_eq!(phone.code(), "287082");
    assert_eq!(phone.code_at(Timestamp::from_unix_seconds(1_111_111_109)), "081804");
}
