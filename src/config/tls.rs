//! `[tls]`: the certificate that users see.

use std::path::PathBuf;

use serde::Deserialize;

use super::{layers::Layers, values::Parsed};
use crate::tls;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    /// PEM file with the certificate and its chain. Read again when it changes.
    certificate: Parsed<PathBuf>,
    /// PEM file with the certificate's private key.
    key: Parsed<PathBuf>,
}

impl Default for Section {
    fn default() -> Self {
        Self { certificate: Parsed("certs/fullchain.pem".into()), key: Parsed("certs/privkey.pem".into()) }
    }
}

impl Section {
    /// `host` is absent when the URL is missing, which is a fault already.
    pub(super) fn validate(self, host: Option<&str>, layers: &mut Layers) -> tls::Config {
        tls::Config {
            certificate: layers.resolve("tls.certificate", &self.certificate.0),
            key: layers.resolve("tls.key", &self.key.0),
            host: host.unwrap_or_default().to_owned(),
        }
    }
}
