//! Reads a request's body from the connection and passes it on to the service.

use std::{
    io,
    task::{Context, Poll, Waker, ready},
};

use bytes::BytesMut;
use http_body::Frame;

use super::wire::Wire;
use crate::{
    http1::{
        body_part::{MalformedBody, Part},
        framing::Framing,
        request_head::Announced,
    },
    web::incoming::{self, BodyReceiver, BodySender, Demand},
};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What is left of a body.
pub(super) struct BodyReader {
    sender: BodySender,
    framing: Framing,
    /// The client waits for a `100 Continue` before it sends the body.
    expects_continue: bool,
}

/// What has been passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    Part,
    /// The last part. What follows on the connection is the next request.
    End,
    /// The body is malformed; what follows on the connection cannot be read.
    Broken,
    /// Nothing: the service has dropped the body.
    Unwanted,
}

impl BodyReader {
    /// Starts a body, with its first part if that has come together with the head: a short body can be forwarded with the head,
    /// and one that is malformed from its start stops the request.
    pub(super) fn begin(announced: Announced, read: &mut BytesMut) -> (Self, Option<Given>, BodyReceiver) {
        let Announced { framing, expects_continue } = announced;
        let (sender, body) = incoming::channel();
        let mut upload = Self { sender, framing, expects_continue };
        // No task waits for it yet. An empty body is reported when it is polled: until then it is a body that was announced.
        let cx = Context::from_waker(Waker::noop());
        let given = match upload.framing.next(read) {
            Ok(None | Some(Part::End)) => None,
            Ok(Some(part)) => Some(upload.give(part, &cx)),
            Err(malformed) => Some(upload.give_up(malformed, &cx)),
        };
        upload.expects_continue &= given.is_none();
        (upload, given, body)
    }

    /// Passes on the next part, if the service polls for one. `answers`: the response has started, so `100 Continue` is too late.
    pub(super) fn poll(
        &mut self,
        wire: &mut Wire,
        answers: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Given>> {
        if ready!(self.sender.poll_demand(cx)) == Demand::Closed {
            return Poll::Ready(Ok(Given::Unwanted));
        }
        loop {
            if let Some(given) = self.give_next(&mut wire.read.bytes, cx) {
                return Poll::Ready(Ok(given));
            }
            if std::mem::take(&mut self.expects_continue) && wire.read.bytes.is_empty() && !answers {
                wire.front().extend_from_slice(CONTINUE);
                // The rest is written while waiting for the response.
                let _ = wire.poll_out(cx)?;
            }
            if ready!(wire.poll_more(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Passes on the next part, if it has arrived.
    fn give_next(&mut self, read: &mut BytesMut, cx: &Context<'_>) -> Option<Given> {
        match self.framing.next(read) {
            Ok(part) => part.map(|part| self.give(part, cx)),
            Err(malformed) => Some(self.give_up(malformed, cx)),
        }
    }

    fn give_up(&self, malformed: MalformedBody, cx: &Context<'_>) -> Given {
        self.sender.send(Some(Err(malformed.into())), true, cx);
        Given::Broken
    }

    fn give(&self, part: Part, cx: &Context<'_>) -> Given {
        let ends = !matches!(part, Part::Data(_)) || self.framing.is_end();
        let frame = match part {
            Part::Data(data) => Some(Ok(Frame::data(data))),
            Part::Trailers(fields) => Some(Ok(Frame::trailers(fields))),
            Part::End => None,
        };
        self.sender.send(frame, ends, cx);
        if ends { Given::End } else { Given::Part }
    }

    /// Whether the service has dropped the body.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Skips the rest of the body; true if it has arrived completely.
    pub(super) fn skip(&mut self, read: &mut BytesMut) -> bool {
        while !self.framing.is_end() {
            match self.framing.next(read) {
                Ok(Some(Part::Data(_))) => {}
                Ok(Some(Part::Trailers(_) | Part::End)) => return true,
                Ok(None) | Err(_) => return false,
            }
        }
        true
    }
}
