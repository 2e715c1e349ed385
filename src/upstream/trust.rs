//! Whether connections to a server can be used again. Some servers close after each answer without saying so, and some say
//! what nobody asked for: those get a new connection for each request, until one of them has been seen to do better.

use std::cell::Cell;

/// Looks, one a second, for which no connection is used again after the first disappointment; twice as many after the next.
const WARY: u32 = 30;
/// How often that doubles.
const MOST_DOUBLINGS: u32 = 4;

/// What is thought of one server.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Disappointments since a connection was last used again and all went well.
    losses: Cell<u32>,
    /// The look up to which no connection is used again.
    until: Cell<u32>,
}

impl Trust {
    /// Whether a request may go over a connection that has been used. The first ones after a disappointment are such that can
    /// be sent again.
    pub(super) fn allows(&self, now: u32, repeatable: bool) -> bool {
        self.losses.get() == 0 || (repeatable && self.keeps(now))
    }

    /// Whether a connection is worth keeping.
    pub(super) fn keeps(&self, now: u32) -> bool {
        self.losses.get() == 0 || now >= self.until.get()
    }

    /// A connection was used again, and all went well.
    pub(super) fn confirm(&self, now: u32) {
        if self.losses.get() != 0 && self.keeps(now) {
            self.losses.set(0);
        }
    }

    /// Says for how many looks nothing is used again now; `None` when that was so already.
    pub(super) fn disappoint(&self, now: u32) -> Option<u32> {
        if self.losses.get() > 0 && !self.keeps(now) {
            return None;
        }
        let wary = WARY << self.losses.get().min(MOST_DOUBLINGS);
        self.losses.set(self.losses.get().saturating_add(1));
        self.until.set(now.saturating_add(wary));
        Some(wary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_loss_nothing_is_used_again_for_a_while_and_then_only_what_can_be_repeated() {
        let trust = Trust::default();
        assert!(trust.allows(5, false) && trust.keeps(5));
        assert_eq!(trust.disappoint(5), Some(30));
        assert_eq!(trust.disappoint(6), None, "one loss seldom comes alone");
        assert!(!trust.allows(34, true) && !trust.keeps(34));
        assert!(trust.keeps(35) && trust.allows(35, true) && !trust.allows(35, false));
        assert_eq!(trust.disappoint(40), Some(60));
        assert!(!trust.keeps(99) && trust.allows(100, true));
        trust.confirm(99);
        assert!(!trust.allows(99, false), "what was under way already proves nothing");
        trust.confirm(100);
        assert!(trust.allows(100, false));
        assert_eq!(trust.disappoint(100), Some(30));
    }

    #[test]
    fn the_while_does_not_grow_for_ever() {
        let trust = Trust::default();
        let last = (0..20).filter_map(|round| trust.disappoint(round * 1000)).last();
        assert_eq!(last, Some(480));
    }
}
