//! The bytes of one connection on their way between TLS and the HTTP protocol.
//!
//! Notes progress for the deadlines, shows HTTP/1 heads to the watcher of raw bytes, counts idle frames of HTTP/2, slips
//! interim answers in between answers, and replaces the parser's own bare error answers by ours.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::StatusCode;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::watch::Watch;
use crate::web::{
    answer,
    raw_frames::RawFrames,
    raw_head::{Ambiguity, RawHead},
};

/// What TLS is given in one piece, at most, of what it copies. glibc copies longer ones with `rep movsb`, which on AMD takes
/// three times as long where source and destination are not aligned alike, as behind the head of a record.
pub(super) const PIECE: usize = 2048;

/// One connection's bytes.
#[derive(Debug)]
pub(super) struct WatchedIo<T> {
    inner: TokioIo<T>,
    watch: Arc<Watch>,
    raw: Raw,
    /// Our own bytes that go out before anything else.
    pending: Vec<u8>,
    /// Everything the protocol wrote has been flushed: only now is there room between two answers.
    flushed: bool,
}

/// What looks at the bytes that come in.
#[derive(Debug)]
enum Raw {
    Http1(RawHead),
    Http2(RawFrames),
}

impl<T> WatchedIo<T> {
    pub(super) fn http1(inner: T, watch: Arc<Watch>) -> Self {
        Self::new(inner, watch, Raw::Http1(RawHead::default()))
    }

    pub(super) fn http2(inner: T, watch: Arc<Watch>) -> Self {
        Self::new(inner, watch, Raw::Http2(RawFrames::default()))
    }

    fn new(inner: T, watch: Arc<Watch>, raw: Raw) -> Self {
        Self { inner: TokioIo::new(inner), watch, raw, pending: Vec::new(), flushed: true }
    }

    /// What is below the watching.
    pub(super) fn inner(&self) -> &T {
        self.inner.inner()
    }

    fn is_http1(&self) -> bool {
        matches!(self.raw, Raw::Http1(_))
    }
}

impl<T: AsyncRead + Unpin> Read for WatchedIo<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // hyper's cursor cannot show what was read into it; reading into a stack buffer keeps this file safe code.
        let mut space = [const { std::mem::MaybeUninit::uninit() }; 16 * 1024];
        let room = space.len().min(cursor.remaining());
        let mut buffer = ReadBuf::uninit(space.get_mut(..room).unwrap_or_default());
        ready!(Pin::new(this.inner.inner_mut()).poll_read(cx, &mut buffer))?;
        let bytes = buffer.filled();
        if bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        this.watch.received(this.is_http1());
        match &mut this.raw {
            Raw::Http1(raw) => match raw.watch(bytes) {
                Ok(()) => this.watch.received_whole(raw.is_between()),
                Err(Ambiguity::Head) => this.watch.mark_ambiguous(),
                Err(Ambiguity::Body) => {
                    this.watch.mark_ambiguous();
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "ambiguous body framing",
                    )));
                }
            },
            Raw::Http2(frames) => {
                this.watch.received_idle_frames(frames.watch(bytes));
                this.watch.received_part_of_head(frames.is_in_head());
            }
        }
        cursor.put_slice(bytes);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> WatchedIo<T> {
    /// Writes our own bytes out.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let written = Pin::new(&mut self.inner).poll_write(cx, &self.pending);
            let written = ready!(self.note(written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_pieces(&mut self, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if slices.iter().all(|slice| slice.len() <= PIECE) {
            return Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        }
        let pieces: Vec<_> =
            slices.iter().flat_map(|slice| slice.chunks(PIECE)).map(io::IoSlice::new).collect();
        Pin::new(&mut self.inner).poll_write_vectored(cx, &pieces)
    }

    /// Interim answers that have been left go out ahead of the answer that begins now: behind its head they would be
    /// taken for its body.
    fn begin_with_interim(&mut self) {
        if self.flushed
            && let Some(interim) = self.watch.take_interim()
        {
            self.pending.extend(interim);
        }
    }

    /// Notes what the socket took.
    fn note(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Pending => self.watch.blocked(),
            Poll::Ready(Ok(bytes)) => {
                self.watch.took(*bytes);
                if !self.is_http1() {
                    self.watch.wrote(*bytes);
                }
            }
            Poll::Ready(Err(_)) => {}
        }
        result
    }

    /// Notes whether the socket took everything.
    fn note_flush(&self, result: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        if result.is_pending() {
            self.watch.blocked();
        } else {
            self.watch.took(0);
        }
        result
    }

    /// The parser answers what it cannot read by itself, barely. Those bytes come while the service answers nothing.
    fn replacement(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        if !self.is_http1() || self.watch.is_answering() {
            return None;
        }
        let status = bytes.strip_prefix(b"HTTP/1.1 4")?.get(..2)?;
        let status = StatusCode::from_bytes(&[b'4', *status.first()?, *status.get(1)?]).ok()?;
        Some(answer::raw_refusal(status))
    }
}

impl<T: AsyncWrite + Unpin> Write for WatchedIo<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.begin_with_interim();
        ready!(this.poll_pending(cx))?;
        if this.flushed {
            this.flushed = false;
            if let Some(ours) = this.replacement(bytes) {
                this.pending = ours;
                // A write that has to wait is continued by the flush that follows.
                let _ = this.poll_pending(cx)?;
                return Poll::Ready(Ok(bytes.len()));
            }
        }
        let written = this.poll_pieces(cx, &[io::IoSlice::new(bytes)]);
        this.note(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.begin_with_interim();
        if this.flushed || !this.pending.is_empty() {
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            if this.replacement(first).is_some() || !this.pending.is_empty() {
                return Pin::new(this).poll_write(cx, first);
            }
            this.flushed = false;
        }
        let written = this.poll_pieces(cx, slices);
        this.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_pending(cx))?;
        let flushed = Pin::new(&mut this.inner).poll_flush(cx);
        ready!(this.note_flush(flushed))?;
        this.flushed = true;
        this.watch.flushed();
        if let Some(interim) = this.watch.take_interim() {
            this.pending = interim;
            ready!(this.poll_pending(cx))?;
            let flushed = Pin::new(&mut this.inner).poll_flush(cx);
            ready!(this.note_flush(flushed))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_pending(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}
