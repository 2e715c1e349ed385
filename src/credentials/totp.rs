//! Time-based one-time codes (RFC 6238): SHA-1, six digits, 30 seconds, the only parameters that both Microsoft and
//! Google Authenticator support.
//!
//! Stateless: [`super::SecondFactor`] accepts a code only once.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use totp_rs::{Builder, Secret, Totp};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::typed::symbols;
use crate::{clock::Timestamp, random::Random};

/// The lifetime of a code in seconds.
const STEP: i64 = 30;

/// Characters that are not escaped in an otpauth URI: the unreserved ones of RFC 3986, and the `@` of mail addresses.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@');

/// The secret shared with an authenticator app: 160 random bits.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct TotpSecret([u8; 20]);

impl TotpSecret {
    pub fn generate(random: &dyn Random) -> Self {
        Self(random.bytes())
    }

    /// The secret from its unsealed bytes; `None` if there are not 20.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes, only for sealing.
    pub fn expose(&self) -> &[u8; 20] {
        &self.0
    }

    /// The text for users who cannot scan: 32 letters and digits.
    pub fn base32(&self) -> SecretString {
        Secret::new_stack(self.0).to_base32().into()
    }

    /// The same in groups of four, for reading.
    pub fn grouped(&self) -> SecretString {
        let base32 = self.base32();
        let mut grouped = String::with_capacity(40);
        for (at, c) in base32.expose_secret().chars().enumerate() {
            if at > 0 && at % 4 == 0 {
                grouped.push(' ');
            }
            grouped.push(c);
        }
        grouped.into()
    }

    /// The content of the QR code, in the key URI format of Google Authenticator. In some apps a colon would end the
    /// issuer early, so colons are removed from both names.
    pub fn otpauth_uri(&self, issuer: &str, account: &str) -> SecretString {
        let (issuer, account) = (issuer.replace(':', "-"), account.replace(':', "-"));
        format!(
            "otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}&algorithm=SHA1&digits=6&period={STEP}",
            issuer = utf8_percent_encode(issuer.trim(), ENCODED),
            account = utf8_percent_encode(account.trim(), ENCODED),
            secret = self.base32().expose_secret(),
        )
        .into()
    }

    /// The code that an app with a correct clock shows at `at`; empty before 1970.
    pub fn code_at(&self, at: Timestamp) -> String {
        u64::try_from(at.unix_seconds())
            .map(|seconds| self.totp().generate(seconds).to_string())
            .unwrap_or_default()
    }

    /// The one of `steps` with this code.
    pub(super) fn matching_step(&self, code: &Code, steps: impl IntoIterator<Item = i64>) -> Option<i64> {
        let totp = self.totp();
        steps.into_iter().find(|step| {
            u64::try_from(step.saturating_mul(STEP))
                .is_ok_and(|seconds| totp.check(&code.0, seconds).is_some())
        })
    }

    fn totp(&self) -> Totp {
        // "Non-compliant" skips checks of lengths that are constant here. No skew: callers list every step they allow.
        Builder::new().with_secret(Secret::new_stack(self.0)).with_skew(0).build_noncompliant()
    }
}

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpSecret(…)")
    }
}

/// The number of the step at `now`.
pub(super) fn step_at(now: Timestamp) -> i64 {
    now.unix_seconds().div_euclid(STEP)
}

/// Six digits as typed. Text, not a number: leading zeros count.
pub(super) struct Code(String);

