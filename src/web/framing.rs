//! How long a body is on the wire of HTTP/1 (RFC 9112 §6), and its parts as they are read off it.

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;

use super::chunked::Chunked;

/// Parts of a body up to this size are copied out of the buffer, which can then be used again; others only if they are a
/// small part of it, which they would keep.
const SMALL: usize = 4 * 1024;

/// What is left of a body.
#[derive(Debug)]
pub enum Framing {
    Length(u64),
    Chunked(Chunked),
    /// Answers alone can be as long as their connection.
    UntilClose,
}

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

impl Framing {
    /// Takes the next part off the front of `read`; `None` when more has to come first.
    pub fn next(&mut self, read: &mut BytesMut) -> Result<Option<Part>, MalformedBody> {
        match self {
            Self::Length(0) => Ok(Some(Part::End)),
            Self::Chunked(chunked) => chunked.next(read),
            Self::Length(_) | Self::UntilClose if read.is_empty() => Ok(None),
            Self::Length(left) => {
                let data = take(read, *left);
                *left = left.saturating_sub(u64::try_from(data.len()).unwrap_or(u64::MAX));
                Ok(Some(Part::Data(data)))
            }
            Self::UntilClose => Ok(Some(Part::Data(take(read, u64::MAX)))),
        }
    }

    /// Whether nothing of the body is missing.
    pub fn is_end(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_done(),
            Self::UntilClose => false,
        }
    }
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
