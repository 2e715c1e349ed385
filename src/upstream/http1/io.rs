//! The socket of one connection, and what has been read from it ahead of its use.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;
use tokio_util::io::poll_read_buf;

use crate::web::socket::Socket;

/// What one read asks for. A usual answer fits.
const READ: usize = 8 * 1024;
/// What it asks for once an answer has turned out to be long.
const LONG_READ: usize = 64 * 1024;

/// A connection to a server of the portal.
#[derive(Debug)]
pub struct Connection {
    pub(super) transport: Transport,
    /// What has come and has not been used yet.
    pub(super) read: BytesMut,
    ask_for: usize,
}

/// How bytes get to the server.
#[derive(Debug)]
pub enum Transport {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Connection {
    pub fn new(transport: Transport) -> Self {
        Self { transport, read: BytesMut::new(), ask_for: READ }
    }

    /// Whether an idle connection can carry a request: the server has neither closed it nor sent what nobody asked for.
    pub fn is_usable(&mut self) -> bool {
        if !self.read.is_empty() {
            return false;
        }
        // Whoever uses the connection next registers a waker of its own.
        let mut cx = Context::from_waker(Waker::noop());
        let mut byte = [0];
        Pin::new(&mut self.transport).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// Reads more; zero is the end.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(self.ask_for);
        let room = self.read.capacity() - self.read.len();
        let read = poll_read_buf(Pin::new(&mut self.transport), cx, &mut self.read);
        if let Poll::Ready(Ok(count)) = read {
            self.ask_for = if count == room { LONG_READ } else { self.ask_for };
        }
        read
    }

    /// The next answer is taken for a usual one again.
    pub(super) fn rest(&mut self) {
        if self.ask_for != READ {
            self.ask_for = READ;
            self.read = BytesMut::new();
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, pieces),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
