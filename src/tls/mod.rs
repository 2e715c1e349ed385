//! TLS towards clients: certificates, versions and ALPN.

mod acceptance;
mod certificate;
mod certificates;
mod instead;
mod reload;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use acceptance::Acceptance;
use acceptance::TakesAny;
use certificate::Certificate;
pub use certificate::Fault;
pub use certificates::Certificates;
use instead::Wanted;
pub use reload::Reload;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::NoServerSessionStorage,
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

use crate::{
    client_certificates::ClientCertificates,
    permission::{Need, explained},
};

/// Where the certificates are.
#[derive(Clone, Debug)]
pub struct Config {
    /// At least one. A client that names none of our hosts gets the first.
    pub pairs: Vec<PairFiles>,
    /// The hosts that users type. Each needs a certificate.
    pub hosts: Vec<String>,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct PairFiles {
    /// PEM: the certificate and its chain.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// A certificate and its key, checked to belong together.
#[derive(Clone, Debug)]
struct Pair {
    certificate: Certificate,
    key: Arc<CertifiedKey>,
}

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {} from {}", what, path.display())]
    Read {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds no readable {what}: {instead}", path.display())]
    Malformed {
        what: &'static str,
        path: PathBuf,
        /// What it holds instead, and the command that converts it.
        instead: String,
    },
    #[error(
        "the first certificate in {} does not match the private key, a later one does: put the host's own certificate first",
        path.display()
    )]
    Order { path: PathBuf },
    #[error(
        "the private key {} does not belong to the certificate {}: use the pair that was issued together",
        key.display(),
        certificate.display()
    )]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("the certificate or its private key is of a kind that cannot be used")]
    Unusable(#[source] rustls::Error),
}

/// Reads all pairs, and logs what clients will object to.
pub fn load(config: &Config) -> Result<Certificates, TlsError> {
    let pairs = config.pairs.iter().map(read_pair).collect::<Result<Vec<_>, _>>()?;
    Ok(Certificates::new(pairs, &config.hosts))
}

/// Reads a certificate and its key, and checks that they belong together.
fn read_pair(files: &PairFiles) -> Result<Pair, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = private_key(&files.key)?;
    let certificate = Certificate::of(chain.clone()).ok_or_else(|| TlsError::Malformed {
        what: Wanted::Certificate.name(),
        path: files.certificate.clone(),
        instead: "what is in it is not an X.509 certificate".to_owned(),
    })?;
    let provider = aws_lc_rs::default_provider();
    let fits = |certificate: &CertificateDer<'static>| {
        CertifiedKey::from_der(vec![certificate.clone()], key.clone_key(), &provider).is_ok()
    };
    match CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider) {
        Ok(key) => Ok(Pair { certificate, key: Arc::new(key) }),
        Err(rustls::Error::InconsistentKeys(_)) if chain[1..].iter().any(fits) => {
            Err(TlsError::Order { path: files.certificate.clone() })
        }
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone() })
        }
        Err(error) => Err(TlsError::Unusable(error)),
    }
}

/// The TLS settings for accepting connections.
fn acceptance(
    certificates: &Certificates,
    clients: Option<&Arc<ClientCertificates>>,
) -> Result<Acceptance, TlsError> {
    let asking = clients.map(|clients| Ok((server(certificates, Some(clients))?, Arc::clone(clients))));
    Ok(Acceptance::new(server(certificates, None)?, asking.transpose()?))
}

/// TLS 1.2 and 1.3; HTTP/2 and HTTP/1.1 by ALPN.
fn server(
    certificates: &Certificates,
    clients: Option<&Arc<ClientCertificates>>,
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Unusable)?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(TakesAny::new(clients)),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::new(certificates.resolver()));
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Tickets keep no state on the server. Early data stays off, since it can be replayed (RFC 8470).
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Unusable)?;
    server.send_tls13_tickets = 1;
    server.max_early_data_size = 0;
    Ok(server)
}

/// Every certificate of a PEM file, in order.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path, Wanted::Certificate)?;
    let chain = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| malformed(&bytes, Wanted::Certificate, path))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path, Wanted::Key)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| malformed(&bytes, Wanted::Key, path))
}

/// The content of a file, without a byte order mark.
fn read(path: &Path, wanted: Wanted) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    let mut bytes = std::fs::read(path).map(Zeroizing::new).map_err(|source| {
        let source = explained(path, Need::Read, source);
        TlsError::Read { what: wanted.name(), path: path.into(), source }
    })?;
    if bytes.starts_with(MARK) {
        bytes.drain(..MARK.len());
    }
    Ok(bytes)
}

