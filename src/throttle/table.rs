//! A bounded table of failures by key: how many within a window, and since when there have been too many.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::clock::Timestamp;

/// SHA-256 of whatever is limited: of fixed size, however long a name somebody tries.
pub type Key = [u8; 32];

/// Records looked at on each insertion to drop those that have run out.
const SWEEP: usize = 2;

/// Records looked at in a full table for one that is no ban.
const SEARCH: usize = 16;

/// How many failures are too many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) failures: u32,
    pub(super) find_time: Duration,
    pub(super) ban_time: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    budget: Budget,
    /// When the window began; together with the key it tells one window from the next.
    first: Timestamp,
    last: Timestamp,
    failures: u32,
}

#[derive(Debug)]
pub(super) struct Table {
    capacity: usize,
    records: HashMap<Key, Record>,
    /// Every key of `records` once, roughly the oldest first.
    order: VecDeque<Key>,
}

impl Table {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, records: HashMap::new(), order: VecDeque::new() }
    }

    /// How long the key is still banned.
    pub(super) fn wait(&self, key: &Key, budget: Budget, now: Timestamp) -> Option<Duration> {
        let record = self.records.get(key)?;
        let wait = budget.ban_time.saturating_sub(now.since(record.last));
        (record.failures >= budget.failures && !wait.is_zero()).then_some(wait)
    }

    /// Counts a failure and says in which window.
    pub(super) fn count(&mut self, key: Key, budget: Budget, now: Timestamp) -> Timestamp {
        let fresh = Record { budget, first: now, last: now, failures: 0 };
        if !self.records.contains_key(&key) {
            self.make_room(now);
            self.order.push_back(key);
        }
        let record = self.records.entry(key).or_insert(fresh);
        if record.is_over(now) {
            *record = fresh;
        }
        record.failures = record.failures.saturating_add(1);
        record.last = now;
        record.first
    }

    /// Takes one failure back, if its window is still the current one.
    pub(super) fn take_back(&mut self, key: &Key, window: Timestamp) {
        if let Some(record) = self.records.get_mut(key).filter(|record| record.first == window) {
            record.failures = record.failures.saturating_sub(1);
        }
    }

    pub(super) fn clear(&mut self, key: &Key) {
        if let Some(record) = self.records.get_mut(key) {
            // The record stays until it is swept, so that `order` needs no search.
            record.failures = 0;
        }
    }

    /// Drops what has run out, and in a full table one record more: the oldest that is no ban. Losing a count that
    /// is no ban yet costs an attacker a table full of attempts for a handful of guesses. Only where the oldest are
    /// all bans does one of those go; filling the table with bans takes several attempts for each of its records.
    fn make_room(&mut self, now: Timestamp) {
        for _ in 0..SWEEP {
            self.drop_oldest_if(|record| record.is_over(now));
        }
        if self.records.len() < self.capacity {
            return;
        }
        for _ in 0..SEARCH {
            if self.drop_oldest_if(|record| record.failures < record.budget.failures || record.is_over(now)) {
                return;
            }
        }
        self.drop_oldest_if(|_| true);
    }

    /// Drops the oldest record if `dispensable`; otherwise it counts as the youngest from now on.
    fn drop_oldest_if(&mut self, dispensable: impl Fn(&Record) -> bool) -> bool {
        let Some(key) = self.order.pop_front() else { return false };
        let drop = self.records.get(&key).is_none_or(&dispensable);
        if drop {
            self.records.remove(&key);
        } else {
            self.order.push_back(key);
        }
        drop
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.records.len(), self.order.len());
        self.records.len()
    }
}

impl Record {
    /// Whether neither the window nor a ban holds any more.
    fn is_over(&self, now: Timestamp) -> bool {
        if self.failures >= self.budget.failures {
            now.since(self.last) >= self.budget.ban_time
        } else {
            self.failures == 0 || now.since(self.first) > self.budget.find_time
        }
    }
}
