//! Which protocol upgrades a request may ask for. The gate refuses all others.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};

use super::refusal::Refusal;
use crate::http1::fields;

/// The protocol in `Upgrade` (RFC 9110 §7.8): exactly one. On HTTP/1.0 the field is ignored.
pub(super) fn upgrade<B>(request: &Request<B>, body_follows: bool) -> Result<Option<HeaderValue>, Refusal> {
    let headers = request.headers();
    let mut offers = headers.get_all(header::UPGRADE).iter();
    let Some(offer) = offers.next() else { return Ok(None) };
    if request.version() == Version::HTTP_10 {
        return Ok(None);
    }
    let token = offer.as_bytes();
    let well_formed = offers.next().is_none()
        && !token.is_empty()
        && token.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-.+/".contains(byte));
    // After an upgrade to another HTTP version we could not read the portal's responses; TLS inside TLS makes no sense.
    let tunnels_http = token.eq_ignore_ascii_case(b"h2c")
        || token.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"HTTP/"))
        || token.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"TLS"));
    if !well_formed || tunnels_http || body_follows || request.method() != Method::GET {
        return Err(Refusal::Upgrade);
    }
    if !fields::lists(headers, &header::CONNECTION, b"upgrade") {
        return Err(Refusal::Upgrade);
    }
    if token.eq_ignore_ascii_case(b"websocket") {
        check_websocket(headers)?;
    }
    Ok(Some(offer.clone()))
}

/// A WebSocket opened by an extended CONNECT on HTTP/2 (RFC 8441 §4). CONNECT to other hosts or protocols is refused.
pub(super) fn extended_connect<B>(request: &Request<B>) -> Result<HeaderValue, Refusal> {
    let protocol = request.extensions().get::<hyper::ext::Protocol>().ok_or(Refusal::Method)?;
    if !protocol.as_str().eq_ignore_ascii_case("websocket") {
        return Err(Refusal::Protocol);
    }
    check_websocket_version(request.headers())?;
    Ok(HeaderValue::from_static("websocket"))
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value.as_bytes()),
        _ => Err(Refusal::Upgrade),
    }
}

fn check_websocket_version(headers: &HeaderMap) -> Result<(), Refusal> {
    if single(headers, &header::SEC_WEBSOCKET_VERSION)? == b"13" { Ok(()) } else { Err(Refusal::Upgrade) }
}

/// RFC 6455 §4.2.1: a 16-byte nonce in base64, and version 13.
fn check_websocket(headers: &HeaderMap) -> Result<(), Refusal> {
    let key = single(headers, &header::SEC_WEBSOCKET_KEY)?;
    let nonce = key.len() == 24
        && key.ends_with(b"==")
        && key.iter().take(22).all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte));
    if nonce { check_websocket_version(headers) } else { Err(Refusal::Upgrade) }
}
