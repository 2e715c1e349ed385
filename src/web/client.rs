//! The address of the client, and what kind of answer it expects.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use ipnet::IpNet;

// Statics, since a name given as text is parsed at each look.
static SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// The client's address: the peer, or what the nearest proxy that is not ours to trust was told to be.
///
/// `X-Forwarded-For` and `Forwarded` count only when the peer is listed, and are read from the right: each trusted hop
/// vouches for the one before it. Both at once, or a malformed entry, end the walk at the last address vouched for; what
/// stands to the left of that is the client's own words and never looked at.
pub fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if trusted.is_empty() || !is_trusted(peer, trusted) {
        return peer;
    }
    let (forwarded_for, parse): (_, fn(&str) -> Option<IpAddr>) =
        match (headers.contains_key(&X_FORWARDED_FOR), headers.contains_key(header::FORWARDED)) {
            (true, false) => (headers.get_all(&X_FORWARDED_FOR), parse_address),
            (false, true) => (headers.get_all(header::FORWARDED), forwarded_node),
            (false, false) | (true, true) => return peer,
        };
    let entries = forwarded_for.iter().rev().flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','));
    let mut client = peer;
    for entry in entries {
        let Some(hop) = std::str::from_utf8(entry).ok().and_then(parse) else { break };
        client = hop;
        if !is_trusted(hop, trusted) {
            break;
        }
    }
    client
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// An address, with or without brackets and port.
fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return Some(socket.ip().to_canonical());
    }
    let bare = text.strip_prefix('[')?.strip_suffix(']')?;
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// The `for` of one element of `Forwarded` (RFC 7239 §4).
fn forwarded_node(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| parse_address(value.trim().trim_matches('"')))?
    })
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A person sees it, in a window of its own.
    Window,
    /// A person sees it as a part of another page.
    Frame,
    /// No person sees it as it is: a script has asked, or it becomes a file.
    Elsewhere,
}

/// Told by `Sec-Fetch-Mode` and `Sec-Fetch-Dest`, or else by the best of `Accept`; never by the name of the browser.
pub fn place(method: &Method, headers: &HeaderMap) -> Place {
    if headers.contains_key(header::UPGRADE) {
        return Place::Elsewhere;
    }
    match headers.get(&SEC_FETCH_MODE) {
        Some(mode) if mode.as_bytes() != b"navigate" => Place::Elsewhere,
        Some(_) => match headers.get(&SEC_FETCH_DEST).map(HeaderValue::as_bytes) {
            Some(b"document") | None => Place::Window,
            // A download: what comes is saved under the name of what was asked for.
            Some(b"empty") => Place::Elsewhere,
            Some(_) => Place::Frame,
        },
        None => {
            let is_page = matches!(*method, Method::GET | Method::HEAD | Method::POST)
                && prefers_html(headers)
                && !is_scripted(headers);
            if is_page { Place::Window } else { Place::Elsewhere }
        }
    }
}

/// Whether a person is looking at a page, or at a frame of one.
pub fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    place(method, headers) != Place::Elsewhere
}

/// Whether a person is waiting for a page, by the start of a head that is too large to be read whole. Browsers send their
/// cookies last.
pub fn reads_like_navigation(head: &[u8]) -> bool {
    let field = |wanted: &str| {
        head.split(|&byte| byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok()).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    };
    match field("sec-fetch-mode") {
        Some(mode) => mode == "navigate",
        None => field("accept").is_some_and(|accept| accept.contains("text/html")),
    }
}

/// Whether a browser asks ahead of a click that may never come.
pub fn is_prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose", "x-purpose", "x-moz"].iter().any(|name| {
        headers.get_all(*name).iter().filter_map(|value| value.to_str().ok()).any(|value| {
            let value = value.to_ascii_lowercase();
            ["prefetch", "prerender", "preview"].iter().any(|purpose| value.contains(purpose))
        })
    })
}

/// Whether a person has caused this, as far as a browser can tell: a page that they went to, or a change that a script asks
/// for. What a script merely reads may be a clock's doing.
pub fn is_by_person(method: &Method, headers: &HeaderMap) -> bool {
    let mode = headers.get(&SEC_FETCH_MODE).map(HeaderValue::as_bytes);
    match place(method, headers) {
        Place::Window | Place::Frame => {
            !is_prefetch(headers)
                && (mode.is_none() || headers.get("sec-fetch-user").is_some_and(|user| user == "?1"))
        }
        // Beacons are sent without anybody's doing, and have this mode.
        Place::Elsewhere => {
            matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE)
                && mode != Some(b"no-cors")
        }
    }
}

/// Whether a browser loads a picture, a script or another part of a page, as it does for no more than a tag in that page.
pub fn is_part_of_a_page(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::GET
        && headers
            .get(&SEC_FETCH_DEST)
            .is_some_and(|dest| !matches!(dest.as_bytes(), b"document" | b"iframe" | b"frame" | b"empty"))
}

fn is_scripted(headers: &HeaderMap) -> bool {
    let by = headers.get(&X_REQUESTED_WITH);
    by.is_some_and(|by| by.as_bytes().eq_ignore_ascii_case(b"XMLHttpRequest"))
}

