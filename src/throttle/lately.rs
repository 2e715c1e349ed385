//! Budgets that were recently exhausted: a flood of attempts that are refused anyway rarely asks the store.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::store::{Counted, Key, Kind, Meter};
use crate::clock::Timestamp;

/// How long the store's result is used: another gateway may have forgiven failures meanwhile.
const HOLDS: Duration = Duration::from_secs(1);

/// Above this number, the store is asked about all again.
const MOST: usize = 16 * 1024;

/// The waits that the store has recently returned.
#[derive(Debug, Default)]
pub(super) struct Lately(Mutex<HashMap<(Kind, Key), KnownWait>>);

#[derive(Clone, Copy, Debug)]
struct KnownWait {
    at: Timestamp,
    wait: Duration,
}

impl Lately {
    /// The longest known wait for one of these meters.
    pub(super) fn wait(&self, meters: &[Meter], now: Timestamp) -> Option<Duration> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |told: &KnownWait| {
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
        told.insert((meter.kind, meter.key), KnownWait { at: now, wait });
    }

    /// The failures of settled attempts may have been forgiven.
    pub(super) fn forget(&self, counted: &[Counted]) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Counted { kind, key, .. } in counted {
            told.remove(&(*kind, *key));
        }
    }
}
