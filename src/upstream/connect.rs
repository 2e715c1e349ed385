//! Opens connections to the portal's servers: TCP, then TLS with verification of the server's name.

use std::{io, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, client::WebPkiServerVerifier, crypto::aws_lc_rs};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};
use tokio_rustls::TlsConnector;

use super::{
    Config, Peer, PeerAddress, dial,
    http1::{PortalConnection, Transport},
    pinned::Pinned,
};
use crate::{
    permission::{self, Need},
    tls::{self, TlsError},
    web::socket::Socket,
};

/// Why no connection could be opened or leased.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot connect to {peer}")]
    Connect {
        peer: String,
        #[source]
        source: io::Error,
    },
    #[error("{peer} did not accept a connection within {} ms", limit.as_millis())]
    Timeout { peer: String, limit: Duration },
    #[error("all connections to the portal are in use, and the queue for them is full")]
    Full,
    #[error("all connections to the portal were in use for {} ms", .0.as_millis())]
    Late(Duration),
    #[error("{peer} does not speak HTTP/2, which gRPC needs")]
    NoHttp2 { peer: String },
    #[error("{peer} does not speak HTTP/2, which gRPC needs")]
    Handshake {
        peer: String,
        #[source]
        source: hyper::Error,
    },
}

impl ConnectError {
    /// Whether only our own limits stand in the way.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Full | Self::Late(_))
    }

    /// Whether the TLS handshake failed, usually because of the certificate.
    pub fn is_of_tls(&self) -> bool {
        let Self::Connect { source, .. } = self else { return false };
        source.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()).is_some()
    }

    pub(super) fn no_server() -> Self {
        Self::Connect { peer: "no server".to_owned(), source: io::ErrorKind::NotFound.into() }
    }
}

/// Opens connections.
#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
    tls_for_http2: TlsConnector,
    limit: Duration,
}

impl Connector {
    /// Loads the authorities that verify the portal's certificates.
    pub fn new(config: &Config) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let mut named = Vec::new();
        if let Some(path) = &config.ca {
            named = tls::certificates(path)?;
            for certificate in &named {
                roots.add(certificate.clone()).map_err(TlsError::Unusable)?;
            }
        } else if config.upstreams.iter().any(|url| url.scheme() == "https") {
            // Single unreadable entries among hundreds are usual in a system's file.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Unusable)?;
        let mut client = if named.is_empty() {
            client.with_root_certificates(roots).with_no_client_auth()
        } else {
            let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| TlsError::Unusable(rustls::Error::General(error.to_string())))?;
            client
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Pinned { usual, named }))
                .with_no_client_auth()
        };
        let mut speaking = |protocol: &[u8]| {
            client.alpn_protocols = vec![protocol.to_vec()];
            TlsConnector::from(Arc::new(client.clone()))
        };
        Ok(Self { tls: speaking(b"http/1.1"), tls_for_http2: speaking(b"h2"), limit: config.connect_timeout })
    }

    /// How long opening a connection may take.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Tries to connect to `peer`, if it has TLS or is on this machine. An error with [`ConnectError::is_of_tls`] will not go away
    /// by itself.
    pub async fn try_out(&self, peer: &Peer) -> Result<(), ConnectError> {
        if peer.tls.is_none() && matches!(peer.address, PeerAddress::Network { .. }) {
            return Ok(());
        }
        self.transport(peer, &self.tls).await.map(drop)
    }

    /// Opens a stream of bytes to `peer`.
    pub async fn stream(
        &self,
        peer: &Peer,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<>, ConnectError> {
        self.transport(peer, &self.tls).await
    }

    /// Opens one connection to `peer`.
    pub(super) async fn open(&self, peer: &Peer) -> Result<PortalConnection, ConnectError> {
        self.transport(peer, &self.tls).await.map(PortalConnection::new)
    }

    /// Opens one for HTTP/2: negotiated by ALPN, or with prior knowledge without TLS (RFC 9113 §3.3).
    pub(super) async fn open_http2(&self, peer: &Peer) -> Result<Transport, ConnectError> {
        let transport = self.transport(peer, &self.tls_for_http2).await?;
        match &transport {
            Transport::Tls(tls) if tls.get_ref().1.alpn_protocol() != Some(b"h2") => {
                Err(ConnectError::NoHttp2 { peer: peer.label.clone() })
            }
            Transport::Plain(_) | Transport::Tls(_) => Ok(transport),
        }
    }

    async fn transport(&self, peer: &Peer, tls: &TlsConnector) -> Result<Transport, ConnectError> {
        tokio::time::timeout(self.limit, connect(peer, tls, self.limit))
            .await
            .map_err(|_| ConnectError::Timeout { peer: peer.label.clone(), limit: self.limit })?
            .map_err(|source| ConnectError::Connect { peer: peer.label.clone(), source })
    }
}

async fn connect(peer: &Peer, tls: &TlsConnector, limit: Duration) -> io::Result<Transport> {
    let socket = match &peer.address {
        PeerAddress::Network { host, port } => Socket::new(dial::dial(host, *port, limit).await?)?,
        PeerAddress::Socket(path) => {
            let stream = UnixStream::connect(path).await;
            Socket::of_unix(stream.map_err(|error| permission::explained(path, Need::Write, error))?)
        }
    };
    Ok(match &peer.tls {
        None => Transport::Plain(socket),
        Some(name) => Transport::Tls(Box::new(tls.connect(name.clone(), socket).await?)),
    })
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("limit", &self.limit).finish_non_exhaustive()
    }
}
