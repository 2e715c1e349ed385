//! A new connection: the TLS handshake, and the choice between HTTP/1.1 and HTTP/2; for proxies, neither.

use std::{fmt::Display, net::SocketAddr, pin::pin, rc::Rc, time::Duration};

use futures_util::future::poll_immediate;
use rustls::server::Acceptor;
use tokio::{
    io::AsyncWriteExt as _,
    task::yield_now,
    time::{Instant, timeout_at},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{
    Door, Refused, Service,
    client::ConnectionHandle,
    flow::Newest,
    http1::Http1,
    http2,
    proxy_protocol::{self, ProxiedClient, SIGNATURE},
    state::{ConnectionPermit, Worker},
    tunnel_guard::Tunnels,
};
use crate::web::socket::{ClientStream, Socket};

/// Log at most one refused header in this time.
const QUIET: Duration = Duration::from_secs(1);

const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 52\r\nconnection: close\r\n\r\nThis port speaks HTTPS. Use https:// in the address.";
const NO_PROXY: &[u8] = b"HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 55\r\nconnection: close\r\n\r\nThis port is for the proxies in server.trusted_proxies.\n";

/// Who opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Front {
    /// The client.
    Client,
    /// A balancer, which tells the client first.
    Tells,
    /// A proxy that has ended TLS, on the port for those.
    Asks,
}

impl Front {
    pub(super) fn of<S>(worker: &Worker<S>, door: Door, peer: SocketAddr) -> Self {
        if door == Door::Proxies {
            return Self::Asks;
        }
        let peer = peer.ip().to_canonical();
        let tells = worker.config.proxy_protocol.iter().any(|network| network.contains(&peer));
        if tells { Self::Tells } else { Self::Client }
    }
}

/// Serves one accepted socket until it is closed.
pub(super) async fn serve<S: Service>(
    worker: Rc<Worker<S>>,
    mut socket: Socket,
    peer: SocketAddr,
    front: Front,
    mut permit: ConnectionPermit,
) {
    let until = Instant::now() + worker.config.handshake_timeout;
    if front == Front::Asks {
        return serve_proxy(worker, socket, peer, permit).await;
    }
    let Some(client) = client_of(&worker, &mut socket, peer, front, &mut permit, until).await else { return };
    let context = Rc::new(worker.service.connected(permit.is_trusted(), Door::Public));
    let accept = Box::pin(accept(&worker, socket, client));
    let Ok(Some((stream, asked))) = timeout_at(until, accept).await else {
        return worker.service.handshake_failed();
    };
    worker.service.secured(&context, stream.get_ref().1.peer_certificates(), asked);
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let newest = is_http2.then(Newest::default);
    let tunnels = Tunnels::new(&worker, newest.clone(), permit);
    let streams = is_http2.then(|| http2::streams(&worker.load));
    let (monitor, drain) = (worker.register(), worker.drain.clone());
    let connection = Rc::new(ConnectionHandle::new(client, streams, monitor, drain, tunnels));
    if let Some(newest) = newest {
        return http2::serve(&worker, stream, connection, context, newest).await;
    }
    Box::pin(Http1::new(worker, connection, context, ClientStream::Tls(Box::new(stream)))).await;
}

/// Serves a proxy over plain HTTP/1.1; nobody else gets more than a refusal.
async fn serve_proxy<S: Service>(
    worker: Rc<Worker<S>>,
    mut socket: Socket,
    peer: SocketAddr,
    permit: ConnectionPermit,
) {
    let context = Rc::new(worker.service.connected(permit.is_trusted(), Door::Proxies));
    if !permit.is_trusted() {
        tracing::info!(peer = %peer.ip(), "refused a connection to the port for proxies: its address is not in server.trusted_proxies");
        // This short response fits into the socket's buffer.
        let _ = socket.try_write(NO_PROXY);
        let _ = socket.shutdown().await;
        return;
    }
    let tunnels = Tunnels::new(&worker, None, permit);
    let (monitor, drain) = (worker.register(), worker.drain.clone());
    let connection = Rc::new(ConnectionHandle::new(peer, None, monitor, drain, tunnels));
    Box::pin(Http1::new(worker, connection, context, ClientStream::Plain(socket))).await;
}

/// Whose connection it is: reads what a balancer tells first. `None` when it is over already.
pub(super) async fn client_of<S: Service>(
    worker: &Worker<S>,
    socket: &mut Socket,
    peer: SocketAddr,
    front: Front,
    permit: &mut ConnectionPermit,
    until: Instant,
) -> Option<SocketAddr> {
    if front != Front::Tells {
        return Some(peer);
    }
    let told = timeout_at(until, proxy_protocol::read(socket)).await;
    let fault: &dyn Display = match &told {
        // The connection is the balancer's own.
        Ok(Ok(Ok(ProxiedClient::Unknown))) => {
            permit.is_uncounted(worker.networks.trusts(peer.ip()));
            return Some(peer);
        }
        Ok(Ok(Ok(ProxiedClient::Client(client)))) => {
            permit.is_of(worker.admit(*client).ok()?);
            return Some(*client);
        }
        // A probe that only connects.
        Ok(Err(_)) => return None,
        Ok(Ok(Err(fault))) => fault,
        Err(_) => &"it was not there in time (server.timeouts.handshake)",
    };
    complain(worker, peer, fault);
    None
}

/// Refuses a connection for its header; at most once a second in the log.
fn complain<S: Service>(worker: &Worker<S>, peer: SocketAddr, reason: &dyn Display) {
    worker.service.refused(Refused::ProxyProtocol);
    let now = Instant::now();
    if worker.complained_at.get().is_none_or(|at| now.duration_since(at) >= QUIET) {
        worker.complained_at.set(Some(now));
        tracing::warn!(
            peer = %peer.ip().to_canonical(),
            %reason,
            "closed a connection: whoever is listed in server.proxy_protocol begins each one with a PROXY protocol header, \
             and nobody else does"
        );
    }
}

/// Accepts TLS, and says whether the client was asked for a certificate. Plain HTTP, which starts with a letter as TLS does not,
/// gets a response that says so.
async fn accept<S: Service>(
    worker: &Worker<S>,
    mut socket: Socket,
    client: SocketAddr,
) -> Option<(TlsStream<Socket>, bool)> {
    let mut space = [0; SIGNATURE.len()];
    let first = socket.first(&mut space).await.ok()?;
    if proxy_protocol::begins_like_one(first) {
        complain(worker, client, &"it is not listed, or has sent two headers");
        return None;
    }
    if first.first().is_some_and(u8::is_ascii_uppercase) {
        // This short response fits into the socket's buffer.
        let _ = socket.try_write(PLAIN_HTTP);
        let _ = socket.shutdown().await;
        return None;
    }
    let hello = LazyConfigAcceptor::new(Acceptor::default(), socket).await.ok()?;
    // The key exchange happens here. The next one waits for a turn of the runtime, in which requests are served.
    let turn = worker.handshake.acquire().await.ok()?;
    let (config, asks) = worker.tls().of_host(hello.client_hello().server_name());
    let mut handshake = pin!(hello.into_stream(config));
    if let Some(done) = poll_immediate(handshake.as_mut()).await {
        return Some((done.ok()?, asks));
    }
    yield_now().await;
    drop(turn);
    Some((handshake.await.ok()?, asks))
}
