//! The head of a message of HTTP/1: its lines, and its fields (RFC 9112 §2.1, §5). What stands in the first line is not its
//! matter.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;
use smallvec::SmallVec;

/// Most fields of one head.
pub const MOST_FIELDS: usize = 100;

/// Why a head is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedHead {
    #[error("a line of the head is none")]
    Line,
    #[error("a field of the head has a name or a value that must not be")]
    Field,
    #[error("the head is too large, or has too many fields")]
    TooLarge,
}

/// Where a line is in the head, and its colon if it is a field.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    start: u32,
    colon: u32,
    end: u32,
}

impl Place {
    /// What stands there.
    pub fn of(self, head: &[u8]) -> &[u8] {
        head.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// The lines of a head that have ended.
#[derive(Debug)]
pub struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    /// A line may end in a bare LF (RFC 9112 §2.2).
    takes_bare_lf: bool,
}

impl<'a> Lines<'a> {
    /// Begins behind the first `at` bytes.
    pub fn of(bytes: &'a [u8], at: usize, takes_bare_lf: bool) -> Self {
        Self { bytes, at, takes_bare_lf }
    }

    /// Where the next line begins.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next line, if it has ended.
    pub fn line(&mut self) -> Result<Option<Place>, MalformedHead> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(length) = memchr(b'\n', rest) else { return Ok(None) };
        let line = rest.get(..length).unwrap_or_default();
        let line = match line.strip_suffix(b"\r") {
            Some(line) => line,
            None if self.takes_bare_lf => line,
            None => return Err(MalformedHead::Line),
        };
        let number = |at| u32::try_from(at).map_err(|_| MalformedHead::TooLarge);
        let start = number(self.at)?;
        let place = Place { start, colon: start, end: number(self.at + line.len())? };
        self.at += length + 1;
        Ok(Some(place))
    }

    /// Finds all fields; false while the head is not complete. A line that continues the one before it is none.
    pub fn find(&mut self, fields: &mut Fields) -> Result<bool, MalformedHead> {
        while let Some(line) = self.line()? {
            let text = line.of(self.bytes);
            if text.is_empty() {
                return Ok(true);
            }
            let colon = memchr(b':', text).ok_or(MalformedHead::Line)?;
            let colon = line.start + u32::try_from(colon).map_err(|_| MalformedHead::TooLarge)?;
            if fields.0.len() == MOST_FIELDS {
                return Err(MalformedHead::TooLarge);
            }
            fields.0.push(Place { colon, ..line });
        }
        Ok(false)
    }
}

/// Where the fields of a head are; those of a usual one are found without allocation.
#[derive(Debug, Default)]
pub struct Fields(SmallVec<[Place; 24]>);

impl Fields {
    /// Reads them from `head`, with room for so many more. `note` says which are kept.
    pub fn read<E: From<MalformedHead>>(
        &self,
        head: &Bytes,
        more: usize,
        mut note: impl FnMut(&HeaderName, &HeaderValue) -> Result<bool, E>,
    ) -> Result<HeaderMap, E> {
        let mut headers = HeaderMap::with_capacity(self.0.len() + more);
        for place in &self.0 {
            let (start, colon) = (place.start as usize, place.colon as usize);
            let name = HeaderName::from_bytes(head.get(start..colon).unwrap_or_default())
                .map_err(|_| MalformedHead::Field)?;
            let (start, end) = trimmed(head, colon + 1, place.end as usize);
            let value =
                HeaderValue::from_maybe_shared(head.slice(start..end)).map_err(|_| MalformedHead::Field)?;
            if note(&name, &value)? {
                headers.append(name, value);
            }
        }
        Ok(headers)
    }
}

/// Where a value begins and ends: without the spaces and tabs around it, and nothing else that is taken for white space.
fn trimmed(bytes: &[u8], mut start: usize, mut end: usize) -> (usize, usize) {
    let is_space = |at: usize| matches!(bytes.get(at), Some(b' ' | b'\t'));
    while start < end && is_space(start) {
        start += 1;
    }
    while start < end && is_space(end - 1) {
        end -= 1;
    }
    (start, end)
}
