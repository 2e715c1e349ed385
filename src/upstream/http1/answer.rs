//! The head of an answer: parsed, its framing settled, and the fields of this hop taken out.

use bytes::BytesMut;
use http::{HeaderName, StatusCode, Version, header};

use crate::web::{
    body_part::MalformedBody,
    bound,
    chunked::Chunked,
    fields::{self, ConnectionOptions},
    framing::Framing,
    head::{Fields, Lines, MalformedHead, is_text},
    portal_fields::PortalFields,
};

/// Most bytes of one head.
const MOST_BYTES: usize = 128 * 1024;
/// Most fields of one head: more than a client may send, since portals set many cookies at once.
const MOST_FIELDS: usize = 1000;
/// Most bytes of a field's name that are told.
const MOST_TOLD: usize = 64;

/// Why an answer is none.
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
    #[error("the length of its body can be read in two ways")]
    Framing,
    #[error("its body cannot be read")]
    Body(#[from] MalformedBody),
    #[error("more than {0} interim answers came before it")]
    Interim(u32),
}

/// A parsed head.
#[derive(Debug)]
pub struct Head {
    pub status: StatusCode,
    pub fields: PortalFields,
    pub framing: Framing,
    /// Another request may follow on the connection.
    pub keep_alive: bool,
    /// Somebody signs the connection in.
    pub binds: bool,
}

/// What the fields of this hop say.
#[derive(Default)]
struct Hop {
    length: Option<u64>,
    chunked: bool,
    options: ConnectionOptions,
    binds: bool,
}

/// Takes one head off the front of `read`; `None` while it is not complete. `bodiless` says that the request was one whose
/// answer never has a body (HEAD).
pub fn parse(read: &mut BytesMut, bodiless: bool) -> Result<Option<Head>, MalformedAnswer> {
    // Old servers send an empty line behind a body.
    let before = if read.starts_with(b"\r\n") { 2 } else { 0 };
    let start = read.get(before..).unwrap_or_default();
    if start != b"\r" && !start.iter().zip(b"HTTP/1.").all(|(byte, expected)| byte == expected) {
        return Err(MalformedAnswer::StatusLine);
    }
    let mut lines = Lines::of(read, before, true);
    let mut fields = Fields::default();
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
    let mut hop = Hop::default();
    let text = read.split_to(length).freeze();
    let mut fields =
        PortalFields::read(text, &fields, version, |name, value| hop.note(name, value, version, status))?;
    if hop.options.is_endless() {
        return Err(MalformedHead::TooLarge.into());
    }
    for name in hop.options.listed.iter().filter(|&name| name != header::UPGRADE) {
        fields.drop_all(name);
    }
    let framing = hop.framing(status, bodiless);
    let keep_alive = match version {
        Version::HTTP_10 => hop.options.keep_alive && !hop.options.close,
        _ => !hop.options.close,
    };
    let keep_alive = keep_alive && !matches!(framing, Framing::UntilClose);
    Ok(Some(Head { status, fields, framing, keep_alive, binds: hop.binds }))
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

impl Hop {
    /// Notes what a field says of this hop, and whether it goes on beyond it.
    fn note(
        &mut self,
        name: &HeaderName,
        value: &[u8],
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
                // RFC 9110 §8.6: there it says nothing, and clients of HTTP/2 take it for an error.
                Ok(!status.is_informational() && status != StatusCode::NO_CONTENT)
            }
            header::WWW_AUTHENTICATE | header::PROXY_AUTHENTICATE => {
                self.binds |= bound::binds_connection(value);
                Ok(*name == header::WWW_AUTHENTICATE)
            }
            header::TRANSFER_ENCODING => {
                let chunked = value.eq_ignore_ascii_case(b"chunked");
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

    /// How long the body is (RFC 9112 §6.3).
    fn framing(&self, status: StatusCode, bodiless: bool) -> Framing {
        let has_none = bodiless
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        match self.length {
            _ if has_none => Framing::Length(0),
            Some(length) => Framing::Length(length),
            None if self.chunked => Framing::Chunked(Chunked::of_answer()),
            None => Framing::UntilClose,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

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
        let mut headers = HeaderMap::new();
        head.fields.add_to(&mut headers);
        assert_eq!(headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn a_head_that_is_not_all_there_leaves_the_bytes_alone() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        for end in 0..text.len() {
            let mut read = BytesMut::from(text.get(..end).unwrap());
            assert!(parse(&mut read, false).unwrap().is_none(), "{end}");
            assert_eq!(read.len(), end);
        }
        assert!(head("\r").is_ok_and(|head| head.is_none()));
        assert!(head(&format!("\r\n{text}")).is_ok_and(|head| head.is_some()));
    }

    #[test]
    fn fields_of_this_hop_end_here_and_others_do_not() {
        let head = head(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop, Content-Type\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\n\
             Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nContent-Type: text/plain\r\nTrailer: X-Sum\r\n\
             Transfer-Encoding: Chunked\r\n\r\n",
        );
        let head = head.unwrap().unwrap();
        let mut headers = HeaderMap::new();
        head.fields.add_to(&mut headers);
        let names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-type", "trailer"]);
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
        assert_eq!(bodiless.fields.get(&header::CONTENT_LENGTH).unwrap(), b"9");
    }

    #[test]
    fn an_answer_that_signs_its_connection_in_says_so() {
        let binds = |field: &str| {
            head(&format!("HTTP/1.1 401 Unauthorized\r\n{field}\r\n\r\n")).unwrap().unwrap().binds
        };
        for field in [
            "WWW-Authenticate: NTLM",
            "www-authenticate: Basic realm=x, negotiate",
            "Proxy-Authenticate: kerberos",
        ] {
            assert!(binds(field), "{field}");
        }
        assert!(binds("WWW-Authenticate: Basic realm=x\r\nWWW-Authenticate: Negotiate oYG2"));
        assert!(!binds("WWW-Authenticate: Basic realm=ntlm"));
    }

    #[test]
    fn a_length_that_says_nothing_stays_behind() {
        for (status, stays) in
            [("204 No Content", false), ("103 Early Hints", false), ("304 Not Modified", true)]
        {
            let head = head(&format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n")).unwrap().unwrap();
            assert_eq!(head.fields.get(&header::CONTENT_LENGTH).is_some(), stays, "{status}");
        }
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
            "HTTP/1.1 200 O\x1bK\r\n\r\n",
            "HTTP/3.0 200 OK\r\n\r\n",
            "junk\r\n\r\n",
        ] {
            assert!(head(text).is_err(), "{text:?}");
        }
        assert!(matches!(head("HTTQ"), Err(MalformedAnswer::StatusLine)), "as soon as it shows");
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MOST_BYTES));
        assert!(matches!(head(&long), Err(MalformedAnswer::Size { field }) if field == "X"));
        let some = "X: 1\r\n".repeat(MOST_FIELDS);
        assert!(head(&format!("HTTP/1.1 200 OK\r\n{some}\r\n")).is_ok());
        let many = head(&format!("HTTP/1.1 200 OK\r\n{some}X-Last: 1\r\n\r\n"));
        assert!(matches!(many, Err(MalformedAnswer::Fields { field }) if field == "X-Last"));
        let lists = format!("HTTP/1.1 200 OK\r\nConnection: {}\r\n\r\n", "x,".repeat(MOST_FIELDS + 1));
        assert!(matches!(head(&lists), Err(MalformedAnswer::Head(MalformedHead::TooLarge))));
    }
}
