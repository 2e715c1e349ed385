//! Certificates of the portal that the operator has pinned. `openssl req -x509` marks its certificates as authorities, which
//! servers' certificates must not be otherwise.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

/// Trusts certificates of the authorities, and pinned ones.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) usual: Arc<WebPkiServerVerifier>,
    /// The certificates in `portal.ca`.
    pub(super) named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // rustls has no specific error for an authority's certificate. It checks the dates before that.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.named.iter().any(|named| named.as_ref() == end_entity.as_ref()) =>
            {
                check_name(end_entity, server_name)
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// A pinned certificate with server names is valid for those only, one without names for any server.
fn check_name(
    end_entity: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
) -> Result<ServerCertVerified, Error> {
    match verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name) {
        Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }))
            if presented.is_empty() =>
        {
            Ok(ServerCertVerified::assertion())
        }
        checked => checked.map(|()| ServerCertVerified::assertion()),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
    use rustls::{RootCertStore, crypto::aws_lc_rs};

    use super::*;

    /// A self-signed certificate as openssl makes it by default: an authority with this name.
    fn authority(names: &[&str], expired: bool) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "portal.internal");
        if expired {
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    fn trusts(named: &CertificateDer<'static>, shown: &CertificateDer<'static>, name: &'static str) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(named.clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let pinned = Pinned { usual, named: vec![named.clone()] };
        let name = ServerName::try_from(name).unwrap();
        pinned.verify_server_cert(shown, &[], &name, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn what_was_named_is_trusted_byte_for_byte_and_for_its_names() {
        let one = authority(&["portal.internal"], false);
        assert!(trusts(&one, &one, "portal.internal"));
        assert!(!trusts(&one, &one, "other.internal"));
        let nameless = authority(&[], false);
        assert!(trusts(&nameless, &nameless, "portal.internal"));
        for other in [authority(&["portal.internal"], false), authority(&[], false)] {
            assert!(!trusts(&one, &other, "portal.internal"), "one of the same name");
        }
        let expired = authority(&["portal.internal"], true);
        assert!(!trusts(&expired, &expired, "portal.internal"));
    }
}