fn malformed(bytes: &[u8], wanted: Wanted, path: &Path) -> TlsError {
    let instead = instead::explained(bytes, wanted, path);
    TlsError::Malformed { what: wanted.name(), path: path.into(), instead }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey as Made, generate_simple_self_signed};

    use super::*;

    fn pair(folder: &Path, name: &str) -> PairFiles {
        let Made { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let config = PairFiles {
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
        let config = Config { pairs: vec![pair(folder.path(), "a")], hosts: vec!["localhost".to_owned()] };
        let server = server(&load(&config).unwrap(), None).unwrap();
        assert_eq!(server.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(server.max_early_data_size, 0);
    }

    #[test]
    fn each_fault_of_a_pair_says_which_file_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (pair(folder.path(), "a"), pair(folder.path(), "b"));
        let with =
            |certificate: &Path, key: &Path| PairFiles { certificate: certificate.into(), key: key.into() };
        let why =
            |certificate: &Path, key: &Path| read_pair(&with(certificate, key)).unwrap_err().to_string();
        let crossed = why(&a.certificate, &b.key);
        assert!(crossed.contains("does not belong to") && crossed.contains("b.key"), "{crossed}");
        let swapped = why(&a.key, &a.certificate);
        assert!(swapped.contains("are `tls.certificate` and `tls.key` swapped?"), "{swapped}");
        let absent = why(&folder.path().join("none.pem"), &a.key);
        assert!(absent.contains("none.pem"), "{absent}");
        // The issuer's certificate before the server's own.
        let both =
            [&b.certificate, &a.certificate].map(|path| std::fs::read_to_string(path).unwrap()).concat();
        std::fs::write(&b.certificate, both).unwrap();
        let order = why(&b.certificate, &a.key);
        assert!(order.contains("put the host's own certificate first"), "{order}");
    }

    /// What openssl makes of a file.
    fn openssl(folder: &Path, words: &str) {
        let done = std::process::Command::new("openssl").args(words.split(' ')).current_dir(folder).output();
        let done = done.expect("openssl is installed");
        assert!(done.status.success(), "{words}: {}", String::from_utf8_lossy(&done.stderr));
    }

    #[test]
    fn keys_of_every_usual_form_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        for (make, file) in [
            ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out pkcs8.pem", "pkcs8.pem"),
            ("ecparam -name prime256v1 -genkey -out ec.pem", "ec.pem"),
            ("genrsa -traditional -out pkcs1.pem 2048", "pkcs1.pem"),
            ("genpkey -algorithm ed25519 -out ed.pem", "ed.pem"),
        ] {
            openssl(folder.path(), make);
            openssl(folder.path(), &format!("req -x509 -key {file} -subj /CN=localhost -out c-{file}"));
            let path = |name: String| folder.path().join(name);
            let config = PairFiles { certificate: path(format!("c-{file}")), key: path(file.to_owned()) };
            read_pair(&config).unwrap_or_else(|error| panic!("{make}: {error}"));
            // Some editors save a byte order mark.
            for file in [&config.certificate, &config.key] {
                let text = std::fs::read_to_string(file).unwrap();
                std::fs::write(file, format!("\u{feff}{}", text.replace('\n', "\r\n"))).unwrap();
            }
            read_pair(&config).unwrap_or_else(|error| panic!("{make}: {error}"));
        }
    }

    #[test]
    fn what_is_no_certificate_or_key_says_what_to_type() {
        let folder = tempfile::tempdir().unwrap();
        for make in [
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out pkcs8.pem",
            "genrsa -traditional -out pkcs1.pem 2048",
            "req -x509 -key pkcs8.pem -subj /CN=localhost -out c-pkcs8.pem",
        ] {
            openssl(folder.path(), make);
        }
        for (make, file, wanted, says) in [
            (
                "pkcs8 -topk8 -in pkcs8.pem -passout pass:x -out locked.pem",
                "locked.pem",
                Wanted::Key,
                "passphrase",
            ),
            (
                "rsa -aes256 -traditional -in pkcs1.pem -passout pass:x -out old.pem",
                "old.pem",
                Wanted::Key,
                "passphrase",
            ),
            (
                "pkey -in pkcs8.pem -outform der -out key.der",
                "key.der",
                Wanted::Key,
                "openssl pkey -inform der",
            ),
            (
                "x509 -in c-pkcs8.pem -outform der -out c.der",
                "c.der",
                Wanted::Certificate,
                "openssl x509 -inform der",
            ),
            (
                "pkcs12 -export -in c-pkcs8.pem -inkey pkcs8.pem -passout pass:x -out both.pfx",
                "both.pfx",
                Wanted::Certificate,
                "openssl pkcs12",
            ),
            (
                "crl2pkcs7 -nocrl -certfile c-pkcs8.pem -out c.p7b",
                "c.p7b",
                Wanted::Certificate,
                "openssl pkcs7",
            ),
            (
                "req -new -key pkcs8.pem -subj /CN=a -out asked.pem",
                "asked.pem",
                Wanted::Certificate,
                "signing request",
            ),
            ("pkey -in pkcs8.pem -pubout -out public.pem", "public.pem", Wanted::Key, "public key"),
        ] {
            openssl(folder.path(), make);
            let path = folder.path().join(file);
            let error = match wanted {
                Wanted::Certificate => certificates(&path).unwrap_err().to_string(),
                Wanted::Key => private_key(&path).unwrap_err().to_string(),
            };
            assert!(error.contains(says) && error.contains(file), "{make}: {error}");
        }
        for (bytes, says) in [
            (&b""[..], "is empty"),
            (b"rubbish", "no `-----BEGIN"),
            (b"\xff\xfe-\0-\0", "UTF-16"),
            (b"-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n", "damaged"),
        ] {
            std::fs::write(folder.path().join("odd.pem"), bytes).unwrap();
            let error = certificates(&folder.path().join("odd.pem")).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