/// Whether HTML is the best that `Accept` names (RFC 9110 §12.5.1). `*/*` alone prefers nothing.
pub fn prefers_html(headers: &HeaderMap) -> bool {
    let mut html = 0.0_f32;
    let mut other = 0.0_f32;
    for line in headers.get_all(header::ACCEPT).iter().filter(|&line| line != "*/*") {
        for range in line.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let weight = parts
                .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
                .map_or(1.0, |text| text.parse::<f32>().unwrap_or(0.0));
            if kind.eq_ignore_ascii_case("text/html") || kind.eq_ignore_ascii_case("application/xhtml+xml") {
                html = html.max(weight);
            } else if kind != "*/*" {
                other = other.max(weight);
            }
        }
    }
    html > 0.0 && html >= other
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|&(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
            })
            .collect()
    }

    #[test]
    fn forwarded_addresses_count_only_from_trusted_peers_and_from_the_right() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let cases: &[(&str, &[(&str, &str)], &str)] = &[
            ("203.0.113.9", &[("x-forwarded-for", "127.0.0.1")], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "198.51.100.7")], "198.51.100.7"),
            ("10.0.0.1", &[("x-forwarded-for", "127.0.0.1, 198.51.100.7, 10.0.0.2")], "198.51.100.7"),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "127.0.0.1"), ("x-forwarded-for", "198.51.100.7")],
                "198.51.100.7",
            ),
            ("10.0.0.1", &[("x-forwarded-for", "198.51.100.7, junk")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "\u{e9}, 198.51.100.7")], "198.51.100.7"),
            ("10.0.0.1", &[("forwarded", "for=\"\u{e9}"), ("forwarded", "for=198.51.100.7")], "198.51.100.7"),
            ("10.0.0.1", &[("x-forwarded-for", "198.51.100.7:4711")], "198.51.100.7"),
            ("::1", &[("forwarded", "for=1.2.3.4;proto=http, For=\"[2001:db8::7]:99\";by=x")], "2001:db8::7"),
            ("10.0.0.1", &[("forwarded", "for=unknown")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for=1.2.3.4"), ("x-forwarded-for", "5.6.7.8")], "10.0.0.1"),
            ("::ffff:10.0.0.1", &[("x-forwarded-for", "::ffff:198.51.100.7")], "198.51.100.7"),
        ];
        for (peer, fields, client) in cases {
            let seen = address(peer.parse().unwrap(), &headers(fields), &trusted);
            assert_eq!(seen, client.parse::<IpAddr>().unwrap(), "{peer} {fields:?}");
        }
        let unlisted = headers(&[("x-forwarded-for", "1.2.3.4")]);
        assert_eq!(
            address("10.0.0.1".parse().unwrap(), &unlisted, &[]),
            "10.0.0.1".parse::<IpAddr>().unwrap()
        );
    }

    #[test]
    fn pages_and_scripts_are_told_apart() {
        const BROWSER: (&str, &str) =
            ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
        let cases: &[(&str, &[(&str, &str)], bool)] = &[
            ("GET", &[BROWSER], true),
            ("POST", &[BROWSER], true),
            ("GET", &[BROWSER, ("sec-fetch-mode", "navigate")], true),
            ("GET", &[BROWSER, ("sec-fetch-mode", "cors")], false),
            ("GET", &[("sec-fetch-mode", "navigate")], true),
            ("GET", &[BROWSER, ("x-requested-with", "XMLHttpRequest")], false),
            ("GET", &[("accept", "application/json")], false),
            ("GET", &[("accept", "application/json, text/html;q=0.5")], false),
            ("GET", &[("accept", "*/*")], false),
            ("GET", &[], false),
            ("PUT", &[BROWSER], false),
            ("GET", &[BROWSER, ("upgrade", "websocket")], false),
            ("GET", &[("user-agent", "Mozilla/5.0")], false),
        ];
        for (method, fields, page) in cases {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(is_navigation(&method, &headers(fields)), *page, "{method} {fields:?}");
        }
    }
    #[test]
    fn what_a_person_did_is_told_from_what_a_page_does_by_itself() {
        let navigates = ("sec-fetch-mode", "navigate");
        let user = ("sec-fetch-user", "?1");
        for (method, fields, person) in [
            ("GET", &[navigates, user][..], true),
            ("POST", &[navigates, user], true),
            ("GET", &[navigates], false),
            ("GET", &[navigates, user, ("sec-purpose", "prefetch")], false),
            ("GET", &[("accept", "text/html")], true),
            ("GET", &[("sec-fetch-mode", "cors")], false),
            ("POST", &[("sec-fetch-mode", "cors")], true),
            ("DELETE", &[("sec-fetch-mode", "same-origin")], true),
            ("POST", &[("sec-fetch-mode", "no-cors")], false),
            ("GET", &[("accept", "application/json")], false),
            ("GET", &[("upgrade", "websocket")], false),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(is_by_person(&method, &headers(fields)), person, "{method} {fields:?}");
        }
    }

    #[test]
    fn a_window_a_frame_and_a_download_are_told_apart() {
        let navigates = ("sec-fetch-mode", "navigate");
        for (dest, where_to) in [
            ("document", Place::Window),
            ("iframe", Place::Frame),
            ("frame", Place::Frame),
            ("embed", Place::Frame),
            ("object", Place::Frame),
            ("empty", Place::Elsewhere),
        ] {
            let fields = headers(&[navigates, ("sec-fetch-dest", dest), ("accept", "text/html")]);
            assert_eq!(place(&Method::GET, &fields), where_to, "{dest}");
        }
        assert_eq!(place(&Method::GET, &headers(&[navigates])), Place::Window);
    }
}
