//! The response body on its way from the portal.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    call_body::CallAnswer,
    request_body::{Progress, RequestBody},
    session_bound_body::SessionBoundBody,
    trailers::without_forged_trailers,
};
use crate::{
    upstream::http1::Exchange,
    web::{body::BodyError, session_notice::Insertion},
};

/// The protocol of the response.
#[derive(Debug)]
enum Answer {
    Http1(SessionBoundBody<Box<Exchange<RequestBody>>>),
    Http2(Box<CallAnswer>),
}

/// A response body.
#[derive(Debug)]
pub struct PortalBody {
    /// Comes before the portal's body.
    lead: Option<Bytes>,
    /// Goes into the portal's body.
    insertion: Option<Box<Insertion>>,
    body: Answer,
    /// `None` if the request had no body.
    upload: Option<Rc<Progress>>,
    server: Rc<str>,
    /// An error to be returned at the next poll.
    broken: Option<BodyError>,
}

impl PortalBody {
    pub(super) fn new(
        body: SessionBoundBody<Box<Exchange<RequestBody>>>,
        server: Rc<str>,
        upload: Option<Rc<Progress>>,
    ) -> Self {
        Self { lead: None, insertion: None, body: Answer::Http1(body), upload, server, broken: None }
    }

    pub(super) fn of_call(body: CallAnswer, server: Rc<str>, upload: Rc<Progress>) -> Self {
        let body = Answer::Http2(Box::new(body));
        Self { lead: None, insertion: None, body, upload: Some(upload), server, broken: None }
    }

    /// Puts bytes in front of the body.
    pub fn lead_with(&mut self, bytes: Bytes) {
        self.lead = Some(bytes);
    }

    /// Puts something into it.
    pub fn insert(&mut self, insertion: Insertion) {
        self.insertion = Some(Box::new(insertion));
    }

    /// The server of the portal that responds.
    pub fn server(&self) -> Rc<str> {
        Rc::clone(&self.server)
    }

    fn poll_portal(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.body {
            Answer::Http1(body) => body.poll_frame(cx),
            Answer::Http2(body) => Pin::new(body).poll_frame(cx),
        }
    }

    /// The same with something inserted. Nothing that may go on waits.
    #[cold]
    fn poll_inserted(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let frame = ready!(self.poll_portal(cx));
            let Some(insertion) = &mut self.insertion else { return Poll::Ready(frame) };
            let passed = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => insertion.pass(data),
                    // The page has ended. Nobody needs its trailers (RFC 9110 §6.5.1), and what is held goes first.
                    Err(trailers) => match insertion.rest() {
                        Some(rest) => rest,
                        None => return Poll::Ready(Some(Ok(trailers))),
                    },
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => match insertion.rest() {
                    Some(rest) => rest,
                    None => return Poll::Ready(None),
                },
            };
            if !passed.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(passed))));
            }
        }
    }

    /// Bytes of the request's body that have been sent.
    pub fn sent(&self) -> u64 {
        self.upload.as_ref().map_or(0, |upload| upload.sent())
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
        let frame =
            ready!(if self.insertion.is_some() { self.poll_inserted(cx) } else { self.poll_portal(cx) });
        match frame {
            // An error closes the connection at once. Earlier bytes are sent first: a client that got nothing at all
            // might assume that the request was never seen, and repeat it.
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
            && self.insertion.as_ref().is_none_or(|insertion| insertion.holds_nothing())
            && match &self.body {
                Answer::Http1(body) => body.is_end_stream(),
                Answer::Http2(body) => body.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        // Whether there is a place for it shows only on the way.
        if self.insertion.is_some() {
            return SizeHint::new();
        }
        let hint = match &self.body {
            Answer::Http1(body) => body.size_hint(),
            Answer::Http2(body) => body.size_hint(),
        };
        let Some(lead) = &self.lead else { return hint };
        let lead = u64::try_from(lead.len()).unwrap_or(u64::MAX);
        hint.exact().map_or_else(SizeHint::new, |size| SizeHint::with_exact(size.saturating_add(lead)))
    }
}
