//! The request body on its way to the portal.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::{session_bound_body::SessionBoundBody, trailers::without_forged_trailers};
use crate::{
    identity::IdentityHeaders,
    web::{body::BodyError, incoming::Incoming},
};

/// The progress of sending a request.
#[derive(Debug)]
pub struct Progress {
    /// When the last part was sent; the portal's time to respond starts there.
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

    pub(super) fn sent(&self) -> u64 {
        self.sent.get()
    }

    pub(super) fn last(&self) -> Instant {
        self.last.get()
    }
}

/// A request body.
#[derive(Debug)]
pub enum RequestBody {
    Empty,
    /// A body that was read before, until it has been sent.
    Whole {
        bytes: Option<Bytes>,
        progress: Rc<Progress>,
    },
    Stream {
        body: SessionBoundBody<Incoming>,
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
