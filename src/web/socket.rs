//! A socket that uses the cheaper system call for single-slice writes, and a client's connection over it.
//!
//! HTTP and TLS pass lists of slices that mostly have one element, for which `send` costs less than `writev`.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::server::TlsStream;

/// The largest slice passed to TLS, which copies it. glibc copies larger ones with `rep movsb`, which on AMD takes three times
/// as long when source and destination are aligned differently, as they are after a record header.
pub const PIECE: usize = 2048;
/// Most slices in one write: four TLS records.
const PIECES: usize = 32;

/// Writes the start of `parts` to TLS, in slices that are cheap to copy.
pub fn write_pieces<'a>(
    stream: &mut (impl AsyncWrite + Unpin),
    cx: &mut Context<'_>,
    parts: impl IntoIterator<Item = &'a [u8]>,
) -> Poll<io::Result<usize>> {
    let mut pieces = [IoSlice::new(&[]); PIECES];
    let mut count = 0;
    for (slot, piece) in pieces.iter_mut().zip(parts.into_iter().flat_map(|part| part.chunks(PIECE))) {
        *slot = IoSlice::new(piece);
        count += 1;
    }
    match pieces.get(..count).unwrap_or_default() {
        [piece] => Pin::new(stream).poll_write(cx, piece),
        pieces => Pin::new(stream).poll_write_vectored(cx, pieces),
    }
}

/// Reads from the bytes that were read ahead; false when there are none left. The buffer is released with the last byte, since
/// upgraded connections are long-lived.
pub fn give_ahead(ahead: &mut BytesMut, buffer: &mut ReadBuf<'_>) -> bool {
    let gives = !ahead.is_empty();
    let bytes = ahead.split_to(ahead.len().min(buffer.remaining()));
    buffer.put_slice(&bytes);
    if ahead.is_empty() {
        *ahead = BytesMut::new();
    }
    gives
}

/// A TCP or Unix socket.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix {
        stream: UnixStream,
        /// Looked at already, and not read yet.
        ahead: BytesMut,
    },
}

impl Socket {
    /// Sets `TCP_NODELAY`: small messages are sent at once.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    pub fn of_unix(stream: UnixStream) -> Self {
        Self::Unix { stream, ahead: BytesMut::new() }
    }

    /// The first bytes that are there, without consuming them: one at least.
    pub async fn first<'a>(&mut self, space: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let count = match self {
            Self::Tcp(stream) => stream.peek(space).await?,
            // Such a socket cannot be looked into.
            Self::Unix { stream, ahead } => {
                let count = stream.read(space).await?;
                ahead.extend_from_slice(space.get(..count).unwrap_or_default());
                count
            }
        };
        if count == 0 {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(space.get(..count).unwrap_or_default())
        }
    }

    /// Ready when bytes have arrived, or the peer has closed.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix { stream, ahead } if ahead.is_empty() => stream.poll_read_ready(cx),
            Self::Unix { .. } => Poll::Ready(Ok(())),
        }
    }

    /// Writes what fits into the buffer.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix { stream, .. } => stream.try_write(bytes),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix { stream, ahead } => {
                if give_ahead(ahead, buffer) {
                    return Poll::Ready(Ok(()));
                }
                Pin::new(stream).poll_read(cx, buffer)
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix { stream, .. } => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match (self.get_mut(), pieces) {
            (Self::Tcp(stream), [piece]) => Pin::new(stream).poll_write(cx, piece),
            (Self::Tcp(stream), pieces) => Pin::new(stream).poll_write_vectored(cx, pieces),
            (Self::Unix { stream, .. }, pieces) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix { stream, .. } => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix { stream, .. } => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A socket, with TLS over it or without.
#[derive(Debug)]
pub enum MaybeTls<T> {
    Plain(Socket),
    Tls(Box<T>),
}

/// A client's connection: TLS, or plain from a proxy that has ended it.
pub type ClientStream = MaybeTls<TlsStream<Socket>>;

impl ClientStream {
    /// What the bytes travel over.
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Tls(stream) => stream.get_ref().0,
            Self::Plain(socket) => socket,
        }
    }

    /// The same, to read it past what is encrypted.
    pub fn socket_mut(&mut self) -> &mut Socket {
        match self {
            Self::Tls(stream) => stream.get_mut().0,
            Self::Plain(socket) => socket,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for MaybeTls<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for MaybeTls<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
