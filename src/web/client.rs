//! The client's address, and the kind of response it expects.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use ipnet::{IpNet, Ipv4Net};

// Statics, since a name given as text is parsed at each look-up.
static SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// The header in which trusted proxies send the client's address. The other one is not trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressField {
    #[default]
    XForwardedFor,
    Forwarded,
    /// None: the peer is the client.
    Peer,
}

/// The client's address: the peer's, or the nearest one in the header that is not a trusted proxy's.
///
/// `field` counts only when the peer is listed, and is read from the right: each trusted hop vouches for the one before it.
/// A malformed entry ends the walk at the last trusted address. Everything to the left of it comes from the client and is
/// ignored.
pub fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet], field: AddressField) -> IpAddr {
    let peer = peer.to_canonical();
    if trusted.is_empty() || !is_trusted(peer, trusted) {
        return peer;
    }
    let mut client = peer;
    for hop in hops(headers, field) {
        let Some(hop) = hop else { break };
        client = hop;
        if !is_trusted(hop, trusted) {
            break;
        }
    }
    client
}

/// Whether the nearest proxy says in `field` whose request it is.
pub fn is_told(headers: &HeaderMap, field: AddressField) -> bool {
    matches!(hops(headers, field).next(), Some(Some(_)))
}

/// The addresses in the header, the nearest first; `None`: a malformed entry.
fn hops(headers: &HeaderMap, field: AddressField) -> impl Iterator<Item = Option<IpAddr>> {
    let (name, parse): (_, fn(&str) -> Option<IpAddr>) = match field {
        AddressField::XForwardedFor => (Some(&X_FORWARDED_FOR), parse_address),
        AddressField::Forwarded => (Some(&header::FORWARDED), forwarded_node),
        AddressField::Peer => (None, parse_address),
    };
    let lines = name.into_iter().flat_map(|name| headers.get_all(name).iter().rev());
    let entries = lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','));
    // Empty list elements are ignored (RFC 9110 §5.6.1).
    let entries = entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty());
    entries.map(move |entry| std::str::from_utf8(entry).ok().and_then(parse))
}

/// The network in canonical form: IPv4-mapped networks become IPv4.
pub fn canonical(network: IpNet) -> IpNet {
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => v6
            .addr()
            .to_ipv4_mapped()
            .and_then(|address| Ipv4Net::new(address, v6.prefix_len() - 96).ok())
            .map_or(network, IpNet::V4),
        IpNet::V4(_) | IpNet::V6(_) => network,
    }
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// Parses an address with or without brackets, port and zone; the zone is dropped. The unspecified one is nobody's: peers of
/// Unix sockets have it.
fn parse_address(text: &str) -> Option<IpAddr> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (text, None),
        },
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    if !port.is_none_or(is_port) {
        return None;
    }
    let address: IpAddr = match host.split_once('%') {
        Some((address, zone)) if !zone.is_empty() => address.parse::<Ipv6Addr>().ok()?.into(),
        _ => host.parse().ok()?,
    };
    let address = address.to_canonical();
    (!address.is_unspecified()).then_some(address)
}

/// The `for` of one element of `Forwarded` (RFC 7239 §4): the only one, in whole quotes or in none.
fn forwarded_node(element: &str) -> Option<IpAddr> {
    // A comma within quotes has cut this element in two.
    if element.bytes().filter(|&byte| byte == b'"').count() % 2 != 0 {
        return None;
    }
    let mut nodes = element.split(';').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim())
    });
    let (Some(node), None) = (nodes.next(), nodes.next()) else { return None };
    let node = node.strip_prefix('"').and_then(|node| node.strip_suffix('"')).unwrap_or(node);
    parse_address(node)
}

/// The destination of a response, as in the Fetch standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A top-level window.
    Window,
    /// A frame in another page.
    Frame,
    /// A script, a subresource or a download.
    Elsewhere,
}

/// From `Sec-Fetch-Mode` and `Sec-Fetch-Dest`, or else from `Accept`; never from the user agent.
pub fn destination(method: &Method, headers: &HeaderMap) -> Destination {
    if headers.contains_key(header::UPGRADE) {
        return Destination::Elsewhere;
    }
    match headers.get(&SEC_FETCH_MODE) {
        Some(mode) if mode.as_bytes() != b"navigate" => Destination::Elsewhere,
        Some(_) => match headers.get(&SEC_FETCH_DEST).map(HeaderValue::as_bytes) {
            Some(b"document") | None => Destination::Window,
            // A download.
            Some(b"empty") => Destination::Elsewhere,
            Some(_) => Destination::Frame,
        },
        None => {
            let is_page = matches!(*method, Method::GET | Method::HEAD | Method::POST)
                && prefers_html(headers)
                && !is_scripted(headers);
            if is_page { Destination::Window } else { Destination::Elsewhere }
        }
    }
}

