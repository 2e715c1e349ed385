//! Turns a question into the request that it is about. A field that is missing, repeated or ambiguous is refused, never
//! guessed.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

use super::{Dialect, ProxyRequest, Unclear};
use crate::{
    http1::request_head,
    web::{
        client::{self, AddressField},
        field_set::X_PORTCULLIS_TOKEN,
        incoming::Incoming,
        path::{self, Territory},
    },
};

const METHOD: &str = "x-forwarded-method";
const PROTO: &str = "x-forwarded-proto";
const HOST: &str = "x-forwarded-host";
const TARGET: &str = "x-forwarded-uri";
// Names that no portal trusts: nginx sends the portal the client's fields under any other name.
const ORIGINAL_METHOD: &str = "x-portcullis-method";
const ORIGINAL_URL: &str = "x-portcullis-url";

/// The fields that Traefik sets; Caddy sets the first four.
const OF_TRAEFIK: &[&str] =
    &[METHOD, PROTO, HOST, TARGET, "x-forwarded-port", "x-forwarded-server", "x-real-ip"];
/// Fields about the connection between the proxy and the gateway.
const OF_THIS_HOP: [HeaderName; 7] = [
    header::HOST,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::EXPECT,
];
/// Stands in a handshake for a key that only the portal needs.
const NO_KEY: HeaderValue = HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA==");
/// The path of each dialect.
const ENVOY: &str = "/auth/envoy";

/// Reads a request on the port for proxies. `field` is the header with the client's address. An error includes the
/// dialect to answer in.
pub fn read(
    request: Box<Request<Incoming>>,
    field: AddressField,
) -> Result<ProxyRequest, (Option<Dialect>, Unclear)> {
    let path = request.uri().path();
    // Caddy appends the query of the request that it holds.
    let dialect = match path {
        "/auth/nginx" => Dialect::Nginx,
        "/auth/nginx/answer" => Dialect::NginxAnswer,
        "/auth/traefik" => Dialect::Traefik,
        _ if path.strip_prefix(ENVOY).is_some_and(|rest| rest.starts_with('/')) => Dialect::Envoy,
        _ if path::check(path) == Ok(Territory::Ours) => {
            return page(request, field).map_err(|unclear| (None, unclear));
        }
        _ => return Err((None, Unclear::NotHere)),
    };
    match about(dialect, *request, field) {
        Ok(request) => Ok(ProxyRequest::About(dialect, request)),
        Err(unclear) => Err((Some(dialect), unclear)),
    }
}

/// Checks a page like a question: no plain HTTP, and failures count by the client's network.
fn page(request: Box<Request<Incoming>>, field: AddressField) -> Result<ProxyRequest, Unclear> {
    check_scheme(said(request.headers(), PROTO)?)?;
    check_client(request.headers(), field)?;
    Ok(ProxyRequest::Page(request))
}

fn about(
    dialect: Dialect,
    request: Request<Incoming>,
    field: AddressField,
) -> Result<Box<Request<Incoming>>, Unclear> {
    let (parts, _) = request.into_parts();
    let mut headers = parts.headers;
    let target = parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    let line = match dialect {
        Dialect::Nginx | Dialect::NginxAnswer => of_url(&headers)?,
        Dialect::Traefik => {
            check_scheme(said(&headers, PROTO)?)?;
            line(said(&headers, METHOD)?, said(&headers, HOST)?, said(&headers, TARGET)?)?
        }
        Dialect::Envoy => {
            check_scheme(said(&headers, PROTO)?)?;
            let host = said(&headers, "host")?;
            let target = target.strip_prefix(ENVOY).unwrap_or_default();
            line(parts.method.as_str().as_bytes(), host, target.as_bytes())?
        }
    };
    check_client(&headers, field)?;
    if headers.get_all(header::AUTHORIZATION).iter().nth(1).is_some() {
        return Err(Unclear::Authorization);
    }
    let head = request_head::parse_within(&mut BytesMut::from(line.as_slice()), usize::MAX, |_| {
        Incoming::default()
    })?;
    let mut original = head.ok_or(Unclear::Malformed("the request that the proxy holds"))?.request;
    let upgrade = offered(&headers);
    for name in OF_THIS_HOP {
        headers.remove(name);
    }
    for name in reports(dialect) {
        headers.remove(*name);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, upgrade);
        // Over HTTP/2 a handshake has none (RFC 8441 §5), and the portal is given one by the proxy.
        headers.entry(header::SEC_WEBSOCKET_KEY).or_insert(NO_KEY);
    }
    let own = original.headers_mut();
    for (name, value) in &headers {
        own.append(name, value.clone());
    }
    Ok(original)
}

