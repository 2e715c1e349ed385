//! A connection that has switched protocols: bytes both ways until one side ends, the session ends, or we do.

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

/// What is held of each direction.
const BUFFER: usize = 8 * 1024;
/// How long a client has for taking leave.
const FAREWELL: Duration = Duration::from_millis(500);

/// What a tunnel has carried so far.
#[derive(Default)]
pub struct Tally {
    from_client: Cell<u64>,
    to_client: Cell<u64>,
    is_over: Cell<bool>,
    kept: RefCell<Option<Box<dyn Any>>>,
}

impl Tally {
    /// Bytes that the client has sent.
    pub fn from_client(&self) -> u64 {
        self.from_client.get()
    }

    /// Bytes that the client has been sent.
    pub fn to_client(&self) -> u64 {
        self.to_client.get()
    }

    /// Keeps something until the tunnel is over, which may be now.
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

/// The tunnel's own hold on its tally: with it the tunnel is over.
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
    /// Absent: it is anonymous.
    pub(super) session: Option<Arc<Live>>,
    /// Cancelled when the session is over, or no longer enough.
    pub(super) ended: Option<CancellationToken>,
    /// Whether what the client sends is a use of the session.
    pub(super) counts: Use,
    /// Cancelled when the gateway stops.
    pub(super) drain: CancellationToken,
    pub(super) guard: TunnelGuard,
    pub(super) is_websocket: bool,
    pub(super) tally: Rc<Tally>,
}

impl Tunnel {
    /// Runs beside the connection that it came from.
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

    /// Copies until it is over. Both sides are closed on return.
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

/// Waits until a session is over.
async fn over(ended: Option<CancellationToken>) {
    match ended {
        Some(ended) => ended.cancelled().await,
        None => std::future::pending().await,
    }
}

/// The client's side. What comes from there is a use of the session, unless nothing there is; what the portal sends unasked is
/// none, and neither are the pongs with which a browser answers the portal's pings, desk left or not.
struct Client {
    io: Upgraded,
    sessions: Arc<Sessions>,
    session: Option<Arc<Live>>,
    counts: Use,
    guard: TunnelGuard,
    tally: Running,
    /// What the client has sent of a WebSocket.
    messages: Option<Frames>,
    /// What the client has been sent of a WebSocket.
    frames: Option<Frames>,
    /// One side has finished, and the other has to go on making progress.
    half_closed: bool,
    /// The client has sent its last byte.
    ends: bool,
}

impl Client {
    /// Closes, with a word why if there is room for it.
    async fn take_leave(&mut self, code: u16, reason: &str) -> io::Result<()> {
        if let Some(close) = self.frames.take().and_then(|frames| frames.close(code, reason)) {
            self.io.write_all(&close).await?;
        }
        self.io.shutdown().await?;
        // Closed with something unread in it, a socket forgets what the client has not been sent yet.
        let mut rest = [0; 1024];
        while self.io.read(&mut rest).await? > 0 {}
        Ok(())
    }

    /// Once one side has finished, the client is expected to go on until it has as well.
    fn half_close(&mut self) {
        if !std::mem::replace(&mut self.half_closed, true) {
            self.guard.expects();
        }
    }

    /// Notes whether the client took what it was given.
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
            // Whether the session still lasts is for its token to say.
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
            // A stream of HTTP/2 that is reset ends in both directions; its other half hears of it after this one.
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
