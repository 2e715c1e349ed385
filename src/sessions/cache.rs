//! The sessions that this gateway remembers: a bounded cache for requests, and a register of every session in use, so
//! that ending a session also reaches one whose cache entry has been evicted.
//!
//! Does not decide whether the cache may be trusted: that is `feed::Freshness`.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use quick_cache::{Weighter, sync};
use tokio::sync::Notify;

use super::{
    Level,
    live::{Live, SessionState, idle},
    ongoing::Ongoing,
};
use crate::{clock::Timestamp, secret::TokenHash, users::UserId};

/// Size of the cache in bytes.
const BUDGET: u64 = 64 << 20;
/// The expected size of a session in bytes.
const TYPICAL: u64 = 3 << 10;

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<TokenHash, Arc<Live>> for ByBytes {
    fn weight(&self, _id: &TokenHash, live: &Arc<Live>) -> u64 {
        u64::try_from(live.weight()).unwrap_or(u64::MAX)
    }
}

/// The right to fill one entry; lost if the entry is forgotten meanwhile.
pub(super) struct Vacancy<'a>(Guard<'a>);

type Guard<'a> = sync::PlaceholderGuard<
    'a,
    TokenHash,
    Arc<Live>,
    ByBytes,
    quick_cache::DefaultHashBuilder,
    sync::DefaultLifecycle<TokenHash, Arc<Live>>,
>;

impl Vacancy<'_> {
    /// False if this session was forgotten after the vacancy was found.
    pub(super) fn fill(self, live: Arc<Live>) -> bool {
        self.0.insert(live).is_ok()
    }
}

#[derive(Debug)]
struct Registered {
    state: Arc<SessionState>,
    /// `None` before the store has returned them.
    facts: Option<Facts>,
}

/// The properties needed to end a session.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) user: UserId,
    pub(super) expires_at: Timestamp,
    /// How long it may be unused.
    pub(super) inactivity: Duration,
    pub(super) level: Level,
    pub(super) generation: i64,
}

impl Registered {
    /// Whether a request, a tunnel, the cache or a look-up holds a reference.
    fn in_use(&self) -> bool {
        Arc::strong_count(&self.state) > 1
    }
}

#[derive(Debug, Default)]
struct Register {
    /// Includes everything in the cache.
    known: HashMap<TokenHash, Registered>,
    /// Sessions in use that may have ended: to be checked.
    doubted: HashSet<TokenHash>,
    /// By user, as long as one of their sessions is in use.
    ongoing: HashMap<UserId, Weak<Ongoing>>,
}

