//! Which header fields belong to one hop, to us, or to the identity, and so never cross the gateway as the client sent them.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Fields about one connection (RFC 9110 §7.6.1), those that only mean something to a proxy, and expectations, which
/// were answered here.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Whether `name` speaks of one connection only.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(&name.as_str())
}

/// Removes the hop-by-hop fields, those that `Connection` lists included.
///
/// End-to-end fields stay even if listed: a client must not make us drop `Host`, `Cookie` or what we add (CVE-2022-1388).
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let mut listed: Vec<HeaderName> = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        for token in value.as_bytes().split(|&byte| byte == b',') {
            let token = token.trim_ascii();
            // The two tokens that every browser sends name fields that go anyway.
            if token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close") {
                continue;
            }
            if let Ok(name) = HeaderName::from_bytes(token) {
                listed.push(name);
            }
        }
    }
    for name in listed {
        if !matches!(
            name,
            header::HOST
                | header::COOKIE
                | header::SET_COOKIE
                | header::CONTENT_LENGTH
                | header::CONTENT_TYPE
                | header::AUTHORIZATION
        ) {
            headers.remove(&name);
        }
    }
    let present: Vec<HeaderName> = headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    for name in present {
        headers.remove(&name);
    }
}

/// Whether a comma-separated field contains `token`, ignoring case.
pub fn lists(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    headers.get_all(name).iter().any(|value| {
        value.as_bytes().split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
    })
}

/// Adds ourselves to `Via` (RFC 9110 §7.6.3), under a pseudonym that tells nothing about the host.
pub fn append_via(headers: &mut HeaderMap, version: http::Version) {
    static RECEIVED: [HeaderValue; 3] = [
        HeaderValue::from_static("1.0 portcullis"),
        HeaderValue::from_static("1.1 portcullis"),
        HeaderValue::from_static("2.0 portcullis"),
    ];
    let [one_zero, one_one, two] = &RECEIVED;
    let received = match version {
        http::Version::HTTP_2 => two,
        http::Version::HTTP_10 => one_zero,
        _ => one_one,
    };
    headers.append(header::VIA, received.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn fields_of_one_hop_go_and_those_listed_with_them() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Hop"),
            ("connection", "close"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("accept", "*/*")]));
    }

    #[test]
    fn connection_cannot_take_away_what_is_end_to_end() {
        let mut headers =
            map(&[("connection", "host, cookie, content-length"), ("host", "a"), ("cookie", "b=c")]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("host", "a"), ("cookie", "b=c")]));
    }
}
