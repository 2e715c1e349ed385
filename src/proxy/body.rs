//! The two bodies of a forwarded request: what goes to the portal, and what comes back.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderName, header};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::call::CallAnswer;
use crate::{
    gate::Identity,
    identity::IdentityHeaders,
    upstream::http1::Exchange,
    web::{
        body::{BodyError, Stream},
        fields,
        incoming::Incoming,
    },
};

/// How far the sending of a request has come.
#[derive(Debug)]
pub struct Progress {
    /// When the last part went out; the portal's time to answer starts there.
    last: Cell<Instant>,
    sent: Cell<u64>,
}

impl Progress {
    pub(super) fn begin() -> Rc<Self> {
        Rc::new(Self { last: Cell::new(Instant::now()), sent: Cell::new(0) })
    }

    fn made(&self, bytes: usize) {
        self.last.set(Instant::now());
        self.sent.set(self.sent.get() + u64::try_from(bytes).unwrap_or(0));
    }

    pub(super) fn last(&self) -> Instant {
        self.last.get()
    }
}

/// A body that lasts no longer than the session that it is for.
///
/// A short body costs nothing: its first part follows the gate's decision at once, and only a long wait listens for the
/// end of the session.
#[derive(Debug)]
pub struct Tethered<B> {
    stream: Stream<B>,
    identity: Identity,
    has_begun: bool,
    ended: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl<B> Tethered<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin,
{
    pub(super) fn new(stream: Stream<B>, identity: Identity) -> Self {
        Self { stream, identity, has_begun: false, ended: None }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.stream).poll_frame(cx);
        let has_ended = if frame.is_ready() {
            std::mem::replace(&mut self.has_begun, true) && self.identity.has_ended()
        } else {
            self.stream.waits_long() && self.poll_ended(cx).is_ready()
        };
        if has_ended { Poll::Ready(Some(Err(BodyError::SessionEnded))) } else { frame }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.stream.size_hint()
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended.is_none() {
            let Some(ended) = self.identity.ended() else { return Poll::Pending };
            self.ended = Some(Box::pin(ended.cancelled_owned()));
        }
        self.ended.as_mut().map_or(Poll::Pending, |ended| ended.as_mut().poll(cx))
    }
}

/// What goes to the portal.
#[derive(Debug)]
pub enum RequestBody {
    Empty,
    /// One that is there already, until it has been given.
    Whole {
        bytes: Option<Bytes>,
        progress: Rc<Progress>,
    },
    Stream {
        body: Tethered<Incoming>,
        reserved: Rc<IdentityHeaders>,
        progress: Rc<Progress>,
    },
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
            Self::Whole { bytes, progress } => {
                let bytes = bytes.take().filter(|bytes| !bytes.is_empty());
                progress.made(bytes.as_ref().map_or(0, Bytes::len));
                Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Stream { body, reserved, progress } => {
                let frame = ready!(body.poll_frame(cx));
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                progress.made(data.map_or(0, Bytes::len));
                Poll::Ready(
                    frame.map(|frame| frame.map(|frame| without_forged_trailers(frame, Some(reserved)))),
                )
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole { bytes, .. } => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Stream { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole { bytes, .. } => SizeHint::with_exact(
                bytes.as_ref().map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(0)),
            ),
            Self::Stream { body, .. } => body.size_hint(),
        }
    }
}

/// How it comes back.
#[derive(Debug)]
enum Answer {
    Http1(Tethered<Box<Exchange<RequestBody>>>),
    Http2(Box<CallAnswer>),
}

/// What comes back.
#[derive(Debug)]
pub struct PortalBody {
    /// Goes ahead of the portal's body.
    lead: Option<Bytes>,
    body: Answer,
    /// Absent when nothing followed the request's head.
    upload: Option<Rc<Progress>>,
    server: Rc<str>,
    /// Why it breaks off, to be told at the next look.
    broken: Option<BodyError>,
}

impl PortalBody {
    pub(super) fn new(
        body: Tethered<Box<Exchange<RequestBody>>>,
        server: Rc<str>,
        upload: Option<Rc<Progress>>,
    ) -> Self {
        Self { lead: None, body: Answer::Http1(body), upload, server, broken: None }
    }

    pub(super) fn of_call(body: CallAnswer, server: Rc<str>, upload: Rc<Progress>) -> Self {
        let body = Answer::Http2(Box::new(body));
        Self { lead: None, body, upload: Some(upload), server, broken: None }
    }

    /// Puts bytes ahead of it.
    pub fn lead_with(&mut self, bytes: Bytes) {
        self.lead = Some(bytes);
    }

    /// Which of the portal's servers answers.
    pub fn server(&self) -> Rc<str> {
        Rc::clone(&self.server)
    }

    /// How much of the request's body has been sent on.
    pub fn sent(&self) -> u64 {
        self.upload.as_ref().map_or(0, |upload| upload.sent.get())
    }
}

impl Body for PortalBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(lead) = self.lead.take() {
            return Poll::Ready(Some(Ok(Frame::data(lead))));
        }
        let frame = match &mut self.body {
            Answer::Http1(body) => body.poll_frame(cx),
            Answer::Http2(body) => Pin::new(body).poll_frame(cx),
        };
        match ready!(frame) {
            // An error closes the connection at once. What came before it goes out first: a client that got nothing at all
            // might take the request for one that was never seen, and send it again.
            Some(Err(error)) => {
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Ok(frame)) => Poll::Ready(Some(Ok(without_forged_trailers(frame, None)))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none()
            && self.lead.is_none()
            && match &self.body {
                Answer::Http1(body) => body.is_end_stream(),
                Answer::Http2(body) => body.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        let hint = match &self.body {
            Answer::Http1(body) => body.size_hint(),
            Answer::Http2(body) => body.size_hint(),
        };
        let Some(lead) = &self.lead else { return hint };
        let lead = u64::try_from(lead.len()).unwrap_or(u64::MAX);
        hint.exact().map_or_else(SizeHint::new, |size| SizeHint::with_exact(size.saturating_add(lead)))
    }
}

/// Trailers are never merged into a head, and fields that frame, route or identify have no place in them
/// (RFC 9110 §6.5.1).
fn without_forged_trailers(frame: Frame<Bytes>, reserved: Option<&Rc<IdentityHeaders>>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            let forbidden: Vec<HeaderName> = trailers
                .keys()
                .filter(|name| {
                    is_forbidden_trailer(name) || reserved.is_some_and(|reserved| reserved.is_reserved(name))
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
    // The parser of HTTP/2 takes a quotation mark for a part of a name (RFC 9110 §5.6.2).
    fields::is_hop_by_hop(name)
        || name.as_str().contains('"')
        || matches!(
            *name,
            header::CONTENT_LENGTH
                | header::HOST
                | header::COOKIE
                | header::SET_COOKIE
                | header::AUTHORIZATION
                | header::EXPECT
                | header::MAX_FORWARDS
                | header::RANGE
                | header::CONTENT_ENCODING
                | header::CONTENT_TYPE
                | header::CONTENT_RANGE
                | header::LOCATION
                | header::VIA
                // What the head says of plain HTTP, and of other ports, is ours.
                | header::STRICT_TRANSPORT_SECURITY
                | header::ALT_SVC
        )
}
