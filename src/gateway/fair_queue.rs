//! The fair queue of requests to the portal: which are sent now, and which wait.
//!
//! A user may send one more request as long as they have fewer than there are free connections. So one user who wants
//! everything gets half, each of two a third, and as much again stays free for others. Of the waiting users, the one
//! with the fewest requests at the portal is next.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use http::{HeaderMap, Method};
use tokio::sync::oneshot::{self, Receiver, Sender};

use crate::{
    sessions::Ongoing,
    upstream::{PerUser, Pool},
    web::grpc::needs_http2,
};

/// Waiting requests of one user on one worker: those of four HTTP/2 connections.
const MOST_WAITING: usize = 256;

/// How a request goes to the portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// On a connection of its own.
    Connection,
    /// On the connection that all gRPC calls share.
    Call,
}

impl Way {
    pub(super) fn of(method: &Method, fields: &HeaderMap) -> Self {
        if needs_http2(method, fields) { Self::Call } else { Self::Connection }
    }
}

/// The queue of one worker for one pool.
#[derive(Debug)]
pub(super) struct FairQueue {
    lane: usize,
    lanes: usize,
    limits: PerUser,
    pool: Rc<Pool>,
    /// Requests of all users, without gRPC calls.
    under_way: Cell<usize>,
    waiting: RefCell<Vec<Waiting>>,
}

/// The waiting requests of one user, in their order.
#[derive(Debug)]
struct Waiting {
    ongoing: Arc<Ongoing>,
    way: Way,
    turns: VecDeque<Sender<Admitted>>,
}

/// A request that may go to the portal, counted until this is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    all: Rc<FairQueue>,
    ongoing: Arc<Ongoing>,
    way: Option<Way>,
}

impl Admitted {
    /// From here on the caller has to report when the request [leaves](FairQueue::leave).
    pub(super) fn take(mut self) -> Option<Way> {
        self.way.take()
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(way) = self.way.take() {
            self.all.leave(&self.ongoing, way);
        }
    }
}

/// How many requests a user may have at once, given the free connections and their total.
fn most(limits: PerUser, way: Way, free: usize, room: usize) -> usize {
    let of_room = match way {
        _ if !limits.leaves_room => usize::MAX,
        Way::Connection => free,
        Way::Call => room.div_ceil(2),
    };
    of_room.min(usize::try_from(limits.connections).unwrap_or(usize::MAX)).max(1)
}

impl FairQueue {
    pub(super) fn new(lane: usize, lanes: usize, limits: PerUser, pool: Rc<Pool>) -> Self {
        Self { lane, lanes, limits, pool, under_way: Cell::new(0), waiting: RefCell::default() }
    }

