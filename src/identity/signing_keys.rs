//! The signing keys of one gateway: in memory for requests, reloaded when the store announces a change, made and
//! deleted on schedule.
//!
//! If the store fails, the keys in memory stay in use.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::time::timeout;

use super::{
    key_store::{InsertError, KeyChange, KeyStore},
    rotation::{HANDOVER, NOTICE, Schedule, State, Term},
    signing_key::{PublicKey, SigningKey, Unusable},
};
use crate::{
    audit::{Audit, AuditEvent, Context},
    clock::{Clock, Timestamp},
    database::{Database, DatabaseError},
    errors::Chain,
    sealing::Sealer,
};

/// How often the store is read even without an announcement; well within [`HANDOVER`].
const RELOAD: Duration = Duration::from_secs(6);
/// The same after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Why the keys could not be read or changed. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeysError {
    #[error("cannot read or change the signing keys")]
    Database(#[from] DatabaseError),
    #[error("cannot make a signing key")]
    Key(#[from] Unusable),
}

impl From<InsertError> for SigningKeysError {
    fn from(error: InsertError) -> Self {
        match error {
            InsertError::Database(error) => error.into(),
            InsertError::Key(error) => error.into(),
        }
    }
}

/// A key, as operators see it.
#[derive(Clone, Debug)]
pub struct ListedKey {
    pub term: Term,
    pub state: State,
    /// `None` as long as no other key is to follow.
    pub published_until: Option<Timestamp>,
}

/// The outcome of a requested rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotation {
    Made(Term),
    /// A new key had been made already and does not sign yet.
    Waiting(Term),
}

/// All keys at one moment.
#[derive(Debug, Default)]
struct Ring {
    /// As stored, including those that do not open.
    stored: Vec<Term>,
    schedule: Schedule,
    keys: HashMap<String, Arc<SigningKey>>,
}

/// The published keys (RFC 7517 §5).
#[derive(Debug, Serialize)]
pub struct PublicKeys {
    keys: Vec<PublicKey>,
}

/// The key to sign with.
pub(super) struct Signer {
    pub(super) key: Arc<SigningKey>,
    pub(super) retired_at: Option<Timestamp>,
}

/// The keys of this installation.
pub struct SigningKeys {
    store: KeyStore,
    audit: Arc<Audit>,
    ring: ArcSwap<Ring>,
    /// Incremented after each change of the ring.
    generation: AtomicU64,
}

impl SigningKeys {
    /// Has no keys before [`Self::keep`] or a rotation.
    pub fn new(database: Database, sealer: Arc<Sealer>, audit: Arc<Audit>) -> Self {
        let store = KeyStore::new(database, sealer);
        Self { store, audit, ring: ArcSwap::default(), generation: AtomicU64::new(0) }
    }

    /// Reloads the keys, makes one if it is time to, and deletes those that nobody needs.
    pub async fn keep(&self, now: Timestamp, rotation: Duration) -> Result<(), SigningKeysError> {
        self.reload().await?;
        if self.ring.load().schedule.due(now, rotation).is_some() {
            self.make_if_due(now, rotation).await?;
            self.reload().await?;
        }
        let useless: Vec<_> = self.ring.load().schedule.useless(now).map(|term| term.kid.clone()).collect();
        for kid in &useless {
            self.store.erase(kid).await?;
        }
        Ok(())
    }

    async fn make_if_due(&self, now: Timestamp, rotation: Duration) -> Result<(), SigningKeysError> {
        let mut change = self.store.begin().await?;
        // Another gateway may have been first.
        if let Some(signs_from) = Schedule::new(change.terms().await?).due(now, rotation) {
            let term = insert(&mut change, now, signs_from).await?;
            change.commit(now).await?;
            self.note(AuditEvent::SigningKeyMade, &term);
        }
        Ok(())
    }

