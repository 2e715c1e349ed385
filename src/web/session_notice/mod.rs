//! The notice in a page that is open when its session ends: one tag of our script in the portal's pages (`session_notice`).
//!
//! Only a page that a browser opens in a window, with a session, gets it, and only where that is certain to leave the page right:
//! plain HTML in a known encoding, whole, not compressed. It is asked for in that form. Any other answer is left alone.

mod place;
mod policy;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

pub use self::place::Insertion;
use self::policy::{Fitted, Needs};
use super::portal_fields::{Fate, PortalFields};
use crate::secret;

/// What the script asks about the session with; the answer is no use of it.
pub const LOOK: &str = "/.portcullis/session";
/// What it keeps the session with.
pub const STAY: &str = "/.portcullis/stay";

/// The field of a request that could get a page compressed.
pub const COMPRESSED: [HeaderName; 1] = [header::ACCEPT_ENCODING];
/// Those that could get none because the browser has one: that may be of another version of the gateway, or of a time without
/// the notice.
pub const UNCHANGED: [HeaderName; 2] = [header::IF_MODIFIED_SINCE, header::IF_NONE_MATCH];

static SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
static INTEGRITY_POLICY: HeaderName = HeaderName::from_static("integrity-policy");

/// What is said of the page's bytes that is not true with ours among them.
const ABOUT_ITS_BYTES: [&str; 6] =
    ["content-length", "accept-ranges", "content-md5", "digest", "content-digest", "repr-digest"];
/// What makes a page one that nobody but its server may change, or that comes in pieces.
const UNTOUCHABLE: [&str; 4] = ["content-range", "signature", "signature-input", "trailer"];
/// Encodings in which the bytes of ASCII mean ASCII, by how their names begin.
const ENCODINGS: [&str; 16] = [
    "utf-8",
    "utf8",
    "unicode-1-1-utf-8",
    "us-ascii",
    "ascii",
    "iso-8859-",
    "iso8859-",
    "iso_8859-",
    "latin1",
    "windows-125",
    "windows-874",
    "koi8-",
    "gb",
    "big5",
    "shift_jis",
    "euc-",
];

/// Whether the pages of a site get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InPages {
    Yes,
    No,
}

/// Puts our script into pages, for one site.
#[derive(Clone, Debug)]
pub struct SessionNotice {
    src: String,
    /// Subresource integrity of the script.
    integrity: String,
    needs: Needs,
}

impl SessionNotice {
    /// `origin` is the public one, `src` the path at which `script` is served.
    pub fn new(origin: String, src: String, script: &[u8]) -> Self {
        let integrity = format!("sha256-{}", BASE64_STANDARD.encode(secret::sha256(script)));
        let needs = Needs { origin, script: src.clone(), asks: [LOOK, STAY] };
        Self { src, integrity, needs }
    }

    /// Makes what is to be put into the page of this answer, and changes its fields to what is true of that. `None`: the answer
    /// is left alone.
    pub fn fit(&self, status: StatusCode, fields: &mut PortalFields) -> Option<Insertion> {
        if status != StatusCode::OK || !is_plain_page(fields) {
            return None;
        }
        let (enforced, reported) =
            (&header::CONTENT_SECURITY_POLICY, &header::CONTENT_SECURITY_POLICY_REPORT_ONLY);
        let fitted = policy::fit(fields.values(enforced), fields.values(reported), &self.needs)?;
        let tag = self.tag(&fitted, fields.get(&INTEGRITY_POLICY).is_some());
        for (name, lines) in [(enforced, fitted.enforced), (reported, fitted.reported)] {
            let Some(lines) = lines else { continue };
            fields.drop_all(name);
            for line in lines {
                fields.append(name.clone(), line);
            }
        }
        fields.drop_where(|name| ABOUT_ITS_BYTES.contains(&name.as_str()));
        // The same page, and not the same bytes (RFC 9110 §8.8.1).
        fields.change(|name| *name == header::ETAG, |_, tag| weak(tag));
        Some(Insertion::new(tag))
    }

