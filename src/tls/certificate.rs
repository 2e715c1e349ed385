//! Inspects a certificate: its hosts, its dates and its issuer.
//!
//! Only the outer fields of its DER are parsed. rustls makes the checks that clients would make.

use std::time::Duration;

use rustls::{
    CertificateError, Error, RootCertStore,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use crate::{clock::Timestamp, der::CertificateFields};

const DAY: Duration = Duration::from_hours(24);
/// How many days before expiry a warning is logged.
const STAGES: [u32; 4] = [30, 14, 3, 1];

/// A parsed certificate chain.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    not_before: Timestamp,
    /// When the first certificate of the chain expires.
    not_after: Timestamp,
    signs_itself: bool,
}

/// Why clients will refuse a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the certificate is for {}, not for {host}: get one for the host of its `public_url`", hosts(.names))]
    OtherHost { host: String, names: Vec<String> },
    #[error("the certificate expired on {0}: renew it")]
    Expired(Timestamp),
    #[error(
        "the certificate is not valid before {0}: check the clock of this machine, or use the one before it"
    )]
    NotYet(Timestamp),
}

fn hosts(names: &[String]) -> String {
    if names.is_empty() { "no host at all".to_owned() } else { names.join(", ") }
}

impl Certificate {
    /// Parses a chain. None: it does not begin with an X.509 certificate.
    pub(super) fn of(chain: Vec<CertificateDer<'static>>) -> Option<Self> {
        let first = CertificateFields::of(chain.first()?)?;
        let mut not_after = first.not_after;
        for further in &chain[1..] {
            not_after = not_after.min(CertificateFields::of(further)?.not_after);
        }
        Some(Self {
            not_before: first.not_before,
            not_after,
            signs_itself: first.issuer == first.subject,
            chain,
        })
    }

    /// When clients start to refuse it.
    pub(super) fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The names in the certificate, when none of them covers `host`.
    pub(super) fn other_hosts(&self, host: &str) -> Option<Vec<String>> {
        other_hosts(self.chain.first()?, host)
    }

    /// Why clients refuse it now, whatever the host.
    pub(super) fn faults(&self, now: Timestamp) -> Vec<Fault> {
        let expired = (self.not_after < now).then_some(Fault::Expired(self.not_after));
        let early = (now < self.not_before).then_some(Fault::NotYet(self.not_before));
        expired.into_iter().chain(early).collect()
    }

    /// How close expiry is: 0 for far off, 4 for one day, 5 for expired. Steps beyond about a third of its life do not count.
    pub(super) fn stage(&self, now: Timestamp) -> usize {
        if self.not_after < now {
            return STAGES.len() + 1;
        }
        let (life, left) = (self.not_after.since(self.not_before), self.not_after.since(now));
        STAGES.iter().filter(|days| left <= **days * DAY && **days * DAY <= life / 3 + DAY).count()
    }

    /// A sentence about expiry, when it is close.
    pub(super) fn warning(&self, now: Timestamp) -> Option<String> {
        let left = self.not_after.since(now).as_secs() / DAY.as_secs();
        let days = match left {
            0 => "less than a day".to_owned(),
            1 => "1 day".to_owned(),
            _ => format!("{left} days"),
        };
        let near = (1..=STAGES.len()).contains(&self.stage(now));
        near.then(|| format!("the certificate expires on {}, in {days}: renew it", self.not_after))
    }

    /// Why a client with this machine's root certificates would not trust the issuer.
    pub(super) fn stranger(&self, now: Timestamp) -> Option<String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let parsed = ParsedCertificate::try_from(self.chain.first()?).ok()?;
        // Wrong dates have a message of their own.
        let now = now.max(self.not_before).min(self.not_after);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.unix_seconds()).ok()?));
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
        match verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &self.chain[1..], now, algorithms) {
            Ok(()) => None,
            Err(_) if self.signs_itself => {
                Some("the certificate is signed by itself: every browser warns its user".to_owned())
            }
            Err(_) if self.chain.len() == 1 => Some(
                "the certificate comes without the one that signed it, and browsers may refuse it: use the file with the whole \
                 chain (fullchain.pem). A private authority's certificate has to be installed in every browser"
                    .to_owned(),
            ),
            Err(_) => Some(
                "the certificate's chain ends at an authority that this machine does not know: browsers that do not know it \
                 either warn their users"
                    .to_owned(),
            ),
        }
    }
}