    /// Makes the next key, unless it has been made already.
    pub async fn rotate(&self, now: Timestamp) -> Result<Rotation, SigningKeysError> {
        let mut change = self.store.begin().await?;
        let schedule = Schedule::new(change.terms().await?);
        if let Some(waiting) = schedule.waiting(now) {
            return Ok(Rotation::Waiting(waiting.clone()));
        }
        let first = schedule.due(now, Duration::MAX);
        let term = insert(&mut change, now, first.unwrap_or_else(|| now.plus(NOTICE))).await?;
        change.commit(now).await?;
        self.note(AuditEvent::SigningKeyMade, &term);
        Ok(Rotation::Made(term))
    }

    /// Retires every key, and makes one that takes over as soon as all gateways can publish it.
    pub async fn replace_all(&self, now: Timestamp) -> Result<Term, SigningKeysError> {
        let mut change = self.store.begin().await?;
        let at = now.plus(HANDOVER);
        change.retire_all(at).await?;
        let term = insert(&mut change, now, at).await?;
        change.commit(now).await?;
        self.note(AuditEvent::SigningKeysRetired, &term);
        Ok(term)
    }

    /// Every key, in the order in which they sign.
    pub async fn list(&self, now: Timestamp) -> Result<Vec<ListedKey>, SigningKeysError> {
        self.reload().await?;
        let ring = self.ring.load();
        let listed = |term: &Term| ListedKey {
            term: term.clone(),
            state: ring.schedule.state(term, now),
            published_until: ring.schedule.published_until(term),
        };
        Ok(ring.schedule.terms().iter().map(listed).collect())
    }

    /// Keeps the keys up to date, for ever.
    pub async fn maintain(self: Arc<Self>, clock: Arc<dyn Clock>, rotation: Duration) {
        let mut complained = false;
        loop {
            let kept = self.keep(clock.now(), rotation).await;
            if let Err(error) = &kept
                && !complained
            {
                tracing::warn!(error = %Chain(error), "cannot read the signing keys: those in memory go on");
            }
            complained = kept.is_err();
            let pause = if complained { RETRY } else { RELOAD };
            _ = timeout(pause, self.store.changed()).await;
        }
    }

    pub fn public(&self, now: Timestamp) -> PublicKeys {
        let ring = self.ring.load();
        let keys = ring.schedule.published(now).filter_map(|term| ring.keys.get(&term.kid));
        PublicKeys { keys: keys.map(|key| key.public().clone()).collect() }
    }

    /// Changes whenever the keys have changed.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The key that signs. `None` only before the first has been loaded.
    pub(super) fn signer(&self, now: Timestamp) -> Option<Signer> {
        let ring = self.ring.load();
        let term = ring.schedule.signer(now)?;
        Some(Signer { key: Arc::clone(ring.keys.get(&term.kid)?), retired_at: term.retired_at })
    }

    async fn reload(&self) -> Result<(), SigningKeysError> {
        if self.store.terms().await? == self.ring.load().stored {
            return Ok(());
        }
        let mut ring = Ring::default();
        let mut terms = Vec::new();
        for (term, key) in self.store.keys().await? {
            ring.stored.push(term.clone());
            match key {
                Some(key) => {
                    ring.keys.insert(term.kid.clone(), Arc::new(key));
                    terms.push(term);
                }
                None => tracing::error!(
                    kid = term.kid,
                    "a signing key does not open with our key: it is not used"
                ),
            }
        }
        ring.schedule = Schedule::new(terms);
        self.ring.store(Arc::new(ring));
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn note(&self, event: AuditEvent, term: &Term) {
        tracing::info!(kid = term.kid, signs_from = %term.signs_from, "a signing key was made");
        self.audit.record(event, &Context::default());
    }
}

/// Stores a new key.
async fn insert(
    change: &mut KeyChange<'_>,
    now: Timestamp,
    signs_from: Timestamp,
) -> Result<Term, SigningKeysError> {
    let key = SigningKey::generate()?;
    let term = Term { kid: key.kid().to_owned(), created_at: now, signs_from, retired_at: None };
    change.insert(&key, &term).await?;
    Ok(term)
}
