//! Freshness: the cache is trusted only while every change is sure to arrive within a second.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::{SessionError, cache::Cache};
use crate::{
    background::{BEAT, next_tick},
    database::{Change, Database},
    errors::Chain,
    users::UserId,
};

/// How long a sign of life of a source is valid; also the maximum delay of a change.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// How often a gateway in use reads the database's feed, which announces changes by itself: as a sign of life. An idle
/// gateway reads it once per lifetime of that sign.
const BUSY_BEAT: Duration = Duration::from_millis(150);
/// For how long after a request a gateway counts as in use.
const IN_USE: Duration = Duration::from_secs(10);

/// An event from a source of changes, in the order of the changes.
#[derive(Debug)]
pub enum FeedEvent {
    /// Any number of changes may have been missed before this.
    Gap,
    Changed(Vec<Change>),
    /// Every change made before this instant has been announced.
    Current(Instant),
}

/// The listener of a source.
pub type Hear<'a> = dyn Fn(FeedEvent) + Send + Sync + 'a;

#[derive(Clone, Copy, Debug)]
pub(super) enum FeedSource {
    /// The database's change feed.
    Database,
    /// The session store's own.
    Store,
}

/// Until when each source is trusted, in milliseconds since `origin`.
///
/// By the runtime's clock rather than ours: the sources' real silence counts.
#[derive(Debug)]
pub(super) struct Freshness {
    origin: Instant,
    database: AtomicI64,
    store: AtomicI64,
    /// The cache has been used since the database was last read.
    used: AtomicBool,
    /// How long known sessions are trusted after their store has gone.
    grace: i64,
}

impl Freshness {
    /// Nothing is trusted before both sources have spoken.
    pub(super) fn none(grace: Duration) -> Self {
        let grace = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
        Self {
            origin: Instant::now(),
            database: AtomicI64::new(0),
            store: AtomicI64::new(0),
            used: AtomicBool::new(false),
            grace,
        }
    }

    pub(super) fn holds(&self) -> bool {
        self.holds_for(0, Instant::now())
    }

    /// Whether it holds, or would hold but for a store that has been away for no longer than the grace. The database
    /// must be there: it announces the ends of sessions, whichever store keeps them.
    pub(super) fn holds_or_grace(&self, at: Instant) -> bool {
        self.holds_for(self.grace, at)
    }

    fn holds_for(&self, grace: i64, at: Instant) -> bool {
        // Written once between two readings: all readers share the cache line.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        let now = self.millis(at);
        let store = self.store.load(Ordering::Acquire);
        now < self.database.load(Ordering::Acquire) && store != 0 && now < store.saturating_add(grace)
    }

    /// Whether the database's changes up to a second before `at` are known; independent of the session store.
    pub(super) fn database_holds(&self, at: Instant) -> bool {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        self.millis(at) < self.database.load(Ordering::Acquire)
    }

    /// Whether the cache has been used since the last call.
    pub(super) fn was_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Whether a source has spoken within the last second.
    pub(super) fn hears(&self, source: FeedSource) -> bool {
        self.millis(Instant::now()) < self.of(source).load(Ordering::Acquire)
    }

    /// Every change before `asked` is known.
    pub(super) fn extend(&self, source: FeedSource, asked: Instant) {
        self.of(source).store(self.millis(asked + FRESH), Ordering::Release);
    }

    pub(super) fn end(&self, source: FeedSource) {
        self.of(source).store(0, Ordering::Release);
    }

    /// The source does not exist, so no change of it can be missed.
    pub(super) fn waive(&self, source: FeedSource) {
        self.of(source).store(i64::MAX, Ordering::Release);
    }

    pub(super) fn is_waived(&self, source: FeedSource) -> bool {
        self.of(source).load(Ordering::Acquire) == i64::MAX
    }

    fn millis(&self, instant: Instant) -> i64 {
        let since = instant.saturating_duration_since(self.origin);
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn of(&self, source: FeedSource) -> &AtomicI64 {
        match source {
            FeedSource::Database => &self.database,
            FeedSource::Store => &self.store,
        }
    }
}

/// Applies changes to the cache.
pub(super) fn apply(changes: Vec<Change>, cache: &Cache) {
    let mut users = HashSet::new();
    let mut sessions = Vec::new();
    for change in changes {
        match change {
            Change::User(user) => users.extend(UserId::parse(&user)),
            Change::Session(id) => sessions.push(id),
            Change::SigningKeys | Change::Mail | Change::Token(_) => {}
            Change::All => return cache.doubt_all(),
        }
    }
    cache.end(&sessions);
    if !users.is_empty() {
        cache.doubt_users(&users);
    }
}

/// Passes the events of the database's change feed to `hear`, for ever.
pub(super) async fn follow_database(database: &Database, freshness: &Freshness, hear: &Hear<'_>) {
    let mut feed = database.change_feed();
    let (mut last, mut used): (Option<Instant>, Option<Instant>) = (None, None);
    let mut complained = false;
    loop {
        let asked = Instant::now();
        let answer = timeout(FRESH, feed.read()).await;
        match answer.map_or(Err(SessionError::Slow), |read| read.map_err(SessionError::from)) {
            Ok(changes) => {
                // After an interruption everything is doubtful: the feed keeps changes, but not for ever.
                if last.is_none_or(|last| asked.duration_since(last) >= FRESH) {
                    hear(FeedEvent::Gap);
                }
                if !changes.is_empty() {
                    hear(FeedEvent::Changed(changes));
                }
                hear(FeedEvent::Current(asked));
                (last, complained) = (Some(asked), false);
            }
            Err(error) => {
                if !complained {
                    tracing::warn!(error = %Chain(&error), "cannot follow the database's changes");
                }
                complained = true;
            }
        }
        // A busy machine must not make a gateway in use doubt its cache.
        if freshness.was_used() {
            used = Some(asked);
        }
        let is_in_use = used.is_some_and(|used| asked.duration_since(used) < IN_USE);
        feed.wait_until(next_tick(if is_in_use { BUSY_BEAT } else { BEAT })).await;
    }
}