/// The fields that the proxy sets itself, overwriting the client's.
const fn reports(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        Dialect::Nginx | Dialect::NginxAnswer => &[ORIGINAL_METHOD, ORIGINAL_URL],
        Dialect::Traefik => OF_TRAEFIK,
        Dialect::Envoy => &[PROTO],
    }
}

/// The single value of a field.
fn said<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a [u8], Unclear> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if !value.is_empty() => Ok(value.as_bytes()),
        _ => Err(Unclear::Missing(name)),
    }
}

/// Traefik names the scheme of the WebSocket's address.
fn check_scheme(scheme: &[u8]) -> Result<(), Unclear> {
    if matches!(scheme, b"https" | b"wss") { Ok(()) } else { Err(Unclear::Scheme) }
}

fn check_client(headers: &HeaderMap, field: AddressField) -> Result<(), Unclear> {
    if client::is_told(headers, field) { Ok(()) } else { Err(Unclear::Client) }
}

/// nginx sends the address in one field: `https://host/path`.
fn of_url(headers: &HeaderMap) -> Result<Vec<u8>, Unclear> {
    let (method, url) = (said(headers, ORIGINAL_METHOD)?, said(headers, ORIGINAL_URL)?);
    let rest = url.strip_prefix(b"https://").ok_or(Unclear::Scheme)?;
    let end = memchr::memchr(b'/', rest).ok_or(Unclear::Malformed(ORIGINAL_URL))?;
    let (host, target) = rest.split_at(end);
    line(method, host, target)
}

/// The request line and host as a client would have sent them. Spaces separate the parts, so no part may contain one.
fn line(method: &[u8], host: &[u8], target: &[u8]) -> Result<Vec<u8>, Unclear> {
    let is_plain = |part: &[u8]| part.iter().all(|&byte| byte > b' ' && byte != 0x7f);
    if Method::from_bytes(method).is_err() {
        return Err(Unclear::Malformed("the method"));
    }
    if host.is_empty() || !is_plain(host) || host.contains(&b',') {
        return Err(Unclear::Malformed("the host"));
    }
    if target.first() != Some(&b'/') || !is_plain(target) {
        return Err(Unclear::Malformed("the target"));
    }
    Ok([method, b" ", target, b" HTTP/1.1\r\nHost: ", host, b"\r\n\r\n"].concat())
}

/// The protocol that the client wants to switch to. Most proxies keep `Upgrade` to themselves; no page can set the
/// other fields of a browser's WebSocket.
fn offered(headers: &HeaderMap) -> Option<HeaderValue> {
    let offer = headers.get(header::UPGRADE).cloned();
    let is_socket = || headers.keys().any(|name| name.as_str().starts_with("sec-websocket-"));
    offer.or_else(|| is_socket().then(|| HeaderValue::from_static("websocket")))
}

/// A client's field under a reserved name: the proxy would pass it on to the portal. `is_reserved` knows the names;
/// `field` is the header with the client's address.
pub fn forged(
    headers: &HeaderMap,
    dialect: Dialect,
    field: AddressField,
    is_reserved: impl Fn(&HeaderName) -> bool,
) -> Option<&HeaderName> {
    let of_proxy = |name: &HeaderName| match name.as_str() {
        "x-forwarded-for" => field == AddressField::XForwardedFor,
        "forwarded" => field == AddressField::Forwarded,
        "x-request-id" => true,
        other => *name == X_PORTCULLIS_TOKEN || (dialect == Dialect::Envoy && other.starts_with("x-envoy-")),
    };
    headers.keys().find(|name| is_reserved(name) && !of_proxy(name))
}
