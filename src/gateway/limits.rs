//! How much one user may have under way, and how that is counted and told.

use std::rc::Rc;

use super::fair_queue::{FairQueue, Way};
use crate::upstream::{PerUser, Pool};

/// A worker's limits for each user.
#[derive(Debug)]
pub struct Bounds {
    pub(super) queue: Rc<FairQueue>,
    pub(super) streams: u32,
}

impl Bounds {
    /// Those of one of so many lanes, of which each worker has one for each pool: this one's requests go through `pool`.
    pub fn new(lane: usize, lanes: usize, limits: PerUser, pool: Rc<Pool>) -> Self {
        Self { queue: Rc::new(FairQueue::new(lane, lanes, limits, pool)), streams: limits.streams }
    }
}

/// What a user has too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// Requests at the portal.
    Requests,
    /// WebSockets and streams of events.
    Streams,
    /// The same, of one connection of HTTP/2.
    Connection,
    /// Pages of ours.
    Pages,
}

impl Limit {
    /// For the log and the metrics.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Streams => "streams",
            Self::Connection => "connection",
            Self::Pages => "pages",
        }
    }

    /// What an operator can set.
    pub(super) fn key(self) -> Option<&'static str> {
        match self {
            Self::Requests => Some("portal.max_connections_per_user"),
            Self::Streams => Some("portal.max_streams_per_user"),
            Self::Connection | Self::Pages => None,
        }
    }

    /// What a script is told.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::Requests => {
                "Too many requests of this user are in progress. Wait for some of them to finish."
            }
            Self::Streams => {
                "Too many WebSockets and event streams of this user are open. Close some of them first."
            }
            Self::Connection => {
                "Too many WebSockets and event streams are open on this connection. Close some of them first."
            }
            Self::Pages => "Too many sign-in and account pages were requested in a short time.",
        }
    }
}

/// What one request counts as, until it is over.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// A request at the portal.
    pub(super) at_portal: Option<Way>,
    /// A WebSocket or a stream of events.
    pub(super) is_stream: bool,
}
