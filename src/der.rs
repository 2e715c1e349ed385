//! As much of a DER parser as it takes to find a field in a certificate that a library has already checked.

use crate::clock::Timestamp;

pub const SEQUENCE: u8 = 0x30;

/// The first element: its tag, its content, and the bytes after it.
pub fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        // 0x80 would be BER's indefinite length, which DER does not have.
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |number, digit| number << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The elements one after another. Iteration ends at a malformed one.
pub fn elements(mut der: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, content, rest) = element(der)?;
        der = rest;
        Some((tag, content))
    })
}

/// The outer fields of one certificate (RFC 5280, 4.1), as far as the subject.
pub struct CertificateFields<'a> {
    pub issuer: &'a [u8],
    pub subject: &'a [u8],
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// The bytes after the subject: the key, then the extensions.
    pub rest: &'a [u8],
}

impl<'a> CertificateFields<'a> {
    pub fn of(certificate: &'a [u8]) -> Option<Self> {
        const VERSION: u8 = 0xa0;
        let (SEQUENCE, outer, _) = element(certificate)? else { return None };
        let (SEQUENCE, mut rest, _) = element(outer)? else { return None };
        if rest.first() == Some(&VERSION) {
            (_, _, rest) = element(rest)?;
        }
        let (_serial, _, rest) = element(rest)?;
        let (_algorithm, _, rest) = element(rest)?;
        let (_, issuer, rest) = element(rest)?;
        let (_, validity, rest) = element(rest)?;
        let (_, subject, rest) = element(rest)?;
        let (from, from_text, validity) = element(validity)?;
        let (to, to_text, _) = element(validity)?;
        let (not_before, not_after) = (instant(from, from_text)?, instant(to, to_text)?);
        Some(Self { issuer, subject, not_before, not_after, rest })
    }
}

/// `UTCTime` or `GeneralizedTime`, in the form that RFC 5280 prescribes.
pub fn instant(tag: u8, text: &[u8]) -> Option<Timestamp> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let local = jiff::civil::DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    let instant = jiff::tz::Offset::UTC.to_timestamp(local).ok()?;
    Some(Timestamp::from_unix_millis(instant.as_millisecond()))
}
