//! `Max-Forwards`, for OPTIONS (RFC 9110 §7.6.2).

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{refusal::Refusal, request::CanonicalRequest};
use crate::web::answer::{self, Answer};

/// The value of `Allow` in our own responses. The portal may know more methods.
pub const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// Checks that `Max-Forwards` is a number, where it applies.
pub(super) fn check(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    if *method != Method::OPTIONS {
        return Ok(());
    }
    let mut values = headers.get_all(header::MAX_FORWARDS).iter();
    let Some(value) = values.next() else { return Ok(()) };
    let is_number = (1..=9).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_digit);
    if is_number && values.next().is_none() { Ok(()) } else { Err(Refusal::Field) }
}

impl<B> CanonicalRequest<B> {
    /// Decrements `Max-Forwards` of an OPTIONS. At zero, returns our response.
    pub fn spend_hop(&mut self) -> Option<Answer> {
        if *self.method() != Method::OPTIONS {
            return None;
        }
        let left: u32 = self.headers().get(header::MAX_FORWARDS)?.to_str().ok()?.parse().ok()?;
        let Some(left) = left.checked_sub(1) else {
            let mut answer = answer::empty(StatusCode::NO_CONTENT);
            answer.headers_mut().insert(header::ALLOW, ALLOWED);
            return Some(answer);
        };
        self.set_hops(HeaderValue::from(left));
        None
    }
}
