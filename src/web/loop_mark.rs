//! Detects forwarding loops.

use http::{HeaderMap, header};

/// The mark of requests that have passed this deployment: a pseudonym that reveals nothing about the host and differs between
/// deployments, so that gateways can be chained. It is the `by` of `Forwarded` (RFC 7239 §5.1, §6.3), and not in `Via`: servers
/// such as nginx do not compress responses to requests with a `Via`.
#[derive(Clone, Debug)]
pub struct LoopMark(String);

impl LoopMark {
    /// `key` is the same for all gateways of one deployment; the mark does not reveal it.
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

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
