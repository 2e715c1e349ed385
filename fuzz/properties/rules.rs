//! What a rule closes is closed at every path that some server finds it at, and what a rule opens is all that any server finds at a
//! path that is open: nginx, Apache, Node, Python and PHP, as they and what usually runs on them read a path.

use std::sync::LazyLock;

use http::{HeaderMap, Method};
use percent_encoding::percent_decode;
use portcullis::{
    access::{AccessLevel, AccessPath, AccessRequest, AccessRule, AccessRules, Config},
    web::path,
};
use url::Url;

/// `/admin/*` and `/report` are closed, and everything else is open.
static CLOSED: LazyLock<AccessRules> = LazyLock::new(|| rules(AccessLevel::Bypass, AccessLevel::Deny));
/// The same are open, and everything else takes a login.
static OPEN: LazyLock<AccessRules> = LazyLock::new(|| rules(AccessLevel::TwoFactor, AccessLevel::Bypass));

pub(crate) fn holds(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else { return };
    // What never comes out of a request line.
    if path.contains(['?', '#', ' ']) || path::check(path).is_err() {
        return;
    }
    let request = AccessRequest::new(&Method::GET, &HeaderMap::new(), path, None, [192, 0, 2, 1].into());
    let is_closed = CLOSED.of(&request).level == AccessLevel::Deny;
    let is_open = OPEN.of(&request).level == AccessLevel::Bypass;
    assert!(is_closed || !is_open, "{path:?} is open, and is not closed by the same paths");
    for (server, found) in found(path) {
        let shown = || format!("{path:?} is {:?} to {server}", String::from_utf8_lossy(&found));
        assert!(is_closed || !is_named(&found), "{}", shown());
        assert!(!is_open || is_named(&found), "{}", shown());
    }
}

fn rules(default: AccessLevel, level: AccessLevel) -> AccessRules {
    let paths = ["/admin/*", "/report"].map(|path| AccessPath::parse(path).expect("a path"));
    let rule = AccessRule { paths: paths.into(), level, ..AccessRule::default() };
    AccessRules::new(&Config { default, rules: vec![rule] }).expect("rules")
}

/// Whether the rules name what has been found, as it stands in them.
fn is_named(found: &[u8]) -> bool {
    found == b"/report" || found == b"/admin" || found.starts_with(b"/admin/")
}

/// What each of them would look for.
fn found(path: &str) -> Vec<(&'static str, Vec<u8>)> {
    let raw = path.as_bytes();
    let once = decode(raw);
    let mut found = vec![
        ("nginx", merge_slashes(&once)),
        ("nginx with merge_slashes off", once.clone()),
        ("Apache with AllowEncodedSlashes", merge_slashes(&once)),
        ("Apache with NoDecode", merge_slashes(&decode_but_slashes(raw))),
        ("Apache on Windows", by_segment(&merge_slashes(&once), trim_end).to_ascii_lowercase()),
        ("Fastify", decode_but_slashes(raw.split(|&byte| byte == b';').next().unwrap_or_default())),
        ("WSGI", once.clone()),
        ("Werkzeug", merge_slashes(String::from_utf8_lossy(&once).as_bytes())),
        ("yarl", decode_but_slashes(raw)),
        ("urllib's urlparse", without_last_parameters(&decode(behind_host(raw)))),
        ("PHP with rawurldecode", decode(behind_host(raw))),
        ("PHP with urldecode", decode(&plus_as_space(behind_host(raw)))),
        ("PHP that decodes twice", decode(&once)),
        ("Laravel", [b"/", trim_slashes(&without_program(&once))].concat()),
        ("Symfony", without_program(&once)),
    ];
    if let Ok(url) = Url::parse("https://iot.example.com/").and_then(|base| base.join(path)) {
        found.push(("Node's URL", decode(url.path().as_bytes())));
    }
    // It refuses what is not UTF-8.
    if let Ok(text) = std::str::from_utf8(&once) {
        found.push(("serve-static", merge_slashes(text.as_bytes())));
    }
    // Most tell neither letter case nor a slash at the end: what they find is what there is of that name.
    let lenient = raw.strip_suffix(b"/").unwrap_or(raw).to_ascii_lowercase();
    if is_named(&lenient) {
        found.push(("Express", lenient));
    }
    found
}

fn decode(path: &[u8]) -> Vec<u8> {
    percent_decode(path).collect()
}

fn decode_but_slashes(path: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(path).replace("%2f", "%252f").replace("%2F", "%252F");
    decode(text.as_bytes())
}

fn merge_slashes(path: &[u8]) -> Vec<u8> {
    let mut merged = path.to_vec();
    merged.dedup_by(|byte, before| *byte == b'/' && *before == b'/');
    merged
}

fn trim_slashes(path: &[u8]) -> &[u8] {
    let from = path.iter().position(|&byte| byte != b'/').unwrap_or(path.len());
    let to = path.iter().rposition(|&byte| byte != b'/').map_or(from, |last| last + 1);
    &path[from..to]
}

fn trim_end(segment: &[u8]) -> &[u8] {
    let end = segment.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1);
    if end == 0 { segment } else { &segment[..end] }
}

fn by_segment(path: &[u8], change: impl Fn(&[u8]) -> &[u8]) -> Vec<u8> {
    path.split(|&byte| byte == b'/').map(change).collect::<Vec<_>>().join(&b'/')
}

/// Two slashes begin a host.
fn behind_host(path: &[u8]) -> &[u8] {
    let Some(host) = path.strip_prefix(b"//") else { return path };
    host.iter().position(|&byte| byte == b'/').map_or(&b"/"[..], |end| &host[end..])
}

/// Those of the last segment, and of no other.
fn without_last_parameters(path: &[u8]) -> Vec<u8> {
    let last = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    let end = path[last..].iter().position(|&byte| byte == b';').map_or(path.len(), |at| last + at);
    path[..end].to_vec()
}

fn plus_as_space(path: &[u8]) -> Vec<u8> {
    path.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect()
}

/// What the program in front of a portal is given.
fn without_program(path: &[u8]) -> Vec<u8> {
    match path.strip_prefix(b"/index.php").filter(|rest| rest.starts_with(b"/")) {
        Some(rest) => rest.to_vec(),
        None => path.to_vec(),
    }
}
