//! A client's connection or stream after an upgrade, as a byte stream.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

use super::socket::{ClientStream, give_ahead, write_pieces};

/// Resolves to the byte stream once the response to the upgrade has been sent.
#[derive(Debug)]
pub struct OnUpgrade(Protocol);

#[derive(Debug)]
enum Protocol {
    Http1(oneshot::Receiver<Upgraded>),
    Http2(hyper::upgrade::OnUpgrade),
}

impl OnUpgrade {
    /// The sender provides the connection.
    pub fn of_http1() -> (oneshot::Sender<Upgraded>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(Protocol::Http1(receiver)))
    }

    pub fn of_http2(upgrade: hyper::upgrade::OnUpgrade) -> Self {
        Self(Protocol::Http2(upgrade))
    }

    /// Waits for the upgrade. An error: it did not happen.
    pub async fn done(self) -> io::Result<Upgraded> {
        match self.0 {
            Protocol::Http1(receiver) => receiver.await.map_err(io::Error::other),
            Protocol::Http2(upgrade) => {
                upgrade.await.map(TokioIo::new).map(Upgraded::Http2).map_err(io::Error::other)
            }
        }
    }
}

/// The byte stream.
#[derive(Debug)]
pub enum Upgraded {
    Http1 {
        stream: ClientStream,
        /// The bytes that came after the request's head.
        ahead: BytesMut,
    },
    Http2(TokioIo<hyper::upgrade::Upgraded>),
}

impl AsyncRead for Upgraded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http1 { stream, ahead } => {
                if give_ahead(ahead, buffer) {
                    return Poll::Ready(Ok(()));
                }
                Pin::new(stream).poll_read(cx, buffer)
            }
            Self::Http2(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Http1 { stream, .. } => write_pieces(stream, cx, [bytes]),
            Self::Http2(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http1 { stream, .. } => Pin::new(stream).poll_flush(cx),
            Self::Http2(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http1 { stream, .. } => Pin::new(stream).poll_shutdown(cx),
            Self::Http2(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