impl Code {
    /// Accepts the digits of any script, with any separators; `None` unless there are exactly six.
    pub(super) fn parse(typed: &str) -> Option<Self> {
        let mut symbols = symbols(typed);
        let code: String = symbols.by_ref().take(6).collect();
        let complete = code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit());
        (complete && symbols.next().is_none()).then_some(Self(code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsRandom;

    fn rfc_secret() -> TotpSecret {
        TotpSecret::from_bytes(b"12345678901234567890").unwrap()
    }

    /// RFC 6238, appendix B, SHA-1, reduced to the last six of its eight digits.
    #[test]
    fn codes_are_those_of_the_rfc() {
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            let at = Timestamp::from_unix_seconds(seconds);
            assert_eq!(rfc_secret().code_at(at), code);
            let step = rfc_secret().matching_step(&Code::parse(code).unwrap(), [step_at(at)]);
            assert_eq!(step, Some(seconds / 30), "{code}");
        }
        assert_eq!(rfc_secret().code_at(Timestamp::from_unix_seconds(-1)), "");
    }

    #[test]
    fn only_the_steps_asked_for_match() {
        let code = Code::parse("287082").unwrap();
        assert_eq!(rfc_secret().matching_step(&code, [0, 1, 2]), Some(1));
        assert_eq!(rfc_secret().matching_step(&code, [0, 2, 3, -1, i64::MAX, i64::MIN]), None);
        assert_eq!(TotpSecret([0; 20]).matching_step(&code, 0..100), None);
    }

    #[test]
    fn codes_are_read_as_people_type_them() {
        for typed in [
            "005924",
            "005 924",
            " 0 0 5 9 2 4 ",
            "005\u{a0}924",
            "005\u{2009}924",
            "\t005924\r\n",
            "005-924",
            "005\u{2011}924",
            "005.924",
            "005,924",
            "005\u{200b}924",
            "\u{feff}005924",
            "００５９２４",
            "٠٠٥٩٢٤",
            "۰۰۵۹۲۴",
            "००५९२४",
            "\u{202d}005924\u{202c}",
        ] {
            let code = Code::parse(typed).unwrap();
            assert_eq!(code.0, "005924");
            assert_eq!(
                rfc_secret().matching_step(&code, [1_234_567_890 / 30]),
                Some(41_152_263),
                "{typed:?}"
            );
        }
        for typed in [
            "",
            "5924",
            "05924",
            "0059244",
            "00592a",
            "005924a",
            "+05924",
            "-05924",
            "00592\u{2463}",
            "005 924 1",
        ] {
            assert!(Code::parse(typed).is_none(), "{typed:?}");
        }
        assert!(Code::parse(&"1".repeat(1_000_000)).is_none());
    }

    #[test]
    fn each_of_the_160_bits_is_left_to_chance() {
        let secrets: Vec<TotpSecret> = (0..100).map(|_| TotpSecret::generate(&OsRandom)).collect();
        for bit in 0..160 {
            let set = secrets.iter().filter(|secret| secret.0[bit / 8] >> (bit % 8) & 1 == 1).count();
            assert!((1..100).contains(&set), "bit {bit} is set in {set} of 100");
        }
    }

    #[test]
    fn the_secret_is_shown_in_base32_without_padding() {
        assert_eq!(rfc_secret().base32().expose_secret(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert_eq!(rfc_secret().grouped().expose_secret(), "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ");
    }

    #[test]
    fn the_uri_is_what_authenticators_expect() {
        assert_eq!(
            rfc_secret().otpauth_uri("IoT Connectivity", "ada+sim@example.com").expose_secret(),
            "otpauth://totp/IoT%20Connectivity:ada%2Bsim@example.com\
             ?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=IoT%20Connectivity&algorithm=SHA1&digits=6&period=30"
        );
        let hostile = rfc_secret().otpauth_uri("A:B/C?&", "x:y&secret=AAAA#ü");
        assert!(
            hostile
                .expose_secret()
                .starts_with("otpauth://totp/A-B%2FC%3F%26:x-y%26secret%3DAAAA%23%C3%BC?secret=G")
        );
    }

    #[test]
    fn debug_output_hides_the_secret() {
        let secret = rfc_secret();
        let shown = format!(
            "{secret:?} {:?} {:?} {:?}",
            secret.base32(),
            secret.grouped(),
            secret.otpauth_uri("A", "b")
        );
        assert!(!shown.contains("1234") && !shown.contains("GEZD") && !shown.contains("49, 50"), "{shown}");
    }
}
