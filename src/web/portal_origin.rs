//! Rewrites between the portal's internal origins and the public one.

use http::{HeaderName, HeaderValue, header, uri::Authority};
use url::{Host, Url};

static DESTINATION: HeaderName = HeaderName::from_static("destination");

/// The origins that the portal may use for itself.
#[derive(Clone, Debug)]
pub struct Origins {
    /// The origin of `public_url`, without a trailing slash.
    public: String,
    host: String,
    port: Option<u16>,
    /// Hosts of the portal's servers, each with its port unless it is the scheme's own.
    inside: Vec<(String, Option<u16>)>,
}

impl Origins {
    /// `asked_as` is the value of `Host` towards the portal, where that is not the public host.
    pub fn new(public: &Url, upstreams: &[Url], asked_as: &[Authority]) -> Self {
        let mut inside = Vec::new();
        for name in asked_as.iter().flat_map(as_urls) {
            let Some(host) = name.host_str() else { continue };
            inside.push((host.to_owned(), name.port()));
            // Some servers add the port that they listen on.
            inside.extend(upstreams.iter().map(|upstream| (host.to_owned(), upstream.port())));
        }
        for upstream in upstreams {
            let Some(host) = upstream.host_str() else { continue };
            inside.push((host.to_owned(), upstream.port()));
            if is_loopback(upstream) {
                let names = ["localhost", "127.0.0.1", "[::1]"].into_iter().filter(|name| *name != host);
                inside.extend(names.map(|name| (name.to_owned(), upstream.port())));
            }
        }
        Self {
            public: public.origin().ascii_serialization(),
            host: public.host_str().unwrap_or_default().to_owned(),
            port: public.port(),
            inside,
        }
    }

    /// Rewrites a URL that would bypass the gateway. `None`: it stays.
    pub fn published(&self, url: &[u8]) -> Option<HeaderValue> {
        HeaderValue::try_from(self.public_form(url)?).ok()
    }

    /// The same for the URL in a `Refresh`.
    pub fn published_in_refresh(&self, value: &[u8]) -> Option<HeaderValue> {
        let at = value.windows(4).position(|word| word.eq_ignore_ascii_case(b"url="))? + 4;
        let (front, rest) = value.split_at_checked(at)?;
        let spaces = rest.iter().take_while(|byte| b" '\"".contains(byte)).count();
        let (quote, url) = rest.split_at_checked(spaces)?;
        let end = url.iter().position(|byte| b"'\"".contains(byte)).unwrap_or(url.len());
        let (url, behind) = url.split_at_checked(end)?;
        HeaderValue::try_from([front, quote, &self.public_form(url)?, behind].concat()).ok()
    }

    /// The same for all URLs in a `Link`, which are in angle brackets.
    pub fn published_in_link(&self, value: &[u8]) -> Option<HeaderValue> {
        let (mut out, mut changes) = (Vec::with_capacity(value.len()), false);
        for (number, piece) in value.split(|&byte| byte == b'<').enumerate() {
            if number > 0 {
                out.push(b'<');
            }
            let end = piece.iter().position(|&byte| byte == b'>').filter(|_| number > 0).unwrap_or(0);
            let (url, behind) = piece.split_at_checked(end)?;
            match self.public_form(url) {
                Some(url) => {
                    changes = true;
                    out.extend(url);
                }
                None => out.extend_from_slice(url),
            }
            out.extend_from_slice(behind);
        }
        HeaderValue::try_from(out).ok().filter(|_| changes)
    }

    /// A `Set-Cookie` without its domain, when that is one of the portal's inside: no browser would take it.
    pub fn without_inner_domain(&self, cookie: &[u8]) -> Option<HeaderValue> {
        let mut changes = false;
        let mut kept: Vec<&[u8]> = Vec::new();
        for (number, part) in cookie.split(|&byte| byte == b';').enumerate() {
            if number > 0 && domain(part).is_some_and(|domain| self.is_inner(&domain)) {
                changes = true;
            } else {
                kept.push(part);
            }
        }
        HeaderValue::try_from(kept.join(&b';')).ok().filter(|_| changes)
    }

    fn is_inner(&self, domain: &str) -> bool {
        !is_within(&self.host, domain) && self.inside.iter().any(|(host, _)| is_within(host, domain))
    }

    fn public_form(&self, url: &[u8]) -> Option<Vec<u8>> {
        let (scheme, rest) = split_scheme(url)?;
        let end = rest.iter().position(|byte| b"/?#\\".contains(byte)).unwrap_or(rest.len());
        let (authority, behind) = rest.split_at_checked(end)?;
        let authority = std::str::from_utf8(authority).ok().filter(|text| !text.is_empty())?;
        let named = Url::parse(&format!("{scheme}://{authority}/")).ok()?;
        let host = named.host_str()?;
        let is_public = host == self.host && named.port() == self.port && scheme == "https";
        let leads_here = host == self.host
            || self.inside.iter().any(|(inside, port)| inside == host && *port == named.port());
        (leads_here && !is_public).then(|| [self.public.as_bytes(), behind].concat())
    }
}

