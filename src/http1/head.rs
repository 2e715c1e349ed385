//! The lines and fields of an HTTP/1 head (RFC 9112 §2.1, §5). Start lines are parsed elsewhere.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;
use smallvec::SmallVec;

/// Most fields in a client's head.
pub const MOST_FIELDS: usize = 100;

/// Why a head cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedHead {
    #[error("malformed header line")]
    Line,
    #[error("a header field has an invalid name or value")]
    Field,
    #[error("the head is too large or has too many fields")]
    TooLarge,
}

/// Where a line is in the head, and its colon if it is a field.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    start: u32,
    colon: u32,
    end: u32,
}

impl Span {
    /// The bytes of the line.
    pub fn of(self, head: &[u8]) -> &[u8] {
        head.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// The complete lines of a head.
#[derive(Debug)]
pub struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    /// A line may end in a bare LF (RFC 9112 §2.2).
    takes_bare_lf: bool,
}

impl<'a> Lines<'a> {
    /// Starts at byte `at`.
    pub fn of(bytes: &'a [u8], at: usize, takes_bare_lf: bool) -> Self {
        Self { bytes, at, takes_bare_lf }
    }

    /// Where the next line starts.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next line, if it is complete.
    pub fn line(&mut self) -> Result<Option<Span>, MalformedHead> {
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
        let span = Span { start, colon: start, end: number(self.at + line.len())? };
        self.at += length + 1;
        Ok(Some(span))
    }

    /// Finds all fields, at most `most`; false while the head is incomplete. Folded lines are refused.
    pub fn find(&mut self, fields: &mut FieldSpans, most: usize) -> Result<bool, MalformedHead> {
        while let Some(line) = self.line()? {
            let text = line.of(self.bytes);
            if text.is_empty() {
                return Ok(true);
            }
            let colon = memchr(b':', text).ok_or(MalformedHead::Line)?;
            let colon = line.start + u32::try_from(colon).map_err(|_| MalformedHead::TooLarge)?;
            if fields.0.len() == most {
                return Err(MalformedHead::TooLarge);
            }
            fields.0.push(Span { colon, ..line });
        }
        Ok(false)
    }
}

/// Where the fields of a head are. A usual head needs no allocation.
#[derive(Debug, Default)]
pub struct FieldSpans(SmallVec<[Span; 24]>);

/// One field, and where it is in the head.
#[derive(Debug)]
pub struct Field {
    pub name: HeaderName,
    line: u32,
    value: u32,
    end: u32,
}

impl Field {
    /// Name, colon and value, without the line ending.
    pub fn line<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        head.get(self.line as usize..self.end as usize).unwrap_or_default()
    }

    pub fn value<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        head.get(self.value as usize..self.end as usize).unwrap_or_default()
    }

    /// The value as a slice of the head.
    pub fn value_of(&self, head: &Bytes) -> Bytes {
        head.slice(self.value as usize..self.end as usize)
    }
}

impl FieldSpans {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Passes each field to `take`, up to the first with a malformed name.
    pub fn each<E: From<MalformedHead>>(
        &self,
        head: &[u8],
        mut take: impl FnMut(Field) -> Result<(), E>,
    ) -> Result<(), E> {
        for &Span { start: line, colon, end } in &self.0 {
            let name = head.get(line as usize..colon as usize).unwrap_or_default();
            let name = HeaderName::from_bytes(name).map_err(|_| MalformedHead::Field)?;
            let (value, end) = trimmed(head, colon + 1, end);
            take(Field { name, line, value, end })?;
        }
        Ok(())
    }

    /// Reads the fields into a map; `note` may refuse them.
    pub fn read<E: From<MalformedHead>>(
        &self,
        head: &Bytes,
        mut note: impl FnMut(&HeaderName, &[u8]) -> Result<(), E>,
    ) -> Result<HeaderMap, E> {
        let mut headers = HeaderMap::with_capacity(self.0.len());
        self.each::<E>(head, |field| {
            let value = field.value_of(head);
            let value = HeaderValue::from_maybe_shared(value).map_err(|_| MalformedHead::Field)?;
            note(&field.name, value.as_bytes())?;
            headers.append(field.name, value);
            Ok(())
        })?;
        Ok(headers)
    }
}

/// Whether these bytes may be a field value or a reason phrase (RFC 9110 §5.5, RFC 9112 §4): no control characters but tabs.
/// Always reads to the end, which is faster than stopping early.
pub fn is_text(bytes: &[u8]) -> bool {
    let is_control = |byte: u8| (byte < b' ' && byte != b'\t') || byte == 0x7f;
    bytes.iter().fold(0, |found, &byte| found | u8::from(is_control(byte))) == 0
}

/// Start and end of a value without the spaces and tabs around it; other white space is kept.
fn trimmed(bytes: &[u8], mut start: u32, mut end: u32) -> (u32, u32) {
    let is_space = |at: u32| matches!(bytes.get(at as usize), Some(b' ' | b'\t'));
    while start < end && is_space(start) {
        start += 1;
    }
    while start < end && is_space(end - 1) {
        end -= 1;
    }
    (start, end)
}
