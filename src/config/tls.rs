//! `[tls]`: the certificates that users see.

use std::path::PathBuf;

use serde::Deserialize;
use url::Url;

use super::{clients::ClientSection, layers::Layers, values::Parsed};
use crate::{
    client_certificates,
    tls::{self, PairFiles},
    tokens::Scope,
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    /// PEM file with the certificate and its chain. Reloaded when it changes.
    certificate: Parsed<PathBuf>,
    /// PEM file with the certificate's private key.
    key: Parsed<PathBuf>,
    /// Several certificates in place of the one: each site uses the first that is valid for its host.
    certificates: Vec<Option<PairSection>>,
    /// PEM file with the authorities that sign certificates of clients. Absent: nobody is asked for one.
    client_ca: Option<Parsed<PathBuf>>,
    /// PEM file with their revocation lists.
    client_crl: Option<Parsed<PathBuf>>,
    /// Whom those certificates stand for.
    clients: Vec<Option<ClientSection>>,
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
            client_ca: None,
            client_crl: None,
            clients: Vec::new(),
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

/// Which certificates of clients count; none: nobody is asked for one. And what each of those clients may do as a machine.
pub(super) type Clients = (Option<client_certificates::Config>, Vec<Scope>);

impl Section {
    /// `sites` are the addresses of all of them.
    pub(super) fn clients(&mut self, sites: &[Url], layers: &mut Layers) -> Clients {
        let clients = std::mem::take(&mut self.clients).into_iter().enumerate();
        let clients =
            clients.filter_map(|(index, client)| Some((index, client?.validate(index, sites, layers)?)));
        let clients: Vec<_> = clients.collect();
        for (place, (index, (client, _))) in clients.iter().enumerate() {
            let same = clients[..place].iter().find(|(_, (earlier, _))| earlier.shows == client.shows);
            if let Some((first, _)) = same {
                let message =
                    format!("tls.clients[{first}] has the same certificate, and the first that fits counts");
                layers.fault(&format!("tls.clients.{index}"), message);
            }
        }
        let (clients, scopes): (Vec<_>, Vec<_>) = clients.into_iter().map(|(_, client)| client).unzip();
        let Some(Parsed(authorities)) = &self.client_ca else {
            for key in ["tls.client_crl", "tls.clients"] {
                if layers.says(key) && layers.sound(&["tls.client_ca"]) {
                    layers.fault(key, "needs `tls.client_ca`: the authorities whose certificates count");
                }
            }
            return (None, Vec::new());
        };
        if !layers.says("tls.clients") {
            layers.fault("tls.client_ca", "needs `[[tls.clients]]`: whom the certificates stand for");
        }
        let files = client_certificates::Files {
            authorities: layers.resolve("tls.client_ca", authorities),
            revoked: self.client_crl.as_ref().map(|Parsed(path)| layers.resolve("tls.client_crl", path)),
        };
        (Some(client_certificates::Config { files, clients }), scopes)
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
