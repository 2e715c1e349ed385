//! What one user has in progress on this gateway, in all their sessions together. Each session has a reference to it,
//! so counting needs no look-up and no lock.
//!
//! Counts and waits. The callers decide what is too much, and what happens then.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicI64, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Concurrent pages of ours for one user.
const PAGES_AT_ONCE: usize = 4;
/// Page requests of a session that wait for their turn: the tabs of a browser that restores all of them.
const MOST_PAGES_WAITING: u32 = 100;
/// Page requests that a session may make in a row without a pause, and the interval after that.
const PAGES_IN_A_ROW: u32 = 300;
const PAGE_EVERY: Duration = Duration::from_millis(200);
/// How often the log reports that a user has reached a limit.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The counts of one user, on all workers.
#[derive(Debug)]
pub struct Ongoing {
    lanes: OnceLock<Box<[Lane]>>,
    streams: AtomicU32,
    pages: Semaphore,
    /// Milliseconds since the process started.
    told: AtomicI64,
}

/// Requests of one user that one worker has sent to one portal and that are not finished.
#[derive(Debug, Default)]
pub struct Lane {
    /// On connections of their own.
    pub requests: AtomicU32,
    /// On a connection that all users share.
    pub calls: AtomicU32,
}

/// One unit of a count, until it is dropped.
struct Counted<'a>(&'a AtomicU32);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl<'a> Counted<'a> {
    /// `None` if there are `most` already.
    fn begin(count: &'a AtomicU32, most: u32) -> Option<Self> {
        let counted = Self(count);
        // If there are too many, dropping it undoes the increment.
        (count.fetch_add(1, Relaxed) < most).then_some(counted)
    }
}

impl Default for Ongoing {
    fn default() -> Self {
        Self {
            lanes: OnceLock::new(),
            streams: AtomicU32::new(0),
            pages: Semaphore::new(PAGES_AT_ONCE),
            told: AtomicI64::new(i64::MIN),
        }
    }
}

impl Ongoing {
    /// One of the lanes: each worker has one for each pool of connections.
    pub fn lane(&self, lane: usize, lanes: usize) -> Option<&Lane> {
        self.lanes.get_or_init(|| (0..lanes.max(1)).map(|_| Lane::default()).collect()).get(lane)
    }

    /// Counts a WebSocket or an event stream. False if there are `most` already.
    pub fn open_stream(&self, most: u32) -> bool {
        let is_open = self.streams.fetch_add(1, Relaxed) < most;
        if !is_open {
            self.close_stream();
        }
        is_open
    }

    pub fn close_stream(&self) {
        self.streams.fetch_sub(1, Relaxed);
    }

    /// Whether another report is due that this user is held back.
    pub fn tells(&self, elapsed: Duration) -> bool {
        let now = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        let told = self.told.load(Relaxed);
        let is_due = now.saturating_sub(told) >= i64::try_from(TELL_EVERY.as_millis()).unwrap_or(i64::MAX);
        is_due && self.told.compare_exchange(told, now, Relaxed, Relaxed).is_ok()
    }
}

/// The page requests of one session.
#[derive(Debug, Default)]
pub(super) struct PagesAsked {
    waiting: AtomicU32,
    /// When the row would end if pages came at the interval: milliseconds since the process started.
    until: AtomicI64,
}

/// Too many page requests, and when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOften {
    pub retry_after: Duration,
}

impl PagesAsked {
    /// Counts one page request at `elapsed`, unless there were too many recently (GCRA).
    fn ask(&self, elapsed: Duration) -> Result<(), TooOften> {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let now = millis(elapsed);
        let latest = now.saturating_add(millis(PAGE_EVERY * PAGES_IN_A_ROW));
        let mut late = 0;
        let asked = self.until.fetch_update(Relaxed, Relaxed, |until| {
            let next = until.max(now).saturating_add(millis(PAGE_EVERY));
            late = next.saturating_sub(latest);
            (late <= 0).then_some(next)
        });
        let wait = Duration::from_millis(u64::try_from(late).unwrap_or(0));
        asked.map(drop).map_err(|_| TooOften { retry_after: wait.max(Duration::from_secs(1)) })
    }

