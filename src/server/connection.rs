//! A new connection: the TLS handshake, and the choice between HTTP/1.1 and HTTP/2.

use std::{net::SocketAddr, pin::pin, rc::Rc};

use futures_util::future::poll_immediate;
use rustls::server::Acceptor;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::yield_now};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{
    Service,
    client::ConnectionHandle,
    flow::Newest,
    http1::Http1,
    http2,
    state::{ConnectionPermit, Worker},
    tunnel_guard::Tunnels,
};
use crate::web::socket::Socket;

const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 52\r\nconnection: close\r\n\r\nThis port speaks HTTPS. Use https:// in the address.";

/// Serves one accepted socket until it is closed.
pub(super) async fn serve<S: Service>(
    worker: Rc<Worker<S>>,
    socket: TcpStream,
    peer: SocketAddr,
    permit: ConnectionPermit,
) {
    let context = Rc::new(worker.service.connected(permit.is_trusted()));
    // Fails only if the socket is gone already.
    let Ok(socket) = Socket::new(socket) else { return };
    let accept = Box::pin(accept(&worker, socket));
    let Ok(Some(stream)) = tokio::time::timeout(worker.config.handshake_timeout, accept).await else {
        return worker.service.handshake_failed();
    };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let newest = is_http2.then(Newest::default);
    let tunnels = Tunnels::new(&worker, newest.clone(), permit);
    let streams = is_http2.then(|| http2::streams(&worker.load));
    let (monitor, drain) = (worker.register(), worker.drain.clone());
    let connection = Rc::new(ConnectionHandle::new(peer, streams, monitor, drain, tunnels));
    if let Some(newest) = newest {
        return http2::serve(&worker, stream, connection, context, newest).await;
    }
    Box::pin(Http1::new(worker, connection, context, Box::new(stream))).await;
}

/// Accepts TLS. Plain HTTP, which starts with a letter as TLS does not, gets a response that says so.
async fn accept<S>(worker: &Worker<S>, mut socket: Socket) -> Option<TlsStream<Socket>> {
    if socket.first_byte().await.ok()?.is_ascii_uppercase() {
        // This short response fits into the socket's buffer.
        let _ = socket.try_write(PLAIN_HTTP);
        let _ = socket.shutdown().await;
        return None;
    }
    let hello = LazyConfigAcceptor::new(Acceptor::default(), socket).await.ok()?;
    // The key exchange happens here. The next one waits for a turn of the runtime, in which requests are served.
    let turn = worker.handshake.acquire().await.ok()?;
    let mut handshake = pin!(hello.into_stream(worker.tls()));
    if let Some(done) = poll_immediate(handshake.as_mut()).await {
        return done.ok();
    }
    yield_now().await;
    drop(turn);
    handshake.await.ok()
}
