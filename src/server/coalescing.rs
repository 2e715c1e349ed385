//! Coalesces the frames that an HTTP/2 connection writes in one turn of its task into one write.
//!
//! hyper flushes after every data frame, which would cost a TLS record and a system call per response even if many are ready.
//! Here a flush is deferred to the end of the turn.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBufCursor, Write};

use crate::web::socket::PIECE;

/// Most bytes that are held back: one TLS record. Larger writes go out at once, without being copied.
const MOST: usize = 16 * 1024;

/// The flags shared by the writer and the connection's task.
#[derive(Debug, Default)]
pub(super) struct FlushControl {
    /// Bytes are held back.
    holds: Cell<bool>,
    /// The turn is over: a flush sends what is held back.
    ends: Cell<bool>,
}

impl FlushControl {
    /// Whether bytes are held back until the turn ends.
    pub(super) fn holds(&self) -> bool {
        self.holds.get()
    }

    /// Runs `poll` as the end of the turn, when flushes take effect.
    pub(super) fn end<T>(&self, poll: impl FnOnce() -> T) -> T {
        self.ends.set(true);
        let polled = poll();
        self.ends.set(false);
        polled
    }
}

/// Writes the bytes of one connection.
#[derive(Debug)]
pub(super) struct CoalescingWriter<T> {
    inner: T,
    flush: Rc<FlushControl>,
    held: Vec<u8>,
    /// A flush of the held bytes has started.
    sending: bool,
}

impl<T: Write + Unpin> CoalescingWriter<T> {
    pub(super) fn new(inner: T, flush: Rc<FlushControl>) -> Self {
        Self { inner, flush, held: Vec::new(), sending: false }
    }

    /// Writes the held bytes.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut written = 0;
        let result = loop {
            match self.held.get(written..) {
                None | Some([]) => break Poll::Ready(Ok(())),
                Some(rest) => match Pin::new(&mut self.inner).poll_write(cx, rest) {
                    Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => written += count,
                    Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                    Poll::Pending => break Poll::Pending,
                },
            }
        };
        if written == self.held.len() {
            // An idle connection keeps no buffer.
            self.held = Vec::new();
            self.flush.holds.set(false);
        } else {
            self.held.drain(..written);
        }
        result
    }
}

impl<T: Read + Write + Unpin> Read for CoalescingWriter<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // h2 does not flush again in every state, but it always reads: see `h2::proto::Connection::poll`.
        if this.flush.ends.get() && Pin::new(&mut *this).poll_flush(cx)?.is_pending() {
            this.sending = true;
        }
        Pin::new(&mut this.inner).poll_read(cx, cursor)
    }
}

impl<T: Write + Unpin> Write for CoalescingWriter<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = slices.iter().map(|slice| slice.len()).sum::<usize>();
        if this.held.len() + length > MOST {
            ready!(this.poll_held(cx))?;
        }
        if length > MOST {
            return Pin::new(&mut this.inner).poll_write_vectored(cx, slices);
        }
        if this.held.capacity() == 0 {
            this.held.reserve(MOST);
        }
        for piece in slices.iter().flat_map(|slice| slice.chunks(PIECE)) {
            this.held.extend_from_slice(piece);
        }
        this.flush.holds.set(true);
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.held.is_empty() {
            if !this.sending && !this.flush.ends.get() {
                return Poll::Ready(Ok(()));
            }
            this.sending = true;
            ready!(this.poll_held(cx))?;
        }
        ready!(Pin::new(&mut this.inner).poll_flush(cx))?;
        this.sending = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_held(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}