    /// Waits for the turn of a page; the turn ends when the result is dropped.
    pub(super) async fn turn<'a>(
        &self,
        ongoing: &'a Ongoing,
        elapsed: Duration,
    ) -> Result<SemaphorePermit<'a>, TooOften> {
        let busy = TooOften { retry_after: Duration::from_secs(2) };
        self.ask(elapsed)?;
        let _waits = Counted::begin(&self.waiting, MOST_PAGES_WAITING).ok_or(busy)?;
        ongoing.pages.acquire().await.map_err(|_| busy)
    }
}

/// A login in progress: its page requests are limited like a session's.
#[derive(Debug, Default)]
pub struct Newcomer {
    pages: PagesAsked,
    ongoing: Ongoing,
}

impl Newcomer {
    /// Waits for the turn of a page; the turn ends when the result is dropped.
    pub async fn page(&self, elapsed: Duration) -> Result<SemaphorePermit<'_>, TooOften> {
        self.pages.turn(&self.ongoing, elapsed).await
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future as _, task::Context};

    use futures_util::{FutureExt as _, task::noop_waker_ref};

    use super::*;

    #[test]
    fn a_session_asks_for_many_pages_in_a_row_and_then_for_five_a_second() {
        let pages = PagesAsked::default();
        let at = Duration::from_secs(1000);
        for _ in 0..PAGES_IN_A_ROW {
            pages.ask(at).unwrap();
        }
        for _ in 0..1000 {
            assert_eq!(pages.ask(at), Err(TooOften { retry_after: Duration::from_secs(1) }));
        }
        let second = Duration::from_secs(1);
        for later in 1..10 {
            let asked = (0..100).filter(|_| pages.ask(at + later * second).is_ok()).count();
            assert_eq!(asked, 5, "what was refused counts for nothing");
        }
        let asked = (0..1000).filter(|_| pages.ask(at + 3600 * second).is_ok()).count();
        assert_eq!(asked, usize::try_from(PAGES_IN_A_ROW).unwrap());
    }

    #[test]
    fn four_pages_of_a_user_are_made_at_once_whichever_session_asks() {
        let (ongoing, elapsed) = (Ongoing::default(), Duration::ZERO);
        let sessions = [PagesAsked::default(), PagesAsked::default()];
        let turn = |session: usize| sessions[session].turn(&ongoing, elapsed);
        let mut made: Vec<_> = (0..4).map(|page| turn(page % 2).now_or_never().unwrap().unwrap()).collect();
        let mut cx = Context::from_waker(noop_waker_ref());
        let mut waiting: Vec<_> = (0..MOST_PAGES_WAITING).map(|_| Box::pin(turn(0))).collect();
        assert!(waiting.iter_mut().all(|turn| turn.as_mut().poll(&mut cx).is_pending()));
        assert!(turn(0).now_or_never().unwrap().is_err());
        let mut other = Box::pin(turn(1));
        assert!(other.as_mut().poll(&mut cx).is_pending(), "the queue of another session is another one");
        waiting.clear();
        made.pop();
        assert!(other.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn streams_are_counted_and_the_log_is_told_now_and_then() {
        let ongoing = Ongoing::default();
        assert!(ongoing.open_stream(2) && ongoing.open_stream(2));
        assert!(!ongoing.open_stream(2) && !ongoing.open_stream(2));
        ongoing.close_stream();
        assert!(ongoing.open_stream(2));
        let told = |seconds| ongoing.tells(Duration::from_secs(seconds));
        assert_eq!([0, 1, 9, 10, 11].map(told), [true, false, false, true, false]);
    }
}
