//! What a proxy needs to know about gRPC: which requests are calls, their timeouts, and how to refuse them. Reads no messages.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::answer::{self, Answer};

static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The status for requests without a session.
pub const UNAUTHENTICATED: HeaderValue = HeaderValue::from_static("16");

/// Whether the client expects a gRPC status, including gRPC-Web.
pub fn is_call(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::POST && suffix(headers).is_some()
}

/// Whether a call needs HTTP/2 end to end, as gRPC does and gRPC-Web does not.
pub fn needs_http2(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::POST && matches!(suffix(headers), Some([] | [b'+' | b';' | b' ', ..]))
}

/// The rest of the content type after the protocol's name.
fn suffix(headers: &HeaderMap) -> Option<&[u8]> {
    let kind = headers.get(header::CONTENT_TYPE)?.as_bytes();
    let (start, rest) = kind.split_at_checked(16)?;
    start.eq_ignore_ascii_case(b"application/grpc").then_some(rest)
}

/// The client's timeout. `None` if absent or malformed: it waits without limit.
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

/// The response to a call that is refused or fails: 200 with the gRPC status in the head, as in a trailers-only response.
pub fn refusal(status: HeaderValue, message: &'static str) -> Answer {
    let mut answer = answer::empty(StatusCode::OK);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(STATUS, status);
    headers.insert(MESSAGE, HeaderValue::from_static(message));
    answer
}

/// The gRPC status for an HTTP status.
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
