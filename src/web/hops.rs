//! How far a request may travel: how we know one of ours when it comes back, and how hops are counted.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::{
    answer::{self, Answer},
    gate::{CanonicalRequest, Refusal},
};

/// Where a loop shows (RFC 8586). Not in `Via`: for a request that has one, many a server (nginx) compresses nothing.
pub static CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// How a request is marked that has passed this deployment: a pseudonym that tells nothing about the host, and that gateways
/// which stand behind each other have not in common unless they are of one deployment.
#[derive(Clone, Debug)]
pub struct LoopMark(HeaderValue);

impl LoopMark {
    /// `key` is the same for all gateways of one deployment, and is not told by the name.
    pub fn new(key: &[u8; 32]) -> Self {
        let [a, b, c, d, ..] = key;
        let pseudonym = format!("portcullis-{a:02x}{b:02x}{c:02x}{d:02x}");
        Self(HeaderValue::try_from(pseudonym).unwrap_or(HeaderValue::from_static("portcullis")))
    }

    /// What is added to a request.
    pub fn value(&self) -> &HeaderValue {
        &self.0
    }

    /// Whether a request has passed this deployment already.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let names_us = |hop: &[u8]| {
            let mut words = hop.split(|byte| byte.is_ascii_whitespace() || *byte == b';');
            words.find(|word| !word.is_empty()).is_some_and(|id| id == self.0.as_bytes())
        };
        let mut lines = headers.get_all(&CDN_LOOP).iter();
        lines.any(|line| line.as_bytes().split(|&byte| byte == b',').any(names_us))
    }
}

/// Which methods are let through.
pub const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// Checks that `Max-Forwards` is a number where it means something (RFC 9110 §7.6.2).
pub(super) fn check(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    if *method != Method::OPTIONS {
        return Ok(());
    }
    let mut values = headers.get_all(header::MAX_FORWARDS).iter();
    let Some(value) = values.next() else { return Ok(()) };
    let is_number = (1..=9).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_digit);
    if is_number && values.next().is_none() { Ok(()) } else { Err(Refusal::Field) }
}

/// Takes one off the number of hops that an OPTIONS may still make. When there is none left, here is the answer.
pub fn count<B>(request: &mut CanonicalRequest<B>) -> Option<Answer> {
    if *request.method() != Method::OPTIONS {
        return None;
    }
    let left: u32 = request.headers().get(header::MAX_FORWARDS)?.to_str().ok()?.parse().ok()?;
    let Some(left) = left.checked_sub(1) else {
        let mut answer = answer::empty(StatusCode::NO_CONTENT);
        answer.headers_mut().insert(header::ALLOW, ALLOWED);
        return Some(answer);
    };
    request.set_hops(HeaderValue::from(left));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_mark_is_a_loop() {
        let (ours, other) = (LoopMark::new(&[1; 32]), LoopMark::new(&[2; 32]));
        assert_eq!(ours.value(), "portcullis-01010101");
        for (line, loops) in [
            ("portcullis-01010101", true),
            ("someone, \tportcullis-01010101;a=\"b\" ", true),
            ("portcullis-02020202, portcullis", false),
            ("1.1 portcullis-01010101", false),
            ("portcullis-010101012", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CDN_LOOP.clone(), HeaderValue::from_static(line))]);
            assert_eq!(ours.is_in(&headers), loops, "{line}");
        }
        let mut headers = HeaderMap::new();
        headers.append(&CDN_LOOP, other.value().clone());
        assert!(!ours.is_in(&headers));
        headers.append(&CDN_LOOP, ours.value().clone());
        assert!(ours.is_in(&headers) && other.is_in(&headers));
    }
}
