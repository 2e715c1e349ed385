//! How far a request may travel: how we name ourselves in `Via`, how we know our own name again, and how hops are counted.

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};

use super::{
    answer::{self, Answer},
    gate::{CanonicalRequest, Refusal},
};

/// Our name in `Via` (RFC 9110 §7.6.3): a pseudonym that tells nothing about the host, and that gateways which stand behind
/// each other have not in common unless they are of one deployment.
#[derive(Clone, Debug)]
pub struct Via {
    pseudonym: String,
    received: [HeaderValue; 3],
}

impl Via {
    /// `key` is the same for all gateways of one deployment, and is not told by the name.
    pub fn new(key: &[u8; 32]) -> Self {
        let [a, b, c, d, ..] = key;
        let pseudonym = format!("portcullis-{a:02x}{b:02x}{c:02x}{d:02x}");
        let received = ["1.0", "1.1", "2.0"].map(|version| {
            let text = format!("{version} {pseudonym}");
            HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("1.1 portcullis"))
        });
        Self { pseudonym, received }
    }

    /// What is added to a request that was received in this version.
    pub fn of(&self, version: Version) -> &HeaderValue {
        let [one_zero, one_one, two] = &self.received;
        match version {
            Version::HTTP_2 => two,
            Version::HTTP_10 => one_zero,
            _ => one_one,
        }
    }

    /// Whether a request has passed this deployment already.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let names_us = |hop: &[u8]| {
            let mut words = hop.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            words.nth(1).is_some_and(|by| by == self.pseudonym.as_bytes())
        };
        headers
            .get_all(header::VIA)
            .iter()
            .any(|value| value.as_bytes().split(|&byte| byte == b',').any(names_us))
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
    fn only_our_own_name_is_a_loop() {
        let (ours, other) = (Via::new(&[1; 32]), Via::new(&[2; 32]));
        assert_eq!(ours.of(Version::HTTP_11), "1.1 portcullis-01010101");
        assert_eq!(ours.of(Version::HTTP_2), "2.0 portcullis-01010101");
        for (via, loops) in [
            ("1.1 portcullis-01010101", true),
            ("1.0 someone, HTTP/2.0  portcullis-01010101 (us)", true),
            ("1.1 portcullis-02020202, 1.1 portcullis", false),
            ("portcullis-01010101", false),
            ("1.1 portcullis-010101012", false),
        ] {
            let headers = HeaderMap::from_iter([(header::VIA, HeaderValue::from_static(via))]);
            assert_eq!(ours.is_in(&headers), loops, "{via}");
        }
        let mut headers = HeaderMap::new();
        headers.append(header::VIA, other.of(Version::HTTP_11).clone());
        assert!(!ours.is_in(&headers));
        headers.append(header::VIA, ours.of(Version::HTTP_10).clone());
        assert!(ours.is_in(&headers) && other.is_in(&headers));
    }
}
