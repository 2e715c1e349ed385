//! `/echo`: shows the head of a request as the portal received it, and so what a proxy in front adds and removes.
//!
//! Names of headers are shown in lower case. The body is not shown.

use http::Request;
use serde::Serialize;

use super::answer::{self, DemoResponse, Error};

#[derive(Serialize)]
struct Head {
    method: String,
    target: String,
    version: String,
    /// In order of arrival, including repeated names.
    headers: Vec<(String, String)>,
}

/// JSON for programs, plain text for browsers.
pub(super) fn answer<B>(request: &Request<B>) -> Result<DemoResponse, Error> {
    let head = Head {
        method: request.method().to_string(),
        target: request.uri().to_string(),
        version: format!("{:?}", request.version()),
        headers: request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect(),
    };
    if !answer::wants_page(request.headers()) {
        return answer::json(&head);
    }
    let mut text = format!("{} {} {}\n", head.method, head.target, head.version);
    for (name, value) in &head.headers {
        text.extend([name, ": ", value, "\n"]);
    }
    Ok(answer::text("text/plain; charset=utf-8", text))
}
