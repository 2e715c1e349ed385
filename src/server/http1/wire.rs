//! The bytes of one connection of HTTP/1: what has been read ahead, and what is on its way out. Notes progress for the deadlines.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio_rustls::server::TlsStream;
use tokio_util::io::poll_read_buf;

use crate::{
    server::monitor::ConnectionMonitor,
    web::socket::{Socket, write_pieces},
};

/// What one read asks for. A usual head fits.
const READ: usize = 8 * 1024;
/// What it asks for once a body has turned out to be long: a record of TLS.
const LONG_READ: usize = 16 * 1024;
/// A part up to this size is copied behind what goes out already.
const SMALL: usize = 4 * 1024;
/// What has been gathered up to this size waits for more that is there already.
const GATHERED: usize = 16 * 1024;
/// Most bytes of a request nobody reads that are taken so that its answer arrives.
const MOST_UNREAD: usize = 1024 * 1024;

/// One connection's bytes.
pub(super) struct Wire {
    stream: Box<TlsStream<Socket>>,
    monitor: Rc<ConnectionMonitor>,
    /// What has come and has not been used yet.
    pub(super) read: BytesMut,
    ask_for: usize,
    /// Nothing is held, not even by TLS; what comes next is heard of from the socket.
    rests: bool,
    /// Heads and small parts of bodies on their way out, and how much of them has gone.
    front: Vec<u8>,
    gone: usize,
    /// A large part that follows them, and what follows that.
    part: Bytes,
    back: &'static [u8],
    flushed: bool,
    /// What has been thrown away since the last answer.
    unread: usize,
}

impl Wire {
    pub(super) fn new(stream: Box<TlsStream<Socket>>, monitor: Rc<ConnectionMonitor>) -> Self {
        Self {
            stream,
            monitor,
            read: BytesMut::new(),
            ask_for: READ,
            rests: false,
            front: Vec::new(),
            gone: 0,
            part: Bytes::new(),
            back: b"",
            flushed: true,
            unread: 0,
        }
    }

    /// The bare connection, and what has been read ahead.
    pub(super) fn into_parts(self) -> (Box<TlsStream<Socket>>, BytesMut) {
        (self.stream, self.read)
    }

    /// Reads more; zero is the end.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.rests {
            ready!(self.stream.get_ref().0.poll_readable(cx))?;
            self.rests = false;
        }
        self.read.reserve(self.ask_for);
        let room = self.read.capacity() - self.read.len();
        let count = ready!(poll_read_buf(Pin::new(&mut *self.stream), cx, &mut self.read))?;
        self.monitor.received(true);
        if count == room {
            self.ask_for = LONG_READ;
        }
        Poll::Ready(Ok(count))
    }

    /// An error when the client has left. What it sends before its turn is kept, as much as one read brings.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            ready!(self.stream.get_ref().0.poll_readable(cx))?;
            if ready!(self.poll_more(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Lets go of all buffers until something comes. Only between two requests, after a read that found nothing.
    pub(super) fn rest(&mut self) {
        if !self.rests {
            self.rests = true;
            self.read = BytesMut::new();
            self.front = Vec::new();
        }
    }

    /// The next request is taken for a usual one again.
    pub(super) fn begin(&mut self) {
        if self.ask_for != READ {
            self.ask_for = READ;
            self.read = BytesMut::from(&self.read[..]);
        }
    }

    /// Where a head or a few bytes are written, to go out behind what is there. Only when [`Self::takes_more`].
    pub(super) fn front(&mut self) -> &mut Vec<u8> {
        self.flushed = false;
        &mut self.front
    }

    /// Puts a part of a body behind what is there, and `back` behind that. Only when [`Self::takes_more`].
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

    /// Whether there is room for more before what is there has gone out.
    pub(super) fn takes_more(&self) -> bool {
        self.part.is_empty() && self.back.is_empty() && self.front.len() < GATHERED
    }

    /// Writes everything out.
    pub(super) fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flushed {
            return Poll::Ready(Ok(()));
        }
        while self.gone < self.front.len() || !self.part.is_empty() || !self.back.is_empty() {
            let front = self.front.get(self.gone..).unwrap_or_default();
            let written = write_pieces(&mut *self.stream, cx, [front, &self.part, self.back]);
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
        let flushed = Pin::new(&mut *self.stream).poll_flush(cx);
        ready!(self.note(flushed))?;
        self.monitor.took(0);
        self.flushed = true;
        Poll::Ready(Ok(()))
    }

    /// Notes that the client does not take what it is sent.
    fn note<T>(&self, result: Poll<T>) -> Poll<T> {
        if result.is_pending() {
            self.monitor.blocked();
        }
        result
    }

    /// Ends the connection in order. After that the client is heard out for a while if it is still sending: a socket that is
    /// closed with something unread in it takes back what the other side has not read yet.
    pub(super) fn poll_close(&mut self, hears_out: bool, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut *self.stream).poll_shutdown(cx))?;
        let mut space = [0; 16 * 1024];
        while hears_out && self.unread < MOST_UNREAD {
            let mut buffer = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut self.stream.get_mut().0).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                break;
            }
            self.unread += buffer.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}
