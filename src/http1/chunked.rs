//! A strict decoder for chunked bodies (RFC 9112 §7.1): what has two readings is an error.

use bytes::{Buf as _, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    body_part::{MalformedBody, Part, take},
    head::MOST_FIELDS,
};

/// Largest trailer section, in bytes.
const MOST_TRAILERS: usize = 16 * 1024;

/// The decoder of one body.
#[derive(Debug)]
pub struct Chunked {
    state: State,
    rules: Rules,
}

/// What a chunk-size line may look like.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// Largest line in bytes, extensions included.
    longest: usize,
    /// Spaces are allowed after the size.
    pads: bool,
}

/// What the next byte belongs to.
#[derive(Debug)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

impl Chunked {
    /// For a request: after the size, only a short extension is allowed, and ignored.
    pub fn of_request() -> Self {
        Self { state: State::Size, rules: Rules { longest: 256, pads: false } }
    }

    /// For a response: old servers pad the size with spaces.
    pub fn of_answer() -> Self {
        Self { state: State::Size, rules: Rules { longest: 4 * 1024, pads: true } }
    }

    /// Takes the next part from the front of `read`; `None` when more bytes are needed.
    pub fn next(&mut self, read: &mut BytesMut) -> Result<Option<Part>, MalformedBody> {
        loop {
            match self.state {
                State::Size => match line(read, self.rules)? {
                    None => return Ok(None),
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::Data(size),
                },
                State::Data(left) => {
                    if read.is_empty() {
                        return Ok(None);
                    }
                    let data = take(read, left);
                    let left = left.saturating_sub(u64::try_from(data.len()).unwrap_or(u64::MAX));
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    self.end_at_once(read);
                    return Ok(Some(Part::Data(data)));
                }
                State::DataEnd => {
                    if read.len() < 2 {
                        return Ok(None);
                    }
                    if !read.starts_with(b"\r\n") {
                        return Err(MalformedBody::Chunk);
                    }
                    read.advance(2);
                    self.state = State::Size;
                }
                State::Trailers => match trailers(read)? {
                    None => return Ok(None),
                    Some(fields) => {
                        self.state = State::Done;
                        return Ok(Some(if fields.is_empty() { Part::End } else { Part::Trailers(fields) }));
                    }
                },
                State::Done => return Ok(Some(Part::End)),
            }
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Notices the last chunk together with the last data, so that nobody has to ask once more.
    fn end_at_once(&mut self, read: &mut BytesMut) {
        const END: &[u8] = b"\r\n0\r\n\r\n";
        if matches!(self.state, State::DataEnd) && read.starts_with(END) {
            read.advance(END.len());
            self.state = State::Done;
        }
    }
}

/// The chunk size, from a line that ends in CRLF. Extensions are ignored: nobody is known to use them.
fn line(read: &mut BytesMut, rules: Rules) -> Result<Option<u64>, MalformedBody> {
    let Some(end) = memchr::memchr(b'\n', read) else {
        // Its CR may have come without the LF.
        return if read.len() > rules.longest + 1 { Err(MalformedBody::Chunk) } else { Ok(None) };
    };
    let line = read.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(MalformedBody::Chunk)?;
    if line.len() > rules.longest || line.contains(&b'\r') {
        return Err(MalformedBody::Chunk);
    }
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, extension) = line.split_at(digits);
    let is_space = |byte: &&u8| rules.pads && matches!(byte, b' ' | b'\t');
    let is_extension = extension.iter().find(|byte| !is_space(byte)).is_none_or(|&byte| byte == b';');
    if digits.is_empty() || digits.len() > 15 || !is_extension {
        return Err(MalformedBody::Chunk);
    }
    let text = std::str::from_utf8(digits).map_err(|_| MalformedBody::Chunk)?;
    let size = u64::from_str_radix(text, 16).map_err(|_| MalformedBody::Chunk)?;
    read.advance(end + 1);
    Ok(Some(size))
}

fn trailers(read: &mut BytesMut) -> Result<Option<HeaderMap>, MalformedBody> {
    let mut space = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let (length, fields) = match httparse::parse_headers(read, &mut space) {
        Ok(httparse::Status::Complete(parsed)) if parsed.0 <= MOST_TRAILERS => parsed,
        Ok(httparse::Status::Partial) if read.len() <= MOST_TRAILERS => return Ok(None),
        Ok(_) | Err(_) => return Err(MalformedBody::Trailers),
    };
    // `httparse` accepts a bare LF as the end of a line; other parsers do not.
    let section = read.get(..length).unwrap_or_default();
    if memchr::memchr_iter(b'\n', section).any(|at| !section.get(..at).unwrap_or_default().ends_with(b"\r")) {
        return Err(MalformedBody::Trailers);
    }
    let mut map = HeaderMap::new();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else { return Err(MalformedBody::Trailers) };
        map.append(name, value);
    }
    read.advance(length);
    Ok(Some(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `text` in pieces of `size` bytes: the data, the trailers, and what is left over.
    fn read_as(
        mut chunked: Chunked,
        text: &str,
        size: usize,
    ) -> Result<(String, HeaderMap, String), MalformedBody> {
        let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
        let mut buffer = BytesMut::new();
        let mut pieces = text.as_bytes().chunks(size);
        loop {
            match chunked.next(&mut buffer)? {
                Some(Part::Data(bytes)) => data.extend_from_slice(&bytes),
                Some(Part::Trailers(fields)) => trailers = fields,
                Some(Part::End) => break,
                None => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => panic!("{text:?} does not end"),
                },
            }
        }
        buffer.extend(pieces.flatten());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Ok((text(&data), trailers, text(&buffer)))
    }

    fn read(text: &str, size: usize) -> Result<(String, HeaderMap, String), MalformedBody> {
        read_as(Chunked::of_answer(), text, size)
    }

    #[test]
    fn only_an_answer_may_pad_a_size() {
        for text in ["1 \r\na\r\n0\r\n\r\n", "1\t;x\r\na\r\n0\r\n\r\n"] {
            assert_eq!(read(text, 1).unwrap().0, "a");
            for size in [1, text.len()] {
                assert_eq!(read_as(Chunked::of_request(), text, size).unwrap_err(), MalformedBody::Chunk);
            }
        }
        assert_eq!(read_as(Chunked::of_request(), "1;x\r\na\r\n0\r\n\r\n", 3).unwrap().0, "a");
    }

    #[test]
    fn chunks_come_out_whole_however_they_arrive() {
        let text = "4\r\nWiki\r\n5;a=b\r\npedia\r\n00A \t;x\r\n0123456789\r\n0\r\n\r\nmore";
        for size in 1..text.len() {
            let (data, trailers, left) = read(text, size).unwrap();
            assert_eq!((data.as_str(), left.as_str()), ("Wikipedia0123456789", "more"), "{size}");
            assert!(trailers.is_empty());
        }
    }

    #[test]
    fn trailers_are_told_apart_from_what_follows() {
        let text = "1\r\na\r\n0;last\r\nX-Sum: 5d41\r\nX-Sum: 2\r\n\r\nHTTP";
        for size in 1..text.len() {
            let (data, trailers, left) = read(text, size).unwrap();
            assert_eq!((data.as_str(), left.as_str()), ("a", "HTTP"));
            assert_eq!(trailers.get_all("x-sum").iter().collect::<Vec<_>>(), ["5d41", "2"]);
        }
    }

    #[test]
    fn a_coding_with_two_readings_is_an_error() {
        for text in [
            "\r\n\r\n",
            "x\r\n\r\n",
            "-1\r\na\r\n0\r\n\r\n",
            "+1\r\na\r\n0\r\n\r\n",
            "0x1\r\na\r\n0\r\n\r\n",
            "1\na\r\n0\r\n\r\n",
            "1\r\nab\r\n0\r\n\r\n",
            "1\r\na\n0\r\n\r\n",
            "1 a\r\na\r\n0\r\n\r\n",
            "1\x0c;a\r\na\r\n0\r\n\r\n",
            "1;\ra\r\na\r\n0\r\n\r\n",
            "10000000000000000\r\na\r\n0\r\n\r\n",
            "0\r\nX-A\r\n\r\n",
            "0\r\nX A: 1\r\n\r\n",
            "0\r\n\n",
            "0\r\nX-A: 1\n\r\n",
            "0\r\nX-A: 1\r\n\n",
        ] {
            for size in [1, 3, text.len()] {
                assert!(read(text, size).is_err(), "{text:?} in pieces of {size}");
            }
        }
        let longest = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(254));
        for size in [1, 7, longest.len()] {
            assert_eq!(read_as(Chunked::of_request(), &longest, size).unwrap().0, "a");
        }
        let long = format!("1;{}", "x".repeat(256));
        for text in [long.clone(), long + "\r\na\r\n0\r\n\r\n"] {
            assert!(read_as(Chunked::of_request(), &text, text.len()).is_err());
        }
        let long = format!("1;{}", "x".repeat(4 * 1024 + 1));
        assert!(read(&long, long.len()).is_err());
        let trailers = format!("0\r\nX: {}", "x".repeat(MOST_TRAILERS));
        for text in [trailers.clone(), trailers + "\r\n\r\n"] {
            assert!(read(&text, text.len()).is_err());
        }
    }
}
