//! The TLS front: certificates and what protocols are spoken.

mod reload;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use reload::Reload;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::NoServerSessionStorage,
    sign::CertifiedKey,
};

use crate::permission::{Need, explained};

/// Where the certificate is.
#[derive(Clone, Debug)]
pub struct Config {
    /// PEM: the certificate and its chain.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {} from {}", what, path.display())]
    Read {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds no readable {what} in PEM form", path.display())]
    Malformed {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("{} holds no certificate", path.display())]
    Empty { path: PathBuf },
    #[error(
        "the private key {} does not belong to the certificate {}: use the pair that was issued together",
        key.display(),
        certificate.display()
    )]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("the certificate or its private key is of a kind that cannot be used")]
    Unusable(#[source] rustls::Error),
}

/// Reads the pair and makes what TLS connections are accepted with: 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN.
pub fn load(config: &Config) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&config.certificate)?;
    let key = private_key(&config.key)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let pair = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { certificate: config.certificate.clone(), key: config.key.clone() }
        }
        error => TlsError::Unusable(error),
    })?;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Unusable)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair)));
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Tickets resume without memory here; early data stays off, since it can be replayed (RFC 8470).
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Unusable)?;
    server.send_tls13_tickets = 1;
    server.max_early_data_size = 0;
    Ok(server)
}

/// Every certificate of a PEM file, in order.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let what = "certificate";
    let bytes = read(path, what)?;
    let chain = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Malformed { what, path: path.into(), source })?;
    if chain.is_empty() { Err(TlsError::Empty { path: path.into() }) } else { Ok(chain) }
}

fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| {
        let source = explained(path, Need::Read, source);
        TlsError::Read { what, path: path.into(), source }
    })
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let what = "private key";
    let bytes = read(path, what)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|source| TlsError::Malformed {
        what,
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey as Made, generate_simple_self_signed};

    use super::*;

    fn pair(folder: &Path, name: &str) -> Config {
        let Made { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let config = Config {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        };
        std::fs::write(&config.certificate, cert.pem()).unwrap();
        std::fs::write(&config.key, signing_key.serialize_pem()).unwrap();
        config
    }

    #[test]
    fn a_fitting_pair_loads() {
        let folder = tempfile::tempdir().unwrap();
        let server = load(&pair(folder.path(), "a")).unwrap();
        assert_eq!(server.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(server.max_early_data_size, 0);
    }

    #[test]
    fn each_fault_of_a_pair_says_which_file_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (pair(folder.path(), "a"), pair(folder.path(), "b"));
        let crossed = Config { certificate: a.certificate.clone(), key: b.key.clone() };
        let text = load(&crossed).unwrap_err().to_string();
        assert!(text.contains("does not belong to") && text.contains("b.key"), "{text}");

        let swapped = Config { certificate: a.key.clone(), key: a.certificate.clone() };
        assert!(matches!(load(&swapped), Err(TlsError::Empty { .. })));
        let absent = Config { certificate: folder.path().join("none.pem"), ..a };
        assert!(load(&absent).unwrap_err().to_string().contains("none.pem"));
        std::fs::write(&b.key, "rubbish").unwrap();
        assert!(matches!(load(&b), Err(TlsError::Malformed { .. })));
    }
}
