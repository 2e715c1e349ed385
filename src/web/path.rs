//! Path checks: the checked path is, byte for byte, the path that the portal receives.

use http::{Uri, Version, uri::PathAndQuery};
use percent_encoding::percent_decode;

/// The owner of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Territory {
    Ours,
    Portal,
}

/// A configured pattern for paths of the portal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    Exact(String),
    /// All paths with this prefix, which ends in a slash.
    Below(String),
}

impl PathPattern {
    /// Compares `path` as it was sent, since the portal receives it so: another spelling is another path.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Below(start) => path.starts_with(start.as_str()),
        }
    }
}

/// The path has two readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotCanonical;

/// Most layers of percent-encoding. Legitimate paths have fewer, and each costs a pass over the path.
const MOST_LAYERS: usize = 5;

/// Bytes of a path without a special meaning.
pub const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let punctuation = b"/.-_~:@!$&'()*+,=";
    let mut at = 0;
    while at < punctuation.len() {
        plain[punctuation[at] as usize] = true;
        at += 1;
    }
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() {
            plain[byte as usize] = true;
        }
        byte += 1;
    }
    plain
};

/// Refuses dot segments in any encoding, backslashes, control characters and broken percent-encoding.
///
/// Encoded slashes, doubled slashes and `;` are left as they are: nothing here gives them a meaning. A path that a
/// lenient reader could take for one of ours counts as ours, so that it never reaches the portal.
pub fn check(path: &str) -> Result<Territory, NotCanonical> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(NotCanonical);
    }
    // No segment that begins with a dot, nothing encoded: neither a dot segment nor ours.
    if bytes.iter().all(|byte| PLAIN[usize::from(*byte)]) && memchr::memmem::find(bytes, b"/.").is_none() {
        return Ok(Territory::Portal);
    }
    let decoded = decode(bytes)?;
    if decoded.iter().any(|&byte| byte < 0x20 || byte == 0x7f || byte == b'\\') {
        return Err(NotCanonical);
    }
    for segment in decoded.split(|&byte| byte == b'/') {
        let name = segment.split(|&byte| byte == b';').next().unwrap_or_default();
        if name == b"." || name == b".." {
            return Err(NotCanonical);
        }
    }
    Ok(if resembles_ours(&decoded) { Territory::Ours } else { Territory::Portal })
}

/// A target without its origin. An empty path is `/` (RFC 9112 §3.2.1); HTTP/2 has none (RFC 9113 §8.3.1).
pub fn origin_form(target: PathAndQuery, version: Version) -> Option<Uri> {
    if target.as_str().starts_with('/') {
        return Some(Uri::from(target));
    }
    if version == Version::HTTP_2 { None } else { format!("/{}", target.as_str()).parse().ok() }
}

/// A query that carries no control character and no raw space; `#` cannot occur. Letters beyond ASCII may be raw, as in a path:
/// servers take both as they come.
pub fn is_clean_query(query: &str) -> bool {
    query.bytes().all(|byte| byte > b' ' && byte != 0x7f)
}

/// Decodes until nothing changes, so that a doubly encoded dot is seen too. Only the first layer has to be well formed:
/// a percent sign that was itself encoded is plain text, and the text around it may be decoded once more.
fn decode(path: &[u8]) -> Result<Vec<u8>, NotCanonical> {
    if !is_well_formed(path) {
        return Err(NotCanonical);
    }
    let mut current: Vec<u8> = percent_decode(path).collect();
    for _ in 1..MOST_LAYERS {
        if !current.contains(&b'%') {
            return Ok(current);
        }
        let next: Vec<u8> = percent_decode(&current).collect();
        if next.len() == current.len() {
            return Ok(current);
        }
        current = next;
    }
    Err(NotCanonical)
}

fn is_well_formed(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'%')
        .skip(1)
        .all(|after| after.get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

fn resembles_ours(decoded: &[u8]) -> bool {
    let mut segments = decoded
        .split(|&byte| byte == b'/')
        .map(|segment| segment.split(|&byte| byte == b';').next().unwrap_or_default())
        .filter(|segment| !segment.is_empty());
    let first = segments.next().unwrap_or_default();
    first.eq_ignore_ascii_case(b".portcullis")
        || (first.eq_ignore_ascii_case(b".well-known")
            && segments.next().unwrap_or_default().eq_ignore_ascii_case(b"portcullis"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_meant_as_it_is_written() {
        let exact = PathPattern::Exact("/logout".into());
        assert!(exact.matches("/logout"));
        assert!(!exact.matches("/logout/") && !exact.matches("/logout2") && !exact.matches("/Logout"));
        let below = PathPattern::Below("/auth/logout/".into());
        assert!(below.matches("/auth/logout/") && below.matches("/auth/logout/all"));
        assert!(!below.matches("/auth/logout") && !below.matches("/auth/login"));
    }

    #[test]
    fn paths_of_the_portal_pass() {
        for path in [
            "/",
            "/a/b.html",
            "/a//b",
            "/a;v=1/b",
            "/a%2Fb",
            "/%41",
            "/100%25",
            "/a%20b",
            "/.well-known/acme",
            "/..a/b..",
            "/...",
        ] {
            assert_eq!(check(path), Ok(Territory::Portal), "{path}");
        }
    }

    #[test]
    fn paths_with_two_meanings_are_refused() {
        for path in [
            "",
            "a",
            "/a/./b",
            "/a/../b",
            "/..",
            "/.",
            "/a/..;/b",
            "/a/..;x=y/b",
            "/%2e%2e/a",
            "/a/.%2E",
            "/%252e%252e/a",
            "/a%2f..%2fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%0d%0a",
            "/a%",
            "/a%4",
            "/a%zz",
            "/%252fa/%252e%252e",
            "/100%25/%252e%252e/b",
            "/%25zz%252f..%252f",
        ] {
            assert_eq!(check(path), Err(NotCanonical), "{path}");
        }
    }

    #[test]
    fn a_path_that_is_encoded_again_and_again_costs_no_more_than_a_few_passes() {
        assert_eq!(check(&format!("/%{}61", "25".repeat(3))), Ok(Territory::Portal));
        for layers in [5, 8000] {
            assert_eq!(check(&format!("/%{}61", "25".repeat(layers))), Err(NotCanonical), "{layers}");
        }
    }

    #[test]
    fn what_looks_like_ours_is_ours() {
        for path in [
            "/.portcullis",
            "/.portcullis/",
            "/.portcullis/login",
            "//.portcullis/login",
            "/.Portcullis/x",
            "/%2eportcullis/x",
            "/.portcullis%2flogin",
            "/.portcullis;x/login",
            "/%252eportcullis/",
            "/.well-known/portcullis/jwks.json",
            "/.well-known//PORTCULLIS",
        ] {
            assert_eq!(check(path), Ok(Territory::Ours), "{path}");
        }
        assert_eq!(check("/.portcullis-notes"), Ok(Territory::Portal));
        assert_eq!(check("/a/.portcullis/login"), Ok(Territory::Portal));
    }
}