/// Rewrites our origin in requests for a portal that has another one: it is reached by plain HTTP or another name, and trusts no
/// proxy headers.
#[derive(Clone, Debug)]
pub struct InnerOrigin {
    ours: String,
    /// The origins that the portal may regard as its own. Only ours may be rewritten to them.
    theirs: Vec<String>,
}

/// What happens to a request field that may contain our origin.
#[derive(Debug, PartialEq, Eq)]
pub enum Naming<'a> {
    Stays,
    Goes,
    /// Becomes the opaque origin `null`.
    Nobody,
    /// Becomes the portal's origin, followed by this.
    Portal(&'a [u8]),
}

impl InnerOrigin {
    /// `authority` is that of `public_url`; `asked_as` is what `Host` says to the portal's servers where it says something else.
    /// `None`: the portal knows itself by our name.
    pub fn new(authority: &str, upstreams: &[Url], asked_as: &[Authority]) -> Option<Self> {
        let is_plain = upstreams.iter().any(|upstream| upstream.scheme() != "https");
        let inside = asked_as.iter().flat_map(as_urls).map(|name| name.origin().ascii_serialization());
        (is_plain || !asked_as.is_empty()).then(|| Self {
            ours: format!("https://{authority}"),
            theirs: std::iter::once(format!("http://{authority}")).chain(inside).collect(),
        })
    }

    /// What happens to a request field. Another site's origin stays, since the portal detects forged forms by it; it must not
    /// pass for the portal's.
    pub fn translate<'a>(&self, name: &HeaderName, value: &'a [u8]) -> Naming<'a> {
        let is_theirs = || self.theirs.iter().any(|origin| rest(value, origin).is_some());
        match *name {
            header::ORIGIN => match rest(value, &self.ours) {
                Some(b"") => Naming::Portal(b""),
                _ if is_theirs() => Naming::Nobody,
                _ => Naming::Stays,
            },
            header::REFERER => match rest(value, &self.ours) {
                Some(rest) => Naming::Portal(rest),
                None if is_theirs() => Naming::Goes,
                None => Naming::Stays,
            },
            // The target of WebDAV's COPY and MOVE.
            _ if *name == DESTINATION => rest(value, &self.ours).map_or(Naming::Stays, Naming::Portal),
            _ => Naming::Stays,
        }
    }
}

/// A host with or without a port, as in a URL. The scheme's default port is dropped.
fn as_urls(name: &Authority) -> impl Iterator<Item = Url> {
    ["http", "https"].into_iter().filter_map(move |scheme| Url::parse(&format!("{scheme}://{name}/")).ok())
}

/// The rest of a URL after this origin; `None` for another origin.
fn rest<'a>(url: &'a [u8], origin: &str) -> Option<&'a [u8]> {
    let (front, rest) = url.split_at_checked(origin.len())?;
    let ends = rest.first().is_none_or(|byte| b"/?#\\".contains(byte));
    // The usual port, which browsers leave out.
    let named = rest.strip_prefix(if origin.starts_with("https:") { &b":443"[..] } else { b":80" });
    let named = named.filter(|rest| rest.first().is_none_or(|byte| b"/?#\\".contains(byte)));
    let rest = if ends { Some(rest) } else { named };
    rest.filter(|_| front.eq_ignore_ascii_case(origin.as_bytes()))
}

