//! The read and write buffers of an HTTP/1 connection. Reports progress to the monitor.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use crate::{
    http1::read_ahead::ReadAhead,
    server::monitor::ConnectionMonitor,
    web::socket::{ClientStream, write_pieces},
};

/// The size of one read of a long body: a TLS record.
const LONG_READ: usize = 16 * 1024;
/// Parts up to this size are copied into the write buffer.
const SMALL: usize = 4 * 1024;
/// Writes up to this size wait for more that is ready.
const GATHERED: usize = 16 * 1024;

/// Most bytes of an unwanted body that are read and discarded, so that the client gets its response.
const MOST_UNREAD: usize = 8 * 1024 * 1024;

/// The buffers of one connection.
pub(super) struct Wire {
    stream: ClientStream,
    monitor: Rc<ConnectionMonitor>,
    pub(super) read: ReadAhead<LONG_READ>,
    /// All buffers are released, even those of TLS; only the socket is polled.
    rests: bool,
    /// Heads and small parts to be written, and how many bytes have been.
    front: Vec<u8>,
    gone: usize,
    /// A large part after them, and the bytes after that.
    part: Bytes,
    back: &'static [u8],
    flushed: bool,
    /// Bytes discarded since the last response.
    unread: usize,
}

impl Wire {
    pub(super) fn new(stream: ClientStream, monitor: Rc<ConnectionMonitor>) -> Self {
        Self {
            stream,
            monitor,
            read: ReadAhead::default(),
            rests: false,
            front: Vec::new(),
            gone: 0,
            part: Bytes::new(),
            back: b"",
            flushed: true,
            unread: 0,
        }
    }

    /// The stream, and the bytes read ahead.
    pub(super) fn into_parts(self) -> (ClientStream, BytesMut) {
        (self.stream, self.read.bytes)
    }

    /// Reads more; zero at the end.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.rests {
            ready!(self.stream.socket().poll_readable(cx))?;
            self.rests = false;
        }
        let count = ready!(self.read.poll_from(&mut self.stream, cx))?;
        self.monitor.received(true);
        Poll::Ready(Ok(count))
    }

    /// An error when the client has gone. Bytes that it sends early are kept, as many as one read returns.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.read.bytes.is_empty() {
            ready!(self.stream.socket().poll_readable(cx))?;
            if ready!(self.poll_more(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Releases all buffers until bytes arrive. Only between requests, after a read that was pending.
    pub(super) fn rest(&mut self) {
        if !self.rests {
            self.rests = true;
            self.read.bytes = BytesMut::new();
            self.front = Vec::new();
        }
    }

    /// Goes back to small reads for the next request.
    pub(super) fn begin(&mut self) {
        self.read.begin();
    }

    /// The write buffer, for heads and small parts. Only when [`Self::takes_more`].
    pub(super) fn front(&mut self) -> &mut Vec<u8> {
        self.flushed = false;
        &mut self.front
    }

    /// Queues a part of a body, and `back` after it. Only when [`Self::takes_more`].
    pub(super) fn put(&mut self, part: Bytes, back: &'static [u8]) {
        self.flushed = false;
        if part.len() <= SMALL {
            self.front.extend_from_slice(&part);
            self.front.extend_from_slice(back);
        } else {
            self.part = part;
            self.back = back;
        }
    }

    /// Whether more can be queued before the buffers have been written.
    pub(super) fn takes_more(&self) -> bool {
        self.part.is_empty() && self.back.is_empty() && self.front.len() < GATHERED
    }

    /// Writes the buffers to the socket.
    pub(super) fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flushed {
            return Poll::Ready(Ok(()));
        }
        while self.gone < self.front.len() || !self.part.is_empty() || !self.back.is_empty() {
            let front = self.front.get(self.gone..).unwrap_or_default();
            let written = write_pieces(&mut self.stream, cx, [front, &self.part, self.back]);
            let mut written = ready!(self.note(written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.monitor.took(written);
            let of_front = written.min(self.front.len() - self.gone);
            self.gone += of_front;
            written -= of_front;
            let of_part = written.min(self.part.len());
            self.part.advance(of_part);
            self.back = self.back.get(written - of_part..).unwrap_or_default();
        }
        self.front.clear();
        self.gone = 0;
        self.part = Bytes::new();
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        ready!(self.note(flushed))?;
        self.monitor.took(0);
        self.flushed = true;
        Poll::Ready(Ok(()))
    }

    /// Reports to the monitor that the client is not reading.
    fn note<T>(&self, result: Poll<T>) -> Poll<T> {
        if result.is_pending() {
            self.monitor.blocked();
        }
        result
    }

    /// Shuts the connection down. If the client is still sending, its bytes are read for a while: closing a socket with unread
    /// data resets the connection, and the client may lose the response.
    pub(super) fn poll_close(&mut self, hears_out: bool, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        let mut space = [0; 16 * 1024];
        while hears_out && self.unread < MOST_UNREAD {
            let mut buffer = ReadBuf::new(&mut space);
            ready!(Pin::new(self.stream.socket_mut()).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                break;
            }
            self.unread += buffer.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}
