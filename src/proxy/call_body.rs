//! The two bodies of a call: the request's, which can be sent again from its start as long as little of it has been
//! sent, and the response's.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};

use super::{request_body::RequestBody, session_bound_body::SessionBoundBody};
use crate::web::{body::BodyError, grpc};

/// Maximum size of the part that is kept for a second try.
const MOST_KEPT: usize = 64 * 1024;

/// A request body on its way to a server. Only its latest copy carries anything.
#[derive(Debug)]
pub struct CallBody {
    source: Rc<RefCell<Source>>,
    attempt: u32,
    /// The number of kept parts that this copy has sent.
    given: usize,
}

/// The shared source of all copies.
#[derive(Debug)]
struct Source {
    body: RequestBody,
    attempt: u32,
    kept: Vec<Part>,
    size: usize,
    keeps: bool,
    has_ended: bool,
}

#[derive(Clone, Debug)]
enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// The right to start over.
#[derive(Debug)]
pub(super) struct Replay(Rc<RefCell<Source>>);

impl CallBody {
    pub(super) fn new(body: RequestBody) -> (Self, Replay) {
        let source = Source { body, attempt: 0, kept: Vec::new(), size: 0, keeps: true, has_ended: false };
        let source = Rc::new(RefCell::new(source));
        (Self { source: Rc::clone(&source), attempt: 0, given: 0 }, Replay(source))
    }
}

impl Replay {
    /// The body from its start, if all of it is still there.
    pub(super) fn again(self) -> Option<CallBody> {
        let mut source = self.0.borrow_mut();
        if !source.keeps {
            return None;
        }
        source.attempt += 1;
        Some(CallBody { source: Rc::clone(&self.0), attempt: source.attempt, given: 0 })
    }
}

impl Drop for Replay {
    /// There will be no other try.
    fn drop(&mut self) {
        self.0.borrow_mut().keeps = false;
    }
}

impl Source {
    fn keep(&mut self, part: &Frame<Bytes>) {
        if !self.keeps {
            self.kept = Vec::new();
            return;
        }
        let part = match (part.data_ref(), part.trailers_ref()) {
            (Some(data), _) => Part::Data(data.clone()),
            (None, Some(trailers)) => Part::Trailers(trailers.clone()),
            (None, None) => return,
        };
        if let Part::Data(data) = &part {
            self.size += data.len();
        }
        self.kept.push(part);
        if self.size > MOST_KEPT {
            self.keeps = false;
            self.kept = Vec::new();
        }
    }
}

impl Body for CallBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut source = this.source.borrow_mut();
        if this.attempt != source.attempt {
            return Poll::Ready(Some(Err(BodyError::Cut("it goes to another connection".into()))));
        }
        if let Some(part) = source.kept.get(this.given).filter(|_| this.attempt > 0) {
            this.given += 1;
            return Poll::Ready(Some(Ok(match part.clone() {
                Part::Data(data) => Frame::data(data),
                Part::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        if source.has_ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut source.body).poll_frame(cx));
        match &frame {
            Some(Ok(part)) => source.keep(part),
            Some(Err(_)) => source.keeps = false,
            None => source.has_ended = true,
        }
        this.given = source.kept.len();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let source = self.source.borrow();
        let is_behind = self.attempt > 0 && self.given < source.kept.len();
        !is_behind && (source.has_ended || source.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// The body of the response to a call.
#[derive(Debug)]
pub(super) struct CallAnswer {
    body: SessionBoundBody<hyper::body::Incoming>,
    is_over: bool,
}

impl CallAnswer {
    pub(super) fn new(body: SessionBoundBody<hyper::body::Incoming>) -> Self {
        Self { body, is_over: false }
    }
}

impl Body for CallAnswer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.body.poll_frame(cx)) {
            // A call always ends with a status.
            Some(Err(BodyError::SessionEnded)) => {
                self.is_over = true;
                Some(Ok(Frame::trailers(HeaderMap::from_iter([
                    (grpc::STATUS, grpc::UNAUTHENTICATED),
                    (grpc::MESSAGE, HeaderValue::from_static("the session has ended")),
                ]))))
            }
            frame => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
