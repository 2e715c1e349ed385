//! HTTP/1.1 request heads: parsed once, and only if they have a single reading (RFC 9112 §2.2, §3, §5, §6).
//!
//! What lenient parsers forgive is refused here, as soon as its line is complete.

use bytes::{Bytes, BytesMut};
use http::{HeaderName, Method, Request, Uri, Version, header};
use memchr::memchr;

use super::{
    chunked::Chunked,
    fields::{self, ConnectionOptions},
    framing::{Ambiguous, BodyLength, Framing},
    head::{FieldSpans, Lines, MOST_FIELDS, MalformedHead},
};

/// Largest head in bytes, unless configured otherwise.
pub const MOST_HEAD_BYTES: usize = 16 * 1024;

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedRequest {
    #[error("malformed request line")]
    Line,
    #[error("malformed request target")]
    Target,
    #[error(transparent)]
    Head(#[from] MalformedHead),
    #[error(transparent)]
    Framing(#[from] Ambiguous),
}

/// A head, and what it says about the connection. `B` is what the caller makes of its bytes.
#[derive(Debug)]
pub struct RequestHead<B> {
    /// Boxed, since it moves through every stage.
    pub request: Box<Request<B>>,
    /// Absent when no body follows.
    pub announced: Option<Announced>,
    /// The connection can carry another request.
    pub keep_alive: bool,
    /// It has an `Upgrade`: if the response agrees, the bytes that follow are of another protocol.
    pub offers_upgrade: bool,
    pub takes_trailers: bool,
}

/// The body that the head announces.
#[derive(Debug)]
pub struct Announced {
    pub framing: Framing,
    /// The client waits for a `100 Continue` before it sends it.
    pub expects_continue: bool,
}

/// Takes one head of at most [`MOST_HEAD_BYTES`] from the front of `read`; `None` while it is incomplete.
pub fn parse(read: &mut BytesMut) -> Result<Option<RequestHead<Bytes>>, MalformedRequest> {
    parse_within(read, MOST_HEAD_BYTES, |head| head)
}

/// The same with a limit of `most` bytes. `body` makes the request's body from the head's bytes.
pub fn parse_within<B>(
    read: &mut BytesMut,
    most: usize,
    body: impl FnOnce(Bytes) -> B,
) -> Result<Option<RequestHead<B>>, MalformedRequest> {
    // One empty line before a request is tolerated, a second one is not.
    let before = if read.starts_with(b"\r\n") { 2 } else { 0 };
    let mut lines = Lines::of(read, before, false);
    let mut fields = FieldSpans::default();
    let line = lines.line()?.map(|line| RequestLine::parse(line.of(read), before)).transpose()?;
    let is_whole = line.is_some() && lines.find(&mut fields, MOST_FIELDS)?;
    let length = if is_whole { lines.at() } else { read.len() };
    if length > most {
        return Err(MalformedHead::TooLarge.into());
    }
    let Some(line) = line.filter(|_| is_whole) else { return Ok(None) };
    build(read.split_to(length).freeze(), line, &fields, body).map(Some)
}

/// The parsed request line.
struct RequestLine {
    method: Method,
    /// Where the target is in the head: start and end.
    target: (usize, usize),
    version: Version,
}

impl RequestLine {
    /// The line starts at byte `before` of the head.
    fn parse(line: &[u8], before: usize) -> Result<Self, MalformedRequest> {
        let end_of_method = memchr(b' ', line).ok_or(MalformedRequest::Line)?;
        let (method, rest) = line.split_at(end_of_method);
        let (target, version) = match rest {
            [b' ', target @ .., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'] => {
                (target, Version::HTTP_11)
            }
            [b' ', target @ .., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'] => {
                (target, Version::HTTP_10)
            }
            _ => return Err(MalformedRequest::Line),
        };
        if target.iter().any(|&byte| byte <= b' ' || byte == b'#' || byte == 0x7f) {
            return Err(MalformedRequest::Line);
        }
        let method = Method::from_bytes(method).map_err(|_| MalformedRequest::Line)?;
        let start = before + end_of_method + 1;
        Ok(Self { method, target: (start, start + target.len()), version })
    }
}

fn build<B>(
    text: Bytes,
    line: RequestLine,
    fields: &FieldSpans,
    body: impl FnOnce(Bytes) -> B,
) -> Result<RequestHead<B>, MalformedRequest> {
    let mut info = MessageInfo { version: line.version, ..MessageInfo::default() };
    let headers = fields.read(&text, |name, value| info.note(name, value))?;
    if info.options.is_endless() {
        return Err(MalformedHead::TooLarge.into());
    }
    let target = text.slice(line.target.0..line.target.1);
    let mut request = Box::new(Request::new(body(text)));
    *request.uri_mut() = Uri::from_maybe_shared(target).map_err(|_| MalformedRequest::Target)?;
    *request.method_mut() = line.method;
    *request.version_mut() = line.version;
    *request.headers_mut() = headers;
    let expects_continue = info.expects_continue && line.version == Version::HTTP_11;
    let framing = match info.length.length() {
        _ if info.length.is_chunked() => Some(Framing::Chunked(Chunked::of_request())),
        None | Some(0) => None,
        Some(length) => Some(Framing::Length(length)),
    };
    let options = &info.options;
    Ok(RequestHead {
        request,
        announced: framing.map(|framing| Announced { framing, expects_continue }),
        // After an `Upgrade` it is uncertain which protocol the next bytes belong to.
        keep_alive: !info.offers_upgrade
            && !options.close
            && (line.version == Version::HTTP_11 || options.keep_alive),
        offers_upgrade: info.offers_upgrade,
        takes_trailers: info.takes_trailers,
    })
}

/// What the fields say about this hop and about the body.
#[derive(Default)]
struct MessageInfo {
    version: Version,
    length: BodyLength,
    options: ConnectionOptions,
    offers_upgrade: bool,
    expects_continue: bool,
    takes_trailers: bool,
}

impl MessageInfo {
    /// Takes one field into account; one with two readings is refused.
    fn note(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), MalformedRequest> {
        match *name {
            header::CONTENT_LENGTH => self.length.content_length(value)?,
            header::TRANSFER_ENCODING => self.length.transfer_encoding(value, self.version)?,
            header::CONNECTION => self.options.note(value),
            header::UPGRADE => self.offers_upgrade = true,
            header::EXPECT => self.expects_continue = value.eq_ignore_ascii_case(b"100-continue"),
            header::TE => self.takes_trailers |= fields::has_token(value, b"trailers"),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: MalformedRequest = MalformedRequest::Line;
    const FIELD_LINE: MalformedRequest = MalformedRequest::Head(MalformedHead::Line);
    const FIELD: MalformedRequest = MalformedRequest::Head(MalformedHead::Field);
    const FRAMING: MalformedRequest = MalformedRequest::Framing(Ambiguous);

    /// The head and the bytes after it; the same whether the bytes come at once or one by one.
    fn head(input: &str) -> Result<(RequestHead<Bytes>, String), MalformedRequest> {
        let mut read = BytesMut::from(input);
        let at_once = parse(&mut read);
        let mut slowly = BytesMut::new();
        let mut bytes = input.bytes();
        let piecemeal = loop {
            match parse(&mut slowly) {
                Ok(None) => {}
                done => break done,
            }
            let Some(byte) = bytes.next() else { panic!("{input:?} does not end") };
            slowly.extend([byte]);
        };
        assert_eq!(at_once.as_ref().err(), piecemeal.as_ref().err(), "{input:?}");
        let head = at_once?.unwrap();
        assert_eq!(format!("{head:?}"), format!("{:?}", piecemeal?.unwrap()));
        Ok((head, String::from_utf8(read.to_vec()).unwrap()))
    }

    #[test]
    fn an_ordinary_head_is_taken_off_and_what_follows_stays() {
        let text =
            "\r\nPOST /a?b HTTP/1.1\r\nHost: a\r\nX-A:\t1 \r\nx-a:\r\nContent-Length: 3\r\n\r\nabcGET /";
        let (head, left) = head(text).unwrap();
        assert_eq!(left, "abcGET /");
        let request = &head.request;
        assert_eq!((request.method(), request.version()), (&Method::POST, Version::HTTP_11));
        assert_eq!(request.uri(), "/a?b");
        assert_eq!(request.headers().get_all("x-a").iter().collect::<Vec<_>>(), ["1", ""]);
        assert!(matches!(
            head.announced,
            Some(Announced { framing: Framing::Length(3), expects_continue: false })
        ));
        assert!(head.keep_alive && !head.offers_upgrade && !head.takes_trailers);
    }

    #[test]
    fn what_a_head_says_of_its_connection_is_noted() {
        let says = |fields: &str, version: &str| {
            let (head, _) = head(&format!("POST / HTTP/{version}\r\n{fields}\r\n\r\n")).unwrap();
            let waits = head.announced.is_some_and(|body| body.expects_continue);
            (head.keep_alive, waits, head.offers_upgrade, head.takes_trailers)
        };
        assert_eq!(says("X: y", "1.1"), (true, false, false, false));
        assert_eq!(says("Connection: x, Close", "1.1"), (false, false, false, false));
        assert_eq!(says("X: y", "1.0"), (false, false, false, false));
        assert_eq!(says("Connection: Keep-Alive", "1.0"), (true, false, false, false));
        assert_eq!(says("Connection: keep-alive, close", "1.0"), (false, false, false, false));
        assert_eq!(says("Upgrade: websocket", "1.1"), (false, false, true, false));
        assert_eq!(says("TE: gzip, trailers", "1.1"), (true, false, false, true));
        assert_eq!(says("Expect: 100-Continue\r\nContent-Length: 1", "1.1"), (true, true, false, false));
        assert_eq!(says("Expect: 100-continue", "1.1"), (true, false, false, false));
        assert!(!says("Expect: 100-continue\r\nContent-Length: 1", "1.0").1);
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let cases = [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", FIELD_LINE),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", FIELD_LINE),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", FIELD_LINE),
            ("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", FIELD),
            ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", FIELD_LINE),
            ("GET / HTTP/1.1\r\nHost: a\r\n b: c\r\n\r\n", FIELD),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", FIELD),
            ("GET / HTTP/1.1\r\n: a\r\n\r\n", FIELD),
            ("GET / HTTP/1.1\r\nX: a\0b\r\n\r\n", FIELD),
            ("GET / HTTP/1.1\r\nX: \x0c1\r\n\r\n", FIELD),
            ("GET / HTTP/1.1\r\nno colon\r\n\r\n", FIELD_LINE),
            ("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", LINE),
            ("GET  / HTTP/1.1\r\n\r\n", LINE),
            ("GET /  HTTP/1.1\r\n\r\n", LINE),
            ("GET /a b HTTP/1.1\r\n\r\n", LINE),
            ("GET /\tHTTP/1.1\r\n\r\n", LINE),
            ("GET /\r HTTP/1.1\r\n\r\n", LINE),
            ("GET / HTTP/1.1 \r\n\r\n", LINE),
            ("GET / HTTP/1.2\r\n\r\n", LINE),
            ("GET / http/1.1\r\n\r\n", LINE),
            ("GET / HTTP/2.0\r\n\r\n", LINE),
            ("GET /\r\n\r\n", LINE),
            ("GET  HTTP/1.1\r\n\r\n", MalformedRequest::Target),
            ("G(T / HTTP/1.1\r\n\r\n", LINE),
            (" GET / HTTP/1.1\r\n\r\n", LINE),
            ("\nGET / HTTP/1.1\r\n\r\n", FIELD_LINE),
            ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", LINE),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", FRAMING),
            ("POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", FRAMING),
            ("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", FRAMING),
            ("POST / HTTP/1.1\r\nContent-Length: \r\n\r\n", FRAMING),
            ("POST / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n", FRAMING),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", FRAMING),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", FRAMING),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", FRAMING),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", FRAMING),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", FRAMING),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", FRAMING),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: \r\n\r\n", FRAMING),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", FRAMING),
        ];
        for (input, refusal) in cases {
            assert_eq!(head(input).unwrap_err(), refusal, "{input:?}");
        }
    }

    #[test]
    fn a_head_that_is_too_large_is_refused_before_it_ends() {
        let long = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(MOST_HEAD_BYTES));
        assert_eq!(parse(&mut BytesMut::from(&*long)).unwrap_err(), MalformedHead::TooLarge.into());
        assert_eq!(
            parse(&mut BytesMut::from(&*(long + "\r\n\r\n"))).unwrap_err(),
            MalformedHead::TooLarge.into()
        );
        let many = format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(MOST_FIELDS));
        assert!(parse(&mut BytesMut::from(&*many)).unwrap().is_none());
        assert!(parse(&mut BytesMut::from(&*(many.clone() + "\r\n"))).unwrap().is_some());
        assert_eq!(
            parse(&mut BytesMut::from(&*(many + "X: y\r\n"))).unwrap_err(),
            MalformedHead::TooLarge.into()
        );
        let lists = |fields: usize| {
            let list = "x,".repeat(fields);
            parse(&mut BytesMut::from(&*format!("GET / HTTP/1.1\r\nConnection: {list}\r\n\r\n")))
        };
        assert!(lists(MOST_FIELDS).unwrap().is_some());
        assert_eq!(lists(MOST_FIELDS + 1).unwrap_err(), MalformedHead::TooLarge.into());
    }
}
