//! A session as this gateway holds it: what requests share while it lasts.

use std::{
    any::Any,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::sync::SemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::{
    Session,
    ongoing::{Ongoing, PagesAsked, TooOften},
};
use crate::clock::Timestamp;

/// What is reckoned for the headers that the portal will be sent, an assertion among them, and for what surrounds them.
const OVERHEAD: usize = 2048;
/// How often each text of a session is held: in itself, in a header, on the wire, and in base64 in the assertion.
const COPIES: usize = 5;
/// Uses closer together than this are one use.
const GRAIN: i64 = 1000;

/// A session that was good when it was handed out.
#[derive(Debug)]
pub struct Live {
    pub session: Session,
    /// Identity's: what the portal is told of it, ready for the wire.
    pub extension: Extension,
    /// Cancelled when the session is over, or no longer enough; whoever keeps something open for it ends that then.
    pub ended: CancellationToken,
    /// What its user has under way, in other sessions as well.
    pub ongoing: Arc<Ongoing>,
    pub(super) state: Arc<SessionState>,
    weight: usize,
}

/// What one module keeps with a session, in a type of its own, as long as the session is in the cache.
#[derive(Debug, Default)]
pub struct Extension(OnceLock<Box<dyn Any + Send + Sync>>);

impl Extension {
    /// Made at its first use. None: a second type asks for it.
    pub fn get<T: Any + Default + Send + Sync>(&self) -> Option<&T> {
        self.0.get_or_init(|| Box::new(T::default())).downcast_ref()
    }
}

impl Live {
    pub(super) fn new(session: Session, state: Arc<SessionState>, ongoing: Arc<Ongoing>) -> Self {
        let Session { user, name, email, display_name, groups, origin, .. } = &session;
        let texts = [user.as_str(), name, email, display_name, &origin.user_agent];
        let weight = OVERHEAD
            + texts
                .into_iter()
                .chain(groups.iter().map(String::as_str))
                .map(|text| COPIES * text.len() + 32)
                .sum::<usize>();
        Self {
            session,
            extension: Extension::default(),
            ended: state.passing.clone(),
            ongoing,
            state,
            weight,
        }
    }

    /// What stands for a machine, which has shown a token and has no session: good until `over`.
    pub fn of_machine(facts: Session, over: CancellationToken, ongoing: Arc<Ongoing>) -> Self {
        Self::new(facts, Arc::new(SessionState::until(over)), ongoing)
    }

    /// The last use on this gateway, or the last that it has heard of; to the second.
    pub fn last_seen(&self) -> Timestamp {
        self.state.last_seen()
    }

    /// Cancelled when the session is over, though not when it is no longer enough for most.
    pub fn over(&self) -> &CancellationToken {
        &self.state.ended
    }

    /// Waits for the turn of a page of ours, at `elapsed` of the process's count; as long as the result lives it is being made.
    pub async fn page(&self, elapsed: Duration) -> Result<SemaphorePermit<'_>, TooOften> {
        self.state.pages.turn(&self.ongoing, elapsed).await
    }

    /// Bytes of memory, by estimate. Never changes, as the cache counts on.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }
}

/// What outlives a [`Live`]: several of one session share it, when the user's rights change in between.
#[derive(Debug)]
pub(super) struct SessionState {
    last_seen: AtomicI64,
    /// The `last_seen` that the store has.
    stored: AtomicI64,
    pub(super) ended: CancellationToken,
    /// Ends with it, or before it: what is open for a password alone ends when that is no longer enough.
    pub(super) passing: CancellationToken,
    pages: PagesAsked,
}

impl SessionState {
    pub(super) fn new() -> Self {
        Self::until(CancellationToken::new())
    }

    fn until(ended: CancellationToken) -> Self {
        Self {
            last_seen: AtomicI64::new(i64::MIN),
            stored: AtomicI64::new(i64::MIN),
            passing: ended.child_token(),
            ended,
            pages: PagesAsked::default(),
        }
    }

    pub(super) fn last_seen(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.last_seen.load(Ordering::Relaxed))
    }

    pub(super) fn saw(&self, at: Timestamp) {
        self.last_seen.fetch_max(at.unix_millis(), Ordering::Relaxed);
    }

    pub(super) fn store_has(&self, at: Timestamp) {
        self.stored.fetch_max(at.unix_millis(), Ordering::Relaxed);
    }

    /// The last use, when the store does not know of it.
    pub(super) fn unstored(&self) -> Option<Timestamp> {
        let seen = self.last_seen.load(Ordering::Relaxed);
        (seen > self.stored.load(Ordering::Relaxed)).then(|| Timestamp::from_unix_millis(seen))
    }
}

