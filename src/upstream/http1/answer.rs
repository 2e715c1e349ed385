//! The head of an answer: parsed, its framing settled, and the fields of this hop taken out.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header};
use httparse::{ParserConfig, Status};

use super::chunked::Chunked;
use crate::web::fields::{self, ConnectionOptions};

/// Most bytes of one head.
const MOST_BYTES: usize = 64 * 1024;
/// Most fields of one head.
const MOST_FIELDS: usize = 100;
/// Fields that are put on behind; room for them is made at once.
const OURS: usize = 4;

/// Why an answer is none.
#[derive(Debug, thiserror::Error)]
pub enum MalformedAnswer {
    #[error("its head is no HTTP/1")]
    Head(#[from] httparse::Error),
    #[error("its head is larger than {MOST_BYTES} bytes")]
    TooLarge,
    #[error("a field of its head has a name or a value that must not be")]
    Field,
    #[error("the length of its body can be read in two ways")]
    Framing,
    #[error("a chunk of its body is malformed")]
    Chunk,
    #[error("its trailers are malformed or too large")]
    Trailers,
    #[error("more than {0} interim answers came before it")]
    Interim(u32),
}

/// How long the body is (RFC 9112 §6.3).
#[derive(Debug)]
pub enum Framing {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

/// A parsed head.
#[derive(Debug)]
pub struct Head {
    pub response: Response<()>,
    pub framing: Framing,
    /// Another request may follow on the connection.
    pub keep_alive: bool,
}

/// What the fields of this hop say.
#[derive(Default)]
struct Hop {
    length: Option<u64>,
    chunked: bool,
    options: ConnectionOptions,
}

/// Takes one head off the front of `read`; `None` while it is not complete. `bodiless` says that the request was one whose
/// answer never has a body (HEAD).
pub fn parse(read: &mut BytesMut, bodiless: bool) -> Result<Option<Head>, MalformedAnswer> {
    let mut space = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, read, &mut space)?;
    let Status::Complete(length) = status else {
        return if read.len() > MOST_BYTES { Err(MalformedAnswer::TooLarge) } else { Ok(None) };
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(MalformedAnswer::Head(httparse::Error::Status))?;
    let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };

    // Where each field is in the head, which is cut off the buffer only now.
    let start = read.as_ptr() as usize;
    let mut places = [(0_u32, 0_u32, 0_u32, 0_u32); MOST_FIELDS];
    let place = |bytes: &[u8]| {
        let from = bytes.as_ptr() as usize - start;
        (u32::try_from(from).unwrap_or(0), u32::try_from(from + bytes.len()).unwrap_or(0))
    };
    let count = parsed.headers.len();
    for (field, slot) in parsed.headers.iter().zip(&mut places) {
        let (name, value) = (place(field.name.as_bytes()), place(field.value));
        *slot = (name.0, name.1, value.0, value.1);
    }
    let head = read.split_to(length).freeze();
    let mut headers = HeaderMap::with_capacity(count + OURS);
    let mut hop = Hop::default();
    for &(name, name_end, value, value_end) in places.iter().take(count) {
        let name = HeaderName::from_bytes(part(&head, name, name_end)).map_err(|_| MalformedAnswer::Field)?;
        let value = HeaderValue::from_maybe_shared(head.slice(value as usize..value_end as usize))
            .map_err(|_| MalformedAnswer::Field)?;
        if hop.note(&name, &value, version, status)? {
            headers.append(name, value);
        }
    }
    for name in hop.options.listed.iter().filter(|&name| name != header::UPGRADE) {
        headers.remove(name);
    }
    let framing = hop.framing(status, bodiless);
    let keep_alive = match version {
        Version::HTTP_10 => hop.options.keep_alive && !hop.options.close,
        _ => !hop.options.close,
    };
    let keep_alive = keep_alive && !matches!(framing, Framing::UntilClose);
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version;
    *response.headers_mut() = headers;
    Ok(Some(Head { response, framing, keep_alive }))
}

fn part(head: &Bytes, from: u32, to: u32) -> &[u8] {
    head.get(from as usize..to as usize).unwrap_or_default()
}

impl Hop {
    /// Notes what a field says of this hop, and whether it goes on beyond it.
    fn note(
        &mut self,
        name: &HeaderName,
        value: &HeaderValue,
        version: Version,
        status: StatusCode,
    ) -> Result<bool, MalformedAnswer> {
        match *name {
            header::CONTENT_LENGTH => {
                let length = fields::content_length(value);
                if length.is_none() || self.length.is_some() || self.chunked {
                    return Err(MalformedAnswer::Framing);
                }
                self.length = length;
                Ok(true)
            }
            header::TRANSFER_ENCODING => {
                let chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked");
                if !chunked || self.chunked || self.length.is_some() || version != Version::HTTP_11 {
                    return Err(MalformedAnswer::Framing);
                }
                self.chunked = true;
                Ok(false)
            }
            header::CONNECTION => {
                self.options.note(value);
                Ok(false)
            }
            header::UPGRADE => Ok(status == StatusCode::SWITCHING_PROTOCOLS),
            header::TRAILER => Ok(true),
            _ => Ok(!fields::is_hop_by_hop(name)),
        }
    }

