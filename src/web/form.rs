//! Small forms: `application/x-www-form-urlencoded`, each field at most once.

use std::{collections::HashMap, time::Duration};

use http::{HeaderMap, HeaderValue, header};
use zeroize::Zeroizing;

/// The largest form that is read.
pub const LARGEST: usize = 8 * 1024;

/// The stall timeout of a form.
pub const STALL: Duration = Duration::from_secs(10);
/// Minimum rate of a form in bytes per second; small ones have to arrive within [`STALL`].
pub const RATE: u32 = 100;
/// The last query parameter of a request to resubmit a saved form; its value is the form's id.
pub const MARK: &str = ".portcullis-form=";

/// Whether these fields are those of a form from our pages.
pub fn is_urlencoded(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let kind = kind.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    kind.eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// A posted form. Values may be secrets: they are wiped on drop and never printed.
#[derive(Default)]
pub struct Form(HashMap<String, Zeroizing<String>>);

/// The form is malformed, or has a field twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the form is malformed")]
pub struct Malformed;

impl Form {
    /// Parses a form. Broken escapes, invalid UTF-8 and repeated fields are refused.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut fields = HashMap::new();
        for pair in body.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
            let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
            let name = decode(pair.get(..at).unwrap_or_default())?;
            let value = decode(pair.get(at + 1..).unwrap_or_default())?;
            if fields.insert(name.to_string(), value).is_some() {
                return Err(Malformed);
            }
        }
        Ok(Self(fields))
    }

    /// The value of `field`; empty when it was not sent.
    pub fn value(&self, field: &str) -> &str {
        self.0.get(field).map_or("", |value| value.as_str())
    }
}

/// The value of one parameter of a query; `None` when absent, repeated or malformed.
pub fn query_value(query: &str, name: &str) -> Option<String> {
    let form = Form::parse(query.as_bytes()).ok()?;
    form.0.get(name).map(|value| value.to_string())
}

fn decode(text: &[u8]) -> Result<Zeroizing<String>, Malformed> {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let pair = [*rest.next().ok_or(Malformed)?, *rest.next().ok_or(Malformed)?];
                let hex =
                    std::str::from_utf8(&pair).ok().filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
                u8::from_str_radix(hex.ok_or(Malformed)?, 16).map_err(|_| Malformed)?
            }
            byte => byte,
        });
    }
    let text = std::str::from_utf8(&out).map_err(|_| Malformed)?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_once() {
        let form = Form::parse("email=a%40b.c&password=p+q%2B%26%20%25&empty=&bare".as_bytes()).unwrap();
        assert_eq!(form.value("email"), "a@b.c");
        assert_eq!(form.value("password"), "p q+& %");
        assert_eq!((form.value("empty"), form.value("bare"), form.value("absent")), ("", "", ""));
        assert_eq!(query_value("a=1&rd=%2Fx%3Fy", "rd").as_deref(), Some("/x?y"));
        assert_eq!(query_value("a=1", "rd"), None);
    }

    #[test]
    fn repeated_and_broken_fields_are_refused() {
        for bad in ["a=1&a=2", "a=%", "a=%4", "a=%zz", "a=%+1", "a=%ff", "%=1"] {
            assert!(Form::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(query_value("rd=/a&rd=/b", "rd"), None);
    }
}