/// A session that has proved this, for tests of what is given one.
#[cfg(test)]
pub(crate) fn having_proved(amr: &[super::Method]) -> Arc<Live> {
    let session = Session { amr: amr.to_vec(), ..super::session::nobody() };
    Arc::new(Live::new(session, Arc::new(SessionState::new()), Arc::default()))
}

/// When a session is over although nobody ended it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetimes {
    pub(super) inactivity: Duration,
    pub(super) expiration: Duration,
    /// Both limits of sessions whose users asked to be kept signed in; absent: those are like any other.
    pub(super) remember_me: Option<Duration>,
}

/// What keeps sessions from running out unused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// Every request, and every message over a WebSocket.
    #[default]
    Requests,
    /// What a person has caused, as far as a browser can tell.
    People,
}

/// Whether what is asked with a session counts as a use of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Counts,
    /// Something asks by itself, with nobody before it.
    Passive,
}

/// Whether a session last used at `last_seen` has lain unused for too long.
pub(super) fn idle(last_seen: Timestamp, inactivity: Duration, now: Timestamp) -> bool {
    now.since(last_seen) >= inactivity
}

impl Lifetimes {
    /// How long a session may lie unused.
    pub(super) fn inactivity(self, remembered: bool) -> Duration {
        self.remember_me.filter(|_| remembered).unwrap_or(self.inactivity)
    }

    /// How old a session may become.
    pub(super) fn lifetime(self, remembered: bool) -> Duration {
        self.remember_me.filter(|_| remembered).unwrap_or(self.expiration)
    }

    pub(super) fn over(self, session: &Session, last_seen: Timestamp, now: Timestamp) -> bool {
        now >= session.expires_at || idle(last_seen, self.inactivity(session.remembered), now)
    }

    /// Whether `live` may be used at `now`, which is then noted if it counts.
    pub(super) fn use_at(self, live: &Live, now: Timestamp, counts: Use) -> bool {
        let last_seen = live.state.last_seen();
        if self.over(&live.session, last_seen, now) {
            return false;
        }
        if counts == Use::Counts && now.unix_millis() - last_seen.unix_millis() >= GRAIN {
            live.state.saw(now);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_over_at_the_very_instant_of_a_limit() {
        let (minute, week) = (Duration::from_mins(1), Duration::from_hours(7 * 24));
        let limits = |remember_me| Lifetimes { inactivity: minute, expiration: minute * 2, remember_me };
        let at = Timestamp::from_unix_millis;
        let over = |limits: Lifetimes, remembered, last_seen, now| {
            let session =
                Session { remembered, expires_at: at(100_000), ..crate::sessions::session::nobody() };
            limits.over(&session, at(last_seen), at(now))
        };
        for (limits, remembered) in [(limits(None), false), (limits(None), true), (limits(Some(week)), false)]
        {
            assert!(!over(limits, remembered, 0, 59_999));
            assert!(over(limits, remembered, 0, 60_000));
            assert!(!over(limits, remembered, 99_000, 99_999));
            assert!(over(limits, remembered, 99_000, 100_000));
        }
        assert!(!over(limits(Some(week)), true, 0, 99_999));
        assert!(over(limits(Some(week)), true, 0, 100_000));
    }

    #[test]
    fn an_extension_is_made_once_and_of_one_type() {
        let extension = Extension::default();
        let counter = extension.get::<AtomicI64>().unwrap();
        counter.store(7, Ordering::Relaxed);
        assert_eq!(extension.get::<AtomicI64>().unwrap().load(Ordering::Relaxed), 7);
        assert!(extension.get::<String>().is_none());
    }

    #[test]
    fn a_last_use_never_goes_back() {
        let state = SessionState::new();
        assert_eq!(state.unstored(), None);
        let at = Timestamp::from_unix_seconds;
        state.saw(at(10));
        state.saw(at(5));
        assert_eq!(state.unstored(), Some(at(10)));
        state.store_has(at(9));
        assert_eq!(state.unstored(), Some(at(10)));
        state.store_has(at(10));
        assert_eq!(state.unstored(), None);
    }
}
