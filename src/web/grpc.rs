//! What of gRPC concerns whoever stands in its way: which requests are of it, how long they may take, and how they are told
//! no. Reads no message.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::answer::{self, Answer};

static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The status for whoever has no session.
pub const UNAUTHENTICATED: HeaderValue = HeaderValue::from_static("16");

/// Whether whoever asks reads the outcome from a gRPC status, gRPC-Web included.
pub fn is_call(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::POST && suffix(headers).is_some()
}

/// Whether a call takes HTTP/2 all the way, as gRPC does and gRPC-Web does not.
pub fn needs_http2(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::POST && matches!(suffix(headers), Some([] | [b'+' | b';' | b' ', ..]))
}

/// What follows the name of the protocol in the type of the content.
fn suffix(headers: &HeaderMap) -> Option<&[u8]> {
    let kind = headers.get(header::CONTENT_TYPE)?.as_bytes();
    let (start, rest) = kind.split_at_checked(16)?;
    start.eq_ignore_ascii_case(b"application/grpc").then_some(rest)
}

/// How long the client waits. Absent or malformed, it waits for ever.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let (unit, digits) = headers.get(&TIMEOUT)?.as_bytes().split_last()?;
    let number: u64 =
        if digits.len() <= 8 { std::str::from_utf8(digits).ok()?.parse().ok()? } else { return None };
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// The answer to a call that is not let through or comes to nothing: a success of HTTP that carries the status, as an
/// answer of trailers alone does.
pub fn refusal(status: HeaderValue, message: &'static str) -> Answer {
    let mut answer = answer::empty(StatusCode::OK);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(STATUS, status);
    headers.insert(MESSAGE, HeaderValue::from_static(message));
    answer
}

/// The status that says the same as one of HTTP.
pub fn status_like(status: StatusCode) -> HeaderValue {
    HeaderValue::from_static(match status {
        StatusCode::UNAUTHORIZED => return UNAUTHENTICATED,
        StatusCode::FORBIDDEN => "7",
        StatusCode::TOO_MANY_REQUESTS => "8",
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => "14",
        StatusCode::GATEWAY_TIMEOUT => "4",
        _ => "13",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn calls_are_told_by_their_type() {
        for (kind, call, http2) in [
            ("application/grpc", true, true),
            ("Application/gRPC+proto", true, true),
            ("application/grpc;x=y", true, true),
            ("application/grpc-web+proto", true, false),
            ("application/grpc-web-text", true, false),
            ("application/json", false, false),
            ("application/grp", false, false),
        ] {
            let headers = of(header::CONTENT_TYPE, kind);
            assert_eq!(is_call(&Method::POST, &headers), call, "{kind}");
            assert_eq!(needs_http2(&Method::POST, &headers), http2, "{kind}");
            assert!(!is_call(&Method::GET, &headers) && !needs_http2(&Method::CONNECT, &headers));
        }
    }

    #[test]
    fn timeouts_have_units() {
        for (text, timeout) in [
            ("2H", Some(Duration::from_hours(2))),
            ("3M", Some(Duration::from_mins(3))),
            ("10S", Some(Duration::from_secs(10))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("1n", Some(Duration::from_nanos(1))),
            ("123456789S", None),
            ("S", None),
            ("-1S", None),
            ("1", None),
            ("1s", None),
        ] {
            assert_eq!(super::timeout(&of(TIMEOUT.clone(), text)), timeout, "{text}");
        }
    }
}
