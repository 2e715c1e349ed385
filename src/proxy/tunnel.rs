//! A connection that has switched protocols: bytes both ways until one side ends, the session ends, or we do.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio_util::sync::CancellationToken;

use crate::{
    sessions::{Live, Sessions},
    upstream::http1,
};

/// What is held of each direction.
const BUFFER: usize = 8 * 1024;

/// The two halves of a tunnel before the client has seen the portal's 101.
pub(super) struct Tunnel {
    pub(super) client: OnUpgrade,
    pub(super) portal: http1::Upgraded,
    pub(super) sessions: Arc<Sessions>,
    pub(super) session: Arc<Live>,
    /// Cancelled when the gateway stops.
    pub(super) drain: CancellationToken,
}

impl Tunnel {
    /// Copies until it is over. Both sockets are closed on return.
    pub(super) async fn run(self) -> io::Result<()> {
        let client = self.client.await.map_err(io::Error::other)?;
        let ended = self.session.ended.clone();
        let mut client = Client { io: TokioIo::new(client), sessions: self.sessions, session: self.session };
        let mut portal = self.portal;
        tokio::select! {
            biased;
            () = ended.cancelled() => Ok(()),
            () = self.drain.cancelled() => Ok(()),
            copied = copy_bidirectional_with_sizes(&mut client, &mut portal, BUFFER, BUFFER) => {
                copied.map(|_| ())
            }
        }
    }
}

/// The client's side. What comes from there is a use of the session; what the portal sends unasked is none.
struct Client {
    io: TokioIo<Upgraded>,
    sessions: Arc<Sessions>,
    session: Arc<Live>,
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        // Whether the session still lasts is for its token to say.
        if buffer.filled().len() > before {
            self.sessions.touch(&self.session);
        }
        read
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
