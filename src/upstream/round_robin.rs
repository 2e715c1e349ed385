//! Round robin over the portal's servers. One that refused a connection goes to the end of the order for a while.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

/// How long a server that refused a connection is tried last.
const LEFT_ALONE: Duration = Duration::from_secs(3);

/// The round robin of one worker.
#[derive(Debug)]
pub(super) struct RoundRobin {
    next: Cell<usize>,
    refused_at: Vec<Cell<Option<Instant>>>,
}

impl RoundRobin {
    pub(super) fn new(servers: usize) -> Self {
        Self { next: Cell::new(0), refused_at: (0..servers).map(|_| Cell::new(None)).collect() }
    }

    /// The next server in turn, until [`Self::pass`].
    pub(super) fn current(&self) -> usize {
        self.next.get() % self.refused_at.len().max(1)
    }

    pub(super) fn pass(&self) {
        self.next.set(self.current() + 1);
    }

    /// All servers in the order in which to try them; the turn passes on.
    pub(super) fn order(&self, now: Instant) -> Vec<usize> {
        let (count, first) = (self.refused_at.len(), self.current());
        self.pass();
        let mut order: Vec<usize> = (0..count).map(|step| (first + step) % count).collect();
        if count > 1 {
            // A stable sort: servers that refused keep their order at the end.
            order.sort_by_key(|&server| self.is_left_alone(server, now));
        }
        order
    }

    fn is_left_alone(&self, server: usize, now: Instant) -> bool {
        let refused_at = self.refused_at.get(server).and_then(Cell::get);
        refused_at.is_some_and(|at| now.duration_since(at) < LEFT_ALONE)
    }

    /// The number of servers that have not refused recently; at least one.
    pub(super) fn in_use(&self) -> usize {
        let has_refused =
            |server: &Cell<Option<Instant>>| server.get().is_some_and(|at| at.elapsed() < LEFT_ALONE);
        self.refused_at.iter().filter(|server| !has_refused(server)).count().max(1)
    }

    pub(super) fn accepted(&self, server: usize) {
        self.note(server, None);
    }

    pub(super) fn refused(&self, server: usize, now: Instant) {
        self.note(server, Some(now));
    }

    fn note(&self, server: usize, refused_at: Option<Instant>) {
        if let Some(cell) = self.refused_at.get(server) {
            cell.set(refused_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_refused_is_asked_last_for_a_while() {
        let turns = RoundRobin::new(3);
        let now = Instant::now();
        assert_eq!(turns.order(now), [0, 1, 2]);
        assert_eq!(turns.order(now), [1, 2, 0]);
        turns.refused(2, now);
        assert_eq!(turns.order(now), [0, 1, 2]);
        turns.refused(1, now);
        assert_eq!(turns.order(now), [0, 1, 2]);
        assert_eq!(turns.order(now), [0, 1, 2]);
        turns.accepted(1);
        assert_eq!(turns.order(now), [0, 1, 2]);
        assert_eq!(turns.order(now), [0, 1, 2]);
        assert_eq!(turns.order(now), [1, 0, 2]);
        assert_eq!(turns.in_use(), 2);
        assert_eq!(turns.order(now + LEFT_ALONE), [2, 0, 1]);
    }
}
