//! The head of the request that the portal gets: the client's, less what is not its to say, plus what is ours.

use std::{fmt::Write as _, net::IpAddr, rc::Rc};

use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use hyper::body::Incoming;

use super::{body, body::RequestBody};
use crate::{
    identity::IdentityHeaders,
    web::{cookies, fields, gate::CanonicalRequest},
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_PORTCULLIS_JWT_ASSERTION: HeaderName = HeaderName::from_static("x-portcullis-jwt-assertion");
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

static HTTPS: HeaderValue = HeaderValue::from_static("https");
/// Fields that are set besides the identity's.
const OURS: usize = 10;

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
    pub request_id: &'a HeaderValue,
    pub identity: &'a [(HeaderName, HeaderValue)],
    pub assertion: Option<HeaderValue>,
}

/// Rebuilds the head. The body is put on by the caller.
pub(super) fn rebuild(
    request: CanonicalRequest<Incoming>,
    reserved: &IdentityHeaders,
    additions: &Additions<'_>,
) -> (Box<Request<RequestBody>>, Incoming) {
    let upgrade = request.upgrade().cloned();
    let version = request.version();
    let (parts, incoming) = request.into_request().into_parts();
    let mut headers = parts.headers;
    let trailers = body::announced_trailers(&headers);
    let wants_trailers = fields::lists(&headers, &header::TE, b"trailers");
    fields::remove_hop_by_hop(&mut headers);
    reserved.strip(&mut headers);
    cookies::cut_ours(&mut headers);
    // We have answered it: the body is read as soon as the portal takes it.
    headers.remove(header::EXPECT);

    // Once, instead of growing step by step.
    headers.reserve(OURS + additions.identity.len());
    headers.insert(header::HOST, additions.authority.clone());
    headers.insert(X_FORWARDED_FOR, additions.origin.client.clone());
    headers.insert(X_FORWARDED_PROTO, HTTPS.clone());
    headers.insert(X_FORWARDED_HOST, additions.authority.clone());
    headers.insert(header::FORWARDED, additions.origin.forwarded.clone());
    headers.insert(X_REQUEST_ID, additions.request_id.clone());
    fields::append_via(&mut headers, version);
    for (name, value) in additions.identity {
        headers.insert(name.clone(), value.clone());
    }
    if let Some(assertion) = &additions.assertion {
        headers.insert(X_PORTCULLIS_JWT_ASSERTION, assertion.clone());
    }
    if let Some(trailers) = trailers {
        headers.insert(header::TRAILER, trailers);
    }
    connection_fields(&mut headers, upgrade, wants_trailers);

    let mut rebuilt = Box::new(Request::new(RequestBody::Empty));
    *rebuilt.method_mut() = parts.method;
    *rebuilt.uri_mut() = parts.uri;
    *rebuilt.headers_mut() = headers;
    (rebuilt, incoming)
}

/// What holds between us and the portal (RFC 9110 §7.8, §10.1.4).
fn connection_fields(headers: &mut HeaderMap, upgrade: Option<HeaderValue>, wants_trailers: bool) {
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    } else if wants_trailers {
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// The head again, for a second try of a request that has no body.
pub(super) fn copy_of_head(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
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
