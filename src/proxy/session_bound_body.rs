//! A body that ends with its session.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::{
    gate::Identity,
    web::body::{BodyError, Stream},
};

/// A body that ends with its session.
///
/// A short body costs nothing: its first part follows the gate's decision at once, and only a long wait listens for the
/// end of the session.
#[derive(Debug)]
pub struct SessionBoundBody<B> {
    stream: Stream<B>,
    identity: Identity,
    has_begun: bool,
    ended: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl<B> SessionBoundBody<B>
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