    fn tag(&self, fitted: &Fitted, needs_integrity: bool) -> Bytes {
        let mut tag = ["<script async src=\"", &self.src, "\""].concat();
        if let Some(nonce) = &fitted.nonce {
            tag.extend([" nonce=\"", nonce, "\""]);
        }
        if needs_integrity {
            tag.extend([" integrity=\"", &self.integrity, "\""]);
        }
        Bytes::from(tag + "></script>")
    }
}

/// Whether a browser opens a page in a window of its own.
pub fn opens_page(method: &Method, headers: &HeaderMap) -> bool {
    headers.get(&SEC_FETCH_DEST).is_some_and(|dest| dest == "document")
        && headers.get(&SEC_FETCH_MODE).is_some_and(|mode| mode == "navigate")
        && *method != Method::HEAD
        && !headers.contains_key(header::RANGE)
}

/// Whether this is a page as it is meant to be shown, in bytes that we can read and may change.
fn is_plain_page(fields: &PortalFields) -> bool {
    let mut kinds = fields.values(&header::CONTENT_TYPE);
    kinds.next().is_some_and(is_html)
        && kinds.next().is_none()
        && fields.values(&header::CONTENT_ENCODING).all(|coding| coding.eq_ignore_ascii_case(b"identity"))
        && fields.values(&header::CONTENT_DISPOSITION).all(is_shown)
        && fields.get(&header::CONTENT_LENGTH) != Some(b"0")
        && !fields.values(&header::CACHE_CONTROL).any(forbids_change)
        && !UNTOUCHABLE.iter().any(|name| fields.get(&HeaderName::from_static(name)).is_some())
}

fn is_html(content_type: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(content_type) else { return false };
    let text = text.to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    parts.next() == Some("text/html")
        && parts.filter_map(|part| part.strip_prefix("charset=")).all(|encoding| {
            let encoding = encoding.trim_matches('"');
            ENCODINGS.iter().any(|known| encoding.starts_with(known))
        })
}

fn is_shown(disposition: &[u8]) -> bool {
    let kind = disposition.split(|&byte| byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"inline")
}

