//! The byte stream of an HTTP/2 connection between TLS and hyper. Reports progress to the monitor, counts idle frames and marks
//! fragments in paths.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::monitor::ConnectionMonitor;
use crate::web::{raw_frames::RawFrames, socket::write_pieces};

/// The byte stream of one connection.
#[derive(Debug)]
pub(super) struct MonitoredIo<T> {
    inner: T,
    monitor: Rc<ConnectionMonitor>,
    frames: RawFrames,
}

impl<T> MonitoredIo<T> {
    pub(super) fn new(inner: T, monitor: Rc<ConnectionMonitor>) -> Self {
        Self { inner, monitor, frames: RawFrames::default() }
    }

    /// Reports to the monitor whether the socket took everything.
    fn note_flush(&self, result: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        if result.is_pending() {
            self.monitor.blocked();
        } else {
            self.monitor.took(0);
        }
        result
    }
}

impl<T: AsyncRead + Unpin> Read for MonitoredIo<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // hyper's cursor cannot show the bytes that were read; a buffer on the stack avoids unsafe code.
        let mut space = [const { std::mem::MaybeUninit::uninit() }; 16 * 1024];
        let room = space.len().min(cursor.remaining());
        let mut buffer = ReadBuf::uninit(space.get_mut(..room).unwrap_or_default());
        ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buffer))?;
        let bytes = buffer.filled_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        this.monitor.received(false);
        let idle = this.frames.watch(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        this.monitor.received_idle_frames(idle);
        this.monitor.received_part_of_head(this.frames.is_in_head());
        cursor.put_slice(bytes);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Write for MonitoredIo<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = write_pieces(&mut this.inner, cx, slices.iter().map(|slice| &**slice));
        match &written {
            Poll::Pending => this.monitor.blocked(),
            Poll::Ready(Ok(bytes)) => {
                this.monitor.took(*bytes);
                this.monitor.wrote(*bytes);
            }
            Poll::Ready(Err(_)) => {}
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(cx);
        this.note_flush(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
