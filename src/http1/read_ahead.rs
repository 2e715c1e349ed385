//! Reads a stream into a buffer ahead of the parser. The size of a read grows with the message: most are one head, and an
//! idle connection should hold little.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// The size of one read. A usual head fits.
const READ: usize = 8 * 1024;

/// The bytes that have been read and not been used yet. One read of a long message takes `LONG` bytes.
#[derive(Debug)]
pub struct ReadAhead<const LONG: usize> {
    pub bytes: BytesMut,
    ask_for: usize,
}

impl<const LONG: usize> Default for ReadAhead<LONG> {
    fn default() -> Self {
        Self { bytes: BytesMut::new(), ask_for: READ }
    }
}

impl<const LONG: usize> ReadAhead<LONG> {
    /// Reads more; zero at the end. A read that fills the buffer makes the next ones long.
    #[inline]
    pub fn poll_from(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.bytes.reserve(self.ask_for);
        let room = self.bytes.capacity() - self.bytes.len();
        let count = ready!(poll_read_buf(Pin::new(stream), cx, &mut self.bytes))?;
        if count == room {
            self.ask_for = LONG;
        }
        Poll::Ready(Ok(count))
    }

    /// Goes back to small reads for the next message.
    #[inline]
    pub fn begin(&mut self) {
        if self.ask_for != READ {
            self.ask_for = READ;
            self.bytes = BytesMut::from(&self.bytes[..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn reads_are_long_only_within_a_long_message_and_nothing_read_is_lost() {
        let mut cx = Context::from_waker(Waker::noop());
        let long = vec![7; 1 << 20];
        let (mut stream, mut ahead) = (&long[..], ReadAhead::<{ 64 * 1024 }>::default());
        let mut read = || match ahead.poll_from(&mut stream, &mut cx) {
            Poll::Ready(Ok(count)) => count,
            other => panic!("{other:?}"),
        };
        let first = read();
        assert!((READ..2 * READ).contains(&first));
        assert!(read() >= 64 * 1024);
        let held = ahead.bytes.len();
        ahead.begin();
        assert_eq!(ahead.bytes.len(), held);
        ahead.bytes.clear();
        ahead.begin();
        let mut rest = &long[..3];
        assert!(matches!(ahead.poll_from(&mut rest, &mut cx), Poll::Ready(Ok(3))));
        assert!(matches!(ahead.poll_from(&mut rest, &mut cx), Poll::Ready(Ok(0))));
        assert_eq!(ahead.bytes[..], [7; 3]);
    }
}
