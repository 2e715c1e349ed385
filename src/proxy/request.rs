//! The head of the request that the portal gets: the client's, less what is not its to say, plus what is ours.

use std::{fmt::Write as _, net::IpAddr, rc::Rc};

use http::{HeaderName, HeaderValue, Method, header};
use hyper::body::Incoming;

use crate::{
    identity::IdentityHeaders,
    upstream::http1::{Coding, write_field},
    web::{
        fields::{self, ConnectionOptions},
        gate::CanonicalRequest,
        hops::Via,
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
pub struct Origin {
    client: HeaderValue,
    forwarded: HeaderValue,
}

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
        Self { client: value(&client.to_string()), forwarded: value(&forwarded) }
    }
}

/// Everything that the gateway adds to one request.
#[derive(Debug)]
pub struct Additions<'a> {
    pub origin: &'a Origin,
    pub authority: &'a HeaderValue,
    pub via: &'a Via,
    pub request_id: &'a HeaderValue,
    /// Those of the client's cookies that are not ours.
    pub cookies: Option<&'a HeaderValue>,
    pub identity: &'a [(HeaderName, HeaderValue)],
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
    each_field(request, reserved, additions, |name, value| write_field(&mut wire, name, value));
    let coding = coding(request);
    match &coding {
        Coding::Chunked { .. } => write_field(&mut wire, &header::TRANSFER_ENCODING, b"chunked"),
        // RFC 9110 §8.6: so that nobody waits for a body.
        Coding::Length(0)
            if !headers.contains_key(header::CONTENT_LENGTH)
                && matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) =>
        {
            write_field(&mut wire, &header::CONTENT_LENGTH, b"0");
        }
        Coding::Length(_) => {}
    }
    // What holds between us and the portal (RFC 9110 §7.8, §10.1.4).
    if let Some(protocol) = request.upgrade() {
        write_field(&mut wire, &header::CONNECTION, b"upgrade");
        write_field(&mut wire, &header::UPGRADE, protocol.as_bytes());
    } else if fields::lists(headers, &header::TE, b"trailers") {
        write_field(&mut wire, &header::CONNECTION, b"te");
        write_field(&mut wire, &header::TE, b"trailers");
    }
    wire.extend_from_slice(b"\r\n");
    (wire, coding)
}

fn coding(request: &CanonicalRequest<Incoming>) -> Coding {
    let headers = request.headers();
    // The request gate has seen that it is one number.
    let length = headers.get(header::CONTENT_LENGTH).and_then(fields::content_length);
    match length {
        Some(length) => Coding::Length(length),
        None if request.has_body() => Coding::Chunked { announced: headers.get(header::TRAILER).cloned() },
        None => Coding::Length(0),
    }
}

/// Gives out the fields of the rebuilt head, one by one: the client's that are its to say, then ours.
pub(super) fn each_field(
    request: &CanonicalRequest<Incoming>,
    reserved: &IdentityHeaders,
    additions: &Additions<'_>,
    mut field: impl FnMut(&HeaderName, &[u8]),
) {
    let headers = request.headers();
    let mut connection = ConnectionOptions::default();
    for line in headers.get_all(header::CONNECTION) {
        connection.note(line);
    }
    field(&header::HOST, additions.authority.as_bytes());
    for (name, value) in headers {
        // We have answered an expectation: the body is read as soon as the portal takes it.
        let stays_behind = matches!(*name, header::HOST | header::COOKIE | header::EXPECT)
            || (fields::is_hop_by_hop(name) && name != header::TRAILER)
            || reserved.is_reserved(name)
            || connection.listed.contains(name);
        if !stays_behind {
            field(name, value.as_bytes());
        }
    }
    if let Some(cookies) = additions.cookies {
        field(&header::COOKIE, cookies.as_bytes());
    }
    field(&X_FORWARDED_FOR, additions.origin.client.as_bytes());
    field(&X_FORWARDED_PROTO, b"https");
    field(&X_FORWARDED_HOST, additions.authority.as_bytes());
    field(&header::FORWARDED, additions.origin.forwarded.as_bytes());
    field(&X_REQUEST_ID, additions.request_id.as_bytes());
    field(&header::VIA, additions.via.of(request.version()).as_bytes());
    for (name, value) in additions.identity {
        field(name, value.as_bytes());
    }
    if let Some(assertion) = &additions.assertion {
        field(&X_PORTCULLIS_JWT_ASSERTION, assertion.as_bytes());
    }
}

/// The identity's names, shared with the bodies that check trailers.
pub(super) type Reserved = Rc<IdentityHeaders>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_written_as_the_standards_say() {
        let four = Origin::new("192.0.2.7".parse().unwrap(), "iot.example.com");
        assert_eq!(four.client, "192.0.2.7");
        assert_eq!(four.forwarded, "for=192.0.2.7;host=\"iot.example.com\";proto=https");
        let six = Origin::new("2001:db8::1".parse().unwrap(), "localhost:8443");
        assert_eq!(six.forwarded, "for=\"[2001:db8::1]\";host=\"localhost:8443\";proto=https");
    }
}
