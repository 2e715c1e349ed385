//! The chunked coding of an answer (RFC 9112 §7.1), read strictly: what two readers could understand differently is an error.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{answer::MalformedAnswer, exchange::take};

/// Most bytes of one line that tells a chunk's size, extensions included.
const MOST_LINE: usize = 4 * 1024;
/// Most bytes of all trailers.
const MOST_TRAILERS: usize = 16 * 1024;
/// Most fields of the trailers.
const MOST_FIELDS: usize = 100;

/// Where in the coding the next byte belongs.
#[derive(Debug, Default)]
pub enum Chunked {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// What came next.
#[derive(Debug)]
pub enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

impl Chunked {
    /// Takes the next part off the front of `read`; `None` when more has to come first.
    pub fn next(&mut self, read: &mut BytesMut) -> Result<Option<Part>, MalformedAnswer> {
        loop {
            match *self {
                Self::Size => match line(read)? {
                    None => return Ok(None),
                    Some(0) => *self = Self::Trailers,
                    Some(size) => *self = Self::Data(size),
                },
                Self::Data(left) => {
                    if read.is_empty() {
                        return Ok(None);
                    }
                    let data = take(read, left);
                    let left = left.saturating_sub(u64::try_from(data.len()).unwrap_or(u64::MAX));
                    *self = if left == 0 { Self::DataEnd } else { Self::Data(left) };
                    self.end_at_once(read);
                    return Ok(Some(Part::Data(data)));
                }
                Self::DataEnd => {
                    if read.len() < 2 {
                        return Ok(None);
                    }
                    if !read.starts_with(b"\r\n") {
                        return Err(MalformedAnswer::Chunk);
                    }
                    read.advance(2);
                    *self = Self::Size;
                }
                Self::Trailers => match trailers(read)? {
                    None => return Ok(None),
                    Some(fields) => {
                        *self = Self::Done;
                        return Ok(Some(if fields.is_empty() { Part::End } else { Part::Trailers(fields) }));
                    }
                },
                Self::Done => return Ok(Some(Part::End)),
            }
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// An end that has come together with the last data is seen together with it: nobody has to ask once more.
    fn end_at_once(&mut self, read: &mut BytesMut) {
        const END: &[u8] = b"\r\n0\r\n\r\n";
        if matches!(self, Self::DataEnd) && read.starts_with(END) {
            read.advance(END.len());
            *self = Self::Done;
        }
    }
}

/// A chunk's size, from a line that ends properly. Extensions are read over: nobody is known to use them.
fn line(read: &mut BytesMut) -> Result<Option<u64>, MalformedAnswer> {
    let Some(end) = memchr::memchr(b'\n', read) else {
        return if read.len() > MOST_LINE { Err(MalformedAnswer::Chunk) } else { Ok(None) };
    };
    let line = read.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(MalformedAnswer::Chunk)?;
    if line.len() > MOST_LINE || line.contains(&b'\r') {
        return Err(MalformedAnswer::Chunk);
    }
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, extension) = line.split_at(digits);
    let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t');
    let is_extension = extension.is_empty() || extension.iter().find(|byte| !is_space(byte)) == Some(&b';');
    if digits.is_empty() || digits.len() > 15 || !is_extension {
        return Err(MalformedAnswer::Chunk);
    }
    let text = std::str::from_utf8(digits).map_err(|_| MalformedAnswer::Chunk)?;
    let size = u64::from_str_radix(text, 16).map_err(|_| MalformedAnswer::Chunk)?;
    read.advance(end + 1);
    Ok(Some(size))
}

fn trailers(read: &mut BytesMut) -> Result<Option<HeaderMap>, MalformedAnswer> {
    let mut space = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let (length, fields) = match httparse::parse_headers(read, &mut space) {
        Ok(httparse::Status::Complete(parsed)) => parsed,
        Ok(httparse::Status::Partial) if read.len() <= MOST_TRAILERS => return Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => return Err(MalformedAnswer::Trailers),
    };
    // A bare LF ends lines for this parser, and not for every other.
    let section = read.get(..length).unwrap_or_default();
    if memchr::memchr_iter(b'\n', section).any(|at| !section.get(..at).unwrap_or_default().ends_with(b"\r")) {
        return Err(MalformedAnswer::Trailers);
    }
    let mut map = HeaderMap::new();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else { return Err(MalformedAnswer::Trailers) };
        map.append(name, value);
    }
    read.advance(length);
    Ok(Some(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `text` in pieces of `size` bytes: the data, the trailers, and what is left over.
    fn read(text: &str, size: usize) -> Result<(String, HeaderMap, String), MalformedAnswer> {
        let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
        let (mut chunked, mut buffer) = (Chunked::default(), BytesMut::new());
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
        let long = format!("1;{}", "x".repeat(MOST_LINE));
        assert!(read(&long, long.len()).is_err());
        let trailers = format!("0\r\nX: {}", "x".repeat(MOST_TRAILERS));
        assert!(read(&trailers, trailers.len()).is_err());
    }
}
