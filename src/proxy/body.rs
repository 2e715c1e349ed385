//! The two bodies of a forwarded request: what goes to the portal, and what comes back.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::{
    identity::IdentityHeaders,
    upstream::Lease,
    web::{
        body::{BodyError, Stream},
        fields,
    },
};

/// How far the sending of a request has come.
#[derive(Debug)]
pub struct Progress {
    /// When the last part went out; the portal's time to answer starts there.
    last: Cell<Instant>,
    has_ended: Cell<bool>,
}

impl Progress {
    pub(super) fn begin() -> Rc<Self> {
        Rc::new(Self { last: Cell::new(Instant::now()), has_ended: Cell::new(false) })
    }

    fn made(&self) {
        self.last.set(Instant::now());
    }

    pub(super) fn last(&self) -> Instant {
        self.last.get()
    }
}

/// What goes to the portal.
#[derive(Debug)]
pub enum RequestBody {
    Empty,
    Stream { stream: Stream, identity: Rc<IdentityHeaders>, progress: Rc<Progress> },
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream { stream, identity, progress } => {
                let frame = ready!(Pin::new(&mut *stream).poll_frame(cx));
                progress.made();
                // Nobody asks beyond a last part that says it is the last.
                progress.has_ended.set(frame.is_none() || stream.is_end_stream());
                Poll::Ready(
                    frame.map(|frame| frame.map(|frame| without_forged_trailers(frame, Some(identity)))),
                )
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream { stream, .. } => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream { stream, .. } => stream.size_hint(),
        }
    }
}

/// What comes back, and the connection it comes on.
#[derive(Debug)]
pub struct PortalBody {
    stream: Stream,
    lease: Option<Lease<RequestBody>>,
    /// Absent when nothing followed the request's head.
    upload: Option<Rc<Progress>>,
}

impl PortalBody {
    /// A body that has ended already frees its connection at once.
    pub(super) fn new(stream: Stream, lease: Lease<RequestBody>, upload: Option<Rc<Progress>>) -> Self {
        let mut body = Self { stream, lease: Some(lease), upload };
        body.give_back_if_ended();
        body
    }

    /// A connection whose request is still on its way is left to finish it alone: whoever got it next would wait for a
    /// stranger's upload.
    fn give_back_if_ended(&mut self) {
        if self.stream.is_end_stream()
            && let Some(lease) = self.lease.take()
            && self.upload.as_ref().is_none_or(|upload| upload.has_ended.get())
        {
            lease.give_back();
        }
    }
}

impl Body for PortalBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.stream).poll_frame(cx));
        match &frame {
            // An error means that the connection is of no more use; dropping the lease closes it.
            Some(Err(_)) => drop(self.lease.take()),
            Some(Ok(_)) | None => self.give_back_if_ended(),
        }
        Poll::Ready(frame.map(|frame| frame.map(|frame| without_forged_trailers(frame, None))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.stream.size_hint()
    }
}

/// Trailers are never merged into a head, and fields that frame, route or identify have no place in them
/// (RFC 9110 §6.5.1).
fn without_forged_trailers(frame: Frame<Bytes>, identity: Option<&Rc<IdentityHeaders>>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            let forbidden: Vec<HeaderName> = trailers
                .keys()
                .filter(|name| {
                    is_forbidden_trailer(name) || identity.is_some_and(|identity| identity.is_reserved(name))
                })
                .cloned()
                .collect();
            for name in forbidden {
                trailers.remove(&name);
            }
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

fn is_forbidden_trailer(name: &HeaderName) -> bool {
    fields::is_hop_by_hop(name)
        || matches!(
            *name,
            header::CONTENT_LENGTH
                | header::HOST
                | header::COOKIE
                | header::SET_COOKIE
                | header::AUTHORIZATION
                | header::CONTENT_ENCODING
                | header::CONTENT_TYPE
                | header::CONTENT_RANGE
                | header::LOCATION
                | header::VIA
        )
}

/// Which trailers a message announces; hyper sends only those.
pub(super) fn announced_trailers(headers: &HeaderMap) -> Option<http::HeaderValue> {
    headers.get(header::TRAILER).cloned()
}
