//! The limits of one user: what is counted, and how it is reported.

use std::rc::Rc;

use super::fair_queue::{FairQueue, Way};
use crate::upstream::{PerUser, Pool};

/// The per-user limits of a worker.
#[derive(Debug)]
pub struct Bounds {
    pub(super) queue: Rc<FairQueue>,
    pub(super) streams: u32,
}

impl Bounds {
    /// The limits in one of `lanes` lanes, one per worker and pool; requests of this one go through `pool`.
    pub fn new(lane: usize, lanes: usize, limits: PerUser, pool: Rc<Pool>) -> Self {
        Self { queue: Rc::new(FairQueue::new(lane, lanes, limits, pool)), streams: limits.streams }
    }
}

/// A limit that a user has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// Requests at the portal.
    Requests,
    /// WebSockets and event streams.
    Streams,
    /// WebSockets and event streams on one HTTP/2 connection.
    Connection,
    /// Pages of ours.
    Pages,
}

impl Limit {
    /// The label in the log and the metrics.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Streams => "streams",
            Self::Connection => "connection",
            Self::Pages => "pages",
        }
    }

    /// The setting, if there is one.
    pub(super) fn key(self) -> Option<&'static str> {
        match self {
            Self::Requests => Some("portal.max_connections_per_user"),
            Self::Streams => Some("portal.max_streams_per_user"),
            Self::Connection | Self::Pages => None,
        }
    }

    /// The `detail` of the problem document.
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

/// What a request counts as until it ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// A request at the portal.
    pub(super) at_portal: Option<Way>,
    /// A WebSocket or an event stream.
    pub(super) is_stream: bool,
}
