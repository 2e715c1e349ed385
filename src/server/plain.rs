//! The port for plain HTTP: one request a connection, and a short answer that leads to HTTPS or says why not.
//!
//! Heads are read by the reader that all of HTTP/1 has. No body is read for what it says, nothing is kept, no session is looked at.

use std::{io, net::SocketAddr, rc::Rc, time::Duration};

use bytes::BytesMut;
use http::{Method, Response, header};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout, timeout_at},
};

use super::{
    PlainAsked, Service,
    connection::{Front, client_of},
    state::{ConnectionPermit, Worker},
};
use crate::{http1::request_head, web::socket::Socket};

/// How long, and how much, a client that still sends is heard out: closing earlier would take the answer from it.
const LAST_WORDS: Duration = Duration::from_secs(2);
const MOST_UNREAD: u64 = 64 * 1024;
/// The first byte of TLS.
const HANDSHAKE: u8 = 22;

/// Answers one request.
pub(super) async fn serve<S: Service>(
    worker: Rc<Worker<S>>,
    mut socket: Socket,
    peer: SocketAddr,
    front: Front,
    mut permit: ConnectionPermit,
) {
    let until = Instant::now() + worker.config.handshake_timeout;
    let Some(client) = client_of(&worker, &mut socket, peer, front, &mut permit, until).await else { return };
    // What goes wrong on a client's connection is its own affair.
    let _ = answer(&worker, socket, client).await;
}

async fn answer<S: Service>(
    worker: &Rc<Worker<S>>,
    mut socket: Socket,
    client: SocketAddr,
) -> io::Result<()> {
    let asked = tokio::select! {
        biased;
        () = worker.drain.cancelled() => return Ok(()),
        asked = head(worker, &mut socket) => asked?,
    };
    let Some(asked) = asked else { return Ok(()) };
    let is_head = asked.as_ref().is_ok_and(|(request, _)| *request.method() == Method::HEAD);
    let answer = Rc::clone(&worker.service).answer_plain(asked, client);
    let wire = wire(&answer, is_head, worker);
    timeout(worker.config.stall_timeout, socket.write_all(&wire)).await??;
    socket.shutdown().await?;
    let mut rest = socket.take(MOST_UNREAD);
    timeout(LAST_WORDS, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await??;
    Ok(())
}

/// Reads one head; `None` when there is nothing to answer.
async fn head<S: Service>(worker: &Worker<S>, socket: &mut Socket) -> io::Result<Option<PlainAsked>> {
    let mut read = BytesMut::new();
    let mut until = Instant::now() + worker.config.first_byte_timeout;
    loop {
        let is_first = read.is_empty();
        if timeout_at(until, socket.read_buf(&mut read)).await?? == 0 || read.first() == Some(&HANDSHAKE) {
            return Ok(None);
        }
        if is_first {
            until = Instant::now() + worker.config.head_timeout;
        }
        match request_head::parse_within(&mut read, worker.config.max_header_size, drop) {
            Ok(None) => {}
            Ok(Some(head)) => return Ok(Some(Ok((head.request, head.announced.is_some())))),
            Err(malformed) => return Ok(Some(Err(malformed.into()))),
        }
    }
}

/// A whole answer, after which the connection closes.
fn wire<S>(answer: &Response<bytes::Bytes>, is_head: bool, worker: &Worker<S>) -> Vec<u8> {
    let status = answer.status();
    let mut wire =
        format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or("")).into_bytes();
    // Without connections of HTTPS nobody else does.
    worker.advance_ticks();
    let date = worker.date();
    let length = answer.body().len().to_string();
    let own = [
        (header::DATE, date.as_bytes()),
        (header::CONTENT_LENGTH, length.as_bytes()),
        (header::CONNECTION, &b"close"[..]),
    ];
    let given = answer.headers().iter().map(|(name, value)| (name.clone(), value.as_bytes()));
    for (name, value) in given.chain(own) {
        wire.extend_from_slice(name.as_str().as_bytes());
        wire.extend_from_slice(b": ");
        wire.extend_from_slice(value);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"\r\n");
    if !is_head {
        wire.extend_from_slice(answer.body());
    }
    wire
}
