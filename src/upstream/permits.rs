//! Permits for connections to the portal, and the queue for them. Only counts; opens and closes nothing.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

use tokio::sync::oneshot::{self, Receiver, Sender};

/// One worker's share of the limits.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Connections to one server.
    pub connections: usize,
    /// Requests waiting for a connection.
    pub waiting: usize,
    /// Connections used by WebSockets and event streams.
    pub streams: usize,
}

impl PoolLimits {
    /// Splits the limits among workers. Each gets at least one connection; together they never have more than the limit.
    #[must_use]
    pub fn share(self, workers: usize) -> Self {
        let share = |limit: usize| limit.div_ceil(workers.max(1));
        Self {
            connections: (self.connections / workers.max(1)).max(1),
            waiting: share(self.waiting),
            streams: share(self.streams),
        }
    }
}

/// The permits of one worker. `T` is what a waiting request receives.
#[derive(Debug)]
pub(super) struct ConnectionPermits<T> {
    limits: PoolLimits,
    /// Per server: connections that are open or being opened, in use or idle.
    taken: Vec<Cell<usize>>,
    streams: Cell<usize>,
    waiting: RefCell<VecDeque<Sender<T>>>,
}

impl<T> ConnectionPermits<T> {
    pub(super) fn new(servers: usize, limits: PoolLimits) -> Self {
        let taken = (0..servers).map(|_| Cell::new(0)).collect();
        Self { limits, taken, streams: Cell::new(0), waiting: RefCell::new(VecDeque::new()) }
    }

    /// Connections allowed to one server.
    pub(super) fn most(&self) -> usize {
        self.limits.connections
    }

    /// Takes a permit for a server if one is free.
    pub(super) fn take(&self, server: usize) -> bool {
        let Some(taken) = self.taken.get(server) else { return false };
        let is_free = taken.get() < self.limits.connections;
        if is_free {
            taken.set(taken.get() + 1);
        }
        is_free
    }

    pub(super) fn free(&self, server: usize) {
        if let Some(taken) = self.taken.get(server) {
            taken.set(taken.get().saturating_sub(1));
        }
    }

    /// Whether another connection may become a stream.
    pub(super) fn has_room_for_a_stream(&self) -> bool {
        self.streams.get() < self.limits.streams
    }

    /// Counts a connection as a stream from now on, if there is room.
    pub(super) fn begin_stream(&self) -> bool {
        let has_room = self.has_room_for_a_stream();
        if has_room {
            self.streams.set(self.streams.get() + 1);
        }
        has_room
    }

    pub(super) fn end_stream(&self) {
        self.streams.set(self.streams.get().saturating_sub(1));
    }

    /// Joins the queue; `None` when it is full. Dropping the receiver leaves it.
    pub(super) fn wait(&self) -> Option<Receiver<T>> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= self.limits.waiting {
            waiting.retain(|waiter| !waiter.is_closed());
        }
        (waiting.len() < self.limits.waiting).then(|| {
            let (waiter, turn) = oneshot::channel();
            waiting.push_back(waiter);
            turn
        })
    }

    /// Whether the queue may have somebody waiting.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// The first in the queue that is still waiting.
    pub(super) fn next(&self) -> Option<Sender<T>> {
        let mut waiting = self.waiting.borrow_mut();
        std::iter::from_fn(|| waiting.pop_front()).find(|waiter| !waiter.is_closed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PoolLimits = PoolLimits { connections: 2, waiting: 2, streams: 1 };

    #[test]
    fn each_server_has_so_many_places_and_no_more() {
        let permits = ConnectionPermits::<()>::new(2, LIMITS);
        assert!(permits.take(0) && permits.take(0) && !permits.take(0));
        assert!(permits.take(1));
        permits.free(0);
        assert!(permits.take(0) && !permits.take(0));
        assert!(!permits.take(2), "there is no third server");
        assert!(permits.begin_stream() && !permits.begin_stream());
        permits.end_stream();
        assert!(permits.has_room_for_a_stream());
    }

    #[test]
    fn who_leaves_the_queue_frees_the_place_in_it() {
        let permits = ConnectionPermits::new(1, LIMITS);
        let (first, mut second) = (permits.wait().unwrap(), permits.wait().unwrap());
        assert!(permits.wait().is_none());
        drop(first);
        let mut third = permits.wait().expect("the first has left");
        permits.next().unwrap().send(2).unwrap();
        permits.next().unwrap().send(3).unwrap();
        assert_eq!((second.try_recv(), third.try_recv()), (Ok(2), Ok(3)));
        assert!(permits.next().is_none());
    }

    #[test]
    fn workers_share_the_limits_and_none_goes_without() {
        let limits = PoolLimits { connections: 263, waiting: 0, streams: 3 }.share(8);
        assert_eq!((limits.connections, limits.waiting, limits.streams), (32, 0, 1));
    }
}
