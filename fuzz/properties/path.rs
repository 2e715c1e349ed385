//! A path that passes means the same however often somebody behind the gateway decodes it and removes its dot segments,
//! and what any of them could take for a page of ours never goes to the portal.

use percent_encoding::percent_decode;
use portcullis::web::path::{self, Territory};
use url::Url;

pub(crate) fn holds(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else { return };
    let Ok(territory) = path::check(path) else { return };
    assert!(path.starts_with('/'));
    let mut decoded = data.to_vec();
    for _ in 0..3 {
        assert!(!decoded.iter().any(|byte| matches!(byte, b'\\' | 0..=0x1f | 0x7f)), "{path:?}");
        let segments: Vec<&[u8]> = decoded.split(|&byte| byte == b'/').collect();
        for segment in &segments {
            let without_parameters = segment.split(|&byte| byte == b';').next().unwrap_or_default();
            assert!(![&b"."[..], b".."].contains(segment), "{path:?}");
            assert!(![&b"."[..], b".."].contains(&without_parameters), "{path:?}");
        }
        if territory == Territory::Portal {
            let first = segments.iter().find(|segment| !segment.is_empty());
            assert!(!first.is_some_and(|first| first.eq_ignore_ascii_case(b".portcullis")), "{path:?}");
        }
        decoded = percent_decode(&decoded).collect();
    }
    agrees_with_browsers(path);
}

/// The parser of the URL standard, which removes dot segments by itself, finds nothing to remove.
fn agrees_with_browsers(path: &str) {
    // None of these is ever in a path that comes out of the request line.
    if path.contains(['?', '#', ' ']) {
        return;
    }
    let url = Url::parse(&format!("https://iot.example.com{path}")).expect("a path of ours makes a URL");
    assert_eq!(url.host_str(), Some("iot.example.com"), "{path:?}");
    let decode = |path: &str| percent_decode(path.as_bytes()).collect::<Vec<u8>>();
    assert_eq!(decode(url.path()), decode(path), "{path:?}");
}
