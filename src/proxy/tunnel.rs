//! A connection that has switched protocols: bytes in both directions until either side, the session or the gateway
//! ends.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{
        AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy_bidirectional_with_sizes,
    },
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::frames::Frames;
use crate::{
    server::TunnelGuard,
    sessions::{Live, Sessions, Use},
    upstream::http1,
    web::upgraded::{OnUpgrade, Upgraded},
};

/// Buffer size of each direction.
const BUFFER: usize = 8 * 1024;
/// How long a client has to close.
const FAREWELL: Duration = Duration::from_millis(500);

/// The bytes that a tunnel has carried.
#[derive(Default)]
pub struct Tally {
    from_client: Cell<u64>,
    to_client: Cell<u64>,
    is_over: Cell<bool>,
    kept: RefCell<Option<Box<dyn Any>>>,
}

impl Tally {
    /// Bytes received from the client.
    pub fn from_client(&self) -> u64 {
        self.from_client.get()
    }

    /// Bytes sent to the client.
    pub fn to_client(&self) -> u64 {
        self.to_client.get()
    }

    /// Holds something until the tunnel ends, which may be now.
    pub fn keep(&self, what: Box<dyn Any>) {
        if !self.is_over.get() {
            self.kept.replace(Some(what));
        }
    }
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tally(…)")
    }
}

fn add(count: &Cell<u64>, bytes: usize) {
    count.set(count.get() + u64::try_from(bytes).unwrap_or(0));
}

/// Held by the tunnel while it runs.
struct Running(Rc<Tally>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.is_over.set(true);
        drop(self.0.kept.take());
    }
}

/// The two halves of a tunnel before the client has seen the portal's 101.
pub(super) struct Tunnel {
    pub(super) client: OnUpgrade,
    pub(super) portal: http1::PortalStream,
    pub(super) sessions: Arc<Sessions>,
    /// `None` if anonymous.
    pub(super) session: Option<Arc<Live>>,
    /// Cancelled when the session ends or no longer suffices.
    pub(super) ended: Option<CancellationToken>,
    /// Whether messages of the client count as use of the session.
    pub(super) counts: Use,
    /// Cancelled when the gateway stops.
    pub(super) drain: CancellationToken,
    pub(super) guard: TunnelGuard,
    pub(super) is_websocket: bool,
    pub(super) tally: Rc<Tally>,
}

impl Tunnel {
    /// Runs in a task beside the connection.
    pub(super) fn start(self) {
        let guard = self.guard.clone();
        let tally = Running(Rc::clone(&self.tally));
        let running = tokio::task::spawn_local(async move {
            if let Err(error) = self.run(tally).await {
                tracing::debug!(%error, "a tunnel broke");
            }
        });
        guard.runs_in(running.abort_handle());
    }

    /// Copies until the end. Both sides are closed on return.
    async fn run(self, tally: Running) -> io::Result<()> {
        let client = self.client.done().await?;
        let mut portal = self.portal;
        let ended = self.ended;
        let mut client = Client {
            io: client,
            sessions: self.sessions,
            session: self.session,
            counts: self.counts,
            guard: self.guard,
            tally,
            messages: self.is_websocket.then(Frames::default),
            frames: self.is_websocket.then(Frames::default),
            half_closed: false,
            ends: false,
        };
        let (code, reason) = tokio::select! {
            biased;
            // RFC 6455 §7.4.1.
            () = over(ended) => (1008, "the session has ended"),
            () = self.drain.cancelled() => (1001, "the gateway is stopping"),
            copied = copy_bidirectional_with_sizes(&mut client, &mut portal, BUFFER, BUFFER) => {
                return copied.map(|_| ());
            }
        };
        drop(portal);
        let _ = timeout(FAREWELL, client.take_leave(code, reason)).await;
        Ok(())
    }
}

/// Waits until the session ends.
async fn over(ended: Option<CancellationToken>) {
    match ended {
        Some(ended) => ended.cancelled().await,
        None => std::future::pending().await,
    }
}

/// The client's side. Its messages count as use of the session, unless nothing there counts; messages of the portal do
/// not, nor do the pongs that a browser sends even when its user has left.
struct Client {
    io: Upgraded,
    sessions: Arc<Sessions>,
    session: Option<Arc<Live>>,
    counts: Use,
    guard: TunnelGuard,
    tally: Running,
    /// The frames from the client, if it is a WebSocket.
    messages: Option<Frames>,
    /// The frames to the client, if it is a WebSocket.
    frames: Option<Frames>,
    /// One side has finished, and the other has to make progress.
    half_closed: bool,
    /// The client has sent its last byte.
    ends: bool,
}

impl Client {
    /// Closes, with a reason if there is a place for a close frame.
    async fn take_leave(&mut self, code: u16, reason: &str) -> io::Result<()> {
        if let Some(close) = self.frames.take().and_then(|frames| frames.close(code, reason)) {
            self.io.write_all(&close).await?;
        }
        self.io.shutdown().await?;
        // Closing a socket with unread bytes discards what has not been sent yet.
        let mut rest = [0; 1024];
        while self.io.read(&mut rest).await? > 0 {}
        Ok(())
    }

    /// Once one side has finished, the client has to make progress until it has as well.
    fn half_close(&mut self) {
        if !std::mem::replace(&mut self.half_closed, true) {
            self.guard.expects();
        }
    }

    /// Notes whether the client has read what it was sent.
    fn note<T>(&self, taken: &Poll<T>) {
        match taken {
            Poll::Pending => self.guard.waits(),
            Poll::Ready(_) if self.half_closed => self.guard.expects(),
            Poll::Ready(_) => self.guard.rests(),
        }
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        if read > 0 {
            add(&self.tally.0.from_client, read);
            let fresh = buffer.filled().get(before..).unwrap_or_default();
            let is_message = self.messages.as_mut().is_none_or(|messages| messages.watch(fresh));
            // Its token decides whether the session still lasts.
            if let Some(session) = self.session.as_ref().filter(|_| is_message && self.counts == Use::Counts)
            {
                self.sessions.touch(session);
            }
            if self.half_closed {
                self.guard.expects();
            }
            return Poll::Ready(Ok(()));
        }
        if self.guard.is_gone() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if !std::mem::replace(&mut self.ends, true) {
            // Resetting an HTTP/2 stream ends both directions; the other half is told after this one.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.half_close();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.note(&written);
        let written = ready!(written)?;
        add(&self.tally.0.to_client, written);
        if let Some(frames) = &mut self.frames {
            frames.watch(bytes.get(..written).unwrap_or_default());
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.note(&flushed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.half_close();
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
