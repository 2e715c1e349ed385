//! What this gateway remembers of sessions: a bounded cache for requests, and beside it a register of every session
//! that is still in use, so that ending one reaches those whose cache entry has been evicted.
//!
//! Does not know whether it may be believed: that is `feed::Freshness`.

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

/// Bytes of sessions remembered for requests.
const BUDGET: u64 = 64 << 20;
/// What a session is expected to weigh.
const TYPICAL: u64 = 3 << 10;

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<TokenHash, Arc<Live>> for ByBytes {
    fn weight(&self, _id: &TokenHash, live: &Arc<Live>) -> u64 {
        u64::try_from(live.weight()).unwrap_or(u64::MAX)
    }
}

/// The right to fill in one entry, which is lost when the entry is forgotten meanwhile.
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
    /// False when somebody has been told to forget this session since the vacancy was found.
    pub(super) fn fill(self, live: Arc<Live>) -> bool {
        self.0.insert(live).is_ok()
    }
}

#[derive(Debug)]
struct Known {
    state: Arc<SessionState>,
    /// Absent until the store has told them.
    facts: Option<Facts>,
}

/// What of a session is needed to end it.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) user: UserId,
    pub(super) expires_at: Timestamp,
    /// How long it may lie unused.
    pub(super) inactivity: Duration,
    pub(super) level: Level,
    pub(super) generation: i64,
}

impl Known {
    /// Whether a request, a tunnel, the cache or somebody who is just asking the store holds on to it.
    fn in_use(&self) -> bool {
        Arc::strong_count(&self.state) > 1
    }
}

#[derive(Debug, Default)]
struct Register {
    /// Everything in the cache is in here as well.
    known: HashMap<TokenHash, Known>,
    /// In use, and perhaps over: to be asked for again.
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

    /// The entry, or the right to make it; who comes second waits for who came first.
    pub(super) async fn get_or_vacancy(&self, id: &TokenHash) -> Result<Arc<Live>, Vacancy<'_>> {
        self.entries.get_value_or_guard_async(id).await.map_err(Vacancy)
    }

    /// Drops the entry and nothing else.
    pub(super) fn forget(&self, id: &TokenHash) {
        self.entries.remove(id);
    }

    /// Makes the session known. Must come before asking the store for it, so that what is announced meanwhile finds it.
    pub(super) fn enrol(&self, id: &TokenHash) -> Arc<SessionState> {
        let mut register = self.register();
        let fresh = || Known { state: Arc::new(SessionState::new()), facts: None };
        Arc::clone(&register.known.entry(*id).or_insert_with(fresh).state)
    }

    /// What a user has under way: the same for all their sessions.
    pub(super) fn ongoing(&self, user: &UserId) -> Arc<Ongoing> {
        let mut register = self.register();
        if let Some(ongoing) = register.ongoing.get(user).and_then(Weak::upgrade) {
            return ongoing;
        }
        let ongoing = Arc::new(Ongoing::default());
        register.ongoing.insert(user.clone(), Arc::downgrade(&ongoing));
        ongoing
    }

    /// Notes whose session it is, which must come before asking for the user's rights.
    pub(super) fn identify(&self, id: &TokenHash, facts: Facts) {
        if let Some(known) = self.register().known.get_mut(id) {
            known.facts.get_or_insert(facts);
        }
    }

    pub(super) fn facts(&self, id: &TokenHash) -> Option<Facts> {
        self.register().known.get(id)?.facts.clone()
    }

    /// Forgets what [`Self::enrol`] made known, unless something is left to do with it.
    pub(super) fn release(&self, id: &TokenHash) {
        let mut register = self.register();
        if register.known.get(id).is_some_and(|known| !known.in_use() && known.state.unstored().is_none()) {
            register.known.remove(id);
        }
    }

    /// Forgets `ids`, and tells those who hold on to them that they are over.
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

    /// Drops the entries of these users, and doubts those sessions of theirs that are in use.
    pub(super) fn doubt_users(&self, users: &HashSet<UserId>) {
        self.doubt(|known| known.facts.as_ref().is_some_and(|facts| users.contains(&facts.user)));
    }

    /// Drops every entry, and doubts every session in use.
    pub(super) fn doubt_all(&self) {
        self.doubt(|_| true);
    }

    fn doubt(&self, which: impl Fn(&Known) -> bool) {
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

    /// Waits until something is doubted.
    pub(super) async fn doubted(&self) {
        self.doubts.notified().await;
    }

    /// Whether any doubt is left that could not be resolved.
    pub(super) fn has_doubts(&self) -> bool {
        !self.register().doubted.is_empty()
    }

    pub(super) fn take_doubted(&self) -> HashSet<TokenHash> {
        std::mem::take(&mut self.register().doubted)
    }

    /// Puts back what could not be resolved.
    pub(super) fn still_doubted(&self, id: TokenHash) {
        self.register().doubted.insert(id);
    }

    /// Drops the entries of these sessions, and doubts those that are in use.
    pub(super) fn doubt_sessions(&self, ids: &[TokenHash]) {
        let mut register = self.register();
        for id in ids {
            self.entries.remove(id);
            if register.known.get(id).is_some_and(Known::in_use) {
                register.doubted.insert(*id);
            }
        }
        drop(register);
        self.doubts.notify_one();
    }

    /// Ends what is too old, doubts what seems idle here but may be in use elsewhere, and lets go of what nobody needs.
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

    /// Ends what is open for a password alone. The sessions go on.
    pub(super) fn cut_one_factor(&self) {
        let register = self.register();
        for known in register.known.values() {
            if known.facts.as_ref().is_some_and(|facts| facts.level == Level::One) {
                known.state.passing.cancel();
            }
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
        // Nothing that holds the lock leaves the register half changed, whatever else of it panics.
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
        // What was evicted is not kept in the register either.
        cache.sweep(Timestamp::from_unix_seconds(1));
        assert_eq!(cache.register().known.len(), cache.entries.len());
    }
}
