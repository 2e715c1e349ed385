//! Uploads: counts and hashes a body of any size while it arrives, and stores nothing of it.
//!
//! A browser's form is `multipart/form-data` (RFC 7578): its first file is counted. Any other body is counted whole.

use std::fmt::Write;

use aws_lc_rs::digest;
use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use memchr::memmem;
use serde::Serialize;

use super::answer::Error;

/// Maximum size of the head of a part.
const LONGEST_PART_HEAD: usize = 16 << 10;

/// The counted upload.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Receipt {
    pub(super) file_name: Option<String>,
    pub(super) bytes: u64,
    /// In lower-case hexadecimal.
    pub(super) sha256: String,
}

/// Reads the whole body.
pub(super) async fn receive<B>(content_type: Option<&str>, mut body: B) -> Result<Receipt, Error>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    let mut form = boundary(content_type).map(Form::new);
    let mut whole = Tally::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Error::Cut)?.into_data() else { continue };
        match &mut form {
            Some(form) => form.push(&data)?,
            None => whole.add(&data),
        }
    }
    match form {
        Some(form) => form.finish(),
        None => Ok(whole.finish(None)),
    }
}

/// The boundary of a form upload; `None` for any other type of content.
fn boundary(content_type: Option<&str>) -> Option<&str> {
    let mut pieces = content_type?.split(';').map(str::trim);
    if !pieces.next()?.eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    pieces.find_map(|piece| piece.strip_prefix("boundary=")).map(|value| value.trim_matches('"'))
}

/// A running count and hash.
struct Tally {
    bytes: u64,
    hash: digest::Context,
}

impl Tally {
    fn new() -> Self {
        Self { bytes: 0, hash: digest::Context::new(&digest::SHA256) }
    }

    fn add(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        self.hash.update(data);
    }

    fn finish(self, file_name: Option<String>) -> Receipt {
        let digest = self.hash.finish();
        let sha256 = digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        Receipt { file_name, bytes: self.bytes, sha256 }
    }
}

/// What the next bytes of a form belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first delimiter, in a field without a file, or after the file: read and discarded.
    Skipped,
    /// Directly after a delimiter: the next two bytes distinguish a part from the end.
    Delimiter,
    PartHead,
    File,
    End,
}

/// A form upload, fed in pieces of any size. Holds at most the head of a part, or a piece and a delimiter.
struct Form {
    delimiter: Vec<u8>,
    pending: BytesMut,
    state: State,
    file_name: Option<String>,
    file: Tally,
}

impl Form {
    fn new(boundary: &str) -> Self {
        Self {
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            // The first delimiter may start the body, without the line break that precedes the others.
            pending: BytesMut::from(&b"\r\n"[..]),
            state: State::Skipped,
            file_name: None,
            file: Tally::new(),
        }
    }

    fn push(&mut self, data: &[u8]) -> Result<(), Error> {
        self.pending.extend_from_slice(data);
        while self.advance()? {}
        Ok(())
    }

    /// Advances by one step; `false` if that needs more bytes.
    fn advance(&mut self) -> Result<bool, Error> {
        match self.state {
            State::Skipped | State::File => Ok(self.pass_content()),
            State::Delimiter => {
                let Some(next) = self.pending.get(..2) else { return Ok(false) };
                self.state = if next == b"--" { State::End } else { State::PartHead };
                Ok(true)
            }
            State::PartHead => self.read_part_head(),
            State::End => {
                self.pending.clear();
                Ok(false)
            }
        }
    }

    /// Consumes up to the next delimiter; a possible beginning of one stays.
    fn pass_content(&mut self) -> bool {
        let found = memmem::find(&self.pending, &self.delimiter);
        let content = found.unwrap_or_else(|| self.pending.len().saturating_sub(self.delimiter.len() - 1));
        if self.state == State::File {
            self.file.add(&self.pending[..content]);
        }
        self.pending.advance(content);
        if found.is_some() {
            self.pending.advance(self.delimiter.len());
            self.state = State::Delimiter;
        }
        found.is_some()
    }

    /// A head ends with an empty line; the line break after the delimiter counts as the one before it.
    fn read_part_head(&mut self) -> Result<bool, Error> {
        let Some(end) = memmem::find(&self.pending, b"\r\n\r\n") else {
            if self.pending.len() > LONGEST_PART_HEAD {
                return Err(Error::Malformed("The form has a part whose head is too long."));
            }
            return Ok(false);
        };
        let name = file_name(&self.pending[..end]);
        self.pending.advance(end + 4);
        // Only the first file counts.
        if name.is_some() && self.file_name.is_none() {
            self.file_name = name;
            self.state = State::File;
        } else {
            self.state = State::Skipped;
        }
        Ok(true)
    }

    fn finish(self) -> Result<Receipt, Error> {
        if self.state != State::End {
            return Err(Error::Malformed("The form ended before its last boundary."));
        }
        if self.file_name.is_none() {
            return Err(Error::Malformed("The form has no file."));
        }
        Ok(self.file.finish(self.file_name))
    }
}

/// The file name in a part's `Content-Disposition`; browsers encode a quote in it as `%22`.
fn file_name(head: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    let (_, rest) = head.split_once("filename=\"")?;
    rest.split('"').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &[u8] = b"--b0\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n--b0\r\n\
        Content-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\nContent-Type: text/plain\r\n\r\n\
        one\r\n--b\r\n-two\r\n--b0--\r\n";

    /// SHA-256 of the file in [`FORM`], `one\r\n--b\r\n-two`.
    fn expected() -> Receipt {
        let mut tally = Tally::new();
        tally.add(b"one\r\n--b\r\n-two");
        tally.finish(Some("a.bin".to_owned()))
    }

    #[test]
    fn a_form_gives_the_same_receipt_wherever_it_is_cut() {
        for first in 0..FORM.len() {
            for second in first..FORM.len() {
                let mut form = Form::new("b0");
                for piece in [&FORM[..first], &FORM[first..second], &FORM[second..]] {
                    form.push(piece).unwrap();
                }
                assert_eq!(form.finish().unwrap(), expected(), "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn a_form_that_ends_early_is_no_upload() {
        for end in 0..FORM.len() - 4 {
            let mut form = Form::new("b0");
            form.push(&FORM[..end]).unwrap();
            assert!(form.finish().is_err(), "cut at {end}");
        }
    }

    #[test]
    fn memory_stays_flat_while_a_file_passes() {
        let mut form = Form::new("b0");
        form.push(b"--b0\r\nContent-Disposition: form-data; filename=\"x\"\r\n\r\n").unwrap();
        for _ in 0..100 {
            form.push(&vec![b'-'; 100_000]).unwrap();
            assert!(form.pending.len() < form.delimiter.len());
        }
        assert!(form.pending.capacity() < 1_000_000);
    }

    #[test]
    fn a_part_head_without_end_is_refused() {
        let mut form = Form::new("b0");
        form.push(b"--b0\r\n").unwrap();
        assert!(form.push(&vec![b'x'; LONGEST_PART_HEAD + 1]).is_err());
    }

    #[test]
    fn the_boundary_is_found_quoted_and_bare() {
        assert_eq!(boundary(Some("multipart/form-data; boundary=abc")), Some("abc"));
        assert_eq!(boundary(Some("Multipart/Form-Data; charset=utf-8; boundary=\"a b\"")), Some("a b"));
        assert_eq!(boundary(Some("application/octet-stream; boundary=abc")), None);
        assert_eq!(boundary(None), None);
    }
}
