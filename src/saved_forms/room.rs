//! Memory for arriving forms, in fair shares: one sender's slow forms block nobody else's.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How long a form waits for memory.
const WAITS: Duration = Duration::from_secs(5);

/// A semaphore that is shared fairly among owners.
pub(super) struct FairSemaphore<K> {
    all: Arc<Semaphore>,
    shares: Arc<Shares<K>>,
}

/// Memory for one form, until it is dropped.
pub struct Room {
    _places: Vec<OwnedSemaphorePermit>,
    _shares: Vec<Box<dyn Send + Sync>>,
}

/// The shares of owners who have or want a permit.
type Shares<K> = Mutex<HashMap<K, Share>>;

struct Share {
    places: Arc<Semaphore>,
    /// Forms of this owner that have or want a permit.
    forms: usize,
}

/// One of the forms of a share.
struct Counted<K: Eq + Hash> {
    owner: K,
    shares: Arc<Shares<K>>,
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> FairSemaphore<K> {
    pub(super) fn new(places: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(places)), shares: Arc::default() }
    }

    /// A permit for a form that belongs to all of `owners`, each with the size of its share. Waits a while for it.
    pub(super) async fn room(&self, owners: impl IntoIterator<Item = (K, usize)>) -> Option<Room> {
        let (mut held, mut counts) = (Vec::new(), Vec::<Box<dyn Send + Sync>>::new());
        let comes = async {
            for (owner, places) in owners {
                let (share, counted) = self.share(owner, places);
                counts.push(Box::new(counted));
                held.push(share.acquire_owned().await.ok()?);
            }
            // Last, so that a form that waits for its own share blocks nobody else.
            held.push(Arc::clone(&self.all).acquire_owned().await.ok()?);
            Some(())
        };
        timeout(WAITS, comes).await.ok()??;
        Some(Room { _places: held, _shares: counts })
    }

    fn share(&self, owner: K, places: usize) -> (Arc<Semaphore>, Counted<K>) {
        let mut shares = lock(&self.shares);
        let share = shares
            .entry(owner.clone())
            .or_insert_with(|| Share { places: Arc::new(Semaphore::new(places)), forms: 0 });
        share.forms += 1;
        (Arc::clone(&share.places), Counted { owner, shares: Arc::clone(&self.shares) })
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut shares = lock(&self.shares);
        if let Some(share) = shares.get_mut(&self.owner) {
            share.forms -= 1;
            if share.forms == 0 {
                shares.remove(&self.owner);
            }
        }
    }
}

/// The counts are consistent after every step, even after a panic.
fn lock<K>(shares: &Shares<K>) -> MutexGuard<'_, HashMap<K, Share>> {
    shares.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// The result without waiting.
    fn at_once(places: &FairSemaphore<&'static str>, owners: &[(&'static str, usize)]) -> Option<Room> {
        places.room(owners.iter().copied()).now_or_never().flatten()
    }

    #[tokio::test]
    async fn each_owner_has_a_share_and_all_have_so_much() {
        let places = FairSemaphore::new(5);
        let held: Vec<_> = (0..9).map_while(|_| at_once(&places, &[("a", 2)])).collect();
        assert_eq!(held.len(), 2);
        let more: Vec<_> = (0..9).map_while(|_| at_once(&places, &[("b", 2), ("house", 3)])).collect();
        assert_eq!(more.len(), 2);
        let _neighbour = at_once(&places, &[("c", 2), ("house", 3)]).expect("one more of the house");
        assert!(at_once(&places, &[("d", 2)]).is_none(), "all are taken");
        drop(more);
        assert!(at_once(&places, &[("d", 2)]).is_some());
        assert!(at_once(&places, &[("a", 2)]).is_none(), "there is room, but its share is taken");
    }

    #[tokio::test]
    async fn whoever_waits_gets_the_next_place_and_whoever_gives_up_leaves_nothing() {
        let places = FairSemaphore::new(1);
        let held = at_once(&places, &[("a", 1)]);
        let mut own = Box::pin(places.room([("a", 1)]));
        let mut other = Box::pin(places.room([("b", 1)]));
        assert!(own.as_mut().now_or_never().is_none() && other.as_mut().now_or_never().is_none());
        drop(own);
        drop(held);
        let other = other.await;
        assert!(other.is_some() && at_once(&places, &[("a", 1)]).is_none());
        drop(other);
        assert!(lock(&places.shares).is_empty(), "nothing is kept of owners that have gone");
        assert!(at_once(&places, &[("a", 1)]).is_some());
    }
}
