//! `[tls]`: the certificates that users see.

use std::path::PathBuf;

use serde::Deserialize;

use super::{layers::Layers, values::Parsed};
use crate::tls::{self, PairFiles};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    /// PEM file with the certificate and its chain. Reloaded when it changes.
    certificate: Parsed<PathBuf>,
    /// PEM file with the certificate's private key.
    key: Parsed<PathBuf>,
    /// Several certificates in place of the one: each site uses the first that is valid for its host.
    certificates: Vec<Option<PairSection>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PairSection {
    certificate: Option<Parsed<PathBuf>>,
    key: Option<Parsed<PathBuf>>,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            certificate: Parsed("certs/fullchain.pem".into()),
            key: Parsed("certs/privkey.pem".into()),
            certificates: Vec::new(),
        }
    }
}

impl Section {
    /// `hosts` are those of all sites.
    pub(super) fn validate(self, hosts: Vec<String>, layers: &mut Layers) -> tls::Config {
        if !layers.says("tls.certificates") {
            let pair = PairFiles {
                certificate: layers.resolve("tls.certificate", &self.certificate.0),
                key: layers.resolve("tls.key", &self.key.0),
            };
            return tls::Config { pairs: vec![pair], hosts };
        }
        for key in ["tls.certificate", "tls.key"] {
            if layers.says(key) {
                layers.fault(key, "`tls.certificates` is set as well; keep one of the two");
            }
        }
        if self.certificates.is_empty() && layers.sound(&["tls.certificates"]) {
            layers.fault("tls.certificates", "is empty; list at least one `{ certificate = …, key = … }`");
        }
        let pairs = self.certificates.into_iter().enumerate();
        let pairs = pairs.filter_map(|(index, pair)| pair?.validate(index, layers)).collect();
        tls::Config { pairs, hosts }
    }
}

impl PairSection {
    fn validate(self, index: usize, layers: &mut Layers) -> Option<PairFiles> {
        let mut file = |name: &str, path: Option<Parsed<PathBuf>>| {
            let key = format!("tls.certificates.{index}.{name}");
            match path {
                Some(Parsed(path)) => Some(layers.resolve(&key, &path)),
                None => {
                    let shown = format!("tls.certificates[{index}].{name}");
                    if layers.sound(&[&shown]) {
                        layers.fault(&key, "is missing; give each its `certificate` and its `key`");
                    }
                    None
                }
            }
        };
        let (certificate, key) = (file("certificate", self.certificate), file("key", self.key));
        Some(PairFiles { certificate: certificate?, key: key? })
    }
}
