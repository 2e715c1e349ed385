//! Writes response heads and chooses the coding of the body (RFC 9112 §6.3).

use http::{HeaderName, HeaderValue, StatusCode, Version, header};

use crate::{
    http1::{encode::Coding, fields},
    web::reply::Head,
};

/// What the head depends on besides the response itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponseContext {
    pub(super) version: Version,
    /// The request was a HEAD.
    pub(super) is_head: bool,
    pub(super) takes_trailers: bool,
    /// The size of the body, if it is known.
    pub(super) size: Option<u64>,
    /// The connection closes after this response.
    pub(super) last: bool,
}

impl ResponseContext {
    fn coding(&self, status: StatusCode, head: &Head) -> Coding {
        let has_none = self.is_head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        match self.size {
            _ if has_none => Coding::Nothing,
            Some(size) => Coding::Length(size),
            None if self.version == Version::HTTP_10 => Coding::UntilClose,
            None if self.takes_trailers => {
                let announced = head.get(&header::TRAILER);
                Coding::Chunked(announced.and_then(|names| HeaderValue::from_bytes(names).ok()))
            }
            None => Coding::Chunked(None),
        }
    }
}

/// Writes the head; `date` is used if the response has no `Date`.
pub(super) fn write(
    wire: &mut Vec<u8>,
    status: StatusCode,
    head: &Head,
    context: ResponseContext,
    date: impl FnOnce() -> HeaderValue,
) -> Coding {
    let coding = context.coding(status, head);
    match (context.version, status) {
        (Version::HTTP_10, _) => wire.extend_from_slice(b"HTTP/1.0 "),
        (_, StatusCode::OK) => wire.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
        _ => wire.extend_from_slice(b"HTTP/1.1 "),
    }
    if context.version == Version::HTTP_10 || status != StatusCode::OK {
        wire.extend_from_slice(status.as_str().as_bytes());
        wire.push(b' ');
        wire.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
        wire.extend_from_slice(b"\r\n");
    }
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    let leaves_out = |name: &HeaderName| match *name {
        // The response to a HEAD has the length that a GET would have got.
        header::CONTENT_LENGTH => !context.is_head || status == StatusCode::NO_CONTENT,
        header::TRANSFER_ENCODING => true,
        header::CONNECTION => !switches,
        header::TRAILER => !matches!(coding, Coding::Chunked(Some(_))),
        _ => false,
    };
    match head {
        Head::Portal(fields) => fields.write(wire, leaves_out),
        Head::Own(headers) => {
            for (name, value) in headers.iter().filter(|(name, _)| !leaves_out(name)) {
                fields::write(wire, name, value.as_bytes());
            }
        }
    }
    match coding {
        Coding::Length(size) => {
            fields::write(wire, &header::CONTENT_LENGTH, itoa::Buffer::new().format(size).as_bytes());
        }
        Coding::Chunked(_) => fields::write(wire, &header::TRANSFER_ENCODING, b"chunked"),
        Coding::Nothing | Coding::UntilClose => {}
    }
    if !switches && (context.last || coding == Coding::UntilClose) {
        fields::write(wire, &header::CONNECTION, b"close");
    } else if context.version == Version::HTTP_10 {
        fields::write(wire, &header::CONNECTION, b"keep-alive");
    }
    if head.get(&header::DATE).is_none() {
        fields::write(wire, &header::DATE, date().as_bytes());
    }
    wire.extend_from_slice(b"\r\n");
    coding
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;
    use crate::web::{portal_fields::tests::read, reply::Reply};

    const CONTEXT: ResponseContext = ResponseContext {
        version: Version::HTTP_11,
        is_head: false,
        takes_trailers: false,
        size: Some(2),
        last: false,
    };

    const HEAD: ResponseContext = ResponseContext { is_head: true, ..CONTEXT };

    fn head(fields: &[(&str, &str)], status: u16, context: ResponseContext) -> (String, Coding) {
        let mut answer = Response::builder().status(status);
        for (name, value) in fields {
            answer = answer.header(*name, *value);
        }
        let mut wire = Vec::new();
        let date = || HeaderValue::from_static("now");
        let reply = Reply::from(answer.body(()).unwrap());
        let coding = write(&mut wire, reply.status, &reply.head, context, date);
        (String::from_utf8(wire).unwrap(), coding)
    }

    #[test]
    fn an_answer_says_how_long_it_is_and_when_it_was_given() {
        let (wire, coding) = head(&[("x-a", "1"), ("content-length", "2")], 200, CONTEXT);
        assert_eq!(wire, "HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 2\r\ndate: now\r\n\r\n");
        assert_eq!(coding, Coding::Length(2));
        let (wire, _) = head(&[("date", "then")], 404, ResponseContext { last: true, ..CONTEXT });
        assert_eq!(
            wire,
            "HTTP/1.1 404 Not Found\r\ndate: then\r\ncontent-length: 2\r\nconnection: close\r\n\r\n"
        );
    }

    #[test]
    fn a_body_of_unknown_length_is_chunked_or_lasts_until_the_end() {
        let unknown = ResponseContext { size: None, ..CONTEXT };
        let fields = [("trailer", "x-sum"), ("date", "then")];
        let (wire, coding) = head(&fields, 200, unknown);
        assert_eq!(wire, "HTTP/1.1 200 OK\r\ndate: then\r\ntransfer-encoding: chunked\r\n\r\n");
        assert_eq!(coding, Coding::Chunked(None));
        let (wire, coding) = head(&fields, 200, ResponseContext { takes_trailers: true, ..unknown });
        assert!(wire.contains("trailer: x-sum\r\n"), "{wire}");
        assert_eq!(coding, Coding::Chunked(Some(HeaderValue::from_static("x-sum"))));
        let old = ResponseContext { version: Version::HTTP_10, last: true, ..unknown };
        let (wire, coding) = head(&[("date", "then")], 200, old);
        assert_eq!(wire, "HTTP/1.0 200 OK\r\ndate: then\r\nconnection: close\r\n\r\n");
        assert_eq!(coding, Coding::UntilClose);
    }

    #[test]
    fn an_answer_without_a_body_says_nothing_of_one() {
        for (status, context) in [(204, CONTEXT), (304, CONTEXT), (101, CONTEXT), (200, HEAD), (204, HEAD)] {
            let fields = [("date", "then"), ("content-length", "1234"), ("transfer-encoding", "chunked")];
            let (wire, coding) = head(&fields, status, context);
            assert_eq!(coding, Coding::Nothing, "{wire}");
            let would_have = context.is_head && status == 200;
            assert_eq!(wire.contains("content-length: 1234"), would_have, "{wire}");
            assert!(!wire.contains("transfer-encoding"), "{wire}");
        }
    }

    #[test]
    fn what_the_portal_says_is_told_as_far_as_it_holds_here() {
        let fields = "Date: then\r\nContent-Length: 9\r\nTrailer: X-Sum\r\nX-A: 1\r\n";
        let written = |context| {
            let mut wire = Vec::new();
            let date = || HeaderValue::from_static("now");
            let head = Head::Portal(read(fields).unwrap());
            let coding = write(&mut wire, StatusCode::OK, &head, context, date);
            let text = String::from_utf8(wire).unwrap();
            (text.replace("HTTP/1.1 200 OK\r\n", ""), coding)
        };
        let plain = "Date: then\r\nX-A: 1\r\n";
        assert_eq!(written(CONTEXT), (format!("{plain}content-length: 2\r\n\r\n"), Coding::Length(2)));
        let (head, coding) = written(HEAD);
        assert_eq!((&*head, coding), ("Date: then\r\nContent-Length: 9\r\nX-A: 1\r\n\r\n", Coding::Nothing));
        let (head, coding) = written(ResponseContext { size: None, takes_trailers: true, ..CONTEXT });
        assert_eq!(head, "Date: then\r\nTrailer: X-Sum\r\nX-A: 1\r\ntransfer-encoding: chunked\r\n\r\n");
        assert_eq!(coding, Coding::Chunked(Some(HeaderValue::from_static("X-Sum"))));
        let (head, coding) = written(ResponseContext { size: None, ..CONTEXT });
        assert_eq!(head, format!("{plain}transfer-encoding: chunked\r\n\r\n"));
        assert_eq!(coding, Coding::Chunked(None));
    }

    #[test]
    fn only_a_switch_keeps_its_word_about_the_connection() {
        let fields = [("date", "then"), ("connection", "upgrade"), ("upgrade", "websocket")];
        let (wire, _) = head(&fields, 101, ResponseContext { last: true, ..CONTEXT });
        assert!(wire.ends_with("connection: upgrade\r\nupgrade: websocket\r\n\r\n"), "{wire}");
        let (wire, _) = head(&fields, 200, CONTEXT);
        assert!(!wire.contains("connection"), "{wire}");
        let old = ResponseContext { version: Version::HTTP_10, ..CONTEXT };
        assert!(head(&fields, 200, old).0.contains("connection: keep-alive\r\n"));
    }
}
