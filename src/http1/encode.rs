//! Body encoding, towards clients and the portal: the bytes around each part and at the end (RFC 9112 §6, §7.1).

use std::io::Write as _;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::fields;

/// How the head announces the body.
#[derive(Clone, Debug, PartialEq)]
pub enum Coding {
    /// There is no body.
    Nothing,
    /// `Content-Length`: bytes still to be written.
    Length(u64),
    /// `Transfer-Encoding: chunked`, with the trailers that `Trailer` announces.
    Chunked(Option<HeaderValue>),
    /// It ends with the connection.
    UntilClose,
}

/// The body is longer than it was announced to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is longer than announced")]
pub struct TooLong;

impl Coding {
    /// Begins a part of `length` bytes and writes the bytes in front of it. It must not be empty: an empty chunk ends the body.
    pub fn begin_part(&mut self, length: usize, wire: &mut Vec<u8>) -> Result<(), TooLong> {
        match self {
            Self::Length(left) => {
                let length = u64::try_from(length).unwrap_or(u64::MAX);
                *left = left.checked_sub(length).ok_or(TooLong)?;
            }
            // Writing to a vector cannot fail.
            Self::Chunked(_) => _ = write!(wire, "{length:x}\r\n"),
            Self::Nothing => return Err(TooLong),
            Self::UntilClose => {}
        }
        Ok(())
    }

    /// The bytes after a part. `ends`: it is the last one, and no trailers follow.
    pub fn end_of_part(&self, ends: bool) -> &'static [u8] {
        match self {
            Self::Chunked(_) if ends => b"\r\n0\r\n\r\n",
            Self::Chunked(_) => b"\r\n",
            Self::Nothing | Self::Length(_) | Self::UntilClose => b"",
        }
    }

    /// The bytes after the last part, unless [`Self::end_of_part`] has written them.
    pub fn end(&self, trailers: Option<&HeaderMap>) -> Option<Bytes> {
        match self {
            Self::Chunked(announced) => Some(last_chunk(trailers, announced.as_ref())),
            Self::Nothing | Self::Length(_) | Self::UntilClose => None,
        }
    }

    /// Whether the body is shorter than announced so far.
    pub fn is_short(&self) -> bool {
        matches!(self, Self::Length(1..))
    }
}

/// The last chunk, with those trailers that `Trailer` announced.
fn last_chunk(trailers: Option<&HeaderMap>, announced: Option<&HeaderValue>) -> Bytes {
    let mut wire = b"0\r\n".to_vec();
    for (name, value) in trailers.into_iter().flatten().filter(|(name, _)| is_announced(name, announced)) {
        fields::write(&mut wire, name, value.as_bytes());
    }
    wire.extend_from_slice(b"\r\n");
    wire.into()
}

fn is_announced(name: &HeaderName, announced: Option<&HeaderValue>) -> bool {
    announced.is_some_and(|announced| {
        let mut headers = HeaderMap::with_capacity(1);
        headers.insert(header::TRAILER, announced.clone());
        fields::lists(&headers, &header::TRAILER, name.as_str().as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::http1::{body_part::Part, chunked::Chunked};

    #[test]
    fn what_is_written_in_chunks_is_read_again() {
        let trailers = HeaderMap::from_iter([
            (HeaderName::from_static("x-sum"), HeaderValue::from_static("1")),
            (HeaderName::from_static("x-secret"), HeaderValue::from_static("2")),
        ]);
        let mut coding = Coding::Chunked(Some(HeaderValue::from_static("X-Sum")));
        for ends_with_part in [false, true] {
            let mut wire = Vec::new();
            for (part, last) in [("a", false), ("0123456789abcdef!", ends_with_part)] {
                coding.begin_part(part.len(), &mut wire).unwrap();
                wire.extend_from_slice(part.as_bytes());
                wire.extend_from_slice(coding.end_of_part(last));
            }
            if !ends_with_part {
                wire.extend_from_slice(&coding.end(Some(&trailers)).unwrap());
            }
            let (mut read, mut chunked) = (BytesMut::from(&wire[..]), Chunked::of_request());
            let (mut data, mut sum) = (Vec::new(), None);
            while !chunked.is_done() {
                match chunked.next(&mut read).unwrap().unwrap() {
                    Part::Data(bytes) => data.extend_from_slice(&bytes),
                    Part::Trailers(fields) => {
                        assert_eq!(fields.len(), 1, "only what was announced");
                        sum = fields.get("x-sum").cloned();
                    }
                    Part::End => break,
                }
            }
            assert_eq!(data, b"a0123456789abcdef!");
            assert_eq!(sum.is_some(), !ends_with_part);
            assert!(read.is_empty());
        }
    }

    #[test]
    fn a_body_is_as_long_as_it_was_announced_to_be() {
        let mut coding = Coding::Length(3);
        let mut wire = Vec::new();
        coding.begin_part(2, &mut wire).unwrap();
        assert!(coding.is_short());
        assert_eq!(coding.clone().begin_part(2, &mut wire), Err(TooLong));
        coding.begin_part(1, &mut wire).unwrap();
        assert!(!coding.is_short() && coding.end(None).is_none() && coding.end_of_part(true).is_empty());
        assert_eq!(coding.begin_part(1, &mut wire), Err(TooLong));
        assert!(wire.is_empty());
    }
}
