//! Believing the cache: only while we are sure to hear of every change within a second.

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

/// For how long one sign of life of a source is good; also the bound on how late a change is heard.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// How often the database's feed is read by a gateway in use, although somebody would tell: as a sign of life. Without anything to
/// do, once within what a sign of life is good for.
const BUSY_BEAT: Duration = Duration::from_millis(150);

/// What a source of changes has to tell, in the order in which it happened.
#[derive(Debug)]
pub enum FeedEvent {
    /// Any number of changes may have been missed before this.
    Gap,
    Changed(Vec<Change>),
    /// Every change made before this instant has been told.
    Current(Instant),
}

/// Whom a source tells.
pub type Hear<'a> = dyn Fn(FeedEvent) + Send + Sync + 'a;

#[derive(Clone, Copy, Debug)]
pub(super) enum FeedSource {
    /// The database's change feed.
    Database,
    /// The session store's own.
    Store,
}

/// Until when each source is believed to have told everything, in milliseconds since `origin`.
///
/// By the runtime's clock rather than ours: what counts is how long the sources have really been silent.
#[derive(Debug)]
pub(super) struct Freshness {
    origin: Instant,
    database: AtomicI64,
    store: AtomicI64,
    /// Somebody has asked since the database was last read.
    used: AtomicBool,
    /// For how long what is known of sessions is used when their store has gone.
    grace: i64,
}

impl Freshness {
    /// Nothing is believed before both sources have spoken.
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

    /// Whether it holds, or would but for a store that has not been away for longer than the grace. The database has to
    /// be there: it tells of the ends of sessions, whichever store keeps them.
    pub(super) fn holds_or_grace(&self, at: Instant) -> bool {
        self.holds_for(self.grace, at)
    }

    fn holds_for(&self, grace: i64, at: Instant) -> bool {
        // Written once between two readings: those who ask share the line.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        let now = self.millis(at);
        let store = self.store.load(Ordering::Acquire);
        now < self.database.load(Ordering::Acquire) && store != 0 && now < store.saturating_add(grace)
    }

    /// Whether the database has told, up to a second before `at`, of every change; whichever store keeps the sessions.
    pub(super) fn database_holds(&self, at: Instant) -> bool {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        self.millis(at) < self.database.load(Ordering::Acquire)
    }

    /// Whether anybody has asked since the last time this was called.
    pub(super) fn was_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Whether a source has spoken within the last second.
    pub(super) fn hears(&self, source: FeedSource) -> bool {
        self.millis(Instant::now()) < self.of(source).load(Ordering::Acquire)
    }

    /// All that happened before `asked` has been told.
    pub(super) fn extend(&self, source: FeedSource, asked: Instant) {
        self.of(source).store(self.millis(asked + FRESH), Ordering::Release);
    }

    pub(super) fn end(&self, source: FeedSource) {
        self.of(source).store(0, Ordering::Release);
    }

    /// There is no such source, so that it misses nothing.
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

/// Makes the cache forget what has changed.
pub(super) fn apply(changes: Vec<Change>, cache: &Cache) {
    let mut users = HashSet::new();
    let mut sessions = Vec::new();
    for change in changes {
        match change {
            Change::User(user) => users.extend(UserId::parse(&user)),
            Change::Session(id) => sessions.push(id),
            Change::SigningKeys | Change::Token(_) => {}
            Change::All => return cache.doubt_all(),
        }
    }
    cache.end(&sessions);
    if !users.is_empty() {
        cache.doubt_users(&users);
    }
}

/// Tells `hear` what the database's change feed tells, for ever.
pub(super) async fn follow_database(database: &Database, freshness: &Freshness, hear: &Hear<'_>) {
    let mut feed = database.change_feed();
    let mut last: Option<Instant> = None;
    let mut complained = false;
    loop {
        let asked = Instant::now();
        let answer = timeout(FRESH, feed.read()).await;
        match answer.map_or(Err(SessionError::Slow), |read| read.map_err(SessionError::from)) {
            Ok(changes) => {
                // Whoever was cut off starts anew: the feed keeps what was missed, but not for ever.
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
        // A busy machine must not make a gateway that is in use doubt what it knows.
        feed.wait_until(next_tick(if freshness.was_used() { BUSY_BEAT } else { BEAT })).await;
    }
}
