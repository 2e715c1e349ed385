//! The head of the request to the portal: the client's, without the fields that a client must not set, plus ours.

use std::{fmt::Write as _, net::IpAddr, ops::Range};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::{
    http1::{
        encode::Coding,
        fields::{self, Block, ConnectionOptions},
        spelling,
    },
    identity::IdentityHeaders,
    upstream::http1::{Outgoing, PortalSpans},
    web::{
        bound,
        gate::CanonicalRequest,
        incoming::Incoming,
        loop_mark::LoopMark,
        portal_origin::{InnerOrigin, Naming},
    },
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The signed assertion.
pub const X_PORTCULLIS_JWT_ASSERTION: HeaderName = HeaderName::from_static("x-portcullis-jwt-assertion");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Initial capacity, enough for a usual head.
const USUAL_HEAD: usize = 2048;

/// The `Forwarded` and `X-Forwarded-*` fields. Made once per connection.
#[derive(Clone, Debug)]
pub struct ForwardedFields(Block);

impl ForwardedFields {
    /// `authority` is the requested host, which is always ours.
    pub fn new(client: IpAddr, authority: &str, loop_mark: &LoopMark) -> Self {
        let mut forwarded = String::new();
        // Writing to a `String` cannot fail.
        let _ = match client {
            IpAddr::V4(address) => write!(forwarded, "for={address}"),
            IpAddr::V6(address) => write!(forwarded, "for=\"[{address}]\""),
        };
        let _ = write!(forwarded, ";host=\"{authority}\";proto=https;by={}", loop_mark.as_str());
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"));
        Self(Block::new(vec![
            (X_FORWARDED_FOR, value(&client.to_string())),
            (X_FORWARDED_PROTO, HeaderValue::from_static("https")),
            (X_FORWARDED_HOST, value(authority)),
            (header::FORWARDED, value(&forwarded)),
        ]))
    }
}

/// The gateway's additions to one request.
#[derive(Debug)]
pub struct Additions<'a> {
    pub forwarded: &'a ForwardedFields,
    pub authority: &'a HeaderValue,
    /// `None`: the portal knows itself by our origin.
    pub inner_origin: Option<&'a InnerOrigin>,
    pub request_id: &'a str,
    /// The portal's share of the client's cookies.
    pub cookies: Option<&'a HeaderValue>,
    /// `None`: no identity is sent.
    pub identity: Option<&'a Block>,
    pub assertion: Option<HeaderValue>,
}

/// Whether every server expects a body with this method. With any other method, some read none, and take the body for
/// the next request (RFC 9110 §9.3.1).
pub(super) fn takes_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// Whether the request authenticates its connection.
pub(super) fn binds_connection(request: &CanonicalRequest<Incoming>) -> bool {
    request.field_set().may_have(&header::AUTHORIZATION)
        && request
            .headers()
            .get_all(header::AUTHORIZATION)
            .iter()
            .any(|line| bound::binds_connection(line.as_bytes()))
}

