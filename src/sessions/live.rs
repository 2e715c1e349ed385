//! A session in the memory of this gateway, shared by its requests.

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
    Level, Session,
    ongoing::{Ongoing, PagesAsked, TooOften},
};
use crate::clock::Timestamp;

/// Estimated bytes for the headers to the portal, including the assertion, and for bookkeeping.
const OVERHEAD: usize = 2048;
/// How many copies of each text there are: in the session, in a header, on the wire, and in base64 in the assertion.
const COPIES: usize = 5;
/// Uses closer together than this are one use, in milliseconds.
const GRAIN: i64 = 1000;

/// A session that was valid when it was returned.
#[derive(Debug)]
pub struct Live {
    pub session: Session,
    /// The headers for the portal, cached by `identity`.
    pub extension: Extension,
    /// Cancelled when the session ends or no longer suffices; open connections end with it.
    pub ended: CancellationToken,
    /// What its user has in progress, including in other sessions.
    pub ongoing: Arc<Ongoing>,
    pub(super) state: Arc<SessionState>,
    weight: usize,
}

/// A value that one module caches with a session, in its own type.
#[derive(Debug, Default)]
pub struct Extension(OnceLock<Box<dyn Any + Send + Sync>>);

impl Extension {
    /// Made at its first use. `None` if it holds another type.
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

    /// Stands for a machine with a token instead of a session: valid until `over`.
    pub fn of_machine(facts: Session, over: CancellationToken, ongoing: Arc<Ongoing>) -> Self {
        Self::new(facts, Arc::new(SessionState::until(over)), ongoing)
    }

    /// The last use known to this gateway, to the second.
    pub fn last_seen(&self) -> Timestamp {
        self.state.last_seen()
    }

    /// Whether it opens what needs two factors, where the roll-out does not yet demand the second one of its user.
    pub fn suffices(&self, now: Timestamp) -> bool {
        self.session.level() == Level::Two || self.state.one_factor_until().is_some_and(|until| now < until)
    }

    /// Cancelled when the session ends, but not when it no longer suffices for most paths.
    pub fn over(&self) -> &CancellationToken {
        &self.state.ended
    }

    /// Waits for the turn of a page, at `elapsed` since the process started; the turn ends when the result is dropped.
    pub async fn page(&self, elapsed: Duration) -> Result<SemaphorePermit<'_>, TooOften> {
        self.state.pages.turn(&self.ongoing, elapsed).await
    }

    /// The estimated size in bytes. Constant, as the cache requires.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }
}

/// The part of a session that outlives a [`Live`]: a change of the user's rights makes a new `Live` with the same
/// state.
#[derive(Debug)]
pub(super) struct SessionState {
    last_seen: AtomicI64,
    /// The `last_seen` in the store.
    stored: AtomicI64,
    pub(super) ended: CancellationToken,
    /// Cancelled with the session or before it: what is open with a password alone ends when that no longer suffices.
    pub(super) passing: CancellationToken,
    /// Until when one factor suffices, in milliseconds of Unix time; the smallest number: not known.
    one_factor_until: AtomicI64,
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
            one_factor_until: AtomicI64::new(i64::MIN),
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

    pub(super) fn set_one_factor_until(&self, until: Timestamp) {
        self.one_factor_until.store(until.unix_millis(), Ordering::Relaxed);
    }

    pub(super) fn one_factor_until(&self) -> Option<Timestamp> {
        let until = self.one_factor_until.load(Ordering::Relaxed);
        (until != i64::MIN).then(|| Timestamp::from_unix_millis(until))
    }

    /// The last use, if the store does not know of it.
    pub(super) fn unstored(&self) -> Option<Timestamp> {
        let seen = self.last_seen.load(Ordering::Relaxed);
        (seen > self.stored.load(Ordering::Relaxed)).then(|| Timestamp::from_unix_millis(seen))
    }
}

/// A session with these proofs, one of which suffices until `until`, for tests.
#[cfg(test)]
pub(crate) fn having_proved(amr: &[super::Method], until: Timestamp) -> Arc<Live> {
    let session = Session { amr: amr.to_vec(), ..super::session::nobody() };
    let state = SessionState::new();
    state.set_one_factor_until(until);
    Arc::new(Live::new(session, Arc::new(state), Arc::default()))
}

/// The limits of sessions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetimes {
    pub(super) inactivity: Duration,
    pub(super) expiration: Duration,
    /// Both limits of sessions whose users asked to be kept signed in; `None`: users cannot ask.
    pub(super) remember_me: Option<Duration>,
}

/// What counts as use of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// Every request, and every message over a WebSocket.
    #[default]
    Requests,
    /// What a person has caused, as far as the browser can tell.
    People,
}

/// Whether a request counts as use of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Counts,
    /// The request was made automatically, without a person.
    Passive,
}

/// Whether a session last used at `last_seen` has been unused for too long.
pub(super) fn idle(last_seen: Timestamp, inactivity: Duration, now: Timestamp) -> bool {
    now.since(last_seen) >= inactivity
}

impl Lifetimes {
    /// How long a session may be unused.
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

    /// Whether `live` may be used at `now`; records the use if it counts.
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
