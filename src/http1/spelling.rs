//! The case of field names towards the portal. HTTP ignores it, but some portals compare names byte by byte, so they get the
//! spelling that the client sent.

use http::{HeaderName, HeaderValue, header::InvalidHeaderName};

/// A field name with its configured spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spelled {
    pub name: HeaderName,
    text: Box<str>,
}

impl Spelled {
    /// Parses a name from the configuration and keeps its spelling.
    pub fn new(text: &str) -> Result<Self, InvalidHeaderName> {
        Ok(Self { name: HeaderName::try_from(text)?, text: text.into() })
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl From<HeaderName> for Spelled {
    /// With the usual spelling.
    fn from(name: HeaderName) -> Self {
        let mut text = Vec::new();
        write_usual(&mut text, &name);
        Self { text: String::from_utf8_lossy(&text).into(), name }
    }
}

/// Names whose usual spelling is not one capital per hyphenated word.
fn unusual(name: &str) -> Option<&'static str> {
    Some(match name {
        "te" => "TE",
        "dav" => "DAV",
        "dnt" => "DNT",
        "dpop" => "DPoP",
        "sec-gpc" => "Sec-GPC",
        "sec-ch-ua" => "Sec-CH-UA",
        "x-api-key" => "X-API-Key",
        "soapaction" => "SOAPAction",
        "content-md5" => "Content-MD5",
        "x-csrftoken" => "X-CSRFToken",
        "mime-version" => "MIME-Version",
        "x-csrf-token" => "X-CSRF-Token",
        "x-xsrf-token" => "X-XSRF-TOKEN",
        "sec-ch-ua-mobile" => "Sec-CH-UA-Mobile",
        "sec-websocket-key" => "Sec-WebSocket-Key",
        "sec-ch-ua-platform" => "Sec-CH-UA-Platform",
        "sec-websocket-version" => "Sec-WebSocket-Version",
        "sec-websocket-protocol" => "Sec-WebSocket-Protocol",
        "x-http-method-override" => "X-HTTP-Method-Override",
        "sec-websocket-extensions" => "Sec-WebSocket-Extensions",
        _ => return None,
    })
}

/// Writes a name in its usual spelling.
pub fn write_usual(wire: &mut Vec<u8>, name: &HeaderName) {
    let name = name.as_str();
    if let Some(unusual) = unusual(name) {
        return wire.extend_from_slice(unusual.as_bytes());
    }
    let start = wire.len();
    wire.extend_from_slice(name.as_bytes());
    let mut begins = true;
    for byte in wire.get_mut(start..).unwrap_or_default() {
        if begins {
            byte.make_ascii_uppercase();
        }
        begins = *byte == b'-';
    }
}

/// The whole line of a field in the `head` of an HTTP/1 client, with its CRLF, if it is spaced as we would write it.
pub fn line_as_sent<'a>(head: &'a [u8], name: &HeaderName, value: &HeaderValue) -> Option<&'a [u8]> {
    let name = name.as_str().as_bytes();
    let at = value.as_bytes().as_ptr().addr().checked_sub(head.as_ptr().addr())?;
    let before = at.checked_sub("\n".len() + name.len() + ": ".len())?;
    let (&end_of_another, line) = head.get(before..at + value.len() + "\r\n".len())?.split_first()?;
    let (spelled, rest) = line.split_at_checked(name.len())?;
    let is_it = end_of_another == b'\n'
        && rest.starts_with(b": ")
        && rest.ends_with(b"\r\n")
        && spelled.eq_ignore_ascii_case(name);
    is_it.then_some(line)
}

/// The spelling of a field's name in the `head` of an HTTP/1 client; `None` when the field did not come in this head.
pub fn as_sent<'a>(head: &'a [u8], name: &HeaderName, value: &HeaderValue) -> Option<&'a [u8]> {
    if head.is_empty() {
        return None;
    }
    beside(head, name, value.as_bytes()).or_else(|| anywhere(head, name))
}

/// The name in front of `value`, if `value` points into the head.
fn beside<'a>(head: &'a [u8], name: &HeaderName, value: &[u8]) -> Option<&'a [u8]> {
    let at = value.as_ptr().addr().checked_sub(head.as_ptr().addr())?;
    let line = head.get(..at)?.trim_ascii_end().strip_suffix(b":")?;
    let spelled = line.get(line.len().checked_sub(name.as_str().len())?..)?;
    spelled.eq_ignore_ascii_case(name.as_str().as_bytes()).then_some(spelled)
}

