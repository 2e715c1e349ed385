//! Which budgets have just been found used up: a flood of tries that are refused anyhow asks the store once in a while.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::store::{Counted, Key, Kind, Meter};
use crate::clock::Timestamp;

/// For how long a store's word holds: it may have forgiven meanwhile, at another gateway.
const HOLDS: Duration = Duration::from_secs(1);

/// Beyond as many, all are asked for again.
const MOST: usize = 16 * 1024;

/// The waits that the store has lately told.
#[derive(Debug, Default)]
pub(super) struct Lately(Mutex<HashMap<(Kind, Key), Told>>);

#[derive(Clone, Copy, Debug)]
struct Told {
    at: Timestamp,
    wait: Duration,
}

impl Lately {
    /// The longest of the waits that are known to lie ahead of one of these.
    pub(super) fn wait(&self, meters: &[Meter], now: Timestamp) -> Option<Duration> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |told: &Told| {
            let since = now.since(told.at);
            (now >= told.at && since < HOLDS)
                .then(|| told.wait.saturating_sub(since))
                .filter(|wait| !wait.is_zero())
        };
        meters.iter().filter_map(|meter| left(told.get(&(meter.kind, meter.key))?)).max()
    }

    pub(super) fn note(&self, meter: &Meter, wait: Duration, now: Timestamp) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MOST {
            told.clear();
        }
        told.insert((meter.kind, meter.key), Told { at: now, wait });
    }

    /// What has been settled may have been forgiven.
    pub(super) fn forget(&self, counted: &[Counted]) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Counted { kind, key, .. } in counted {
            told.remove(&(*kind, *key));
        }
    }
}
