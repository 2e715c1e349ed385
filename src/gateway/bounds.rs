//! The limits of one user, so that too many requests of one, or of somebody with their session, slow nobody else down.

use std::sync::Arc;

use tokio::time::timeout;

use super::{
    Gateway,
    body::RequestRecord,
    context::ConnectionContext,
    failure::Failure,
    fair_queue::{Admitted, Way},
    limits::Limit,
};
use crate::{gate::Identity, proxy::ForwardError, server::ConnectionHandle, sessions::Ongoing};

/// The connection of a request.
type On<'a> = (&'a ConnectionHandle, &'a ConnectionContext);

impl Gateway {
    /// What the user of an identity has in progress. All strangers together count as one user.
    fn ongoing<'a>(&'a self, identity: &'a Identity) -> &'a Arc<Ongoing> {
        identity.subject().map_or(&self.shared.strangers, |live| &live.ongoing)
    }

    /// Counts a request to the portal, unless its user has too many there: then it has to [wait](Self::wait_turn).
    pub(super) fn enters(&self, way: Way, identity: &Identity, record: &mut RequestRecord) -> bool {
        let enters = record.servers().bounds.queue.enter(self.ongoing(identity), way);
        record.counts.at_portal = enters.then_some(way);
        enters
    }

    /// Waits for a turn, no longer than for a response of the portal.
    pub(super) async fn wait_turn(
        &self,
        way: Way,
        identity: &Identity,
        record: &mut RequestRecord,
    ) -> Result<(), Failure> {
        let (too_much, longest) =
            (Failure::TooMuch(Limit::Requests), record.servers().proxy.response_timeout());
        let Some(turn) = record.servers().bounds.queue.wait(self.ongoing(identity), way) else {
            return Err(too_much);
        };
        tokio::select! {
            biased;
            () = identity.end() => Err(ForwardError::SessionEnded.into()),
            turn = timeout(longest, turn) => {
                record.counts.at_portal = turn.ok().and_then(Result::ok).and_then(Admitted::take);
                if record.counts.at_portal.is_some() { Ok(()) } else { Err(too_much) }
            }
        }
    }

    /// Reports that a user has reached a limit: to the metrics each time, to the log at intervals.
    pub(super) fn held_back(&self, limit: Limit, record: &RequestRecord) {
        self.shared.metrics.user_limited(limit.word());
        let Some(live) = record.session.as_ref() else { return };
        if live.ongoing.tells(self.shared.clock.elapsed()) {
            tracing::warn!(
                request.id = record.request_id(),
                client.ip = %record.client_ip,
                user = live.session.name,
                limit = limit.word(),
                key = limit.key(),
                "held a user back who has too much in progress; others go on as usual"
            );
        }
    }

    /// Counts a request that may become a WebSocket.
    pub(super) fn opens_stream(
        &self,
        identity: &Identity,
        (connection, context): On<'_>,
        record: &mut RequestRecord,
    ) -> Result<(), Failure> {
        record.stream = context.stream(connection.most_lasting());
        if record.stream.is_none() {
            return Err(Failure::TooMuch(Limit::Connection));
        }
        record.counts.is_stream = self.ongoing(identity).open_stream(record.servers().bounds.streams);
        if record.counts.is_stream { Ok(()) } else { Err(Failure::TooMuch(Limit::Streams)) }
    }

    /// Counts a request as the WebSocket or event stream that it has become, and as nothing else.
    pub(super) fn became(
        &self,
        stream: bool,
        identity: &Identity,
        on: On<'_>,
        record: &mut RequestRecord,
    ) -> Result<(), Failure> {
        if stream != record.counts.is_stream {
            if stream {
                self.opens_stream(identity, on, record)?;
            } else {
                record.closes_stream();
            }
        }
        if stream {
            record.leaves_portal();
        }
        Ok(())
    }
}

impl RequestRecord {
    /// The request no longer waits for the portal, or what it waits for blocks nobody.
    pub(super) fn leaves_portal(&mut self) {
        if let Some(way) = self.counts.at_portal.take() {
            self.servers().bounds.queue.leave(self.ongoing(), way);
        }
    }

    pub(super) fn closes_stream(&mut self) {
        self.stream = None;
        if std::mem::take(&mut self.counts.is_stream) {
            self.ongoing().close_stream();
        }
    }

    fn ongoing(&self) -> &Arc<Ongoing> {
        match &self.session {
            Some(live) => &live.ongoing,
            None => &self.shared().strangers,
        }
    }
}
