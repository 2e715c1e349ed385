//! Caching rules (RFC 9111): responses for a signed-in user are kept out of shared caches.

use http::{HeaderName, HeaderValue};

/// For responses without `Cache-Control`.
pub const PRIVATE: &str = "private";
/// The same for pages and data, which a browser must revalidate.
pub const PRIVATE_AND_ASKED_FOR: &str = "private, no-cache";

/// The `Cache-Control` that replaces these lines, so that only the user's own browser stores the response. `None`: they
/// already say so.
pub fn for_one_user<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<HeaderValue> {
    let (mut is_private, mut changes) = (false, false);
    let mut kept = PRIVATE.as_bytes().to_vec();
    for line in lines {
        let Some(directives) = directives(line) else {
            // Other parsers may find other directives in it.
            return Some(HeaderValue::from_static(PRIVATE_AND_ASKED_FOR));
        };
        for directive in directives {
            let name = directive.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii();
            if directive.eq_ignore_ascii_case(b"private") || directive.eq_ignore_ascii_case(b"no-store") {
                is_private = true;
            }
            if name.eq_ignore_ascii_case(b"public") || name.eq_ignore_ascii_case(b"s-maxage") {
                changes = true;
            // `private="field"` allows shared caches to store the rest.
            } else if !directive.is_empty() && !name.eq_ignore_ascii_case(b"private") {
                kept.extend_from_slice(b", ");
                kept.extend_from_slice(directive);
            }
        }
    }
    if is_private && !changes {
        return None;
    }
    // Parts of valid values make a valid value.
    Some(HeaderValue::from_bytes(&kept).unwrap_or(HeaderValue::from_static(PRIVATE_AND_ASKED_FOR)))
}

/// Splits at commas outside of quotes. `None` for an unterminated quote.
fn directives(line: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut found, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, &byte) in line.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                found.push(line.get(start..at).unwrap_or_default().trim_ascii());
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(line.get(start..).unwrap_or_default().trim_ascii());
    (!quoted).then_some(found)
}

/// Whether this field is for shared caches only, where it overrides `Cache-Control` (RFC 9213 and its predecessors).
pub fn is_for_shared_caches(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "surrogate-control" | "edge-control" | "x-accel-expires")
        || name.ends_with("-cache-control")
}

/// Whether this is a page or data.
pub fn is_document(content_type: &[u8]) -> bool {
    let kind = content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let ends_in_json =
        || kind.len() > 5 && kind.get(kind.len() - 5..).is_some_and(|end| end.eq_ignore_ascii_case(b"+json"));
    [&b"text/html"[..], b"application/json", b"application/xhtml+xml", b"text/json", b"application/x-ndjson"]
        .iter()
        .any(|known| kind.eq_ignore_ascii_case(known))
        || ends_in_json()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_may_keep_becomes_one_users() {
        for (said, becomes) in [
            ("private", None),
            ("no-store", None),
            ("Private, max-age=60", None),
            ("no-cache, no-store, must-revalidate", None),
            ("public", Some("private")),
            ("public, max-age=31536000, immutable", Some("private, max-age=31536000, immutable")),
            ("PUBLIC,Max-Age=60", Some("private, Max-Age=60")),
            ("s-maxage=600", Some("private")),
            ("max-age=0, s-maxage = 600", Some("private, max-age=0")),
            ("private, s-maxage=5", Some("private")),
            ("no-store, public", Some("private, no-store")),
            // Without a word about it, a shared cache may keep what has an age.
            ("max-age=60", Some("private, max-age=60")),
            ("no-cache", Some("private, no-cache")),
            ("private=\"set-cookie\", max-age=60", Some("private, max-age=60")),
            ("ext=\"public, s-maxage=1\", max-age=1", Some("private, ext=\"public, s-maxage=1\", max-age=1")),
            ("private, ext=\"public\"", None),
            ("private, ext=\"\\\", public", Some("private, no-cache")),
            ("private, ext=\", public", Some("private, no-cache")),
            (",, public ,", Some("private")),
            ("", Some("private")),
        ] {
            let became = for_one_user([said.as_bytes()].into_iter());
            assert_eq!(became.as_ref().map(|value| value.to_str().unwrap()), becomes, "{said:?}");
        }
        let lines = [&b"private"[..], b"max-age=5", b"public"];
        assert_eq!(for_one_user(lines.into_iter()).unwrap(), "private, max-age=5");
        assert_eq!(for_one_user(lines.into_iter().take(2)), None);
    }

    #[test]
    fn fields_for_shared_caches_are_known() {
        for name in
            ["surrogate-control", "cdn-cache-control", "cloudflare-cdn-cache-control", "x-accel-expires"]
        {
            assert!(is_for_shared_caches(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["cache-control", "cache-status", "x-cache"] {
            assert!(!is_for_shared_caches(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn pages_and_data_are_told_from_the_rest() {
        for kind in ["text/html", "Text/HTML; charset=utf-8", "application/json", "application/problem+json"]
        {
            assert!(is_document(kind.as_bytes()), "{kind}");
        }
        for kind in ["", "text/css", "image/svg+xml", "application/javascript", "+json", "text/htmlx"] {
            assert!(!is_document(kind.as_bytes()), "{kind}");
        }
    }
}
