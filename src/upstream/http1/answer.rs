//! Parses the portal's response heads, and drops hop-by-hop fields.

use bytes::BytesMut;
use http::{HeaderName, StatusCode, header};

use crate::{
    http1::{
        answer_head::{self, Hop, MalformedAnswer},
        framing::Framing,
        head::FieldSpans,
    },
    web::{bound, portal_fields::PortalFields},
};

/// A parsed head.
#[derive(Debug)]
pub struct PortalHead {
    pub status: StatusCode,
    pub fields: PortalFields,
    pub framing: Framing,
    /// The connection can carry another request.
    pub keep_alive: bool,
    /// It authenticates the connection (NTLM, Negotiate).
    pub binds: bool,
}

/// Takes one head from the front of `read`; `None` while it is incomplete. `bodiless`: the request was a HEAD.
pub fn parse(read: &mut BytesMut, bodiless: bool) -> Result<Option<PortalHead>, MalformedAnswer> {
    let mut spans = FieldSpans::default();
    let Some(head) = answer_head::take(read, &mut spans)? else { return Ok(None) };
    let (mut hop, mut binds) = (Hop::new(head.version, head.status), false);
    let note = |name: &HeaderName, value: &[u8]| {
        if matches!(*name, header::WWW_AUTHENTICATE | header::PROXY_AUTHENTICATE) {
            binds |= bound::binds_connection(value);
        }
        hop.note(name, value)
    };
    let mut fields = PortalFields::read(head.text, &spans, head.version, note)?;
    for name in hop.listed()? {
        fields.drop_all(name);
    }
    let framing = hop.framing(bodiless);
    let keep_alive = hop.keeps_alive(&framing);
    Ok(Some(PortalHead { status: head.status, fields, framing, keep_alive, binds }))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::http1::{
        answer_head::{MOST_BYTES, MOST_FIELDS},
        head::MalformedHead,
    };

    fn head(text: &str) -> Result<Option<PortalHead>, MalformedAnswer> {
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