/// Whether the response is shown as a page or in a frame.
pub fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    destination(method, headers) != Destination::Elsewhere
}

/// The same, from the start of a head that is too large to be read completely. Browsers send cookies last.
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

/// Whether it is a prefetch.
pub fn is_prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose", "x-purpose", "x-moz"].iter().any(|name| {
        headers.get_all(*name).iter().filter_map(|value| value.to_str().ok()).any(|value| {
            let value = value.to_ascii_lowercase();
            ["prefetch", "prerender", "preview"].iter().any(|purpose| value.contains(purpose))
        })
    })
}

/// Whether a user action caused the request, as far as the browser tells: a navigation, or a change made by a script. Reads by
/// scripts may be automatic.
pub fn is_by_person(method: &Method, headers: &HeaderMap) -> bool {
    let mode = headers.get(&SEC_FETCH_MODE).map(HeaderValue::as_bytes);
    match destination(method, headers) {
        Destination::Window | Destination::Frame => {
            !is_prefetch(headers)
                && (mode.is_none() || headers.get("sec-fetch-user").is_some_and(|user| user == "?1"))
        }
        // Beacons are automatic, and have this mode.
        Destination::Elsewhere => {
            matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE)
                && mode != Some(b"no-cors")
        }
    }
}

/// Whether a browser loads a subresource, such as an image or a script, for a tag in a page.
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

