//! Counts in the memory of one process. A restart forgets them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, FutureExt as _, ready};

use super::{
    store::{Counted, Key, Kind, Meter, Settlement, ThrottleError, ThrottleStore, Verdict},
    table::Table,
};
use crate::clock::Timestamp;

/// Records of one kind; together some 30 MB at most.
const CAPACITY: usize = 100_000;

/// The counts of this process.
#[derive(Debug)]
pub struct MemoryThrottle(Mutex<Tables>);

#[derive(Debug)]
struct Tables {
    pairs: Table,
    networks: Table,
    codes: Table,
}

impl Tables {
    fn of(&mut self, kind: Kind) -> &mut Table {
        match kind {
            Kind::Pair => &mut self.pairs,
            Kind::Network => &mut self.networks,
            Kind::Code => &mut self.codes,
        }
    }
}

impl Default for MemoryThrottle {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl MemoryThrottle {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let table = || Table::new(capacity);
        Self(Mutex::new(Tables { pairs: table(), networks: table(), codes: table() }))
    }

    fn admit(&self, meters: &[Meter], now: Timestamp) -> Verdict {
        let mut tables = self.tables();
        let wait =
            meters.iter().filter_map(|meter| tables.of(meter.kind).wait(&meter.key, meter.budget, now));
        if let Some(wait) = wait.max() {
            return Verdict::Wait(wait);
        }
        let count = |meter: &Meter| tables.of(meter.kind).count(meter.key, meter.budget, now);
        Verdict::Counted(meters.iter().map(count).collect())
    }

    fn settle(&self, counted: &[(Counted, Settlement)]) {
        let mut tables = self.tables();
        for (Counted { kind, key, window, .. }, settlement) in counted {
            match settlement {
                Settlement::Clear => tables.of(*kind).clear(key),
                Settlement::TakeBack => tables.of(*kind).take_back(key, *window),
            }
        }
    }

    /// Nothing panics while it holds the lock, and a table is usable after any step.
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        let tables = self.tables();
        (tables.pairs.len(), tables.networks.len())
    }
}

impl ThrottleStore for MemoryThrottle {
    fn admit<'a>(
        &'a self,
        _together: &'a Key,
        meters: &'a [Meter],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Verdict, ThrottleError>> {
        ready(Ok(self.admit(meters, now))).boxed()
    }

    fn settle<'a>(
        &'a self,
        counted: &'a [(Counted, Settlement)],
    ) -> BoxFuture<'a, Result<(), ThrottleError>> {
        self.settle(counted);
        ready(Ok(())).boxed()
    }
}
