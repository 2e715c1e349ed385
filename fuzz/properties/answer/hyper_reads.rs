//! What hyper's client makes of an answer.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::{client::conn::http1, rt};

/// How often both sides are polled, which is more than they need.
const POLLS: usize = 200;

/// The answer to one request.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) fields: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// What the bytes say, when they are a whole answer.
pub(super) fn answer(bytes: &[u8], is_head: bool) -> Option<Answer> {
    let mut context = Context::from_waker(Waker::noop());
    let server = Server { bytes: bytes.to_vec(), asked: false };
    let mut builder = http1::Builder::new();
    builder.max_headers(102).max_buf_size(128 * 1024);
    let Poll::Ready(Ok((mut sender, connection))) =
        pin!(builder.handshake::<_, Empty<Bytes>>(server)).poll(&mut context)
    else {
        panic!("hyper needs more than one poll for nothing");
    };
    let mut request = Request::new(Empty::new());
    *request.method_mut() = if is_head { Method::HEAD } else { Method::GET };
    let exchange = async move {
        let answer = sender.send_request(request).await.ok()?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.ok()?.to_bytes().to_vec();
        Some(Answer { status: head.status.as_u16(), fields: head.headers, body })
    };
    let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
    let mut is_over = false;
    for _ in 0..POLLS {
        if let Poll::Ready(read) = exchange.as_mut().poll(&mut context) {
            return read;
        }
        if !is_over {
            is_over = connection.as_mut().poll(&mut context).is_ready();
        }
    }
    None
}

/// Answers with its bytes, all at once, as soon as it has been asked, and then says no more.
struct Server {
    bytes: Vec<u8>,
    asked: bool,
}

impl rt::Read for Server {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut cursor: rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.asked || self.bytes.is_empty() {
            return Poll::Pending;
        }
        let count = cursor.remaining().min(self.bytes.len());
        let now: Vec<u8> = self.bytes.drain(..count).collect();
        cursor.put_slice(&now);
        Poll::Ready(Ok(()))
    }
}

impl rt::Write for Server {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.asked = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
