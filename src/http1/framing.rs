//! Body framing (RFC 9112 §6): what a head may say about the length, and the parts of the body as they are read.

use bytes::BytesMut;
use http::Version;

use super::{
    body_part::{MalformedBody, Part, take},
    chunked::Chunked,
    fields,
};

/// What the fields say about the length of the body: one reading, or an error (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Default)]
pub struct BodyLength {
    length: Option<u64>,
    is_chunked: bool,
}

/// The length of a body can be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the length of the body can be read in two ways")]
pub struct Ambiguous;

impl BodyLength {
    /// Takes a `Content-Length` line into account.
    pub fn content_length(&mut self, value: &[u8]) -> Result<(), Ambiguous> {
        let length = fields::content_length(value).ok_or(Ambiguous)?;
        if self.is_chunked || self.length.replace(length).is_some() { Err(Ambiguous) } else { Ok(()) }
    }

    /// Takes a `Transfer-Encoding` line into account. HTTP/1.0 has no chunks; HTTP/2 has frames of its own.
    pub fn transfer_encoding(&mut self, value: &[u8], version: Version) -> Result<(), Ambiguous> {
        let is_chunked = version == Version::HTTP_11 && value.eq_ignore_ascii_case(b"chunked");
        let is_alone = self.length.is_none() && !std::mem::replace(&mut self.is_chunked, true);
        if is_chunked && is_alone { Ok(()) } else { Err(Ambiguous) }
    }

    pub fn length(&self) -> Option<u64> {
        self.length
    }

    pub fn is_chunked(&self) -> bool {
        self.is_chunked
    }
}

/// The rest of a body.
#[derive(Debug)]
pub enum Framing {
    Length(u64),
    Chunked(Chunked),
    /// Until the connection closes; responses only.
    UntilClose,
}

impl Framing {
    /// Takes the next part from the front of `read`; `None` when more bytes are needed.
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

    /// Whether the body has been read to its end.
    pub fn is_end(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_done(),
            Self::UntilClose => false,
        }
    }
}
