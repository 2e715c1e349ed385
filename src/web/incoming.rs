//! Request bodies of both protocols. On HTTP/1, the connection reads the body, one part at a time, when the service polls it.

use std::{
    error::Error,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    http2_body::{Http2Body, Rest},
    upgraded::OnUpgrade,
};
use crate::http1::body_part::MalformedBody;

/// The body of a request, with the raw head of HTTP/1.
#[derive(Debug, Default)]
pub struct Incoming {
    content: Content,
    /// The raw head on HTTP/1; empty on HTTP/2.
    head: Bytes,
}

/// What follows the head.
#[derive(Debug, Default)]
enum Content {
    #[default]
    Nothing,
    /// Nothing, unless the connection is upgraded.
    Upgrade(Option<OnUpgrade>),
    Http1(BodyReceiver),
    Http2(Http2Body),
    /// A body whose first part has been read ahead.
    Begun(Box<Begun>),
}

#[derive(Debug)]
struct Begun {
    first: Option<Frame<Bytes>>,
    rest: Content,
}

impl Incoming {
    /// An empty body with this raw head of HTTP/1.
    pub fn of_head(head: Bytes) -> Self {
        Self { content: Content::Nothing, head }
    }

    /// With what is left of it when it is dropped.
    pub fn of_http2(body: hyper::body::Incoming) -> (Self, Option<Rest>) {
        let (body, rest) = Http2Body::new(body);
        (Self { content: Content::Http2(body), head: Bytes::new() }, rest)
    }

    /// An HTTP/1 body follows the head.
    pub fn follows(&mut self, body: BodyReceiver) {
        self.content = Content::Http1(body);
    }

    /// No body follows, but perhaps an upgrade.
    pub fn may_upgrade(&mut self, on_upgrade: OnUpgrade) {
        self.content = Content::Upgrade(Some(on_upgrade));
    }

    /// The handle for an upgrade on HTTP/1.
    pub fn on_upgrade(&mut self) -> Option<OnUpgrade> {
        match &mut self.content {
            Content::Upgrade(on_upgrade) => on_upgrade.take(),
            _ => None,
        }
    }

    /// The raw head on HTTP/1; empty on HTTP/2.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Puts the first part back, which was read ahead. `None`: the body is empty.
    pub fn begins_with(&mut self, first: Option<Frame<Bytes>>) {
        let rest = std::mem::take(&mut self.content);
        self.content = match first {
            Some(first) => Content::Begun(Box::new(Begun { first: Some(first), rest })),
            None => Content::Nothing,
        };
    }

    /// The body without the raw head.
    #[must_use]
    pub fn without_head(self) -> Self {
        Self { head: Bytes::new(), ..self }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.get_mut().content.poll_part(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Nothing | Content::Upgrade(_) => SizeHint::with_exact(0),
            Content::Http1(_) | Content::Begun(_) => SizeHint::default(),
            Content::Http2(body) => body.size_hint(),
        }
    }
}

impl Content {
    fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Box<dyn Error + Send + Sync>>>> {
        match self {
            Self::Nothing | Self::Upgrade(_) => Poll::Ready(None),
            Self::Http1(body) => body.poll_part(cx).map(|part| part.map(|part| part.map_err(Into::into))),
            Self::Http2(body) => body.poll_part(cx).map(|part| part.map(|part| part.map_err(Into::into))),
            Self::Begun(begun) => match begun.first.take() {
                Some(first) => Poll::Ready(Some(Ok(first))),
                None => begun.rest.poll_part(cx),
            },
        }
    }

    fn is_end(&self) -> bool {
        match self {
            Self::Nothing | Self::Upgrade(_) => true,
            Self::Http1(body) => body.is_end(),
            Self::Http2(body) => body.is_end(),
            Self::Begun(begun) => begun.first.is_none() && begun.rest.is_end(),
        }
    }
}

