//! Bodies in flight: streamed with back-pressure, never gathered, and cut when they make no progress.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// Whoever waits for a part of a body for this long is woken once, to look after other things.
const LONG: Duration = Duration::from_millis(400);

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the body was cut")]
    Cut(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the body made no progress for {} s", .0.as_secs())]
    Stalled(Duration),
    #[error("the session that it was for has ended")]
    SessionEnded,
}

/// A body from the network with a bound on how long it may stand still while somebody waits for it.
///
/// The timer exists only once a read had to wait, and is moved only when it fires: a body that is already there
/// costs no timer at all.
#[derive(Debug)]
pub struct Stream<B> {
    inner: B,
    stall: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    waiting_since: Option<Instant>,
    waits_long: bool,
}

impl<B> Stream<B> {
    pub fn new(inner: B, stall: Duration) -> Self {
        Self { inner, stall, timer: None, waiting_since: None, waits_long: false }
    }

    /// Whether this wait is one of those that are worth the effort of listening for something else meanwhile.
    pub fn waits_long(&self) -> bool {
        self.waits_long
    }

    /// Ready when the wait has lasted too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let since = *self.waiting_since.get_or_insert(now);
        let (long, deadline) = (since + LONG, since + self.stall);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(long.min(deadline))));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            // It was set for this wait's first look around, or for an earlier wait, which ended well.
            self.waits_long = timer.deadline() >= long;
            timer.as_mut().reset(if self.waits_long { deadline } else { long.min(deadline) });
        }
    }
}

impl<B> Body for Stream<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.waiting_since = None;
                self.waits_long = false;
                Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError::Cut(error.into()))))
            }
            Poll::Pending => {
                ready!(self.poll_stalled(cx));
                Poll::Ready(Some(Err(BodyError::Stalled(self.stall))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