/// The spelling of the first field of this name, for values that do not point into the head: empty ones, and ours.
fn anywhere<'a>(head: &'a [u8], name: &HeaderName) -> Option<&'a [u8]> {
    let lines = head.split(|&byte| byte == b'\n');
    lines.filter_map(|line| line.split_at_checked(name.as_str().len())).find_map(|(spelled, rest)| {
        let is_it = rest.starts_with(b":") && spelled.eq_ignore_ascii_case(name.as_str().as_bytes());
        is_it.then_some(spelled)
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn usual(name: &'static str) -> String {
        let mut wire = Vec::new();
        write_usual(&mut wire, &HeaderName::from_static(name));
        String::from_utf8(wire).unwrap()
    }

    #[test]
    fn a_name_begins_with_a_capital_and_so_does_each_part_of_it() {
        for spelled in [
            "Host",
            "Content-Length",
            "X-Portcullis-Jwt-Assertion",
            "X--A-",
            "1x-A",
            "DNT",
            "SOAPAction",
            "Sec-WebSocket-Key",
            "Sec-CH-UA-Arch",
            "If-None-Match",
        ] {
            let name: &'static str = spelled.to_ascii_lowercase().leak();
            let expected = if spelled == "Sec-CH-UA-Arch" { "Sec-Ch-Ua-Arch" } else { spelled };
            assert_eq!(usual(name), expected);
        }
    }

    #[test]
    fn every_unusual_name_is_the_same_name() {
        for name in ["te", "dnt", "sec-ch-ua", "x-xsrf-token", "sec-websocket-extensions"] {
            assert!(unusual(name).is_some_and(|spelled| spelled.eq_ignore_ascii_case(name)), "{name}");
        }
    }

    #[test]
    fn what_a_client_spelled_is_found_again() {
        let head = Bytes::from_static(
            b"GET / HTTP/1.1\r\nhOST: a\r\nX-cUstom:\t 1 \r\nx-CUSTOM:2\r\nX-eMpty:\r\nx-empTY: \r\n\r\n",
        );
        let at = |text: &str| {
            let start = head.windows(text.len()).position(|part| part == text.as_bytes()).unwrap();
            let value = text.split(':').nth(1).unwrap().trim().len();
            let end = start + text.len();
            HeaderValue::from_maybe_shared(head.slice(end - value..end)).unwrap()
        };
        let sent = |name, value: &HeaderValue| as_sent(&head, &HeaderName::from_static(name), value);
        assert_eq!(sent("host", &at("hOST: a")), Some(&b"hOST"[..]));
        assert_eq!(sent("x-custom", &at("X-cUstom:\t 1")), Some(&b"X-cUstom"[..]));
        assert_eq!(sent("x-custom", &at("x-CUSTOM:2")), Some(&b"x-CUSTOM"[..]));
        assert_eq!(sent("x-empty", &HeaderValue::from_static("")), Some(&b"X-eMpty"[..]));
        assert_eq!(sent("x-custom", &HeaderValue::from_static("ours")), Some(&b"X-cUstom"[..]));
        assert_eq!(sent("x-other", &HeaderValue::from_static("ours")), None);
        assert_eq!(sent("x-other", &at("hOST: a")), None, "another name's value is no witness");
        assert_eq!(as_sent(b"", &HeaderName::from_static("host"), &at("hOST: a")), None);

        let line = |name, value: &HeaderValue| line_as_sent(&head, &HeaderName::from_static(name), value);
        assert_eq!(line("host", &at("hOST: a")), Some(&b"hOST: a\r\n"[..]));
        assert_eq!(line("ost", &at("hOST: a")), None, "a part of a name is another name");
        assert_eq!(line("x-custom", &at("X-cUstom:\t 1")), None);
        assert_eq!(line("x-custom", &at("x-CUSTOM:2")), None);
        assert_eq!(line("host", &HeaderValue::from_static("a")), None);
        assert_eq!(line_as_sent(b"", &HeaderName::from_static("host"), &at("hOST: a")), None);
    }
}
