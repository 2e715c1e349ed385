//! How long a client has had us wait to take what we send, and how much it has taken for that.

use std::cell::Cell;

use super::timeouts::{Ticks, Timeouts};

/// The account of one client, or of one stream of it. Only time that is spent waiting for the client counts.
#[derive(Debug, Default)]
pub(super) struct SlowReader {
    /// Since when it is waited for; zero while it is not.
    since: Cell<u32>,
    /// How long it was waited for before, and what it has taken since.
    waited: Cell<u32>,
    taken: Cell<u32>,
}

impl SlowReader {
    /// The client has something to take; its time runs from now.
    pub(super) fn expect(&self, ticks: &Ticks) {
        self.since.set(ticks.now());
    }

    /// The client does not take what there is. Its time runs on from the first such moment.
    pub(super) fn block(&self, ticks: &Ticks) {
        if self.since.get() == 0 {
            self.expect(ticks);
        }
    }

    /// The client took so many bytes.
    pub(super) fn take(&self, bytes: u32, ticks: &Ticks) {
        let since = self.since.replace(0);
        if since != 0 {
            self.waited.set(self.waited.get().saturating_add(ticks.since(since)));
        }
        if self.waited.get() != 0 {
            self.taken.set(self.taken.get().saturating_add(bytes));
        }
    }

    /// Nothing is asked of the client, and nothing held against it.
    pub(super) fn rest(&self) {
        self.since.set(0);
        self.waited.set(0);
    }

    /// Whether the client has taken too little. If it has taken enough, it gets the whole time again.
    pub(super) fn is_too_slow(&self, timeouts: Timeouts, ticks: &Ticks) -> bool {
        if self.taken.get() >= timeouts.least {
            self.taken.set(0);
            self.waited.set(0);
        }
        ticks.since(self.since.get()).saturating_add(self.waited.get()) >= timeouts.stall
    }
}
