//! A connection to a server of the portal: the socket and its read buffer.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio_rustls::client::TlsStream;
use tokio_util::io::poll_read_buf;

use crate::web::socket::{MaybeTls, Socket};

/// The size of one read. A usual response fits.
const READ: usize = 8 * 1024;
/// The size of one read of a long response.
const LONG_READ: usize = 64 * 1024;

/// The length of `HTTP/1.1 408`.
const GOODBYE: usize = 12;

/// A connection to a server of the portal.
#[derive(Debug)]
pub struct PortalConnection {
    pub(super) transport: Transport,
    /// Bytes that have been read and not been used yet.
    pub(super) read: BytesMut,
    ask_for: usize,
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
        Self { transport, read: BytesMut::new(), ask_for: READ }
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
        is_unasked(&self.read)
    }

    /// Reads more; zero at the end.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(self.ask_for);
        let room = self.read.capacity() - self.read.len();
        let read = poll_read_buf(Pin::new(&mut self.transport), cx, &mut self.read);
        if let Poll::Ready(Ok(count)) = read {
            self.ask_for = if count == room { LONG_READ } else { self.ask_for };
        }
        read
    }

    /// Goes back to small reads for the next response.
    pub(super) fn rest(&mut self) {
        if self.ask_for != READ {
            self.ask_for = READ;
            self.read = BytesMut::new();
        }
    }
}
