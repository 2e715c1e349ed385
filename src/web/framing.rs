//! How long a body is on the wire of HTTP/1 (RFC 9112 §6), and its parts as they are read off it.

use bytes::BytesMut;

use super::{
    body_part::{MalformedBody, Part, take},
    chunked::Chunked,
};

/// What is left of a body.
#[derive(Debug)]
pub enum Framing {
    Length(u64),
    Chunked(Chunked),
    /// Answers alone can be as long as their connection.
    UntilClose,
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
