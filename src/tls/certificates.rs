//! All certificates of a gateway: which one each host gets, and their condition.

use std::sync::Arc;

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{Certificate, Fault, Pair};
use crate::clock::Timestamp;

/// Key pairs, and the hosts that they serve.
#[derive(Clone, Debug)]
pub struct Certificates {
    pairs: Vec<Pair>,
    hosts: Vec<String>,
}

impl Certificates {
    /// `pairs` must not be empty.
    pub(super) fn new(pairs: Vec<Pair>, hosts: &[String]) -> Self {
        Self { pairs, hosts: hosts.to_vec() }
    }

    /// A copy with one pair replaced.
    pub(super) fn with(&self, index: usize, pair: Pair) -> Self {
        let mut changed = self.clone();
        if let Some(place) = changed.pairs.get_mut(index) {
            *place = pair;
        }
        changed
    }

    /// Gives each host the first certificate that covers it.
    pub(super) fn resolver(&self) -> BySite {
        let key_for = |host: &String| {
            let pair = self.pairs.iter().find(|pair| pair.certificate.other_hosts(host).is_none())?;
            Some((host.to_ascii_lowercase(), Arc::clone(&pair.key)))
        };
        BySite {
            first: self.pairs.first().map(|pair| Arc::clone(&pair.key)),
            others: self.hosts.iter().filter_map(key_for).collect(),
        }
    }

    fn each(&self) -> impl Iterator<Item = &Certificate> {
        self.pairs.iter().map(|pair| &pair.certificate)
    }

    /// When clients of some host start to refuse theirs.
    pub fn not_after(&self) -> Timestamp {
        let ends = self.each().map(Certificate::not_after);
        ends.min().unwrap_or(Timestamp::from_unix_millis(0))
    }

    /// Why clients refuse any of them now.
    pub fn faults(&self, now: Timestamp) -> Vec<Fault> {
        let unserved = self.hosts.iter().filter_map(|host| {
            let others: Option<Vec<_>> =
                self.each().map(|certificate| certificate.other_hosts(host)).collect();
            Some(Fault::OtherHost { host: host.clone(), names: others?.concat() })
        });
        unserved.chain(self.each().flat_map(|certificate| certificate.faults(now))).collect()
    }

    /// How close the first expiry is.
    pub(super) fn stage(&self, now: Timestamp) -> usize {
        self.each().map(|certificate| certificate.stage(now)).max().unwrap_or_default()
    }

    /// Sentences about certificates that expire soon.
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        self.each().filter_map(|certificate| certificate.warning(now)).collect()
    }

    /// Their condition in a few words.
    pub fn state(&self, now: Timestamp) -> String {
        let fault = self.faults(now).first().map(ToString::to_string);
        fault.or_else(|| self.warnings(now).into_iter().next()).unwrap_or_else(|| "ok".to_owned())
    }

    /// Why a client with this machine's root certificates would not trust their issuers.
    pub fn strangers(&self, now: Timestamp) -> Vec<String> {
        let mut told: Vec<_> = self.each().filter_map(|certificate| certificate.stranger(now)).collect();
        told.dedup();
        told
    }
}

/// Chooses by the host in the client's first message (SNI). A client that names no host, or one that is not ours, gets the
/// first.
#[derive(Debug)]
pub(super) struct BySite {
    first: Option<Arc<CertifiedKey>>,
    others: Vec<(String, Arc<CertifiedKey>)>,
}

impl ResolvesServerCert for BySite {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name();
        let its =
            named.and_then(|named| self.others.iter().find(|(host, _)| host.eq_ignore_ascii_case(named)));
        its.map_or_else(|| self.first.clone(), |(_, key)| Some(Arc::clone(key)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection, pki_types::ServerName};

    use super::*;
    use crate::tls::{Config, PairFiles, certificates, load, server};

    fn pair(folder: &Path, name: &str, hosts: &[&str]) -> PairFiles {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(hosts).unwrap().self_signed(&key).unwrap();
        let files = PairFiles {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        };
        std::fs::write(&files.certificate, made.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    /// Whether a client that trusts this one certificate gets a connection to `host`.
    fn connects(config: &Config, trusted: &PairFiles, host: &str) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(certificates(&trusted.certificate).unwrap().remove(0)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let served = server(&load(config).unwrap(), None).unwrap();
        let mut served = ServerConnection::new(Arc::new(served)).unwrap();
        for _ in 0..4 {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            served.read_tls(&mut &*wire).unwrap();
            let _ = served.process_new_packets();
            let mut wire = Vec::new();
            while served.wants_write() {
                served.write_tls(&mut wire).unwrap();
            }
            client.read_tls(&mut &*wire).unwrap();
            if client.process_new_packets().is_err() {
                return false;
            }
        }
        !client.is_handshaking()
    }

    #[test]
    fn each_host_is_shown_the_first_that_is_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let one = pair(folder.path(), "one", &["a.in.example", "10.0.0.1"]);
        let wide = pair(folder.path(), "wide", &["*.in.example", "b.test"]);
        let hosts = ["a.in.example", "b.in.example", "b.test"].map(str::to_owned).to_vec();
        let config = Config { pairs: vec![one.clone(), wide.clone()], hosts };
        for (host, shown, others) in [
            ("a.in.example", &one, &wide),
            ("b.in.example", &wide, &one),
            ("b.test", &wide, &one),
            ("B.IN.example", &wide, &one),
            // SNI carries no IP addresses.
            ("10.0.0.1", &one, &wide),
        ] {
            assert!(connects(&config, shown, host), "{host}");
            assert!(!connects(&config, others, host), "{host}");
        }
        // A certificate covers it, but it is not one of our hosts.
        assert!(!connects(&config, &wide, "c.in.example"));
    }

    #[test]
    fn a_host_without_one_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let pairs =
            vec![pair(folder.path(), "one", &["a.example"]), pair(folder.path(), "two", &["b.example"])];
        let hosts = ["a.example", "b.example", "c.example"].map(str::to_owned).to_vec();
        let faults =
            load(&Config { pairs, hosts }).unwrap().faults(Timestamp::from_unix_seconds(1_800_000_000));
        assert_eq!(faults.len(), 1, "{faults:?}");
        let told = faults[0].to_string();
        assert!(told.contains("is for a.example, b.example, not for c.example"), "{told}");
    }
}
