//! Header fields: how they are written, which belong to one hop, and what `Connection` and `Content-Length` say.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{
    head::MOST_FIELDS,
    spelling::{self, Spelled},
};

/// Fields shared by many requests, with their wire form ready.
#[derive(Clone, Debug)]
pub struct Block {
    fields: Vec<(HeaderName, HeaderValue)>,
    wire: Vec<u8>,
}

impl Block {
    /// With the usual spelling of names.
    pub fn new(fields: Vec<(HeaderName, HeaderValue)>) -> Self {
        let mut wire = Vec::new();
        for (name, value) in &fields {
            write_usual(&mut wire, name, value.as_bytes());
        }
        wire.shrink_to_fit();
        Self { fields, wire }
    }

    /// With the configured spelling of names.
    pub fn spelled<'a>(spelled: impl IntoIterator<Item = (&'a Spelled, HeaderValue)>) -> Self {
        let (mut fields, mut wire) = (Vec::new(), Vec::new());
        for (name, value) in spelled {
            write_spelled(&mut wire, name.as_bytes(), value.as_bytes());
            fields.push((name.name.clone(), value));
        }
        wire.shrink_to_fit();
        Self { fields, wire }
    }

    pub fn fields(&self) -> &[(HeaderName, HeaderValue)] {
        &self.fields
    }

    /// All field lines, each with its CRLF.
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }
}

/// Writes one field line.
pub fn write(wire: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    write_spelled(wire, name.as_str().as_bytes(), value);
}

/// The same with the usual spelling of the name.
pub fn write_usual(wire: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    spelling::write_usual(wire, name);
    write_rest(wire, value);
}

/// The same with the name as given.
pub fn write_spelled(wire: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    wire.extend_from_slice(name);
    write_rest(wire, value);
}

fn write_rest(wire: &mut Vec<u8>, value: &[u8]) {
    wire.extend_from_slice(b": ");
    wire.extend_from_slice(value);
    wire.extend_from_slice(b"\r\n");
}

/// Whether the field is hop-by-hop (RFC 9110 §7.6.1), or meant for proxies.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    match *name {
        header::CONNECTION
        | header::PROXY_AUTHENTICATE
        | header::PROXY_AUTHORIZATION
        | header::TE
        | header::TRAILER
        | header::TRANSFER_ENCODING
        | header::UPGRADE => true,
        _ => matches!(
            name.as_str(),
            "keep-alive" | "proxy-connection" | "proxy-authentication-info" | "http2-settings"
        ),
    }
}

/// Fields that are forwarded even if `Connection` lists them: a client must not make us drop them (CVE-2022-1388).
fn is_end_to_end(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::HOST
            | header::COOKIE
            | header::SET_COOKIE
            | header::CONTENT_LENGTH
            | header::CONTENT_TYPE
            | header::AUTHORIZATION
    )
}

/// The options in `Connection`.
#[derive(Debug, Default)]
pub struct ConnectionOptions {
    pub close: bool,
    pub keep_alive: bool,
    /// Fields that are listed, and so not forwarded.
    pub listed: Vec<HeaderName>,
}

impl ConnectionOptions {
    /// Whether more fields are listed than a head can have; looking for each of them would be slow.
    pub fn is_endless(&self) -> bool {
        self.listed.len() > MOST_FIELDS
    }

    /// Reads one field line.
    pub fn note(&mut self, line: &[u8]) {
        for token in line.split(|&byte| byte == b',') {
            let token = token.trim_ascii();
            if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if let Ok(name) = HeaderName::from_bytes(token)
                && !is_end_to_end(&name)
            {
                self.listed.push(name);
            }
        }
    }
}

/// Parses a `Content-Length` line (RFC 9110 §8.6): digits only, where `parse` would accept a sign, and less than 2^63.
pub fn content_length(digits: &[u8]) -> Option<u64> {
    let add = |number: u64, digit: &u8| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    };
    let number = if digits.is_empty() { None } else { digits.iter().try_fold(0, add) };
    // Above, many readers overflow to a negative number.
    number.filter(|number| i64::try_from(*number).is_ok())
}

/// Whether a comma-separated field lists `token`, ignoring case.
pub fn lists(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    headers.get_all(name).iter().any(|line| has_token(line.as_bytes(), token))
}

/// The same for one field line.
pub fn has_token(line: &[u8], token: &[u8]) -> bool {
    line.split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

/// Our `Via` (RFC 9110 §7.6.3), with a pseudonym that reveals nothing about the host.
pub fn via(received: http::Version) -> HeaderValue {
    HeaderValue::from_static(match received {
        http::Version::HTTP_2 => "2.0 portcullis",
        http::Version::HTTP_10 => "1.0 portcullis",
        _ => "1.1 portcullis",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_one_hop_are_known() {
        for name in [
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
        ] {
            assert!(is_hop_by_hop(&HeaderName::from_static(name)), "{name}");
        }
        assert!(!is_hop_by_hop(&header::ACCEPT));
        assert!(!is_hop_by_hop(&HeaderName::from_static("x-hop")));
    }

    #[test]
    fn connection_lists_fields_but_cannot_take_away_what_is_end_to_end() {
        let mut options = ConnectionOptions::default();
        for line in ["keep-alive, X-Hop", "host, cookie,content-length", " close ,, b\u{e9}d"] {
            options.note(line.as_bytes());
        }
        assert!(options.close && options.keep_alive);
        assert_eq!(options.listed, ["x-hop"]);
    }
}