/// RFC 9111 §5.2.2.6.
fn forbids_change(cache_control: &[u8]) -> bool {
    cache_control
        .split(|&byte| byte == b',')
        .any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

fn weak(tag: &[u8]) -> Fate {
    if tag.starts_with(b"W/") {
        return Fate::Stays;
    }
    HeaderValue::try_from([b"W/", tag].concat()).map_or(Fate::Goes, Fate::Becomes)
}

#[cfg(test)]
mod tests {
    use super::{super::portal_fields::tests::read, *};

    fn notice() -> SessionNotice {
        SessionNotice::new("https://iot.example.com".into(), "/.portcullis/assets/n.js".into(), b"1")
    }

    fn wire(fields: &PortalFields) -> String {
        let mut wire = Vec::new();
        fields.write(&mut wire, |_| false);
        String::from_utf8(wire).unwrap()
    }

    /// What becomes of an answer with these fields, and the tag.
    fn fitted(status: StatusCode, said: &str) -> Option<(String, String)> {
        let mut fields = read(said).unwrap();
        let before = wire(&fields);
        let Some(mut insertion) = notice().fit(status, &mut fields) else {
            assert_eq!(wire(&fields), before, "what is left alone stays as it was");
            return None;
        };
        let tag = insertion.pass(Bytes::from_static(b"x"));
        let tag = std::str::from_utf8(&tag).unwrap().strip_suffix('x').unwrap().to_owned();
        Some((wire(&fields), tag))
    }

    const TAG: &str = "<script async src=\"/.portcullis/assets/n.js\"></script>";

    #[test]
    fn a_page_gets_one_tag_and_says_nothing_of_bytes_that_are_not_its_own() {
        let said = "Content-Type: text/html; charset=utf-8\r\nContent-Length: 12\r\nETag: \"1\"\r\nAccept-Ranges: bytes\r\n\
            Content-Digest: sha-256=:x:\r\nRepr-Digest: sha-256=:x:\r\nDigest: x\r\nLast-Modified: yesterday\r\nX-Content-Type-Options: nosniff\r\n";
        let (fields, tag) = fitted(StatusCode::OK, said).unwrap();
        assert_eq!(tag, TAG);
        assert_eq!(
            fields,
            "Content-Type: text/html; charset=utf-8\r\nLast-Modified: yesterday\r\n\
             X-Content-Type-Options: nosniff\r\netag: W/\"1\"\r\n"
        );
    }

    #[test]
    fn what_is_no_plain_page_is_left_alone() {
        for said in [
            "text/html",
            "TEXT/HTML ; Charset=\"UTF-8\"",
            "text/html;charset=iso-8859-1",
            "text/html; charset=Shift_JIS",
            "text/html; x=y",
        ] {
            assert!(fitted(StatusCode::OK, &format!("Content-Type: {said}\r\n")).is_some(), "{said}");
        }
        for said in [
            "text/plain",
            "application/xhtml+xml",
            "text/html; charset=utf-16",
            "text/html; charset=utf-16le",
            "text/html; charset=utf-7",
            "text/html; charset=iso-2022-jp",
            "text/html; charset=hz-gb-2312",
            "text/html; charset=",
            "text/html, text/plain",
            "",
            "text/htmlx",
            "text/html\r\nContent-Type: text/plain",
            "text/html\r\nContent-Encoding: gzip",
            "text/html\r\nContent-Encoding: br",
            "text/html\r\nContent-Disposition: attachment",
            "text/html\r\nContent-Disposition: ATTACHMENT; filename=\"inline\"",
            "text/html\r\nContent-Disposition: x",
            "text/html\r\nContent-Length: 0",
            "text/html\r\nCache-Control: private, No-Transform",
            "text/html\r\nContent-Range: bytes 0-1/2",
            "text/html\r\nSignature: s=:x:",
            "text/html\r\nTrailer: Content-Digest",
            "text/html\r\nContent-Security-Policy: sandbox allow-scripts",
        ] {
            assert_eq!(fitted(StatusCode::OK, &format!("Content-Type: {said}\r\n")), None, "{said}");
        }
        for status in [201, 204, 206, 304, 302, 401, 404, 500] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(fitted(status, "Content-Type: text/html\r\n"), None, "{status}");
        }
    }

    #[test]
    fn policies_stay_as_strict_as_they_were() {
        let page = "Content-Type: text/html\r\n";
        let policy =
            "Content-Security-Policy: default-src 'self'; script-src 'nonce-Zm9v' 'strict-dynamic'\r\n";
        let (fields, tag) = fitted(StatusCode::OK, &[page, policy].concat()).unwrap();
        assert_eq!(fields, [page, policy].concat());
        assert_eq!(tag, TAG.replace("></", " nonce=\"Zm9v\"></"));
        let (fields, _) =
            fitted(StatusCode::OK, &[page, "Content-Security-Policy: script-src a.example\r\n"].concat())
                .unwrap();
        let script = "https://iot.example.com/.portcullis/assets/n.js";
        assert_eq!(fields, format!("{page}content-security-policy: script-src a.example {script}\r\n"));
        let (_, tag) =
            fitted(StatusCode::OK, &[page, "Integrity-Policy: blocked-destinations=(script)\r\n"].concat())
                .unwrap();
        assert_eq!(
            tag,
            TAG.replace("></", " integrity=\"sha256-a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s=\"></")
        );
    }

    #[test]
    fn only_a_page_that_is_opened_in_a_window_gets_it() {
        let opens = |method, fields: &[(&'static str, &'static str)]| {
            let headers = fields
                .iter()
                .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            opens_page(&method, &headers.collect())
        };
        let (window, mode) = (("sec-fetch-dest", "document"), ("sec-fetch-mode", "navigate"));
        assert!(opens(Method::GET, &[window, mode]));
        assert!(opens(Method::POST, &[window, mode]));
        assert!(!opens(Method::HEAD, &[window, mode]));
        assert!(!opens(Method::GET, &[window, mode, ("range", "bytes=5-")]));
        assert!(!opens(Method::GET, &[window]));
        for dest in ["iframe", "frame", "empty", "object", "script"] {
            assert!(!opens(Method::GET, &[("sec-fetch-dest", dest), mode]), "{dest}");
        }
        assert!(!opens(Method::GET, &[("accept", "text/html")]));
    }
}
