//! Body streaming with back-pressure. Bodies are never collected, and cut when they make no progress.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// A task waiting this long for a part of a body is woken once, to check other things.
const LONG: Duration = Duration::from_millis(50);

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the body was cut")]
    Cut(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the body was too slow: too few bytes in {} s of waiting", .0.as_secs())]
    Stalled(Duration),
    #[error("its session has ended")]
    SessionEnded,
}

/// A body from the network with a stall timeout, which runs while we wait for it.
///
/// The timer is created by the first read that waits, and reset only when it fires: a body that is already there needs none.
#[derive(Debug)]
pub struct Stream<B> {
    inner: B,
    stall: Duration,
    pace: Pace,
    timer: Option<Pin<Box<Sleep>>>,
    waiting_since: Option<Instant>,
    waits_long: bool,
}

/// The bytes received for the time spent waiting.
#[derive(Debug, Default)]
struct Pace {
    /// This many bytes reset the timeout.
    least: u64,
    /// The waiting time since the last reset, and the bytes since.
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// `bytes` have arrived after a wait.
    fn advance(&mut self, waited: Duration, bytes: usize) {
        self.waited += waited;
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.bytes >= self.least {
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
    }

    /// The rest of `stall` for the next wait.
    fn left(&self, stall: Duration) -> Duration {
        stall.saturating_sub(self.waited)
    }
}

impl<B> Stream<B> {
    /// Any part of the body, however small, resets the timeout.
    pub fn new(inner: B, stall: Duration) -> Self {
        Self { inner, stall, pace: Pace::default(), timer: None, waiting_since: None, waits_long: false }
    }

    /// Requires a minimum rate in bytes per second of waiting: time that the reader takes does not count.
    #[must_use]
    pub fn at_rate(mut self, bytes_per_second: u32) -> Self {
        let millis = u64::try_from(self.stall.as_millis()).unwrap_or(u64::MAX);
        self.pace.least = u64::from(bytes_per_second).saturating_mul(millis) / 1000;
        self
    }

    /// Whether this wait is long enough to be worth listening for something else.
    pub fn waits_long(&self) -> bool {
        self.waits_long
    }

    /// Ready when the timeout has passed.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let since = *self.waiting_since.get_or_insert(now);
        let (long, deadline) = (since + LONG, since + self.pace.left(self.stall));
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
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                let bytes = data.map_or(0, Bytes::len);
                let waited = self.waiting_since.take().map_or(Duration::ZERO, |since| since.elapsed());
                self.pace.advance(waited, bytes);
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

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(10);

    /// What is left of ten seconds after waits of so many milliseconds for so many bytes, if 100 a second are due.
    fn left(parts: impl IntoIterator<Item = (u64, usize)>) -> Duration {
        let mut pace = Pace { least: 1000, ..Pace::default() };
        for (wait, bytes) in parts {
            assert!(Duration::from_millis(wait) <= pace.left(STALL), "cut before this part came");
            pace.advance(Duration::from_millis(wait), bytes);
        }
        pace.left(STALL)
    }

    #[test]
    fn a_trickle_uses_up_its_time_and_a_slow_but_steady_body_does_not() {
        assert_eq!(left([(4000, 1), (4000, 1)]), Duration::from_secs(2));
        assert_eq!(left([(1000, 90); 10]), Duration::ZERO);
        assert_eq!(left(std::iter::repeat_n((1000, 100), 36_000)), STALL);
        assert_eq!(left(std::iter::repeat_n((9000, 1000), 4000)), STALL);
    }

    #[test]
    fn a_slow_reader_is_not_held_against_the_sender() {
        assert_eq!(left(std::iter::repeat_n((0, 1), 999)), STALL);
    }

    #[test]
    fn without_a_rate_any_part_buys_the_whole_time() {
        let mut pace = Pace::default();
        pace.advance(Duration::from_secs(9), 0);
        assert_eq!(pace.left(STALL), STALL);
    }
}
