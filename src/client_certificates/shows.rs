//! What identifies a certificate: one of its names, or its fingerprint.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;

use crate::secret::{hex, unhex};

/// An identifying property of a certificate, in a form that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shows {
    Name(AltName),
    /// SHA-256 of the whole certificate.
    Fingerprint([u8; 32]),
}

/// A subject alternative name. Hosts, and the host of an e-mail address, are in lower case; the rest is as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AltName {
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Dns,
    Email,
    Uri,
}

impl AltName {
    /// Reads `DNS:host`, `email:name@host` or `URI:scheme:rest`, as openssl prints them.
    pub fn parse(written: &str) -> Option<Self> {
        let (kind, text) = written.split_once(':')?;
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        match kind {
            "DNS" if !text.contains('*') => Self::dns(text),
            "email" => Self::email(text),
            "URI" if text.contains(':') => Self::uri(text),
            _ => None,
        }
    }

    pub(super) fn dns(text: &str) -> Option<Self> {
        Self::of(Kind::Dns, text.to_ascii_lowercase())
    }

    pub(super) fn email(text: &str) -> Option<Self> {
        let (name, host) = text.rsplit_once('@')?;
        Self::of(Kind::Email, format!("{name}@{}", host.to_ascii_lowercase()))
    }

    pub(super) fn uri(text: &str) -> Option<Self> {
        Self::of(Kind::Uri, text.to_owned())
    }

    fn of(kind: Kind, text: String) -> Option<Self> {
        (!text.is_empty()).then_some(Self { kind, text })
    }
}

impl fmt::Display for AltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Dns => "DNS",
            Kind::Email => "email",
            Kind::Uri => "URI",
        };
        write!(f, "{kind}:{}", self.text)
    }
}

impl Shows {
    /// Reads a fingerprint of 64 hexadecimal digits, with or without colons between each two.
    pub fn fingerprint(written: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let digits = if written.contains(':') {
            let pairs: Vec<&str> = written.split(':').collect();
            if pairs.len() != bytes.len() || pairs.iter().any(|pair| pair.len() != 2) {
                return None;
            }
            pairs.concat()
        } else {
            written.to_owned()
        };
        unhex(&digits, &mut bytes)?;
        Some(Self::Fingerprint(bytes))
    }
}

impl fmt::Display for Shows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Fingerprint(bytes) => write!(f, "SHA256:{}", hex(&bytes[..8])),
        }
    }
}

/// A certificate from a handshake, unverified but for its key.
#[derive(Debug)]
pub struct ShownCertificate {
    pub(super) chain: Vec<CertificateDer<'static>>,
    fingerprint: [u8; 32],
    id: String,
    /// The generation, counted from 1, at which it did not count.
    strange_at: AtomicU64,
    is_told: AtomicBool,
}

impl ShownCertificate {
    /// None: there is no certificate.
    pub fn new(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let digest = digest::digest(&digest::SHA256, chain.first()?);
        let fingerprint: [u8; 32] = digest.as_ref().try_into().ok()?;
        let chain = chain.iter().map(|one| one.clone().into_owned()).collect();
        let id = format!("{ID}{}", hex(&fingerprint));
        Some(Self { chain, fingerprint, id, strange_at: AtomicU64::new(0), is_told: AtomicBool::new(false) })
    }

    /// Its name among the credentials of machines. No token has such a name.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// Whether it is known not to count, by authorities and lists that have not changed since.
    pub(super) fn is_strange(&self, generation: u64) -> bool {
        self.strange_at.load(Relaxed) == generation + 1
    }

    pub(super) fn be_strange(&self, generation: u64) {
        self.strange_at.store(generation + 1, Relaxed);
    }

    /// True the first time, when its fault is to be logged.
    pub(super) fn tells(&self) -> bool {
        !self.is_told.swap(true, Relaxed)
    }
}

/// The prefix of the names of certificates.
pub const ID: &str = "x509:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_fingerprints_are_read_as_openssl_prints_them_and_in_no_other_way() {
        for (written, expected) in [
            ("DNS:Collector.Example.com", Some("DNS:collector.example.com")),
            ("email:Ada@Example.COM", Some("email:Ada@example.com")),
            ("URI:spiffe://example.com/CI", Some("URI:spiffe://example.com/CI")),
            ("URI:urn:uuid:1", Some("URI:urn:uuid:1")),
            ("DNS:*.example.com", None),
            ("DNS:", None),
            ("dns:a", None),
            ("email:ada", None),
            ("URI:ci", None),
            ("collector.example.com", None),
            ("DNS:a b", None),
            ("DNS:é", None),
            ("IP:10.0.0.1", None),
            ("CN=ada", None),
            ("", None),
        ] {
            assert_eq!(
                AltName::parse(written).map(|name| name.to_string()).as_deref(),
                expected,
                "{written}"
            );
        }
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(Shows::fingerprint(&plain), Shows::fingerprint(&colons));
        assert!(Shows::fingerprint(&plain).is_some());
        for odd in ["", &plain[1..], &"ab".repeat(20), &colons[1..], &format!("{plain}:"), &"zz".repeat(32)] {
            assert_eq!(Shows::fingerprint(odd), None, "{odd}");
        }
    }
}
