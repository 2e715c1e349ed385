//! The parts of an HTTP/1 body, as they are taken from the read buffer.

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;

/// Parts up to this size are copied out of the read buffer, so that it can be reused. Larger ones share it, unless they are a
/// small fraction of the buffer that they would keep alive.
const SMALL: usize = 4 * 1024;

/// One step of a body.
#[derive(Debug)]
pub enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

/// Why a body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedBody {
    #[error("a chunk of the body is malformed")]
    Chunk,
    #[error("the trailers are malformed or too large")]
    Trailers,
}

/// Takes up to `most` bytes from the front.
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