/// Writes the rebuilt head for HTTP/1, and returns the framing of the body. `once`: no other request will follow on the
/// connection.
pub(super) fn write(
    request: &CanonicalRequest<Incoming>,
    reserved: &IdentityHeaders,
    additions: &Additions<'_>,
    once: bool,
) -> Outgoing {
    let out = Vec::with_capacity(USUAL_HEAD);
    let mut wire = Wire { out, head: request.sent_head(), names: PortalSpans::default() };
    wire.out.extend_from_slice(request.method().as_str().as_bytes());
    wire.out.push(b' ');
    wire.out.extend_from_slice(request.target().as_bytes());
    wire.out.extend_from_slice(b" HTTP/1.1\r\n");
    rebuild(request, reserved, additions, &mut wire);
    let Wire { out: mut head, names, .. } = wire;
    let said = request.length();
    let coding = match said {
        Some(length) => Coding::Length(length),
        None if request.has_body() => Coding::Chunked(request.headers().get(header::TRAILER).cloned()),
        None => Coding::Nothing,
    };
    match &coding {
        Coding::Chunked(_) => fields::write_spelled(&mut head, b"Transfer-Encoding", b"chunked"),
        Coding::Length(length) => {
            let mut digits = itoa::Buffer::new();
            fields::write_spelled(&mut head, b"Content-Length", digits.format(*length).as_bytes());
        }
        // RFC 9110 §8.6: so that no server waits for a body.
        Coding::Nothing if takes_body(request.method()) => {
            fields::write_spelled(&mut head, b"Content-Length", b"0");
        }
        Coding::Nothing | Coding::UntilClose => {}
    }
    // Fields about the connection to the portal (RFC 9110 §7.8, §10.1.4).
    let mut last = once || (request.has_body() && !takes_body(request.method()));
    if let Some(protocol) = request.upgrade() {
        fields::write_spelled(&mut head, b"Connection", b"upgrade");
        fields::write_spelled(&mut head, b"Upgrade", protocol.as_bytes());
        // Switched or not: after the offer it is uncertain whose bytes follow.
        last = true;
    } else {
        let takes_trailers = request.field_set().may_have(&header::TE)
            && fields::lists(request.headers(), &header::TE, b"trailers");
        let options: &[u8] = match (last, takes_trailers) {
            (true, true) => b"close, TE",
            (true, false) => b"close",
            (false, true) => b"TE",
            (false, false) => b"",
        };
        if !options.is_empty() {
            fields::write_spelled(&mut head, b"Connection", options);
        }
        if takes_trailers {
            fields::write_spelled(&mut head, b"TE", b"trailers");
        }
    }
    head.extend_from_slice(b"\r\n");
    Outgoing { head, names, coding, last, binds: binds_connection(request) }
}

/// Writes the fields of a rebuilt head.
pub(super) trait HeadWriter {
    /// A field of ours, and its spelling.
    fn add(&mut self, name: &HeaderName, spelled: &str, value: &[u8]);

    /// A field of the client.
    fn pass_on(&mut self, name: &HeaderName, value: &HeaderValue);

    /// The portal's `Host`.
    fn add_host(&mut self, authority: &HeaderValue);

    /// A field of the client that contains the portal's origin in front of `rest`.
    fn pass_on_as_portals(&mut self, name: &HeaderName, authority: &HeaderValue, rest: &[u8]);

    fn add_block(&mut self, block: &Block);
}

/// Writes HTTP/1.
struct Wire<'a> {
    out: Vec<u8>,
    /// The client's head, for the spelling of its fields.
    head: &'a [u8],
    names: PortalSpans,
}

impl Wire<'_> {
    /// The range of the first `length` bytes of the value just written, which ends with `rest` more bytes.
    fn just_written(&self, length: usize, rest: usize) -> Range<usize> {
        let end = self.out.len() - "\r\n".len() - rest;
        end - length..end
    }
}

impl HeadWriter for Wire<'_> {
    fn add(&mut self, _: &HeaderName, spelled: &str, value: &[u8]) {
        fields::write_spelled(&mut self.out, spelled.as_bytes(), value);
    }

    fn pass_on(&mut self, name: &HeaderName, value: &HeaderValue) {
        if let Some(line) = spelling::line_as_sent(self.head, name, value) {
            return self.out.extend_from_slice(line);
        }
        match spelling::as_sent(self.head, name, value) {
            Some(spelled) => fields::write_spelled(&mut self.out, spelled, value.as_bytes()),
            None => fields::write_usual(&mut self.out, name, value.as_bytes()),
        }
    }

    fn add_host(&mut self, authority: &HeaderValue) {
        self.add(&header::HOST, "Host", authority.as_bytes());
        self.names.host = self.just_written(authority.len(), 0);
    }

    fn pass_on_as_portals(&mut self, name: &HeaderName, authority: &HeaderValue, rest: &[u8]) {
        let origin = [b"http://", authority.as_bytes()].concat();
        if let Ok(value) = HeaderValue::try_from([&origin, rest].concat()) {
            self.pass_on(name, &value);
            self.names.origins.push(self.just_written(origin.len(), rest.len()));
        }
    }

    fn add_block(&mut self, block: &Block) {
        self.out.extend_from_slice(block.wire());
    }
}

