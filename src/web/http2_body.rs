//! The body of a request on HTTP/2. Dropping hyper's before its end resets the stream; here its rest goes to the connection.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

/// A body, the rest of which goes to whoever sends the answer.
#[derive(Debug)]
pub struct Http2Body {
    /// Present until this is dropped.
    body: Option<Incoming>,
    rest: Option<Rest>,
}

/// Where the rest of a body is kept.
#[derive(Clone, Debug)]
pub struct Rest(Arc<Mutex<Left>>);

#[derive(Debug)]
enum Left {
    /// The body is still in use.
    Nothing,
    Body(Incoming),
    /// The answer has been sent.
    Unwanted,
}

impl Http2Body {
    /// The body, and its rest unless it is empty.
    pub fn new(body: Incoming) -> (Self, Option<Rest>) {
        let rest = (!body.is_end_stream()).then(|| Rest(Arc::new(Mutex::new(Left::Nothing))));
        (Self { body: Some(body), rest: rest.clone() }, rest)
    }

    pub(super) fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    pub(super) fn is_end(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Http2Body {
    fn drop(&mut self) {
        if let (Some(rest), Some(body)) = (&self.rest, self.body.take().filter(|body| !body.is_end_stream()))
        {
            rest.keep(body);
        }
    }
}

impl Rest {
    fn keep(&self, body: Incoming) {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*left, Left::Nothing) {
            *left = Left::Body(body);
        }
    }

    /// What has been left so far. What is left from now on is dropped at once.
    pub fn take(&self) -> Option<Incoming> {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *left, Left::Unwanted) {
            Left::Body(body) => Some(body),
            Left::Nothing | Left::Unwanted => None,
        }
    }
}
