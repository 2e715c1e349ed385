//! The head of the request that the portal gets: the client's, less what is not its to say, plus what is ours.

use std::{fmt::Write as _, net::IpAddr, rc::Rc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::{
    identity::IdentityHeaders,
    upstream::http1::Coding,
    web::{
        fields::{self, Block, ConnectionOptions},
        gate::CanonicalRequest,
        hops::Via,
        incoming::Incoming,
    },
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_PORTCULLIS_JWT_ASSERTION: HeaderName = HeaderName::from_static("x-portcullis-jwt-assertion");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Room for the head of a usual request, so that it need not grow step by step.
const USUAL_HEAD: usize = 2048;

/// What the portal is told about where the request came from; made once a connection.
#[derive(Clone, Debug)]
pub struct Origin(Block);

impl Origin {
    /// `authority` is the host that the client asked for, always ours.
    pub fn new(client: IpAddr, authority: &str) -> Self {
        let mut forwarded = String::new();
        // Writing to a `String` cannot fail.
        let _ = match client {
            IpAddr::V4(address) => write!(forwarded, "for={address}"),
            IpAddr::V6(address) => write!(forwarded, "for=\"[{address}]\""),
        };
        let _ = write!(forwarded, ";host=\"{authority}\";proto=https");
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"));
        Self(Block::new(vec![
            (X_FORWARDED_FOR, value(&client.to_string())),
            (X_FORWARDED_PROTO, HeaderValue::from_static("https")),
            (X_FORWARDED_HOST, value(authority)),
            (header::FORWARDED, value(&forwarded)),
        ]))
    }
}

/// Everything that the gateway adds to one request.
#[derive(Debug)]
pub struct Additions<'a> {
    pub origin: &'a Origin,
    pub authority: &'a HeaderValue,
    pub via: &'a Via,
    pub request_id: &'a str,
    /// Those of the client's cookies that are not ours.
    pub cookies: Option<&'a HeaderValue>,
    pub identity: &'a Block,
    pub assertion: Option<HeaderValue>,
}

/// Writes the rebuilt head as it stands on the wire, and says how the body follows.
pub(super) fn write(
    request: &CanonicalRequest<Incoming>,
    reserved: &IdentityHeaders,
    additions: &Additions<'_>,
) -> (Vec<u8>, Coding) {
    let headers = request.headers();
    let mut wire = Vec::with_capacity(USUAL_HEAD);
    wire.extend_from_slice(request.method().as_str().as_bytes());
    wire.push(b' ');
    wire.extend_from_slice(request.target().as_bytes());
    wire.extend_from_slice(b" HTTP/1.1\r\n");
    rebuild(request, reserved, additions, &mut wire);
    let coding = coding(request);
    match &coding {
        Coding::Chunked { .. } => fields::write(&mut wire, &header::TRANSFER_ENCODING, b"chunked"),
        // RFC 9110 §8.6: so that nobody waits for a body.
        Coding::Length(0)
            if !request.rare().may_have(&header::CONTENT_LENGTH)
                && matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) =>
        {
            fields::write(&mut wire, &header::CONTENT_LENGTH, b"0");
        }
        Coding::Length(_) => {}
    }
    // What holds between us and the portal (RFC 9110 §7.8, §10.1.4).
    if let Some(protocol) = request.upgrade() {
        fields::write(&mut wire, &header::CONNECTION, b"upgrade");
        fields::write(&mut wire, &header::UPGRADE, protocol.as_bytes());
    } else if request.rare().may_have(&header::TE) && fields::lists(headers, &header::TE, b"trailers") {
        fields::write(&mut wire, &header::CONNECTION, b"te");
        fields::write(&mut wire, &header::TE, b"trailers");
    }
    wire.extend_from_slice(b"\r\n");
    (wire, coding)
}

fn coding(request: &CanonicalRequest<Incoming>) -> Coding {
    let headers = request.headers();
    // The request gate has seen that it is one number.
    let length = request
        .rare()
        .may_have(&header::CONTENT_LENGTH)
        .then(|| headers.get(header::CONTENT_LENGTH))
        .flatten();
    match length.and_then(|length| fields::content_length(length.as_bytes())) {
        Some(length) => Coding::Length(length),
        None if request.has_body() => Coding::Chunked { announced: headers.get(header::TRAILER).cloned() },
        None => Coding::Length(0),
    }
}

/// Where the fields of a rebuilt head go.
pub(super) trait Fields {
    fn add(&mut self, name: &HeaderName, value: &[u8]);

    fn add_block(&mut self, block: &Block) {
        block.fields().iter().for_each(|(name, value)| self.add(name, value.as_bytes()));
    }
}

/// The wire of HTTP/1.
impl Fields for Vec<u8> {
    fn add(&mut self, name: &HeaderName, value: &[u8]) {
        fields::write(self, name, value);
    }

    fn add_block(&mut self, block: &Block) {
        self.extend_from_slice(block.wire());
    }
}

/// HTTP/2, whose authority says already what `Host` does.
impl Fields for HeaderMap {
    fn add(&mut self, name: &HeaderName, value: &[u8]) {
        if name != header::HOST
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            self.append(name.clone(), value);
        }
    }
}

/// Gives out the fields of the rebuilt head: the client's that are its to say, then ours.
pub(super) fn rebuild(
    request: &CanonicalRequest<Incoming>,
    reserved: &IdentityHeaders,
    additions: &Additions<'_>,
    out: &mut impl Fields,
) {
    let headers = request.headers();
    let mut connection = ConnectionOptions::default();
    if request.rare().may_have(&header::CONNECTION) {
        headers.get_all(header::CONNECTION).iter().for_each(|line| connection.note(line.as_bytes()));
    }
    out.add(&header::HOST, additions.authority.as_bytes());
    for (name, value) in headers {
        // We have answered an expectation: the body is read as soon as the portal takes it.
        let stays_behind = matches!(*name, header::HOST | header::COOKIE | header::EXPECT)
            || (fields::is_hop_by_hop(name) && name != header::TRAILER)
            || reserved.is_reserved(name)
            || connection.listed.contains(name);
        if !stays_behind {
            out.add(name, value.as_bytes());
        }
    }
    if let Some(cookies) = additions.cookies {
        out.add(&header::COOKIE, cookies.as_bytes());
    }
    out.add_block(&additions.origin.0);
    out.add(&X_REQUEST_ID, additions.request_id.as_bytes());
    out.add(&header::VIA, additions.via.of(request.version()).as_bytes());
    out.add_block(additions.identity);
    if let Some(assertion) = &additions.assertion {
        out.add(&X_PORTCULLIS_JWT_ASSERTION, assertion.as_bytes());
    }
}

/// The identity's names, shared with the bodies that check trailers.
pub(super) type Reserved = Rc<IdentityHeaders>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_written_as_the_standards_say() {
        let wire = |client: &str, authority| {
            let Origin(block) = Origin::new(client.parse().unwrap(), authority);
            String::from_utf8(block.wire().to_vec()).unwrap()
        };
        assert_eq!(
            wire("192.0.2.7", "iot.example.com"),
            "x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: https\r\nx-forwarded-host: iot.example.com\r\n\
             forwarded: for=192.0.2.7;host=\"iot.example.com\";proto=https\r\n"
        );
        assert_eq!(
            wire("2001:db8::1", "localhost:8443"),
            "x-forwarded-for: 2001:db8::1\r\nx-forwarded-proto: https\r\nx-forwarded-host: localhost:8443\r\n\
             forwarded: for=\"[2001:db8::1]\";host=\"localhost:8443\";proto=https\r\n"
        );
    }
}
