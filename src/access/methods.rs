//! The methods that a portal may read in a request.

use http::{HeaderMap, HeaderName, Method};
use smallvec::{SmallVec, smallvec};

/// Fields that override the request's method, in normal form.
const OVERRIDES: [&str; 6] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-http-verb",
    "x-tunneled-method",
    "x-original-method",
];
/// The parameter that does so in a form or in the query.
const PARAMETER: &str = "_method";

/// Most often one method.
pub(super) type Methods = SmallVec<[Method; 2]>;

/// The request's own method first.
pub(super) fn of(method: &Method, headers: &HeaderMap, query: Option<&str>) -> Methods {
    // To the portal, a WebSocket over HTTP/2 is a GET.
    let own = if *method == Method::CONNECT { Method::GET } else { method.clone() };
    let mut all: Methods = smallvec![own];
    if *method == Method::HEAD {
        all.push(Method::GET);
    }
    for (name, value) in headers {
        if is_override(name) {
            value.as_bytes().split(|&byte| byte == b',').for_each(|named| add(&mut all, named));
        }
    }
    if *method == Method::POST {
        let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        pairs.filter(|(name, _)| name == PARAMETER).for_each(|(_, named)| add(&mut all, named.as_bytes()));
    }
    all
}

fn add(all: &mut Methods, named: &[u8]) {
    if let Ok(method) = Method::from_bytes(&named.trim_ascii().to_ascii_uppercase())
        && !all.contains(&method)
    {
        all.push(method);
    }
}

/// Whether the name is an override field in any spelling that CGI maps to the same variable.
fn is_override(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let same = |(&byte, known): (&u8, u8)| byte == known || (known == b'-' && !byte.is_ascii_alphanumeric());
    name.first() == Some(&b'x')
        && OVERRIDES.iter().any(|known| known.len() == name.len() && name.iter().zip(known.bytes()).all(same))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn methods(method: &Method, fields: &[(&'static str, &'static str)], query: Option<&str>) -> String {
        let headers: HeaderMap = fields
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        of(method, &headers, query).iter().map(Method::as_str).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_request_is_read_as_each_method_that_it_names() {
        for (method, fields, query, expected) in [
            (Method::GET, &[][..], None, "GET"),
            (Method::HEAD, &[], None, "HEAD GET"),
            (Method::CONNECT, &[], None, "GET"),
            (Method::POST, &[("x-http-method-override", "delete")], None, "POST DELETE"),
            (Method::POST, &[("X.HTTP.Method.Override", "PUT")], None, "POST PUT"),
            (Method::POST, &[("x-method-override", "PUT, PATCH")], None, "POST PUT PATCH"),
            (Method::GET, &[("x-http-method", "Post"), ("x-http-verb", "PUT")], None, "GET POST PUT"),
            (Method::POST, &[("x-tunneled-method", "a b")], None, "POST"),
            (Method::POST, &[("x-http-methods", "PUT")], None, "POST"),
            (Method::POST, &[], Some("a=b&_method=put"), "POST PUT"),
            (Method::POST, &[], Some("%5Fmethod=put&b=%&_method=patch"), "POST PUT PATCH"),
            (Method::GET, &[], Some("_method=put"), "GET"),
        ] {
            assert_eq!(methods(&method, fields, query), expected, "{method} {fields:?} {query:?}");
        }
    }
}
