//! The tokens that this gateway remembers, and those in use, so that the end of a token also ends its open connections.
//!
//! Does not decide whether the cache may be trusted.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::LiveToken;
use crate::{
    client_certificates::{ID, ShownCertificate},
    clock::Timestamp,
    database::Change,
    users::UserId,
};

/// Tokens remembered for requests.
const REMEMBERED: usize = 10_000;
/// Uses closer together than this are one use, in milliseconds.
const GRAIN: i64 = 60_000;
/// The time of no use.
const NEVER: i64 = i64::MIN;

/// The part of a [`LiveToken`] that outlives it; all copies for one token share it.
#[derive(Debug)]
pub(super) struct TokenState {
    /// Cancelled when the token ends.
    pub(super) over: CancellationToken,
    user: OnceLock<UserId>,
    /// What is shown in place of a token.
    certificate: OnceLock<Arc<ShownCertificate>>,
    expires_at: AtomicI64,
    last_used: AtomicI64,
    stored: AtomicI64,
}

impl Default for TokenState {
    fn default() -> Self {
        Self {
            over: CancellationToken::new(),
            user: OnceLock::new(),
            certificate: OnceLock::new(),
            expires_at: AtomicI64::new(i64::MAX),
            last_used: AtomicI64::new(NEVER),
            stored: AtomicI64::new(NEVER),
        }
    }
}

impl TokenState {
    /// Sets the token's user and its expiry.
    pub(super) fn identify(&self, user: &UserId, expires_at: Timestamp) {
        self.user.get_or_init(|| user.clone());
        self.lasts_until(expires_at);
    }

    /// By what it is shown, if it is no token.
    pub(super) fn is_by(&self, shown: &Arc<ShownCertificate>) {
        self.certificate.get_or_init(|| Arc::clone(shown));
    }

    pub(super) fn certificate(&self) -> Option<&Arc<ShownCertificate>> {
        self.certificate.get()
    }

    /// Whether it is nobody else's.
    pub(super) fn could_be_of(&self, user: &UserId) -> bool {
        self.user.get().is_none_or(|known| known == user)
    }

    pub(super) fn lasts_until(&self, end: Timestamp) {
        self.expires_at.store(end.unix_millis(), Relaxed);
    }

    /// Records a use. Written once a minute, since all workers share the cache line.
    pub(super) fn saw(&self, at: Timestamp) {
        let at = at.unix_millis();
        if at.saturating_sub(self.last_used.load(Relaxed)) >= GRAIN {
            self.last_used.fetch_max(at, Relaxed);
        }
    }

    pub(super) fn store_has(&self, at: Timestamp) {
        self.stored.fetch_max(at.unix_millis(), Relaxed);
    }

    /// The last use, if the store does not know of it.
    fn unstored(&self) -> Option<Timestamp> {
        let used = self.last_used.load(Relaxed);
        (used > self.stored.load(Relaxed)).then(|| Timestamp::from_unix_millis(used))
    }

    fn is_of(&self, user: &UserId) -> bool {
        self.user.get() == Some(user)
    }
}

#[derive(Debug, Default)]
struct Register {
    /// Grows with every change: a look-up that began before a change is not cached after it.
    epoch: u64,
    /// Includes everything in the cache.
    known: HashMap<String, Arc<TokenState>>,
    doubted: HashMap<String, Arc<TokenState>>,
}

#[derive(Debug)]
pub(super) struct TokenCache {
    entries: quick_cache::sync::Cache<String, Arc<LiveToken>>,
    register: Mutex<Register>,
    doubts: Notify,
}

impl Default for TokenCache {
    fn default() -> Self {
        Self {
            entries: quick_cache::sync::Cache::new(REMEMBERED),
            register: Mutex::default(),
            doubts: Notify::new(),
        }
    }
}

impl TokenCache {
    /// Takes no lock for writing and allocates nothing.
    pub(super) fn get(&self, id: &str) -> Option<Arc<LiveToken>> {
        self.entries.get(id)
    }

    /// Registers a token, and returns the current epoch.
    pub(super) fn enrol(&self, id: &str) -> (Arc<TokenState>, u64) {
        let mut register = self.register();
        let epoch = register.epoch;
        let held = register.known.entry(id.to_owned()).or_default();
        // A token that ended may be valid again: its user was disabled and is enabled again.
        if held.over.is_cancelled() {
            *held = Arc::default();
        }
        (Arc::clone(held), epoch)
    }

    /// Caches the result of a look-up that began at `epoch`. False if something has changed since, or the token has
    /// ended.
    pub(super) fn keep(&self, id: &str, token: &Arc<LiveToken>, epoch: u64) -> bool {
        let register = self.register();
        let is_known = register.known.get(id).is_some_and(|held| Arc::ptr_eq(held, &token.held));
        if register.epoch != epoch || !is_known || token.held.over.is_cancelled() {
            return false;
        }
        self.entries.insert(id.to_owned(), Arc::clone(token));
        true
    }

    pub(super) fn apply(&self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Token(token) => self.doubt(|id, _| id == token),
                Change::User(user) => {
                    let user = UserId::parse(user);
                    self.doubt(|_, held| user.as_ref().is_some_and(|user| held.is_of(user)));
                }
                Change::All => self.doubt_all(),
                Change::Session(_) | Change::SigningKeys | Change::Mail => {}
            }
        }
    }

    pub(super) fn doubt_certificates(&self) {
        self.doubt(|id, _| id.starts_with(ID));
    }

    pub(super) fn doubt_all(&self) {
        self.doubt(|_, _| true);
    }

    /// Drops entries, and marks those in use as doubtful.
    fn doubt(&self, which: impl Fn(&str, &TokenState) -> bool) {
        let mut register = self.register();
        register.epoch += 1;
        let Register { known, doubted, .. } = &mut *register;
        for (id, held) in known.iter().filter(|(id, held)| which(id, held)) {
            self.entries.remove(id);
            if in_use(held) {
                doubted.insert(id.clone(), Arc::clone(held));
            }
        }
        drop(register);
        self.doubts.notify_one();
    }

    /// Waits until a token is doubtful.
    pub(super) async fn doubted(&self) {
        self.doubts.notified().await;
    }

    pub(super) fn has_doubts(&self) -> bool {
        !self.register().doubted.is_empty()
    }

    pub(super) fn take_doubts(&self) -> HashMap<String, Arc<TokenState>> {
        std::mem::take(&mut self.register().doubted)
    }

    pub(super) fn doubt_again(&self, id: String, held: Arc<TokenState>) {
        self.register().doubted.entry(id).or_insert(held);
    }

    /// Ends expired tokens, and drops entries that nobody uses.
    pub(super) fn sweep(&self, now: Timestamp) {
        let mut register = self.register();
        register.known.retain(|id, held| {
            if now.unix_millis() >= held.expires_at.load(Relaxed) {
                self.entries.remove(id);
                held.over.cancel();
            }
            in_use(held) || held.unstored().is_some()
        });
    }

    /// The uses that the store does not know of.
    pub(super) fn unstored(&self) -> Vec<(String, Arc<TokenState>, Timestamp)> {
        let register = self.register();
        let unstored = register
            .known
            .iter()
            .filter_map(|(id, held)| Some((id.clone(), Arc::clone(held), held.unstored()?)));
        unstored.collect()
    }

    fn register(&self) -> MutexGuard<'_, Register> {
        // A panic while the lock is held leaves the register consistent.
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a request, a tunnel, the cache or a look-up holds a reference.
fn in_use(held: &Arc<TokenState>) -> bool {
    Arc::strong_count(held) > 1
}
