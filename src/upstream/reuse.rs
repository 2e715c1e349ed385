//! Whether connections to a server can be reused. Some servers close after each response without announcing it, and some send
//! bytes without a request: they get a new connection for each request until reuse has worked again.

use std::cell::Cell;

/// Checks, one per second, without reuse after the first failure. The number doubles with each further failure.
const WARY: u32 = 30;
/// How often it doubles.
const MOST_DOUBLINGS: u32 = 4;

/// The record of one server.
#[derive(Debug, Default)]
pub(super) struct Reuse {
    /// Failures since reuse last worked.
    failures: Cell<u32>,
    /// The check up to which no connection is reused.
    until: Cell<u32>,
}

impl Reuse {
    /// Whether a request may reuse a connection. After a failure, only repeatable requests may try it first.
    pub(super) fn allows(&self, now: u32, repeatable: bool) -> bool {
        self.failures.get() == 0 || (repeatable && self.keeps(now))
    }

    /// Whether a connection is worth keeping.
    pub(super) fn keeps(&self, now: u32) -> bool {
        self.failures.get() == 0 || now >= self.until.get()
    }

    /// Reuse has worked.
    pub(super) fn worked(&self, now: u32) {
        if self.failures.get() != 0 && self.keeps(now) {
            self.failures.set(0);
        }
    }

    /// Notes a failure. Returns for how many checks reuse is off; `None` when it was off already.
    pub(super) fn failed(&self, now: u32) -> Option<u32> {
        if self.failures.get() > 0 && !self.keeps(now) {
            return None;
        }
        let wary = WARY << self.failures.get().min(MOST_DOUBLINGS);
        self.failures.set(self.failures.get().saturating_add(1));
        self.until.set(now.saturating_add(wary));
        Some(wary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_loss_nothing_is_used_again_for_a_while_and_then_only_what_can_be_repeated() {
        let reuse = Reuse::default();
        assert!(reuse.allows(5, false) && reuse.keeps(5));
        assert_eq!(reuse.failed(5), Some(30));
        assert_eq!(reuse.failed(6), None, "one loss seldom comes alone");
        assert!(!reuse.allows(34, true) && !reuse.keeps(34));
        assert!(reuse.keeps(35) && reuse.allows(35, true) && !reuse.allows(35, false));
        assert_eq!(reuse.failed(40), Some(60));
        assert!(!reuse.keeps(99) && reuse.allows(100, true));
        reuse.worked(99);
        assert!(!reuse.allows(99, false), "what was under way already proves nothing");
        reuse.worked(100);
        assert!(reuse.allows(100, false));
        assert_eq!(reuse.failed(100), Some(30));
    }

    #[test]
    fn the_while_does_not_grow_for_ever() {
        let reuse = Reuse::default();
        let last = (0..20).filter_map(|round| reuse.failed(round * 1000)).last();
        assert_eq!(last, Some(480));
    }
}