/// The scheme of an absolute URL, and the rest after its slashes. A scheme-relative URL has the page's.
fn split_scheme(url: &[u8]) -> Option<(&'static str, &[u8])> {
    for (scheme, start) in [("https", &b"https://"[..]), ("http", b"http://"), ("https", b"//")] {
        if let Some((front, rest)) = url.split_at_checked(start.len())
            && front.eq_ignore_ascii_case(start)
        {
            return Some((scheme, rest));
        }
    }
    None
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The domain in a cookie's `Domain`, in lower case and without the leading dot.
fn domain(attribute: &[u8]) -> Option<String> {
    let (name, value) = std::str::from_utf8(attribute).ok()?.split_once('=')?;
    let value = value.trim();
    name.trim()
        .eq_ignore_ascii_case("domain")
        .then(|| value.strip_prefix('.').unwrap_or(value).to_ascii_lowercase())
        .filter(|domain| !domain.is_empty())
}

/// Whether a cookie of `domain` is sent to `host` (RFC 6265 §5.1.3).
fn is_within(host: &str, domain: &str) -> bool {
    host == domain || host.strip_suffix(domain).is_some_and(|front| front.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins() -> Origins {
        let upstreams = ["http://127.0.0.1:3000", "https://portal.internal", "http://10.0.0.5:8080"];
        let upstreams = upstreams.map(|url| Url::parse(url).unwrap());
        let named = ["inside.example", "other.example:81"].map(Authority::from_static);
        Origins::new(&Url::parse("https://iot.example.com").unwrap(), &upstreams, &named)
    }

    #[test]
    fn what_leads_to_the_portal_by_another_way_leads_through_the_gateway() {
        for (url, becomes) in [
            ("http://127.0.0.1:3000/next?a=b#c", "/next?a=b#c"),
            ("HTTP://127.0.0.1:3000", ""),
            ("https://127.0.0.1:3000/next", "/next"),
            ("http://localhost:3000/next", "/next"),
            ("http://[::1]:3000/", "/"),
            ("//127.0.0.1:3000/next", "/next"),
            ("http://portal.internal/next", "/next"),
            ("https://PORTAL.internal:443/next", "/next"),
            ("http://10.0.0.5:8080?q", "?q"),
            ("http://iot.example.com/dir/", "/dir/"),
            ("http://iot.example.com:8080/dir/", "/dir/"),
            ("https://iot.example.com:8443/dir/", "/dir/"),
            ("//iot.example.com:8080/dir/", "/dir/"),
            ("http://user@127.0.0.1:3000/next", "/next"),
            ("http://127.0.0.1:3000/\u{e9}", "/\u{e9}"),
            ("https://inside.example/next", "/next"),
            ("http://INSIDE.example/next", "/next"),
            ("http://inside.example:3000/next", "/next"),
            ("http://other.example:81/next", "/next"),
        ] {
            let became = origins().published(url.as_bytes()).unwrap_or_else(|| panic!("{url} stays"));
            let expected = format!("https://iot.example.com{becomes}");
            assert_eq!(became.as_bytes(), expected.as_bytes(), "{url}");
        }
    }

    #[test]
    fn what_leads_elsewhere_or_through_the_gateway_already_stays() {
        for url in [
            "",
            "/next",
            "next",
            "?q=http://127.0.0.1:3000/",
            "https://iot.example.com/next",
            "https://iot.example.com:443/next",
            "HTTPS://IOT.example.com",
            "//iot.example.com/next",
            "https://login.example.com/",
            "http://127.0.0.1:3000@evil.example/",
            "http://127.0.0.1:3000.evil.example/",
            "http://127.0.0.1:3001/",
            "http://10.0.0.5/",
            "http://portal.internal:8080/",
            "http://portal.internal:81/",
            "http://inside.example:81/",
            "http://sub.inside.example/",
            "https://evil.example/http://127.0.0.1:3000/",
            "https://iot.example.com.evil.example/",
            "ftp://127.0.0.1:3000/",
            "http:///127.0.0.1:3000/",
            "http://",
            "mailto:ada@portal.internal",
        ] {
            assert_eq!(origins().published(url.as_bytes()), None, "{url}");
        }
    }

    #[test]
    fn addresses_in_other_fields_are_found() {
        let origins = origins();
        for (value, becomes) in [
            ("5; url=http://127.0.0.1:3000/next", Some("5; url=https://iot.example.com/next")),
            ("0;URL='http://localhost:3000/a'", Some("0;URL='https://iot.example.com/a'")),
            ("5; url=/next", None),
            ("5", None),
        ] {
            let became = origins.published_in_refresh(value.as_bytes());
            assert_eq!(became.as_ref().map(|value| value.to_str().unwrap()), becomes, "{value}");
        }
        for (value, becomes) in [
            (
                "<http://127.0.0.1:3000/api?page=2>; rel=\"next\", </style.css>; rel=preload",
                Some("<https://iot.example.com/api?page=2>; rel=\"next\", </style.css>; rel=preload"),
            ),
            ("<https://cdn.example/style.css>; rel=preload", None),
            ("http://127.0.0.1:3000/", None),
            ("<http://127.0.0.1:3000/", None),
        ] {
            let became = origins.published_in_link(value.as_bytes());
            assert_eq!(became.as_ref().map(|value| value.to_str().unwrap()), becomes, "{value}");
        }
    }

    #[test]
    fn what_is_ours_in_a_request_becomes_the_portals_and_nobody_elses_does() {
        let upstreams = |url: &str| [Url::parse(url).unwrap()];
        let inner = InnerOrigin::new("iot.example.com", &upstreams("http://127.0.0.1:3000"), &[]).unwrap();
        let became = |name, value| became(&inner, name, value);
        for (name, value, becomes) in [
            ("origin", "https://iot.example.com", "http://iot.example.com"),
            ("origin", "HTTPS://IOT.example.com", "http://iot.example.com"),
            ("origin", "https://iot.example.com:443", "http://iot.example.com"),
            ("origin", "null", "null"),
            ("origin", "https://evil.example", "https://evil.example"),
            ("origin", "https://iot.example.com.evil.example", "https://iot.example.com.evil.example"),
            ("origin", "https://iot.example.com:8443", "https://iot.example.com:8443"),
            ("origin", "http://iot.example.com", "null"),
            ("origin", "http://IOT.example.com:80", "null"),
            (
                "referer",
                "https://iot.example.com/a?b=https://iot.example.com/",
                "http://iot.example.com/a?b=https://iot.example.com/",
            ),
            ("referer", "https://iot.example.com", "http://iot.example.com"),
            (
                "referer",
                "https://evil.example/https://iot.example.com/",
                "https://evil.example/https://iot.example.com/",
            ),
            ("referer", "https://iot.example.com@evil.example/", "https://iot.example.com@evil.example/"),
            ("referer", "http://iot.example.com/a", ""),
            ("destination", "https://iot.example.com/dav/b", "http://iot.example.com/dav/b"),
            ("destination", "https://evil.example/dav/b", "https://evil.example/dav/b"),
            ("x-other", "https://iot.example.com", "https://iot.example.com"),
        ] {
            assert_eq!(became(name, value), becomes, "{name}: {value}");
        }
        assert!(InnerOrigin::new("iot.example.com", &upstreams("https://127.0.0.1:3000"), &[]).is_none());
    }

    fn became(inner: &InnerOrigin, name: &'static str, value: &str) -> String {
        match inner.translate(&HeaderName::from_static(name), value.as_bytes()) {
            Naming::Stays => value.to_owned(),
            Naming::Goes => String::new(),
            Naming::Nobody => "null".to_owned(),
            Naming::Portal(rest) => format!("http://iot.example.com{}", std::str::from_utf8(rest).unwrap()),
        }
    }

    #[test]
    fn nobody_else_bears_a_name_that_the_portal_is_asked_by() {
        let upstreams =
            ["http://127.0.0.1:3000", "https://portal.internal"].map(|url| Url::parse(url).unwrap());
        let named = ["127.0.0.1:3000", "portal.internal", "[::1]:443"].map(Authority::from_static);
        let inner = InnerOrigin::new("iot.example.com", &upstreams, &named).unwrap();
        for (value, origin) in [
            ("https://iot.example.com", "http://iot.example.com"),
            ("http://127.0.0.1:3000", "null"),
            ("https://127.0.0.1:3000", "null"),
            ("https://PORTAL.internal", "null"),
            ("https://portal.internal:443", "null"),
            ("http://portal.internal", "null"),
            ("https://[::1]", "null"),
            ("http://iot.example.com", "null"),
            ("http://127.0.0.1", "http://127.0.0.1"),
            ("http://127.0.0.1:3001", "http://127.0.0.1:3001"),
            ("https://portal.internal.evil.example", "https://portal.internal.evil.example"),
        ] {
            assert_eq!(became(&inner, "origin", value), origin, "{value}");
            let page = |origin: &str| if origin == "null" { String::new() } else { format!("{origin}/page") };
            assert_eq!(became(&inner, "referer", &format!("{value}/page")), page(origin), "{value}");
        }
        let encrypted = [Url::parse("https://127.0.0.1:3000").unwrap()];
        let named = [Authority::from_static("portal.internal")];
        assert!(InnerOrigin::new("iot.example.com", &encrypted, &named).is_some());
    }

    #[test]
    fn a_domain_of_the_portals_inside_is_dropped_and_others_stay() {
        for (cookie, becomes) in [
            ("a=b; Domain=portal.internal; Path=/", Some("a=b; Path=/")),
            ("a=b;domain=.internal;Secure", Some("a=b;Secure")),
            ("a=b; DOMAIN = 127.0.0.1", Some("a=b")),
            ("a=b; Domain=localhost; HttpOnly", Some("a=b; HttpOnly")),
            ("domain=portal.internal; Path=/", None),
            ("a=b; Domain=example.com", None),
            ("a=b; Domain=iot.example.com", None),
            ("a=b; Domain=elsewhere.example", None),
            ("a=b; Domain=", None),
            ("a=b; Path=/", None),
        ] {
            let became = origins().without_inner_domain(cookie.as_bytes());
            assert_eq!(became.as_ref().map(|value| value.to_str().unwrap()), becomes, "{cookie}");
        }
    }
}
