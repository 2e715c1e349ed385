//! What one user may have under way, so that whoever overdoes it, or somebody with their session, slows nobody else.

use tokio::time::timeout;

use super::{Gateway, body::Note, rescue::Failure};
use crate::{gate::Identity, proxy::ForwardError, sessions::Lane, upstream};

/// Requests of one user that wait for their turn on one worker: those of four connections of HTTP/2.
const MOST_WAITING: u32 = 256;

/// What a user has too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// Requests at the portal.
    Requests,
    /// WebSockets and streams of events.
    Streams,
    /// Pages of ours.
    Pages,
}

impl Limit {
    /// For the log and the metrics.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Streams => "streams",
            Self::Pages => "pages",
        }
    }

    /// What an operator can set.
    fn key(self) -> Option<&'static str> {
        match self {
            Self::Requests => Some("portal.max_connections_per_user"),
            Self::Streams => Some("portal.max_streams_per_user"),
            Self::Pages => None,
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
            Self::Pages => "Too many sign-in and account pages were requested in a short time.",
        }
    }
}

/// What one request counts as, until it is over.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// A request at the portal.
    at_portal: bool,
    /// A WebSocket or a stream of events.
    is_stream: bool,
}

/// A worker's limits for each user.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Which of the workers it is, and of how many.
    pub worker: usize,
    pub workers: usize,
    pub limits: upstream::PerUser,
}

impl Bounds {
    fn lane(self, identity: &Identity) -> Option<&Lane> {
        identity.session().ongoing.lane(self.worker, self.workers)
    }
}

impl Gateway {
    /// Counts a request that goes to the portal, unless its user has too many there: then it is to [wait](Self::wait_turn).
    pub(super) fn enters(&self, identity: &Identity, note: &mut Note) -> bool {
        let lane = self.bounds.lane(identity);
        note.counts.at_portal = lane.is_some_and(|lane| lane.enter(self.bounds.limits.connections));
        note.counts.at_portal
    }

    /// Waits until others of its user have been answered, no longer than for an answer of the portal.
    pub(super) async fn wait_turn(&self, identity: &Identity, note: &mut Note) -> Result<(), Failure> {
        let Some(lane) = self.bounds.lane(identity) else { return Ok(()) };
        let turn = lane.wait(self.bounds.limits.connections, MOST_WAITING);
        tokio::select! {
            biased;
            () = identity.ended().cancelled_owned() => Err(ForwardError::SessionEnded.into()),
            turn = timeout(self.proxy.patience(), turn) => {
                note.counts.at_portal = turn.unwrap_or(false);
                if note.counts.at_portal { Ok(()) } else { Err(Failure::TooMuch(Limit::Requests)) }
            }
        }
    }

    /// Says that a user has come up against a limit: each time to the metrics, now and then to the log.
    pub(super) fn held_back(&self, limit: Limit, note: &Note) {
        self.shared.metrics.user_limited(limit.word());
        let Some(live) = note.session.as_ref() else { return };
        if live.ongoing.tells(self.shared.clock.elapsed()) {
            tracing::warn!(
                request.id = note.request_id(),
                client.ip = %note.client_ip,
                user = live.session.name,
                limit = limit.word(),
                key = limit.key(),
                "held a user back who has too much in progress; others go on as usual"
            );
        }
    }

    /// Counts what may become a WebSocket.
    pub(super) fn opens_stream(&self, identity: &Identity, note: &mut Note) -> Result<(), Failure> {
        note.counts.is_stream = identity.session().ongoing.open_stream(self.bounds.limits.streams);
        if note.counts.is_stream { Ok(()) } else { Err(Failure::TooMuch(Limit::Streams)) }
    }

    /// Counts what has become a WebSocket or a stream of events as such, and as nothing else.
    pub(super) fn became(&self, stream: bool, identity: &Identity, note: &mut Note) -> Result<(), Failure> {
        if stream != note.counts.is_stream {
            if stream {
                self.opens_stream(identity, note)?;
            } else {
                note.closes_stream();
            }
        }
        if stream {
            note.leaves_portal();
        }
        Ok(())
    }
}

impl Note {
    /// The request waits for nothing of the portal any more, or what it waits for keeps nobody waiting.
    pub(super) fn leaves_portal(&mut self) {
        let (bounds, session) = (self.bounds(), self.session.as_ref());
        if std::mem::take(&mut self.counts.at_portal)
            && let Some(lane) = session.and_then(|live| live.ongoing.lane(bounds.worker, bounds.workers))
        {
            lane.leave();
        }
    }

    pub(super) fn closes_stream(&mut self) {
        if std::mem::take(&mut self.counts.is_stream)
            && let Some(live) = &self.session
        {
            live.ongoing.close_stream();
        }
    }
}
