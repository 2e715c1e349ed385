//! Response heads (RFC 9112 §4, §6.3), and what they say about the connection and the body.

use bytes::{Bytes, BytesMut};
use http::{HeaderName, StatusCode, Version, header};

use super::{
    body_part::MalformedBody,
    chunked::Chunked,
    fields::{self, ConnectionOptions},
    framing::{Ambiguous, BodyLength, Framing},
    head::{FieldSpans, Lines, MalformedHead, is_text},
};

/// Largest head, in bytes.
pub const MOST_BYTES: usize = 128 * 1024;
/// Most fields in one head: more than a client may send, since portals set many cookies at once.
pub const MOST_FIELDS: usize = 1000;
/// Most bytes of a field name in an error message.
const MOST_TOLD: usize = 64;

/// Why a response head cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MalformedAnswer {
    #[error("not an HTTP/1.x status line")]
    StatusLine,
    #[error("malformed response head")]
    Head(#[from] MalformedHead),
    #[error("the response head has more than {MOST_FIELDS} fields: `{field}` is one too many")]
    Fields { field: String },
    #[error("the response head is longer than {MOST_BYTES} bytes: `{field}` exceeds the limit")]
    Size { field: String },
    #[error(transparent)]
    Framing(#[from] Ambiguous),
    #[error("malformed response body")]
    Body(#[from] MalformedBody),
    #[error("more than {0} interim responses (1xx)")]
    Interim(u32),
}

/// A complete head whose fields have not been read yet.
#[derive(Debug)]
pub struct AnswerHead {
    pub version: Version,
    pub status: StatusCode,
    pub text: Bytes,
}

/// Takes one head from the front of `read`; `None` while it is incomplete. `fields` gets where its fields are: returned, they
/// would be copied.
pub fn take(read: &mut BytesMut, fields: &mut FieldSpans) -> Result<Option<AnswerHead>, MalformedAnswer> {
    // Old servers send an empty line after a body.
    let before = if read.starts_with(b"\r\n") { 2 } else { 0 };
    let start = read.get(before..).unwrap_or_default();
    if start != b"\r" && !start.iter().zip(b"HTTP/1.").all(|(byte, expected)| byte == expected) {
        return Err(MalformedAnswer::StatusLine);
    }
    let mut lines = Lines::of(read, before, true);
    let line = lines.line()?.map(|line| status_line(line.of(read))).transpose()?;
    let found = if line.is_some() { lines.find(fields, MOST_FIELDS) } else { Ok(false) };
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
    Ok(Some(AnswerHead { version, status, text: read.split_to(length).freeze() }))
}

/// The name of the field whose line contains byte `at`.
fn field_at(head: &[u8], at: usize) -> String {
    let before = head.get(..at).unwrap_or_default();
    let start = memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
    let name = head.get(start..).unwrap_or_default().split(|&byte| byte == b':').next().unwrap_or_default();
    name.get(..name.len().min(MOST_TOLD)).unwrap_or_default().escape_ascii().to_string()
}

/// Version and status. The reason phrase is ignored and may be missing (RFC 9112 §4).
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

/// What the fields say about this hop and about the body.
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

    /// Takes one field into account. Returns whether it is forwarded.
    #[inline]
    pub fn note(&mut self, name: &HeaderName, value: &[u8]) -> Result<bool, MalformedAnswer> {
        match *name {
            header::CONTENT_LENGTH => {
                self.length.content_length(value)?;
                // RFC 9110 §8.6: it means nothing there, and HTTP/2 clients treat it as an error.
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

    /// The fields that `Connection` lists, which are not forwarded. An error when there are too many.
    pub fn listed(&self) -> Result<impl Iterator<Item = &HeaderName>, MalformedHead> {
        if self.options.is_endless() {
            return Err(MalformedHead::TooLarge);
        }
        Ok(self.options.listed.iter().filter(|&name| name != header::UPGRADE))
    }

    /// The framing of the body. `bodiless`: the request was a HEAD, whose response never has one.
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

    /// Whether the connection can carry another request after a body of this framing.
    pub fn keeps_alive(&self, framing: &Framing) -> bool {
        !self.options.close
            && (self.version != Version::HTTP_10 || self.options.keep_alive)
            && !matches!(framing, Framing::UntilClose)
    }
}