    fn count<'a>(&self, ongoing: &'a Ongoing, way: Way) -> Option<&'a AtomicU32> {
        let lane = ongoing.lane(self.lane, self.lanes)?;
        Some(match way {
            Way::Connection => &lane.requests,
            Way::Call => &lane.calls,
        })
    }

    fn has(&self, ongoing: &Ongoing, way: Way) -> usize {
        let count = self.count(ongoing, way).map_or(0, |count| count.load(Relaxed));
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    fn may_enter(&self, ongoing: &Ongoing, way: Way) -> bool {
        let room = self.pool.room();
        let free = room.saturating_sub(self.under_way.get());
        self.has(ongoing, way) < most(self.limits, way, free, room)
    }

    fn begin(&self, ongoing: &Ongoing, way: Way) {
        if let Some(count) = self.count(ongoing, way) {
            count.fetch_add(1, Relaxed);
        }
        if way == Way::Connection {
            self.under_way.set(self.under_way.get() + 1);
        }
    }

    /// Counts a request. False if its user has too many, or has others waiting.
    pub(super) fn enter(&self, ongoing: &Arc<Ongoing>, way: Way) -> bool {
        let waits = |one: &Waiting| one.way == way && Arc::ptr_eq(&one.ongoing, ongoing);
        let enters = !self.waiting.borrow().iter().any(waits) && self.may_enter(ongoing, way);
        if enters {
            self.begin(ongoing, way);
        }
        enters
    }

    /// Joins the queue; `None` if too many requests of the same user wait. Dropping the receiver leaves it.
    pub(super) fn wait(&self, ongoing: &Arc<Ongoing>, way: Way) -> Option<Receiver<Admitted>> {
        let (turn, comes) = oneshot::channel();
        let mut waiting = self.waiting.borrow_mut();
        let found = waiting.iter_mut().find(|one| one.way == way && Arc::ptr_eq(&one.ongoing, ongoing));
        if let Some(Waiting { turns, .. }) = found {
            if turns.len() >= MOST_WAITING {
                turns.retain(|turn| !turn.is_closed());
            }
            if turns.len() >= MOST_WAITING {
                return None;
            }
            turns.push_back(turn);
        } else {
            waiting.push(Waiting { ongoing: Arc::clone(ongoing), way, turns: VecDeque::from([turn]) });
        }
        Some(comes)
    }

    /// Ends the count of a request, and lets the next ones in.
    pub(super) fn leave(self: &Rc<Self>, ongoing: &Ongoing, way: Way) {
        if let Some(count) = self.count(ongoing, way) {
            count.fetch_sub(1, Relaxed);
        }
        if way == Way::Connection {
            self.under_way.set(self.under_way.get().saturating_sub(1));
        }
        while let Some((ongoing, way, turn)) = self.next() {
            self.begin(&ongoing, way);
            // If the receiver is gone after all, dropping the message ends the count.
            let _ = turn.send(Admitted { all: Rc::clone(self), ongoing, way: Some(way) });
        }
    }

    /// The waiting user with the fewest requests who may send one more.
    fn next(&self) -> Option<(Arc<Ongoing>, Way, Sender<Admitted>)> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            return None;
        }
        waiting.retain_mut(|one| {
            while one.turns.pop_front_if(|turn| turn.is_closed()).is_some() {}
            !one.turns.is_empty()
        });
        let can = |one: &&mut Waiting| self.may_enter(&one.ongoing, one.way);
        let first = waiting.iter_mut().filter(can).min_by_key(|one| self.has(&one.ongoing, one.way))?;
        let turn = first.turns.pop_front()?;
        Some((Arc::clone(&first.ongoing), first.way, turn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many requests each of so many users gets if all want everything.
    fn shares(users: usize, room: usize) -> Vec<usize> {
        let limits = PerUser { connections: u32::MAX, leaves_room: true, streams: 0 };
        let mut have = vec![0; users];
        loop {
            let before = have.clone();
            for user in 0..users {
                let free = room.saturating_sub(have.iter().sum());
                if have[user] < most(limits, Way::Connection, free, room) {
                    have[user] += 1;
                }
            }
            if have == before {
                return have;
            }
        }
    }

    #[test]
    fn as_much_as_one_user_has_stays_free() {
        assert_eq!(shares(1, 128), [64]);
        assert_eq!(shares(2, 129), [43; 2]);
        assert_eq!(shares(3, 128), [32; 3]);
        assert_eq!(shares(1, 1), [1]);
        assert_eq!(shares(2, 1), [1; 2], "everybody may have one, and wait for its connection");
    }

    #[test]
    fn what_is_set_holds_and_calls_share_one_connection() {
        let set = PerUser { connections: 7, leaves_room: true, streams: 0 };
        assert_eq!(most(set, Way::Connection, 100, 128), 7);
        assert_eq!(most(set, Way::Connection, 3, 128), 3);
        let all = PerUser { connections: 128, leaves_room: false, streams: 0 };
        assert_eq!(most(all, Way::Connection, 0, 128), 128);
        let unset = PerUser { connections: u32::MAX, ..set };
        assert_eq!(most(unset, Way::Call, 0, 128), 64, "they take no connection from anybody");
    }
}
