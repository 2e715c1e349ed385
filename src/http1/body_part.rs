//! The parts of a body as they are taken off what has been read of HTTP/1.

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;

/// Parts of a body up to this size are copied out of the buffer, which can then be used again; others only if they are a
/// small part of it, which they would keep.
const SMALL: usize = 4 * 1024;

/// What came next.
#[derive(Debug)]
pub enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

/// Why a body is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedBody {
    #[error("a chunk of the body is malformed")]
    Chunk,
    #[error("the trailers are malformed or too large")]
    Trailers,
}

/// Takes up to `most` bytes off the front.
pub(super) fn take(read: &mut BytesMut, most: u64) -> Bytes {
    let length = read.len().min(usize::try_from(most).unwrap_or(usize::MAX));
    if length <= SMALL.max(read.capacity() / 4) {
        let data = Bytes::copy_from_slice(read.get(..length).unwrap_or_default());
        read.advance(length);
        data
    } else {
        read.split_to(length).freeze()
    }
}