pub(super) struct Cache {
    entries: sync::Cache<TokenHash, Arc<Live>, ByBytes>,
    register: Mutex<Register>,
    doubts: Notify,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self::with_budget(BUDGET)
    }

    fn with_budget(budget: u64) -> Self {
        let typically = usize::try_from(budget / TYPICAL).unwrap_or(usize::MAX);
        Self {
            entries: sync::Cache::with_weighter(typically, budget, ByBytes),
            register: Mutex::default(),
            doubts: Notify::new(),
        }
    }

    /// Takes no lock for writing and allocates nothing.
    pub(super) fn get(&self, id: &TokenHash) -> Option<Arc<Live>> {
        self.entries.get(id)
    }

    /// The entry, or the right to make it; concurrent callers wait for the first.
    pub(super) async fn get_or_vacancy(&self, id: &TokenHash) -> Result<Arc<Live>, Vacancy<'_>> {
        self.entries.get_value_or_guard_async(id).await.map_err(Vacancy)
    }

    /// Drops the entry, and nothing else.
    pub(super) fn forget(&self, id: &TokenHash) {
        self.entries.remove(id);
    }

    /// Registers the session. Must come before the store is asked for it, so that a change announced meanwhile finds
    /// it.
    pub(super) fn enrol(&self, id: &TokenHash) -> Arc<SessionState> {
        let mut register = self.register();
        let fresh = || Registered { state: Arc::new(SessionState::new()), facts: None };
        Arc::clone(&register.known.entry(*id).or_insert_with(fresh).state)
    }

    /// What a user has in progress: shared by all their sessions.
    pub(super) fn ongoing(&self, user: &UserId) -> Arc<Ongoing> {
        let mut register = self.register();
        if let Some(ongoing) = register.ongoing.get(user).and_then(Weak::upgrade) {
            return ongoing;
        }
        let ongoing = Arc::new(Ongoing::default());
        register.ongoing.insert(user.clone(), Arc::downgrade(&ongoing));
        ongoing
    }

    /// Sets the properties of a session. Must come before the user's rights are asked for.
    pub(super) fn identify(&self, id: &TokenHash, facts: Facts) {
        if let Some(known) = self.register().known.get_mut(id) {
            known.facts.get_or_insert(facts);
        }
    }

    pub(super) fn facts(&self, id: &TokenHash) -> Option<Facts> {
        self.register().known.get(id)?.facts.clone()
    }

    /// Removes a registered session, unless it is in use or has an unstored use.
    pub(super) fn release(&self, id: &TokenHash) {
        let mut register = self.register();
        if register.known.get(id).is_some_and(|known| !known.in_use() && known.state.unstored().is_none()) {
            register.known.remove(id);
        }
    }

    /// Forgets `ids`, and cancels the tokens of those in use.
    pub(super) fn end(&self, ids: &[TokenHash]) {
        let mut register = self.register();
        for id in ids {
            self.entries.remove(id);
            register.doubted.remove(id);
            if let Some(known) = register.known.get(id) {
                known.state.ended.cancel();
            }
        }
    }

    /// Drops the entries of these users, and marks their sessions in use as doubtful.
    pub(super) fn doubt_users(&self, users: &HashSet<UserId>) {
        self.doubt(|known| known.facts.as_ref().is_some_and(|facts| users.contains(&facts.user)));
    }

    /// Drops every entry, and marks every session in use as doubtful.
    pub(super) fn doubt_all(&self) {
        self.doubt(|_| true);
    }

    fn doubt(&self, which: impl Fn(&Registered) -> bool) {
        let mut register = self.register();
        let Register { known, doubted, .. } = &mut *register;
        for (id, known) in known.iter().filter(|(_, known)| which(known)) {
            self.entries.remove(id);
            if known.in_use() {
                doubted.insert(*id);
            }
        }
        drop(register);
        self.doubts.notify_one();
    }

    /// Waits until a session is doubtful.
    pub(super) async fn doubted(&self) {
        self.doubts.notified().await;
    }

    /// Whether any doubtful session is left.
    pub(super) fn has_doubts(&self) -> bool {
        !self.register().doubted.is_empty()
    }

    pub(super) fn take_doubted(&self) -> HashSet<TokenHash> {
        std::mem::take(&mut self.register().doubted)
    }

    /// Puts back a session that could not be checked.
    pub(super) fn still_doubted(&self, id: TokenHash) {
        self.register().doubted.insert(id);
    }

    /// Drops the entries of these sessions, and marks those in use as doubtful.
    pub(super) fn doubt_sessions(&self, ids: &[TokenHash]) {
        let mut register = self.register();
        for id in ids {
            self.entries.remove(id);
            if register.known.get(id).is_some_and(Registered::in_use) {
                register.doubted.insert(*id);
            }
        }
        drop(register);
        self.doubts.notify_one();
    }

    /// Ends expired sessions, closes what one factor no longer opens, doubts those that are idle here but may be in use elsewhere, and drops entries that
    /// nobody uses.
    pub(super) fn sweep(&self, now: Timestamp) {
        let mut register = self.register();
        let Register { known, doubted, ongoing } = &mut *register;
        ongoing.retain(|_, ongoing| ongoing.strong_count() > 0);
        let mut doubts = false;
        known.retain(|id, known| {
            let Some(facts) = &known.facts else { return known.in_use() };
            if now >= facts.expires_at {
                self.entries.remove(id);
                known.state.ended.cancel();
                return known.in_use();
            }
            // What is open with one factor closes once that no longer suffices; the session goes on.
            if facts.level == Level::One && known.state.one_factor_until().is_some_and(|until| now >= until) {
                known.state.passing.cancel();
            }
            if idle(known.state.last_seen(), facts.inactivity, now) {
                self.entries.remove(id);
                if known.in_use() && !known.state.ended.is_cancelled() {
                    doubts |= doubted.insert(*id);
                }
            }
            known.in_use() || (known.state.unstored().is_some() && !known.state.ended.is_cancelled())
        });
        drop(register);
        if doubts {
            self.doubts.notify_one();
        }
    }

    /// The uses that the store does not know of.
    pub(super) fn unstored(&self) -> Vec<(TokenHash, Timestamp)> {
        let register = self.register();
        let unstored = register.known.iter().filter_map(|(id, known)| {
            let at = known.state.unstored()?;
            (!known.state.ended.is_cancelled()).then_some((*id, at))
        });
        unstored.collect()
    }

    pub(super) fn stored(&self, seen: &[(TokenHash, Timestamp)]) {
        let register = self.register();
        for (id, at) in seen {
            if let Some(known) = register.known.get(id) {
                known.state.store_has(*at);
            }
        }
    }

    fn register(&self) -> MutexGuard<'_, Register> {
        // A panic while the lock is held leaves the register consistent.
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.register().known.is_empty() && self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::Session;

    fn live(cache: &Cache, number: u32) -> Arc<Live> {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let session = Session {
            id: TokenHash::from_bytes(id),
            groups: vec!["g".repeat(100); 20],
            expires_at: Timestamp::from_unix_seconds(100),
            ..crate::sessions::session::nobody()
        };
        let state = cache.enrol(&session.id);
        let ongoing = cache.ongoing(&session.user);
        Arc::new(Live::new(session, state, ongoing))
    }

    #[tokio::test]
    async fn memory_stays_within_the_budget() {
        let cache = Cache::with_budget(1 << 20);
        for number in 0..2000 {
            let live = live(&cache, number);
            let Err(vacancy) = cache.get_or_vacancy(&live.session.id).await else { panic!("not yet cached") };
            assert!(vacancy.fill(Arc::clone(&live)));
        }
        assert!(cache.entries.weight() <= 1 << 20);
        assert!(cache.entries.len() > 50);
        // Evicted sessions are not kept in the register either.
        cache.sweep(Timestamp::from_unix_seconds(1));
        assert_eq!(cache.register().known.len(), cache.entries.len());
    }
}
