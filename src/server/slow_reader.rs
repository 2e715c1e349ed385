//! Detects clients that read too slowly: how long we waited for one, and how much it took in that time.

use std::cell::Cell;

use super::timeouts::{Ticks, Timeouts};

/// The account of one connection, or of one stream. Only time spent waiting for the client counts.
#[derive(Debug, Default)]
pub(super) struct SlowReader {
    /// Since when we are waiting; zero while we are not.
    since: Cell<u32>,
    /// How long we waited before that, and the bytes taken since.
    waited: Cell<u32>,
    taken: Cell<u32>,
}

impl SlowReader {
    /// The client has data to read; its time starts now.
    pub(super) fn expect(&self, ticks: &Ticks) {
        self.since.set(ticks.now());
    }

    /// The client is not reading. Its time started at the first such call.
    pub(super) fn block(&self, ticks: &Ticks) {
        if self.since.get() == 0 {
            self.expect(ticks);
        }
    }

    /// The client has read `bytes`.
    pub(super) fn take(&self, bytes: u32, ticks: &Ticks) {
        let since = self.since.replace(0);
        if since != 0 {
            self.waited.set(self.waited.get().saturating_add(ticks.since(since)));
        }
        if self.waited.get() != 0 {
            self.taken.set(self.taken.get().saturating_add(bytes));
        }
    }

    /// There is nothing for the client to read; its account starts afresh.
    pub(super) fn rest(&self) {
        self.since.set(0);
        self.waited.set(0);
    }

    /// Whether the client reads too slowly. Once it has read enough, its account starts afresh.
    pub(super) fn is_too_slow(&self, timeouts: Timeouts, ticks: &Ticks) -> bool {
        if self.taken.get() >= timeouts.least {
            self.taken.set(0);
            self.waited.set(0);
        }
        ticks.since(self.since.get()).saturating_add(self.waited.get()) >= timeouts.stall
    }
}
