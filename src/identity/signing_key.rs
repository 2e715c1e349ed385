//! One signing key: an ES256 key pair, the name derived from it, and its public part.
//!
//! Does not know when it signs, or where it is stored.

use std::fmt;

use aws_lc_rs::{
    encoding::{AsDer as _, EcPrivateKeyRfc5915Der},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Serialize;

use crate::secret::sha256;

/// The cryptographic library refused a key or a signature.
#[derive(Debug, thiserror::Error)]
#[error("the cryptographic library refused the signing key")]
pub struct Unusable;

/// The public part, as in JWKS (RFC 7517, RFC 7518 §6.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct PublicKey {
    kty: &'static str,
    crv: &'static str,
    x: String,
    y: String,
    #[serde(rename = "use")]
    purpose: &'static str,
    alg: &'static str,
    kid: String,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    kid: &'a str,
    typ: &'static str,
}

pub(super) struct SigningKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
    /// The encoded header of all its tokens.
    header: String,
}

impl SigningKey {
    /// Generates a key. The library takes its randomness only from the system.
    pub(super) fn generate() -> Result<Self, Unusable> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| Unusable)?;
        Self::from_pair(pair)
    }

    /// Parses the output of [`Self::private`].
    pub(super) fn from_private(der: &[u8]) -> Result<Self, Unusable> {
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der);
        Self::from_pair(pair.map_err(|_| Unusable)?)
    }

    /// The private key, to be sealed (RFC 5915).
    pub(super) fn private(&self) -> Result<EcPrivateKeyRfc5915Der<'static>, Unusable> {
        self.pair.private_key().as_der().map_err(|_| Unusable)
    }

    /// The RFC 7638 thumbprint.
    pub(super) fn kid(&self) -> &str {
        &self.public.kid
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs the claims as a compact token (RFC 7515 §7.1).
    pub(super) fn sign(&self, claims: &impl Serialize) -> Result<String, Unusable> {
        let claims = serde_json::to_vec(claims).map_err(|_| Unusable)?;
        // The signature has 64 bytes, 86 characters.
        let mut token = String::with_capacity(self.header.len() + claims.len().div_ceil(3) * 4 + 88);
        token.push_str(&self.header);
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.pair.sign(&SystemRandom::new(), token.as_bytes()).map_err(|_| Unusable)?;
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    fn from_pair(pair: EcdsaKeyPair) -> Result<Self, Unusable> {
        // An uncompressed point: 4, then both coordinates.
        let point = pair.public_key().as_ref();
        let (Some(x), Some(y), Some(4), 65) = (point.get(1..33), point.get(33..), point.first(), point.len())
        else {
            return Err(Unusable);
        };
        let [x, y] = [x, y].map(|coordinate| BASE64_URL_SAFE_NO_PAD.encode(coordinate));
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let kid = BASE64_URL_SAFE_NO_PAD.encode(sha256(canonical.as_bytes()));
        let header = Header { alg: "ES256", kid: &kid, typ: "JWT" };
        let header = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header).map_err(|_| Unusable)?);
        let public = PublicKey { kty: "EC", crv: "P-256", x, y, purpose: "sig", alg: "ES256", kid };
        Ok(Self { pair, public, header })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_a_key_signs_its_public_part_verifies_and_nothing_else() {
        let key = SigningKey::generate().unwrap();
        let token = key.sign(&json!({ "sub": "ada" })).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
        let point = [&key.public.x, &key.public.y].map(|part| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap());
        let point = [&[4][..], &point[0], &point[1]].concat();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        public.verify(signed.as_bytes(), &signature).unwrap();
        assert!(public.verify(signed.to_uppercase().as_bytes(), &signature).is_err());

        let (header, claims) = signed.split_once('.').unwrap();
        let read = |part| serde_json::from_slice::<Value>(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap());
        assert_eq!(read(header).unwrap(), json!({ "alg": "ES256", "kid": key.kid(), "typ": "JWT" }));
        assert_eq!(read(claims).unwrap(), json!({ "sub": "ada" }));
    }

    #[test]
    fn a_key_survives_its_keeping() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::from_private(key.private().unwrap().as_ref()).unwrap();
        assert_eq!(key.public(), again.public());
        assert!(SigningKey::from_private(b"no key").is_err());
        assert_ne!(SigningKey::generate().unwrap().kid(), key.kid());
    }

    #[test]
    fn only_public_members_are_published() {
        let key = SigningKey::generate().unwrap();
        let listed = serde_json::to_value(key.public()).unwrap();
        let mut members: Vec<_> = listed.as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
        assert_eq!(
            [&listed["kty"], &listed["crv"], &listed["use"], &listed["alg"]],
            ["EC", "P-256", "sig", "ES256"]
        );
        let kid = listed["kid"].as_str().unwrap();
        assert_eq!(kid.len(), 43, "the thumbprint is a SHA-256");
        // The private part must not appear in any output.
        let private = BASE64_URL_SAFE_NO_PAD.encode(key.private().unwrap().as_ref());
        assert!(!format!("{key:?}").contains(&private[20..40]));
    }
}