/// The fields of a call over HTTP/2.
#[derive(Clone, Debug, Default)]
pub(super) struct CallFields {
    pub(super) map: HeaderMap,
    /// Fields that contain the portal's origin, and the text after it. The connection knows the authority.
    pub(super) at_portal: Vec<(HeaderName, Vec<u8>)>,
}

impl HeadWriter for CallFields {
    fn add(&mut self, name: &HeaderName, _: &str, value: &[u8]) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            self.map.append(name.clone(), value);
        }
    }

    /// HTTP/2 has `:authority` instead.
    fn add_host(&mut self, _: &HeaderValue) {}

    fn pass_on(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.map.append(name.clone(), value.clone());
    }

    fn pass_on_as_portals(&mut self, name: &HeaderName, _: &HeaderValue, rest: &[u8]) {
        self.at_portal.push((name.clone(), rest.to_vec()));
    }

    fn add_block(&mut self, block: &Block) {
        for (name, value) in block.fields() {
            self.map.append(name.clone(), value.clone());
        }
    }
}

/// Passes on the fields of the rebuilt head: the client's allowed fields, then ours. The caller adds the length of the
/// body.
pub(super) fn rebuild(
    request: &CanonicalRequest<Incoming>,
    reserved: &IdentityHeaders,
    additions: &Additions<'_>,
    out: &mut impl HeadWriter,
) {
    let headers = request.headers();
    let mut connection = ConnectionOptions::default();
    if request.field_set().may_have(&header::CONNECTION) {
        headers.get_all(header::CONNECTION).iter().for_each(|line| connection.note(line.as_bytes()));
    }
    out.add_host(additions.authority);
    for (name, value) in headers {
        // The gateway has answered an expectation: the body is read as soon as the portal accepts it.
        let stays_behind =
            matches!(*name, header::HOST | header::COOKIE | header::EXPECT | header::CONTENT_LENGTH)
                || (fields::is_hop_by_hop(name) && name != header::TRAILER)
                || reserved.is_reserved(name)
                || connection.listed.contains(name);
        if stays_behind {
            continue;
        }
        match additions.inner_origin.map(|inner| inner.translate(name, value.as_bytes())) {
            None | Some(Naming::Stays) => out.pass_on(name, value),
            Some(Naming::Portal(rest)) => out.pass_on_as_portals(name, additions.authority, rest),
            Some(Naming::Nobody) => out.pass_on(name, &HeaderValue::from_static("null")),
            Some(Naming::Goes) => {}
        }
    }
    if let Some(cookies) = additions.cookies {
        out.add(&header::COOKIE, "Cookie", cookies.as_bytes());
    }
    out.add_block(&additions.forwarded.0);
    out.add(&X_REQUEST_ID, "X-Request-Id", additions.request_id.as_bytes());
    if let Some(identity) = additions.identity {
        out.add_block(identity);
    }
    if let Some(assertion) = &additions.assertion {
        out.add(&X_PORTCULLIS_JWT_ASSERTION, "X-Portcullis-Jwt-Assertion", assertion.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_request_comes_from_is_written_as_the_standards_say() {
        let wire = |client: &str, authority| {
            let ForwardedFields(block) =
                ForwardedFields::new(client.parse().unwrap(), authority, &LoopMark::new(&[1; 32]));
            String::from_utf8(block.wire().to_vec()).unwrap()
        };
        assert_eq!(
            wire("192.0.2.7", "iot.example.com"),
            "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: iot.example.com\r\n\
             Forwarded: for=192.0.2.7;host=\"iot.example.com\";proto=https;by=_portcullis-01010101\r\n"
        );
        assert_eq!(
            wire("2001:db8::1", "localhost:8443"),
            "X-Forwarded-For: 2001:db8::1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: localhost:8443\r\n\
             Forwarded: for=\"[2001:db8::1]\";host=\"localhost:8443\";proto=https;by=_portcullis-01010101\r\n"
        );
    }
}
