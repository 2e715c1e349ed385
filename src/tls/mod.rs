//! The TLS front: certificates and what protocols are spoken.

use std::path::PathBuf;

/// Where the certificate is.
#[derive(Clone, Debug)]
pub struct Config {
    /// PEM: the certificate and its chain.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}