/// Why a body on HTTP/1 ended early.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the connection closed in the middle of the body")]
    Ended(#[source] io::Error),
    #[error(transparent)]
    Malformed(#[from] MalformedBody),
}

/// A channel for one body, with room for one part.
pub fn channel() -> (BodySender, BodyReceiver) {
    let slot = Arc::new(Mutex::new(Shared::default()));
    (BodySender(Arc::clone(&slot)), BodyReceiver(slot))
}

/// The state of the channel. Locked, since bodies for our own pages are read on the control runtime.
#[derive(Debug, Default)]
struct Shared {
    part: Option<Result<Frame<Bytes>, Broken>>,
    /// The part is the last.
    ended: bool,
    wanted: bool,
    /// The receiver has been dropped.
    closed: bool,
    reader: Option<Waker>,
    connection: Option<Waker>,
}

fn lock(slot: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the receiver wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    Wants,
    Closed,
}

/// The connection's end of the channel.
#[derive(Debug)]
pub struct BodySender(Arc<Mutex<Shared>>);

impl BodySender {
    /// Ready when the receiver polls for a part, or has been dropped.
    pub fn poll_demand(&self, cx: &mut Context<'_>) -> Poll<Demand> {
        let mut slot = lock(&self.0);
        if slot.closed {
            return Poll::Ready(Demand::Closed);
        }
        // Also when a part is wanted: the receiver may be dropped while the connection waits for bytes.
        remember(&mut slot.connection, cx.waker());
        if slot.wanted && slot.part.is_none() { Poll::Ready(Demand::Wants) } else { Poll::Pending }
    }

    /// Whether the receiver has been dropped.
    pub fn is_closed(&self) -> bool {
        lock(&self.0).closed
    }

    /// Sends a part, or none; `ends`: it is the last. A receiver on the caller's task is not woken: the caller polls it again.
    pub fn send(&self, part: Option<Result<Frame<Bytes>, Broken>>, ends: bool, cx: &Context<'_>) {
        let mut slot = lock(&self.0);
        slot.part = part;
        slot.ended = ends;
        slot.wanted = false;
        let reader = slot.reader.take();
        drop(slot);
        wake_other(reader, cx);
    }
}

impl Drop for BodySender {
    fn drop(&mut self) {
        let mut slot = lock(&self.0);
        if !slot.ended {
            slot.part = Some(Err(Broken::Ended(io::ErrorKind::UnexpectedEof.into())));
            slot.ended = true;
            let reader = slot.reader.take();
            drop(slot);
            reader.into_iter().for_each(Waker::wake);
        }
    }
}

/// The service's end of the channel.
#[derive(Debug)]
pub struct BodyReceiver(Arc<Mutex<Shared>>);

impl BodyReceiver {
    fn poll_part(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut slot = lock(&self.0);
        if let Some(part) = slot.part.take() {
            return Poll::Ready(Some(part));
        }
        if slot.ended {
            return Poll::Ready(None);
        }
        slot.wanted = true;
        remember(&mut slot.reader, cx.waker());
        let connection = slot.connection.take();
        drop(slot);
        wake_other(connection, cx);
        Poll::Pending
    }

    fn is_end(&self) -> bool {
        let slot = lock(&self.0);
        slot.ended && slot.part.is_none()
    }
}

impl Drop for BodyReceiver {
    fn drop(&mut self) {
        let mut slot = lock(&self.0);
        slot.closed = true;
        let connection = slot.connection.take();
        drop(slot);
        connection.into_iter().for_each(Waker::wake);
    }
}

fn remember(slot: &mut Option<Waker>, waker: &Waker) {
    if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
        *slot = Some(waker.clone());
    }
}

/// Wakes a task unless it is the current one, which polls both ends anyway.
fn wake_other(waker: Option<Waker>, cx: &Context<'_>) {
    waker.into_iter().filter(|waker| !waker.will_wake(cx.waker())).for_each(Waker::wake);
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    struct Count(std::sync::atomic::AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn count() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count(0.into()));
        (Arc::clone(&count), Waker::from(count))
    }

    fn woken(count: &Count) -> usize {
        count.0.load(std::sync::atomic::Ordering::Relaxed)
    }

    #[test]
    fn parts_are_given_one_at_a_time_and_only_when_wanted() {
        let (here, connection) = count();
        let (there, reader) = count();
        let (mut on_connection, mut on_reader) =
            (Context::from_waker(&connection), Context::from_waker(&reader));
        let (sender, body) = channel();
        assert!(sender.poll_demand(&mut on_connection).is_pending());
        assert!(body.poll_part(&mut on_reader).is_pending());
        assert_eq!(woken(&here), 1);
        assert_eq!(sender.poll_demand(&mut on_connection), Poll::Ready(Demand::Wants));
        sender.send(Some(Ok(Frame::data(Bytes::from_static(b"a")))), false, &on_connection);
        assert_eq!(woken(&there), 1);
        assert!(sender.poll_demand(&mut on_connection).is_pending());
        assert!(matches!(body.poll_part(&mut on_reader), Poll::Ready(Some(Ok(_)))));
        assert!(body.poll_part(&mut on_reader).is_pending());
        sender.send(Some(Ok(Frame::data(Bytes::from_static(b"b")))), true, &on_connection);
        assert!(!body.is_end());
        assert!(matches!(body.poll_part(&mut on_reader), Poll::Ready(Some(Ok(_)))));
        assert!(body.is_end() && matches!(body.poll_part(&mut on_reader), Poll::Ready(None)));
        drop(sender);
        assert!(matches!(body.poll_part(&mut on_reader), Poll::Ready(None)), "it has ended well");
    }

    #[test]
    fn a_connection_that_goes_breaks_the_body_and_a_reader_that_goes_is_noticed() {
        let (there, reader) = count();
        let mut cx = Context::from_waker(&reader);
        let (sender, body) = channel();
        assert!(body.poll_part(&mut cx).is_pending());
        drop(sender);
        assert_eq!(woken(&there), 1);
        assert!(matches!(body.poll_part(&mut cx), Poll::Ready(Some(Err(Broken::Ended(_))))));

        for wanted in [false, true] {
            let (here, connection) = count();
            let mut on_connection = Context::from_waker(&connection);
            let (sender, body) = channel();
            assert!(!wanted || body.poll_part(&mut cx).is_pending());
            assert_eq!(sender.poll_demand(&mut on_connection).is_ready(), wanted);
            drop(body);
            assert_eq!(woken(&here), 1, "{wanted}");
            assert_eq!(sender.poll_demand(&mut on_connection), Poll::Ready(Demand::Closed));
        }
    }
}
