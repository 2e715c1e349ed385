//! The TLS settings that a connection is accepted with: which clients are asked for a certificate.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use crate::client_certificates::ClientCertificates;

/// The longest chain that a client may send, in bytes. The connection holds it until it closes, and its ticket does too.
const LARGEST: usize = 16 * 1024;

/// The TLS settings of this gateway.
#[derive(Clone, Debug)]
pub struct Acceptance {
    usual: Arc<ServerConfig>,
    asking: Option<(Arc<ServerConfig>, Arc<ClientCertificates>)>,
}

impl Acceptance {
    pub(super) fn new(usual: ServerConfig, asking: Option<(ServerConfig, Arc<ClientCertificates>)>) -> Self {
        let asking = asking.map(|(config, certificates)| (Arc::new(config), certificates));
        Self { usual: Arc::new(usual), asking }
    }

    /// The settings for a client that names this host, or no host, and whether they ask for a certificate.
    pub fn of_host(&self, host: Option<&str>) -> (Arc<ServerConfig>, bool) {
        match &self.asking {
            Some((config, certificates)) if certificates.asks(host) => (Arc::clone(config), true),
            _ => (Arc::clone(&self.usual), false),
        }
    }
}

impl From<ServerConfig> for Acceptance {
    fn from(usual: ServerConfig) -> Self {
        Self::new(usual, None)
    }
}

/// Asks for a certificate and accepts any, as long as the client has its key. Whether it counts is decided for each request.
///
/// A failed handshake would show the user an error with no way on, and the browser would offer the same certificate until it is
/// closed.
#[derive(Debug)]
pub(super) struct TakesAny {
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl TakesAny {
    pub(super) fn new(certificates: &ClientCertificates) -> Arc<Self> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        Arc::new(Self { hints: certificates.authorities(), algorithms })
    }
}

impl ClientCertVerifier for TakesAny {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let size: usize = intermediates.iter().map(|further| further.len()).sum();
        if end_entity.len() + size > LARGEST {
            return Err(CertificateError::BadEncoding.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
