//! A connection to a server of the portal: the socket and its read buffer.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead as _, ReadBuf};
use tokio_rustls::client::TlsStream;

use crate::{
    http1::read_ahead::ReadAhead,
    web::socket::{MaybeTls, Socket},
};

/// The size of one read of a long response.
const LONG_READ: usize = 64 * 1024;

/// The length of `HTTP/1.1 408`.
const GOODBYE: usize = 12;

/// A connection to a server of the portal.
#[derive(Debug)]
pub struct PortalConnection {
    pub(super) transport: Transport,
    pub(super) read: ReadAhead<LONG_READ>,
}

/// The state of an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    Usable,
    /// The server has closed it.
    Ended,
    /// The server has sent bytes without a request.
    Spoke,
}

/// Whether unsolicited bytes are a fault: some servers send a 408 before they close an idle connection, and some old ones an
/// empty line after a body.
fn is_unasked(bytes: &[u8]) -> bool {
    let takes_leave = bytes.starts_with(b"HTTP/1.") && bytes.get(8..GOODBYE) == Some(b" 408");
    !takes_leave && !bytes.iter().all(|byte| b"\r\n".contains(byte))
}

/// The transport: a socket, or TLS over one.
pub type Transport = MaybeTls<TlsStream<Socket>>;

impl PortalConnection {
    pub fn new(transport: Transport) -> Self {
        Self { transport, read: ReadAhead::default() }
    }

    /// Checks an idle connection.
    pub fn look(&mut self) -> Idle {
        // The next request registers its own waker.
        let mut cx = Context::from_waker(Waker::noop());
        let mut bytes = [0; GOODBYE];
        let mut start = ReadBuf::new(&mut bytes);
        match Pin::new(&mut self.transport).poll_read(&mut cx, &mut start) {
            Poll::Pending => Idle::Usable,
            Poll::Ready(Ok(())) if is_unasked(start.filled()) => Idle::Spoke,
            Poll::Ready(_) => Idle::Ended,
        }
    }

    /// Whether the server has sent more than the response.
    pub(super) fn has_spoken(&self) -> bool {
        is_unasked(&self.read.bytes)
    }

    /// Reads more; zero at the end.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.poll_from(&mut self.transport, cx)
    }

    /// Goes back to small reads for the next response.
    pub(super) fn rest(&mut self) {
        self.read.begin();
    }
}