    fn framing(&self, status: StatusCode, bodiless: bool) -> Framing {
        let has_none = bodiless
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        match self.length {
            _ if has_none => Framing::Length(0),
            Some(length) => Framing::Length(length),
            None if self.chunked => Framing::Chunked(Chunked::default()),
            None => Framing::UntilClose,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<Head>, MalformedAnswer> {
        parse(&mut BytesMut::from(text), false)
    }

    #[test]
    fn a_head_is_taken_off_and_the_body_stays() {
        let mut read =
            BytesMut::from("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\nx-a:  2 \r\n\r\nokmore");
        let head = parse(&mut read, false).unwrap().unwrap();
        assert_eq!(&read[..], b"okmore");
        assert!(head.keep_alive);
        assert!(matches!(head.framing, Framing::Length(2)));
        let values: Vec<_> = head.response.headers().get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "2"]);
    }

    #[test]
    fn a_head_that_is_not_all_there_leaves_the_bytes_alone() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        for end in 0..text.len() {
            let mut read = BytesMut::from(text.get(..end).unwrap());
            assert!(parse(&mut read, false).unwrap().is_none(), "{end}");
            assert_eq!(read.len(), end);
        }
    }

    #[test]
    fn fields_of_this_hop_end_here_and_others_do_not() {
        let head = head(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop, Content-Type\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\n\
             Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nContent-Type: text/plain\r\nTrailer: X-Sum\r\n\
             Transfer-Encoding: Chunked\r\n\r\n",
        );
        let head = head.unwrap().unwrap();
        let names: Vec<_> = head.response.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["trailer", "content-type"]);
        assert!(matches!(head.framing, Framing::Chunked(_)));
    }

    #[test]
    fn the_length_of_a_body_follows_the_standard() {
        let cases = [
            ("200 OK\r\n\r\n", "UntilClose"),
            ("200 OK\r\nContent-Length: 0\r\n\r\n", "Length(0)"),
            ("204 No Content\r\n\r\n", "Length(0)"),
            ("304 Not Modified\r\nContent-Length: 5\r\n\r\n", "Length(0)"),
            ("103 Early Hints\r\n\r\n", "Length(0)"),
        ];
        for (text, framing) in cases {
            let head = head(&format!("HTTP/1.1 {text}")).unwrap().unwrap();
            assert_eq!(format!("{:?}", head.framing), framing, "{text}");
        }
        let bodiless = parse(&mut BytesMut::from("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), true);
        let bodiless = bodiless.unwrap().unwrap();
        assert!(matches!(bodiless.framing, Framing::Length(0)));
        assert_eq!(bodiless.response.headers().get(header::CONTENT_LENGTH).unwrap(), "9");
    }

    #[test]
    fn a_connection_is_kept_only_when_both_sides_know_where_the_answer_ends() {
        let cases = [
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            ("HTTP/1.1 204 No Content\r\nConnection: Close\r\n\r\n", false),
            ("HTTP/1.0 204 No Content\r\n\r\n", false),
            ("HTTP/1.0 204 No Content\r\nConnection: keep-alive\r\n\r\n", true),
            ("HTTP/1.0 204 No Content\r\nConnection: keep-alive, close\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\n", false),
        ];
        for (text, kept) in cases {
            assert_eq!(head(text).unwrap().unwrap().keep_alive, kept, "{text}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_no_answer() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX-A : 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\n folded: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX-A: a\0b\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/3.0 200 OK\r\n\r\n",
            "junk\r\n\r\n",
        ] {
            assert!(head(text).is_err(), "{text:?}");
        }
        assert!(matches!(head(&"x".repeat(MOST_BYTES + 1)), Err(MalformedAnswer::Head(_))));
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MOST_BYTES));
        assert!(matches!(head(&long), Err(MalformedAnswer::TooLarge)));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: 1\r\n".repeat(MOST_FIELDS + 1));
        assert!(head(&many).is_err());
    }
}
