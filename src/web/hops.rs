//! How far a request may travel: how we know one of ours when it comes back, and how hops are counted.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{
    answer::{self, Answer},
    gate::{CanonicalRequest, Refusal},
};

/// How a request is marked that has passed this deployment: a pseudonym that tells nothing about the host, and that gateways
/// which stand behind each other have not in common unless they are of one deployment. It is who forwarded the request in
/// `Forwarded` (RFC 7239 §5.1, §6.3), and not in `Via`: for a request that has one, many a server (nginx) compresses nothing.
#[derive(Clone, Debug)]
pub struct LoopMark(String);

impl LoopMark {
    /// `key` is the same for all gateways of one deployment, and is not told by the name.
    pub fn new(key: &[u8; 32]) -> Self {
        let [a, b, c, d, ..] = key;
        Self(format!("_portcullis-{a:02x}{b:02x}{c:02x}{d:02x}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a request has passed this deployment already.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let names_us = |pair: &[u8]| {
            let (name, by) = pair.trim_ascii().split_at_checked(3).unwrap_or_default();
            let by = by.strip_prefix(b"\"").and_then(|by| by.strip_suffix(b"\"")).unwrap_or(by);
            name.eq_ignore_ascii_case(b"by=") && by == self.0.as_bytes()
        };
        let mut lines = headers.get_all(header::FORWARDED).iter();
        lines.any(|line| line.as_bytes().split(|byte| b",;".contains(byte)).any(names_us))
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
        assert_eq!(ours.as_str(), "_portcullis-01010101");
        for (line, loops) in [
            ("for=192.0.2.7;by=_portcullis-01010101", true),
            ("for=a, for=b; By=\"_portcullis-01010101\" ;proto=https", true),
            ("for=a;by=_portcullis-02020202, by=_portcullis", false),
            ("for=_portcullis-01010101", false),
            ("by=_portcullis-010101012", false),
            ("by", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::FORWARDED, HeaderValue::from_static(line))]);
            assert_eq!(ours.is_in(&headers), loops, "{line}");
        }
        let mut headers = HeaderMap::new();
        for mark in [&other, &ours] {
            assert!(!ours.is_in(&headers));
            headers.append(header::FORWARDED, format!("for=a;by={}", mark.as_str()).parse().unwrap());
        }
        assert!(ours.is_in(&headers) && other.is_in(&headers));
    }
}
