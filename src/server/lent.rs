//! A connection's bytes, lent to a protocol and taken back: between two requests of HTTP/1 the protocol, its buffers and its
//! parser are let go of, since most connections wait far longer than they work.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};

/// Where the bytes are while nobody has them.
#[derive(Debug)]
pub(super) struct Home<T>(Arc<Mutex<Option<Box<T>>>>);

impl<T> Home<T> {
    /// The bytes, and the way back.
    pub(super) fn lend(io: Box<T>) -> (Lent<T>, Self) {
        let home = Arc::new(Mutex::new(None));
        (Lent { io: Some(io), home: Arc::clone(&home) }, Self(home))
    }

    /// What has come back; `None` as long as it is lent, or when it was given to somebody else for good.
    pub(super) fn take_back(&self) -> Option<Box<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The bytes in the hands of a protocol. Dropped, they go home.
#[derive(Debug)]
pub(super) struct Lent<T> {
    /// Absent only while being dropped.
    io: Option<Box<T>>,
    home: Arc<Mutex<Option<Box<T>>>>,
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = self.io.take();
    }
}

impl<T: Unpin> Lent<T> {
    fn io(self: Pin<&mut Self>) -> io::Result<Pin<&mut T>> {
        self.get_mut().io.as_deref_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<T: Read + Unpin> Read for Lent<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.io()?.poll_read(cx, cursor)
    }
}

impl<T: Write + Unpin> Write for Lent<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.io()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_some_and(Write::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_shutdown(cx)
    }
}
