//! A response body on HTTP/2 that keeps its connection busy until it has been sent or dropped.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Buf as _;
use http_body::{Body, Frame, SizeHint};

use super::{flow::Flow, monitor::ActiveRequest, unread::Unread};
use crate::web::http2_body::Rest;

/// A response body with the guard of its request.
#[derive(Debug)]
pub(super) struct TrackedBody<B> {
    inner: B,
    request: ActiveRequest,
    flow: Rc<Flow>,
    /// The size of the last part that hyper took.
    last: u32,
    /// What the request's body leaves, and where it goes.
    rest: Option<(Rest, Rc<Unread>)>,
}

impl<B> TrackedBody<B> {
    pub(super) fn new(
        inner: B,
        request: ActiveRequest,
        flow: Rc<Flow>,
        rest: Option<(Rest, Rc<Unread>)>,
    ) -> Self {
        Self { inner, request, flow, last: 0, rest }
    }
}

/// The answer has been handed to hyper, to its end.
impl<B> Drop for TrackedBody<B> {
    fn drop(&mut self) {
        if let Some((rest, unread)) = self.rest.take()
            && let Some(body) = rest.take()
        {
            unread.keep(body);
        }
    }
}

impl<B: Body + Unpin> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let last = std::mem::take(&mut self.last);
        self.flow.asked(last);
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(frame) = &frame {
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            if data.is_some() {
                self.request.gave_part();
            }
            self.last = data.map_or(0, |data| u32::try_from(data.remaining()).unwrap_or(u32::MAX));
            self.flow.gave();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