/// Whether `Accept` prefers HTML (RFC 9110 §12.5.1). `*/*` alone has no preference.
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
        use AddressField::{Forwarded as F, Peer, XForwardedFor as X};
        const XFF: &str = "x-forwarded-for";
        let networks = ["10.0.0.0/8", "::1/128", "::ffff:192.0.2.0/120", "fe80::/10"];
        let trusted: Vec<IpNet> = networks.map(|network| canonical(network.parse().unwrap())).to_vec();
        let cases: &[(&str, AddressField, &[(&str, &str)], &str)] = &[
            ("203.0.113.9", X, &[(XFF, "127.0.0.1")], "203.0.113.9"),
            ("10.0.0.1", X, &[], "10.0.0.1"),
            ("10.0.0.1", X, &[(XFF, "198.51.100.7")], "198.51.100.7"),
            ("10.0.0.1", X, &[(XFF, "127.0.0.1, 198.51.100.7, 10.0.0.2")], "198.51.100.7"),
            ("10.0.0.1", X, &[(XFF, "127.0.0.1"), (XFF, "198.51.100.7")], "198.51.100.7"),
            ("10.0.0.1", X, &[(XFF, "198.51.100.7, junk")], "10.0.0.1"),
            ("10.0.0.1", X, &[(XFF, "\u{e9}, 198.51.100.7")], "198.51.100.7"),
            // Empty elements.
            ("10.0.0.1", X, &[(XFF, "198.51.100.7, ")], "198.51.100.7"),
            ("10.0.0.1", X, &[(XFF, ",, ,198.51.100.7,,10.0.0.2, \t,")], "198.51.100.7"),
            ("10.0.0.1", X, &[(XFF, "198.51.100.7"), (XFF, "")], "198.51.100.7"),
            ("10.0.0.1", X, &[(XFF, ", ,")], "10.0.0.1"),
            // Ports, brackets, zones, and IPv4 as IPv6 has it.
            ("10.0.0.1", X, &[(XFF, "198.51.100.7:4711")], "198.51.100.7"),
            ("10.0.0.1", X, &[(XFF, "[2001:db8::7]:4711")], "2001:db8::7"),
            ("10.0.0.1", X, &[(XFF, "[2001:db8::7]")], "2001:db8::7"),
            ("10.0.0.1", X, &[(XFF, "2001:db8::7")], "2001:db8::7"),
            ("10.0.0.1", X, &[(XFF, "2001:db8::7%eth0")], "2001:db8::7"),
            ("10.0.0.1", X, &[(XFF, "[2001:db8::7%25eth0]:443, [fe80::2%eth0]:1")], "2001:db8::7"),
            ("fe80::1", X, &[(XFF, "198.51.100.7")], "198.51.100.7"),
            ("::ffff:10.0.0.1", X, &[(XFF, "::ffff:198.51.100.7")], "198.51.100.7"),
            ("10.0.0.1", X, &[(XFF, "[::ffff:198.51.100.7]:80, ::ffff:10.0.0.2")], "198.51.100.7"),
            ("192.0.2.44", X, &[(XFF, "198.51.100.7")], "198.51.100.7"),
            ("::ffff:192.0.2.44", X, &[(XFF, "198.51.100.7")], "198.51.100.7"),
            ("192.0.3.1", X, &[(XFF, "198.51.100.7")], "192.0.3.1"),
            // Nothing that two readers would take for two addresses.
            ("10.0.0.1", X, &[(XFF, "198.51.100.7, ::")], "10.0.0.1"),
            ("::", X, &[(XFF, "0.0.0.0")], "::"),
            ("::", X, &[(XFF, "192.0.2.1, 198.51.100.7")], "::"),
            ("10.0.0.1", X, &[(XFF, "010.0.0.7")], "10.0.0.1"),
            ("10.0.0.1", X, &[(XFF, "198.51.100.7:")], "10.0.0.1"),
            ("10.0.0.1", X, &[(XFF, "198.51.100.7:+80")], "10.0.0.1"),
            ("10.0.0.1", X, &[(XFF, "198.51.100.7%eth0")], "10.0.0.1"),
            ("10.0.0.1", X, &[(XFF, "[198.51.100.7")], "10.0.0.1"),
            ("10.0.0.1", X, &[(XFF, "1.2.3.4 198.51.100.7")], "10.0.0.1"),
            // The header that counts, and the one that does not.
            (
                "::1",
                F,
                &[("forwarded", "for=1.2.3.4;proto=http, For=\"[2001:db8::7]:99\";by=x")],
                "2001:db8::7",
            ),
            ("10.0.0.1", F, &[("forwarded", "for=198.51.100.7,, ")], "198.51.100.7"),
            (
                "10.0.0.1",
                F,
                &[("forwarded", "for=\"\u{e9}"), ("forwarded", "for=198.51.100.7")],
                "198.51.100.7",
            ),
            ("10.0.0.1", F, &[("forwarded", "for=\"[::ffff:198.51.100.7]\"")], "198.51.100.7"),
            ("10.0.0.1", F, &[("forwarded", "for=unknown")], "10.0.0.1"),
            ("10.0.0.1", F, &[("forwarded", "for=_hidden")], "10.0.0.1"),
            ("10.0.0.1", F, &[("forwarded", "for=1.2.3.4;for=198.51.100.7")], "10.0.0.1"),
            ("10.0.0.1", F, &[("forwarded", "for=198.51.100.7;host=\"a, for=1.2.3.4\"")], "10.0.0.1"),
            ("10.0.0.1", F, &[("forwarded", "for=\"198.51.100.7")], "10.0.0.1"),
            ("10.0.0.1", X, &[("forwarded", "for=1.2.3.4"), (XFF, "198.51.100.7")], "198.51.100.7"),
            ("10.0.0.1", F, &[("forwarded", "for=198.51.100.7"), (XFF, "1.2.3.4")], "198.51.100.7"),
            ("10.0.0.1", X, &[("forwarded", "for=1.2.3.4")], "10.0.0.1"),
            ("10.0.0.1", F, &[(XFF, "1.2.3.4")], "10.0.0.1"),
            ("10.0.0.1", Peer, &[(XFF, "1.2.3.4"), ("forwarded", "for=1.2.3.4")], "10.0.0.1"),
        ];
        for (peer, field, fields, client) in cases {
            let seen = address(peer.parse().unwrap(), &headers(fields), &trusted, *field);
            assert_eq!(seen, client.parse::<IpAddr>().unwrap(), "{peer} {fields:?}");
        }
        let unlisted = headers(&[(XFF, "1.2.3.4")]);
        assert_eq!(
            address("10.0.0.1".parse().unwrap(), &unlisted, &[], X),
            "10.0.0.1".parse::<IpAddr>().unwrap()
        );
    }

    #[test]
    fn networks_have_one_form() {
        for (written, meant) in [
            ("::ffff:10.0.0.1/128", "10.0.0.1/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("10.0.0.0/8", "10.0.0.0/8"),
        ] {
            assert_eq!(canonical(written.parse().unwrap()).to_string(), meant);
        }
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
            ("document", Destination::Window),
            ("iframe", Destination::Frame),
            ("frame", Destination::Frame),
            ("embed", Destination::Frame),
            ("object", Destination::Frame),
            ("empty", Destination::Elsewhere),
        ] {
            let fields = headers(&[navigates, ("sec-fetch-dest", dest), ("accept", "text/html")]);
            assert_eq!(destination(&Method::GET, &fields), where_to, "{dest}");
        }
        assert_eq!(destination(&Method::GET, &headers(&[navigates])), Destination::Window);
    }
}
