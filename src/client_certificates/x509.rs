//! Fields of certificates and revocation lists that rustls does not expose: names, issuers, expiry.

use rustls::pki_types::SignatureVerificationAlgorithm;

use super::AltName;
use crate::{
    clock::Timestamp,
    der::{CertificateFields, SEQUENCE, element, elements, instant},
};

const INTEGER: u8 = 0x02;
const OID: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const BIT_STRING: u8 = 0x03;
const EXTENSIONS: u8 = 0xa3;
/// 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// 2.5.29.15
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const LIST_EXTENSIONS: u8 = 0xa0;
/// 2.5.29.20
const LIST_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];
/// 2.5.29.28
const LIST_SCOPE: &[u8] = &[0x55, 0x1d, 0x1c];
/// In the first byte of its bits.
const KEY_CERT_SIGN: u8 = 0x04;
const RFC822_NAME: u8 = 0x81;
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;

/// Of one certificate (RFC 5280, 4.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CertificateFacts<'a> {
    pub(super) issuer: &'a [u8],
    pub(super) subject: &'a [u8],
    pub(super) not_after: Timestamp,
    /// Checks what the library does not: a key usage extension has to allow signing certificates.
    pub(super) may_sign: bool,
    pub(super) names: Vec<AltName>,
}

impl<'a> CertificateFacts<'a> {
    pub(super) fn of(certificate: &'a [u8]) -> Option<Self> {
        let CertificateFields { issuer, subject, not_after, rest, .. } = CertificateFields::of(certificate)?;
        let extensions = elements(rest).find(|(tag, _)| *tag == EXTENSIONS);
        let extension = |id| extensions.and_then(|(_, content)| extension(content, id));
        let names = extension(SUBJECT_ALT_NAME).and_then(alternative_names).unwrap_or_default();
        let may_sign = extension(KEY_USAGE).is_none_or(|usage| match element(usage) {
            Some((BIT_STRING, [_unused, bits, ..], _)) => bits & KEY_CERT_SIGN != 0,
            _ => false,
        });
        Some(Self { issuer, subject, not_after, may_sign, names })
    }
}

/// The value of an extension.
fn extension<'a>(extensions: &'a [u8], id: &[u8]) -> Option<&'a [u8]> {
    let (SEQUENCE, list, _) = element(extensions)? else { return None };
    elements(list).find_map(|(_, extension)| {
        let (OID, known, rest) = element(extension)? else { return None };
        // The critical flag is optional.
        let mut values = elements(rest).filter(|(tag, _)| *tag == OCTET_STRING && known == id);
        values.next().map(|(_, value)| value)
    })
}

/// The names of the kinds that can be mapped, as written. Names that are not ASCII are left out.
fn alternative_names(value: &[u8]) -> Option<Vec<AltName>> {
    let (SEQUENCE, names, _) = element(value)? else { return None };
    let name = |(tag, text): (u8, &[u8])| {
        let text =
            std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|b| b.is_ascii_graphic()))?;
        match tag {
            RFC822_NAME => AltName::email(text),
            DNS_NAME => AltName::dns(text),
            URI => AltName::uri(text),
            _ => None,
        }
    };
    Some(elements(names).filter_map(name).collect())
}

/// When a list was made: the later one is the greater. Lists of one second are told apart by their number.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Made<'a> {
    at: Timestamp,
    /// A number is greater than one of fewer digits; it has no leading zeros.
    digits: usize,
    number: &'a [u8],
}

/// Of one revocation list (RFC 5280, 5.1).
#[derive(Debug)]
pub(super) struct ListFacts<'a> {
    pub(super) issuer: &'a [u8],
    /// When it expires.
    pub(super) ends: Timestamp,
    pub(super) made: Made<'a>,
    /// Which of its authority's certificates it is about; empty: all.
    scope: &'a [u8],
    signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> ListFacts<'a> {
    pub(super) fn of(list: &'a [u8]) -> Option<Self> {
        let (SEQUENCE, outer, _) = element(list)? else { return None };
        let (SEQUENCE, mut rest, after) = element(outer)? else { return None };
        let signed = outer.get(..outer.len() - after.len())?;
        let (SEQUENCE, algorithm, after) = element(after)? else { return None };
        let (BIT_STRING, [0, signature @ ..], _) = element(after)? else { return None };
        if rest.first() == Some(&INTEGER) {
            (_, _, rest) = element(rest)?;
        }
        let (_algorithm, _, rest) = element(rest)?;
        let (_, issuer, rest) = element(rest)?;
        let (tag, text, rest) = element(rest)?;
        let at = instant(tag, text)?;
        let (tag, text, rest) = element(rest)?;
        let ends = instant(tag, text)?;
        let extensions = elements(rest).find(|(tag, _)| *tag == LIST_EXTENSIONS);
        let extension = |id| extensions.and_then(|(_, content)| extension(content, id)).unwrap_or_default();
        let number = element(extension(LIST_NUMBER)).map_or(&[][..], |(_, number, _)| number);
        let number = number.get(number.iter().take_while(|byte| **byte == 0).count()..)?;
        let made = Made { at, digits: number.len(), number };
        let scope = extension(LIST_SCOPE);
        Some(Self { issuer, ends, made, scope, signed, algorithm, signature })
    }

    /// Whether it is a later one of the same authority, about the same certificates.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.scope == other.scope && self.made > other.made
    }

    /// Whether this key, the content of a `SubjectPublicKeyInfo`, has signed it.
    pub(super) fn is_signed_by(&self, key: &[u8], known: &[&dyn SignatureVerificationAlgorithm]) -> bool {
        let Some((SEQUENCE, kind, rest)) = element(key) else { return false };
        let Some((BIT_STRING, [0, key @ ..], _)) = element(rest) else { return false };
        let fits = |known: &&&dyn SignatureVerificationAlgorithm| {
            *known.public_key_alg_id() == *kind && *known.signature_alg_id() == *self.algorithm
        };
        known
            .iter()
            .filter(fits)
            .any(|known| known.verify_signature(key, self.signed, self.signature).is_ok())
    }
}
