//! What hyper makes of bytes, with the gateway's limits: each request, and its body.

use std::{
    cell::RefCell,
    convert::Infallible,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, rt, server::conn::http1, service::service_fn};
use portcullis::http1::{head::MOST_FIELDS, request_head::MOST_HEAD_BYTES};

/// How often a connection is polled that does not end by itself; a poll reads until there is nothing left.
const POLLS: usize = 200;

/// Requests whose bodies were read to their end.
pub(super) fn requests(bytes: &[u8], size: usize) -> Vec<Request<Vec<u8>>> {
    let read = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&read);
    let service = service_fn(move |request: Request<Incoming>| {
        let noted = Rc::clone(&noted);
        async move {
            let (mut head, body) = request.into_parts();
            // Where hyper notes what it needs for itself.
            head.extensions.clear();
            let is_upgrade = head.headers.contains_key("upgrade");
            if let Ok(body) = body.collect().await {
                noted.borrow_mut().push(Request::from_parts(head, body.to_bytes().to_vec()));
            }
            let mut answer = Response::new(Empty::<Bytes>::new());
            // What follows is not for HTTP: the gateway closes such a connection when the portal declines.
            if is_upgrade {
                answer.headers_mut().insert("connection", http::HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let pieces = Pieces { bytes: bytes.to_vec(), at: 0, size };
    let mut builder = http1::Builder::new();
    builder
        .max_headers(MOST_FIELDS)
        .max_header_size(MOST_HEAD_BYTES)
        .max_buf_size(64 * 1024)
        .half_close(false);
    let mut connection = pin!(builder.serve_connection(pieces, service));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..POLLS {
        if connection.as_mut().poll(&mut context).is_ready() {
            break;
        }
    }
    read.take()
}

/// A client that sends its bytes piece by piece, and then waits.
struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    size: usize,
}

impl rt::Read for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut cursor: rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let end = self.bytes.len().min(self.at + self.size.min(cursor.remaining()));
        if end == self.at {
            return Poll::Pending;
        }
        cursor.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl rt::Write for Pieces {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
