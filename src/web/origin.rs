//! The origin of a request, as the browser reports it: a page of this site, or of another.

use http::{HeaderMap, HeaderName, HeaderValue, header};

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The origin of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// A page of this site.
    Here,
    /// A page of another site, or an opaque origin.
    Elsewhere,
    /// Unknown: not reported, a direct navigation, or contradictory.
    Unknown,
}

/// Reads `Sec-Fetch-Site` where the browser sends it, and `Origin` beside it or in its place. `origin` is this site's.
///
/// A page that sends no referrer has the origin `null`: beside `same-origin` that is no contradiction.
pub fn provenance(headers: &HeaderMap, origin: &str) -> Provenance {
    let is_sent = headers.contains_key(header::ORIGIN);
    let is_null = || only(headers).is_some_and(|sent| sent == "null");
    let names_ours = names(headers, origin);
    match headers.get(&SEC_FETCH_SITE).map(HeaderValue::as_bytes) {
        Some(b"same-origin") if names_ours || !is_sent || is_null() => Provenance::Here,
        Some(b"same-site" | b"cross-site") => Provenance::Elsewhere,
        None if names_ours => Provenance::Here,
        None if is_sent => Provenance::Elsewhere,
        _ => Provenance::Unknown,
    }
}

/// Whether `Origin` is this site's; false if it is missing (RFC 6455 §10.2).
pub fn names(headers: &HeaderMap, origin: &str) -> bool {
    only(headers).is_some_and(|sent| sent.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
}

/// Whether a browser says that it comes from one of our own pages.
pub fn is_from_our_page(headers: &HeaderMap, origin: &str) -> bool {
    let referer = headers.get(header::REFERER).and_then(|referer| referer.to_str().ok());
    let path = referer.and_then(|url| url.strip_prefix(origin));
    path.is_some_and(|path| path.starts_with("/.portcullis/"))
}

/// The single `Origin`. `None` if there are two: the portal might read the other one (RFC 6454 §7.3).
fn only(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut sent = headers.get_all(header::ORIGIN).iter();
    sent.next().filter(|_| sent.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_this_site_is_told_from_all_others() {
        use Provenance::{Elsewhere, Here, Unknown};
        let (ours, other) = (Some("https://iot.example.com"), Some("https://evil.example"));
        for (site, origin, expected) in [
            (Some("same-origin"), ours, Here),
            (Some("same-origin"), None, Here),
            (Some("same-origin"), Some("null"), Here),
            (Some("same-origin"), other, Unknown),
            (Some("same-site"), None, Elsewhere),
            (Some("same-site"), ours, Elsewhere),
            (Some("cross-site"), ours, Elsewhere),
            (Some("cross-site"), None, Elsewhere),
            (Some("none"), None, Unknown),
            (Some("none"), ours, Unknown),
            (Some("Same-Origin"), ours, Unknown),
            (Some(""), ours, Unknown),
            (None, ours, Here),
            (None, Some("https://IOT.example.com"), Here),
            (None, Some("http://iot.example.com"), Elsewhere),
            (None, Some("https://iot.example.com:8443"), Elsewhere),
            (None, Some("https://iot.example.com.evil.example"), Elsewhere),
            (None, Some("https://iot.example.com/"), Elsewhere),
            (None, Some("null"), Elsewhere),
            (None, other, Elsewhere),
            (None, None, Unknown),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [(&SEC_FETCH_SITE, site), (&header::ORIGIN, origin)] {
                headers.extend(value.map(|value| (name.clone(), HeaderValue::from_static(value))));
            }
            assert_eq!(provenance(&headers, "https://iot.example.com"), expected, "{site:?} {origin:?}");
        }
    }

    #[test]
    fn two_origins_are_none() {
        for (first, second) in
            [("https://iot.example.com", "https://evil.example"), ("null", "https://evil.example")]
        {
            for site in [None, Some("same-origin")] {
                let mut headers = HeaderMap::new();
                headers.append(header::ORIGIN, HeaderValue::from_static(first));
                headers.append(header::ORIGIN, HeaderValue::from_static(second));
                headers.extend(site.map(|site| (SEC_FETCH_SITE.clone(), HeaderValue::from_static(site))));
                assert!(!names(&headers, "https://iot.example.com"));
                assert_ne!(
                    provenance(&headers, "https://iot.example.com"),
                    Provenance::Here,
                    "{first} {site:?}"
                );
            }
        }
    }
}