/// The names of a certificate that does not cover `host`.
fn other_hosts(certificate: &CertificateDer<'_>, host: &str) -> Option<Vec<String>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(bare).ok()?;
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    match verify_server_name(&parsed, &name) {
        Ok(()) => None,
        Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. })) => {
            // Printed as `DnsName("iot.example.com")`.
            let plain = |name: String| {
                let inside = name.split_once('(').map_or(&*name, |(_, inside)| inside.trim_end_matches(')'));
                inside.trim_matches('"').to_owned()
            };
            Some(presented.into_iter().map(plain).collect())
        }
        Err(_) => Some(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_unix_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    /// For these names, from the first of March to the first of June 2026.
    fn made(names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2026, 3, 1);
        params.not_after = date_time_ymd(2026, 6, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn of(names: &[&str]) -> Certificate {
        Certificate::of(vec![made(names)]).unwrap()
    }

    #[test]
    fn the_dates_are_read_and_told() {
        let certificate = of(&["iot.example.com"]);
        assert_eq!(certificate.not_after(), at("2026-06-01T00:00:00Z"));
        for (now, stage, says) in [
            ("2026-04-01T00:00:00Z", 0, None),
            ("2026-05-02T00:00:00Z", 1, Some("expires on 2026-06-01T00:00:00Z, in 30 days")),
            ("2026-05-18T00:00:01Z", 2, Some("in 13 days")),
            ("2026-05-29T00:00:00Z", 3, Some("in 3 days")),
            ("2026-05-31T00:00:00Z", 4, Some("in 1 day:")),
            ("2026-05-31T12:00:00Z", 4, Some("in less than a day")),
            ("2026-06-01T00:00:01Z", 5, None),
        ] {
            assert_eq!(certificate.stage(at(now)), stage, "{now}");
            let warning = certificate.warning(at(now));
            assert_eq!(warning.is_some(), says.is_some(), "{now}: {warning:?}");
            assert!(warning.unwrap_or_default().contains(says.unwrap_or_default()), "{now}");
        }
        assert_eq!(certificate.faults(at("2026-04-01T00:00:00Z")), []);
        let faults = |now| certificate.faults(at(now)).iter().map(ToString::to_string).collect::<String>();
        assert!(faults("2026-06-02T00:00:00Z").contains("expired on 2026-06-01T00:00:00Z: renew it"));
        assert!(faults("2026-02-01T00:00:00Z").contains("not valid before 2026-03-01T00:00:00Z"));
    }

    #[test]
    fn what_lives_for_days_is_not_told_of_for_all_its_life() {
        let mut certificate = of(&["a.example"]);
        certificate.not_after = certificate.not_before.plus(6 * DAY);
        assert_eq!(certificate.stage(certificate.not_before), 0);
        assert_eq!(certificate.stage(certificate.not_after.minus(3 * DAY)), 1);
        assert_eq!(certificate.stage(certificate.not_after.minus(DAY)), 2);
    }

    #[test]
    fn it_is_for_its_hosts_and_for_no_other() {
        for (names, host, fits) in [
            (&["iot.example.com"][..], "iot.example.com", true),
            (&["a.example", "iot.example.com"], "iot.example.com", true),
            (&["*.example.com"], "iot.example.com", true),
            (&["*.example.com"], "example.com", false),
            (&["*.example.com"], "a.iot.example.com", false),
            (&["www.example.com"], "example.com", false),
            (&["IOT.example.com"], "iot.example.com", true),
            (&["192.0.2.1"], "192.0.2.1", true),
            (&["2001:db8::1"], "[2001:db8::1]", true),
            (&["iot.example.com"], "192.0.2.1", false),
            (&["xn--bcher-kva.example"], "xn--bcher-kva.example", true),
        ] {
            let others = of(names).other_hosts(host);
            assert_eq!(others.is_none(), fits, "{names:?} {host}: {others:?}");
        }
        let told = |names: &[&str]| {
            let names = of(names).other_hosts("iot.example.com").unwrap();
            Fault::OtherHost { host: "iot.example.com".to_owned(), names }.to_string()
        };
        let several = told(&["www.example.com", "example.com"]);
        assert!(
            several.contains("is for www.example.com, example.com, not for iot.example.com"),
            "{several}"
        );
        assert!(told(&[]).contains("is for no host at all"));
    }

    #[test]
    fn whoever_signed_it_is_looked_for() {
        let now = at("2026-04-01T00:00:00Z");
        let own = of(&["a.example"]).stranger(now);
        assert!(own.unwrap().contains("signed by itself"));
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = authority.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::new(authority, key);
        let mut leaf = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        leaf.distinguished_name = rcgen::DistinguishedName::new();
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let alone = Certificate::of(vec![leaf.der().clone()]).unwrap().stranger(now).unwrap();
        assert!(alone.contains("use the file with the whole chain"), "{alone}");
        let chain = vec![leaf.der().clone(), root.der().clone()];
        let whole = Certificate::of(chain).unwrap().stranger(now).unwrap();
        assert!(whole.contains("an authority that this machine does not know"), "{whole}");
    }

    #[test]
    fn no_bytes_break_the_reader() {
        let whole = made(&["a.example"]);
        for length in 0..whole.len() {
            let _ = Certificate::of(vec![CertificateDer::from(whole[..length].to_vec())]);
        }
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut bytes = whole.to_vec();
                bytes[at] = value;
                let _ = Certificate::of(vec![CertificateDer::from(bytes)]);
            }
        }
    }
}
