//! Our own responses: small, complete, and with all security headers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

/// Our own response, as opposed to one streamed from the portal.
pub type Answer = Response<Bytes>;

/// The content security policy of our pages.
pub const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The security headers of our responses, besides the configured HSTS. `Referrer-Policy: no-referrer` would make browsers send
/// `Origin: null` with our forms, so it is `same-origin`.
static SECURITY: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
];

/// Adds the security headers, and forbids storing unless the response allows it.
pub fn secure(headers: &mut HeaderMap) {
    for (name, value) in &SECURITY {
        headers.insert(name.clone(), HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    secure(answer.headers_mut());
    answer
}

/// A page.
pub fn html(status: StatusCode, body: String) -> Answer {
    with_type(status, "text/html; charset=utf-8", body)
}

/// Lets pages of this site show the page in a frame, as they would have shown the portal's. Nothing on it may be worth a
/// click that was meant for something else.
pub fn allow_framing(page: &mut Answer) {
    let headers = page.headers_mut();
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    let policy = headers.get(header::CONTENT_SECURITY_POLICY).and_then(|policy| policy.to_str().ok());
    let framed = policy.map(|policy| policy.replace("frame-ancestors 'none'", "frame-ancestors 'self'"));
    if let Some(framed) = framed.and_then(|policy| HeaderValue::from_str(&policy).ok()) {
        headers.insert(header::CONTENT_SECURITY_POLICY, framed);
    }
}

/// A JSON response for scripts.
pub fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    // Our own structs of strings and numbers always serialise.
    with_type(status, "application/json", serde_json::to_vec(body).unwrap_or_default())
}

/// A plain-text response for programs.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    with_type(status, "text/plain; charset=utf-8", body)
}

/// A response without a body.
pub fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = status;
    secure(answer.headers_mut());
    answer
}

/// Redirects the browser to a path of this site with a GET (303).
pub fn see_other(path: &str) -> Answer {
    redirect(StatusCode::SEE_OTHER, path)
}

pub fn redirect(status: StatusCode, path: &str) -> Answer {
    let mut answer = empty(status);
    // Paths come from `ReturnTo` or are ours: printable ASCII.
    let location = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    answer.headers_mut().insert(header::LOCATION, location);
    answer
}

/// An error for a script (RFC 9457).
#[derive(Debug, Serialize)]
pub struct ProblemDetails<'a> {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub title: &'a str,
    pub status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'a str>,
}

pub fn problem(problem: &ProblemDetails<'_>) -> Answer {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(problem).unwrap_or_default();
    with_type(status, "application/problem+json", body)
}

/// Adds `Retry-After`, in whole seconds and at least one.
pub fn retry_after(answer: &mut Answer, wait: Duration) {
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
}
