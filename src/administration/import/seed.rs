//! The secrets of authenticators as other systems write them.

use base64::Engine as _;
use percent_encoding::percent_decode_str;
use totp_rs::Secret;
use url::Url;

use super::ImportFault;
use crate::{
    credentials::{ImportedDevice, TotpSecret},
    secret::unhex,
};

/// The name of a device that had none.
const UNNAMED: &str = "Authenticator app";

fn fault(text: &str) -> ImportFault {
    ImportFault::Text(format!("the authenticator: {text}"))
}

/// A secret in base32, with or without padding, spaces and capitals, or the `otpauth://totp/` URI of a QR code.
pub(super) fn device(seed: &str, name: &str) -> Result<ImportedDevice, ImportFault> {
    let seed = seed.trim();
    if !seed.starts_with("otpauth:") {
        return of_bytes(&base32(seed)?, name);
    }
    let uri = Url::parse(seed).map_err(|_| fault("the `otpauth` URI is malformed"))?;
    if uri.host_str() != Some("totp") {
        return Err(fault("only time-based codes (`otpauth://totp/`) are supported"));
    }
    let mut secret = None;
    for (key, value) in uri.query_pairs() {
        match &*key {
            "secret" => secret = Some(value.into_owned()),
            "algorithm" if !value.eq_ignore_ascii_case("SHA1") => {
                return Err(fault("only SHA-1 is supported"));
            }
            "digits" if value != "6" => return Err(fault("only codes of six digits are supported")),
            "period" if value != "30" => return Err(fault("only codes of 30 seconds are supported")),
            _ => {}
        }
    }
    let label = percent_decode_str(uri.path().trim_start_matches('/')).decode_utf8_lossy().into_owned();
    let name = if name.trim().is_empty() { label.split(':').next().unwrap_or_default() } else { name };
    of_bytes(&base32(&secret.ok_or_else(|| fault("the `otpauth` URI has no secret"))?)?, name)
}

/// A secret as bytes. Shorter ones are the same key with zeros behind them (RFC 2104).
pub(super) fn of_bytes(secret: &[u8], name: &str) -> Result<ImportedDevice, ImportFault> {
    if secret.len() < 10 {
        return Err(fault("the secret has fewer than 80 bits"));
    }
    let mut key = [0; 20];
    match key.get_mut(..secret.len()) {
        Some(part) => part.copy_from_slice(secret),
        None => {
            return Err(fault(
                "the secret has more than 160 bits, which is not supported: enrol this user anew",
            ));
        }
    }
    let secret = TotpSecret::from_bytes(&key).ok_or_else(|| fault("the secret cannot be read"))?;
    let name = if name.trim().is_empty() { UNNAMED } else { name };
    ImportedDevice::new(secret, name)
        .ok_or_else(|| fault("the name of the device is longer than 64 characters"))
}

fn base32(text: &str) -> Result<Vec<u8>, ImportFault> {
    let letters: String =
        text.chars().filter(|c| !matches!(c, ' ' | '-' | '=')).map(|c| c.to_ascii_uppercase()).collect();
    let secret = Secret::try_from_base32(letters).map_err(|_| fault("the secret is not base32"))?;
    Ok(secret.to_vec())
}

/// Hexadecimal digits.
pub(super) fn hexadecimal(text: &str) -> Result<Vec<u8>, ImportFault> {
    let mut bytes = vec![0; text.len() / 2];
    unhex(text, &mut bytes).ok_or_else(|| fault("the key is not hexadecimal"))?;
    Ok(bytes)
}

/// Keycloak's Base64.
pub(super) fn base64(text: &str) -> Option<String> {
    let bytes = base64::prelude::BASE64_STANDARD.decode(text).ok()?;
    Some(base64::prelude::BASE64_STANDARD_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn code(device: &ImportedDevice) -> String {
        device.secret().code_at(Timestamp::from_unix_seconds(1_111_111_109))
    }

    /// The secret and the code of RFC 6238, appendix B.
    #[test]
    fn every_form_of_a_secret_is_the_same_authenticator() {
        for seed in [
            "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
            "gezd gnbv gy3t qojq gezd gnbv gy3t qojq",
            "otpauth://totp/Portal:ada%40example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Portal",
            "otpauth://totp/x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&algorithm=sha1&digits=6&period=30",
        ] {
            assert_eq!(code(&device(seed, "Phone").unwrap()), "081804", "{seed}");
        }
        assert_eq!(code(&of_bytes(b"12345678901234567890", "").unwrap()), "081804");
        assert_eq!(hexadecimal("3132333435363738393031323334353637383930").unwrap(), b"12345678901234567890");
    }

    #[test]
    fn a_short_secret_shows_the_codes_that_its_app_shows() {
        // Computed with the 80 bits alone.
        let short = device("GEZDGNBVGY3TQOJQ", "Phone").unwrap();
        assert_eq!(short.secret().code_at(Timestamp::from_unix_seconds(59)), "263420");
    }

    #[test]
    fn what_an_app_would_show_otherwise_is_refused() {
        for seed in [
            "",
            "GEZDGNBV",
            "not base32!",
            "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
            "otpauth://hotp/x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
            "otpauth://totp/x",
            "otpauth://totp/x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&digits=8",
            "otpauth://totp/x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&algorithm=SHA256",
            "otpauth://totp/x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&period=60",
        ] {
            assert!(device(seed, "Phone").is_err(), "{seed}");
        }
        assert!(device("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", &"x".repeat(65)).is_err());
    }
}
