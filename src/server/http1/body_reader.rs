//! The body of a request on its way from the connection to whoever reads it.

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
    web::incoming::{self, BodyReceiver, BodySender, Reader},
};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What is left of a body.
pub(super) struct BodyReader {
    sender: BodySender,
    framing: Framing,
    /// The client waits for a word before it sends the body.
    expects_continue: bool,
}

/// How far a body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    Part,
    /// The last part. What follows on the connection is the next request.
    End,
    /// What follows on the connection is nothing that anybody can read.
    Broken,
    /// Nothing: nobody reads any more.
    Unwanted,
}

impl BodyReader {
    /// A body, and what has been given of it: the first part, if it has come together with the head. So a short body can go
    /// on with the head, and one that is malformed from its start keeps the head from going on.
    pub(super) fn begin(announced: Announced, read: &mut BytesMut) -> (Self, Option<Given>, BodyReceiver) {
        let Announced { framing, expects_continue } = announced;
        let (sender, body) = incoming::channel();
        let mut upload = Self { sender, framing, expects_continue };
        // Nobody waits for it yet. That it is empty is told when it is asked for: until then it is a body that was announced.
        let cx = Context::from_waker(Waker::noop());
        let given = match upload.framing.next(read) {
            Ok(None | Some(Part::End)) => None,
            Ok(Some(part)) => Some(upload.give(part, &cx)),
            Err(malformed) => Some(upload.give_up(malformed, &cx)),
        };
        upload.expects_continue &= given.is_none();
        (upload, given, body)
    }

    /// Gives the reader the next part, if one is wanted. `answers` says that the answer has begun: then there is no room for
    /// another word.
    pub(super) fn poll(
        &mut self,
        wire: &mut Wire,
        answers: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Given>> {
        if ready!(self.sender.poll_reader(cx)) == Reader::HasGivenUp {
            return Poll::Ready(Ok(Given::Unwanted));
        }
        loop {
            if let Some(given) = self.give_next(&mut wire.read, cx) {
                return Poll::Ready(Ok(given));
            }
            if std::mem::take(&mut self.expects_continue) && wire.read.is_empty() && !answers {
                wire.front().extend_from_slice(CONTINUE);
                // Whoever waits for the answer writes on.
                let _ = wire.poll_out(cx)?;
            }
            if ready!(wire.poll_more(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Gives the part that has come next, if one has.
    fn give_next(&mut self, read: &mut BytesMut, cx: &Context<'_>) -> Option<Given> {
        match self.framing.next(read) {
            Ok(part) => part.map(|part| self.give(part, cx)),
            Err(malformed) => Some(self.give_up(malformed, cx)),
        }
    }

    fn give_up(&self, malformed: MalformedBody, cx: &Context<'_>) -> Given {
        self.sender.give(Some(Err(malformed.into())), true, cx);
        Given::Broken
    }

    fn give(&self, part: Part, cx: &Context<'_>) -> Given {
        let ends = !matches!(part, Part::Data(_)) || self.framing.is_end();
        let frame = match part {
            Part::Data(data) => Some(Ok(Frame::data(data))),
            Part::Trailers(fields) => Some(Ok(Frame::trailers(fields))),
            Part::End => None,
        };
        self.sender.give(frame, ends, cx);
        if ends { Given::End } else { Given::Part }
    }

    /// Whether nobody will read what is left.
    pub(super) fn is_given_up(&self) -> bool {
        self.sender.is_given_up()
    }

    /// Reads over what is left, if it has come to its end.
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
