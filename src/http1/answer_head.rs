//! The head of an answer (RFC 9112 §4, §6.3), and what it says of the connection and of the body.

use bytes::{Bytes, BytesMut};
use http::{HeaderName, StatusCode, Version, header};

use super::{
    body_part::MalformedBody,
    chunked::Chunked,
    fields::{self, ConnectionOptions},
    framing::{Ambiguous, BodyLength, Framing},
    head::{FieldSpans, Lines, MalformedHead, is_text},
};

/// Most bytes of one head.
pub const MOST_BYTES: usize = 128 * 1024;
/// Most fields of one head: more than a client may send, since portals set many cookies at once.
pub const MOST_FIELDS: usize = 1000;
/// Most bytes of a field's name that are told.
const MOST_TOLD: usize = 64;

/// Why an answer cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum MalformedAnswer {
    #[error("not an HTTP/1.x status line")]
    StatusLine,
    #[error("its head cannot be read")]
    Head(#[from] MalformedHead),
    #[error("its head has more than {MOST_FIELDS} fields: `{field}` is the first beyond")]
    Fields { field: String },
    #[error("its head is longer than {MOST_BYTES} bytes: `{field}` goes beyond")]
    Size { field: String },
    #[error(transparent)]
    Framing(#[from] Ambiguous),
    #[error("its body cannot be read")]
    Body(#[from] MalformedBody),
    #[error("more than {0} interim answers came before it")]
    Interim(u32),
}

/// A whole head, its fields not read yet.
#[derive(Debug)]
pub struct AnswerHead {
    pub version: Version,
    pub status: StatusCode,
    pub text: Bytes,
    pub fields: FieldSpans,
}

/// Takes one head off the front of `read`; `None` while it is not complete.
pub fn take(read: &mut BytesMut) -> Result<Option<AnswerHead>, MalformedAnswer> {
    // Old servers send an empty line behind a body.
    let before = if read.starts_with(b"\r\n") { 2 } else { 0 };
    let start = read.get(before..).unwrap_or_default();
    if start != b"\r" && !start.iter().zip(b"HTTP/1.").all(|(byte, expected)| byte == expected) {
        return Err(MalformedAnswer::StatusLine);
    }
    let mut lines = Lines::of(read, before, true);
    let mut fields = FieldSpans::default();
    let line = lines.line()?.map(|line| status_line(line.of(read))).transpose()?;
    let found = if line.is_some() { lines.find(&mut fields, MOST_FIELDS) } else { Ok(false) };
    let is_whole = found.map_err(|error| match error {
        MalformedHead::TooLarge => {
            MalformedAnswer::Fields { field: field_at(read, lines.at().saturating_sub(1)) }
        }
        error => error.into(),
    })?;
    let length = if is_whole { lines.at() } else { read.len() };
    if length > MOST_BYTES {
        return Err(MalformedAnswer::Size { field: field_at(read, MOST_BYTES) });
    }
    let Some((version, status)) = line.filter(|_| is_whole) else { return Ok(None) };
    Ok(Some(AnswerHead { version, status, text: read.split_to(length).freeze(), fields }))
}

/// The name of the field in whose line this byte of a head is.
fn field_at(head: &[u8], at: usize) -> String {
    let before = head.get(..at).unwrap_or_default();
    let start = memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
    let name = head.get(start..).unwrap_or_default().split(|&byte| byte == b':').next().unwrap_or_default();
    name.get(..name.len().min(MOST_TOLD)).unwrap_or_default().escape_ascii().to_string()
}

/// Version and status; the phrase behind them is for nobody, and may be missing (RFC 9112 §4).
fn status_line(line: &[u8]) -> Result<(Version, StatusCode), MalformedAnswer> {
    let (version, rest) = match line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', rest @ ..] => (Version::HTTP_11, rest),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0', b' ', rest @ ..] => (Version::HTTP_10, rest),
        _ => return Err(MalformedAnswer::StatusLine),
    };
    let (status, phrase) = rest.split_at_checked(3).ok_or(MalformedAnswer::StatusLine)?;
    let is_phrase = phrase.is_empty() || phrase.starts_with(b" ");
    if !is_phrase || !is_text(phrase) {
        return Err(MalformedAnswer::StatusLine);
    }
    StatusCode::from_bytes(status).map(|status| (version, status)).map_err(|_| MalformedAnswer::StatusLine)
}

/// What the fields say of this hop and of the body.
#[derive(Debug)]
pub struct Hop {
    version: Version,
    status: StatusCode,
    length: BodyLength,
    options: ConnectionOptions,
}

impl Hop {
    pub fn new(version: Version, status: StatusCode) -> Self {
        Self { version, status, length: BodyLength::default(), options: ConnectionOptions::default() }
    }

    /// Notes what a field says of this hop, and whether it goes on beyond it.
    pub fn note(&mut self, name: &HeaderName, value: &[u8]) -> Result<bool, MalformedAnswer> {
        match *name {
            header::CONTENT_LENGTH => {
                self.length.content_length(value)?;
                // RFC 9110 §8.6: there it says nothing, and clients of HTTP/2 take it for an error.
                Ok(!self.status.is_informational() && self.status != StatusCode::NO_CONTENT)
            }
            header::TRANSFER_ENCODING => {
                self.length.transfer_encoding(value, self.version)?;
                Ok(false)
            }
            header::CONNECTION => {
                self.options.note(value);
                Ok(false)
            }
            header::UPGRADE => Ok(self.status == StatusCode::SWITCHING_PROTOCOLS),
            header::TRAILER => Ok(true),
            _ => Ok(!fields::is_hop_by_hop(name)),
        }
    }

    /// The fields that end with this hop because `Connection` lists them. An error when there are too many.
    pub fn listed(&self) -> Result<impl Iterator<Item = &HeaderName>, MalformedHead> {
        if self.options.is_endless() {
            return Err(MalformedHead::TooLarge);
        }
        Ok(self.options.listed.iter().filter(|&name| name != header::UPGRADE))
    }

    /// How long the body is. `bodiless` says that the request was one whose answer never has one (HEAD).
    pub fn framing(&self, bodiless: bool) -> Framing {
        let has_none = bodiless
            || self.status.is_informational()
            || matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        match self.length.length() {
            _ if has_none => Framing::Length(0),
            Some(length) => Framing::Length(length),
            None if self.length.is_chunked() => Framing::Chunked(Chunked::of_answer()),
            None => Framing::UntilClose,
        }
    }

    /// Whether another request may follow on the connection behind such a body.
    pub fn keeps_alive(&self, framing: &Framing) -> bool {
        !self.options.close
            && (self.version != Version::HTTP_10 || self.options.keep_alive)
            && !matches!(framing, Framing::UntilClose)
    }
}
