//! Opening a connection to a server of the portal: TCP, then TLS with the name checked, then HTTP/1.1.

use std::{io, sync::Arc, time::Duration};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{Config, Peer};
use crate::{
    tls::{self, TlsError},
    web::socket::Socket,
};

/// Most bytes of an answer's head, and of what is read ahead of its body.
const READ_AHEAD: usize = 64 * 1024;

/// Why there is no connection.
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
    #[error("{peer} does not speak HTTP/1.1")]
    Handshake {
        peer: String,
        #[source]
        source: hyper::Error,
    },
}

/// Opens connections.
#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
    limit: Duration,
}

impl Connector {
    /// Reads the authorities that the portal's certificates are checked against.
    pub fn new(config: &Config) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = &config.ca {
            for certificate in tls::certificates(path)? {
                roots.add(certificate).map_err(TlsError::Unusable)?;
            }
        } else if config.upstreams.iter().any(|url| url.scheme() == "https") {
            // A system file with one odd entry among hundreds is the usual case, not a fault.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let mut client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Unusable)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(client)), limit: config.connect_timeout })
    }

    /// Opens one connection to `peer`; its protocol runs on the calling worker.
    pub(super) async fn open<B>(&self, peer: &Peer) -> Result<SendRequest<B>, ConnectError>
    where
        B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Unpin
            + 'static,
    {
        tokio::time::timeout(self.limit, self.connect(peer))
            .await
            .map_err(|_| ConnectError::Timeout { peer: peer.label.clone(), limit: self.limit })?
    }

    async fn connect<B>(&self, peer: &Peer) -> Result<SendRequest<B>, ConnectError>
    where
        B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Unpin
            + 'static,
    {
        let failed = |source| ConnectError::Connect { peer: peer.label.clone(), source };
        let stream = TcpStream::connect((peer.host.as_str(), peer.port)).await.map_err(failed)?;
        let socket = Socket::new(stream).map_err(failed)?;
        match &peer.tls {
            None => speak_http(socket, peer).await,
            Some(name) => {
                speak_http(self.tls.connect(name.clone(), socket).await.map_err(failed)?, peer).await
            }
        }
    }
}

async fn speak_http<B>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: &Peer,
) -> Result<SendRequest<B>, ConnectError>
where
    B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(READ_AHEAD)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|source| ConnectError::Handshake { peer: peer.label.clone(), source })?;
    tokio::task::spawn_local(async move {
        // Its end reaches whoever waits for an answer on it.
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("limit", &self.limit).finish_non_exhaustive()
    }
}
