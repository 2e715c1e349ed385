//! Path readers like those of real servers, built from their habits in every usual order. No reader may find a closed
//! path at a path that the rule does not match.

use http::{HeaderMap, Method};
use percent_encoding::percent_decode;

use super::{AccessLevel, AccessPath, AccessRequest, AccessRule, AccessRules, Config};
use crate::{
    random::{Random, SeededRandom},
    web::path,
};

/// The parts that test paths are made of.
const PIECES: [&str; 47] = [
    "index.php",
    "/index.php/",
    "INDEX%2ephp/",
    "/",
    "/",
    "//",
    "%2f",
    "%2F",
    "%252f",
    "%25252f",
    "admin",
    "admin",
    "ADMIN",
    "Admin",
    "%61dmin",
    "%2561dmin",
    "x",
    "..",
    ".",
    "%2e",
    "%2e%2e",
    "%252e%252e",
    ";",
    ";x=y",
    "%3b",
    "%253bx",
    "%20",
    "%2520",
    "+",
    "%c0%af",
    "%c0%ae",
    "%c0%ae%c0%ae",
    "%e0%80%af",
    "%25c0%25af",
    "%c1%9c",
    "%ff",
    "%80",
    "%c3",
    "%ef%bc%8f",
    "%ef%bd%81",
    "%25u002f",
    "%3f",
    "%253f",
    "%23",
    "::",
    "%c0%80",
    "%C4%B0",
];

/// Reads a path with a set of habits, one per bit.
fn read(path: &[u8], habits: u16) -> Vec<u8> {
    let has = |bit: u16| habits & (1 << bit) != 0;
    let mut text = path.to_vec();
    // Some readers look for parameters or empty segments before they decode, others after.
    if has(0) {
        text = without_parameters(&text);
    }
    for _ in 0..=(habits >> 1 & 3) {
        text = percent_decode(&text).collect();
    }
    if has(3) {
        text = text.split(|&byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default().to_vec();
    }
    if has(4) {
        text = careless(&text);
    }
    if has(5) {
        text = String::from_utf8_lossy(&text).replace('\u{fffd}', "").into_bytes();
    }
    if has(6) {
        text = text.iter().map(|&byte| if byte == b'\\' { b'/' } else { byte }).collect();
    }
    if has(7) {
        text = without_parameters(&text);
    }
    if has(8) {
        text = text.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
    }
    if has(14) {
        text = text.split(|&byte| byte == b';').next().unwrap_or_default().to_vec();
    }
    // Two leading slashes begin a host.
    if has(12) && text.starts_with(b"//") {
        let rest: Vec<u8> = text.iter().copied().skip_while(|&byte| byte == b'/').collect();
        text = rest.iter().copied().skip_while(|&byte| byte != b'/').collect();
    }
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let is_script = |segment: &[u8]| has(13) && segment.eq_ignore_ascii_case(b"index.php");
    for segment in text.split(|&byte| byte == b'/') {
        match segment {
            b"" | b"." if has(9) => {}
            segment if is_script(segment) => {}
            b".." if has(9) => _ = kept.pop(),
            segment => {
                let end =
                    segment.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1);
                kept.push(if has(10) && end > 0 { segment[..end].to_vec() } else { segment.to_vec() });
            }
        }
    }
    let mut text = kept.join(&b'/');
    if !text.starts_with(b"/") {
        text.insert(0, b'/');
    }
    if has(11) {
        text.make_ascii_lowercase();
    }
    text
}

fn without_parameters(path: &[u8]) -> Vec<u8> {
    let segments: Vec<&[u8]> = path
        .split(|&byte| byte == b'/')
        .map(|segment| segment.split(|&byte| byte == b';').next().unwrap_or_default())
        .collect();
    segments.join(&b'/')
}

/// Decodes two bytes to the character they would encode, like decoders from before overlong forms were forbidden.
fn careless(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = path;
    while let Some(&first) = rest.first() {
        match *rest {
            [0xc0 | 0xc1, second, ..] => {
                decoded.push((first & 1) << 6 | (second & 0x3f));
                rest = &rest[2..];
            }
            [0xe0, second, third, ..] if second & 0x3f < 2 => {
                decoded.push((second & 0x3f) << 6 | (third & 0x3f));
                rest = &rest[3..];
            }
            _ => {
                decoded.push(first);
                rest = &rest[1..];
            }
        }
    }
    decoded
}

#[test]
fn no_reader_finds_what_is_closed_at_a_path_that_is_not() {
    let rule = |path: &str, level| AccessRule {
        paths: vec![AccessPath::parse(path).unwrap()],
        level,
        ..AccessRule::default()
    };
    let rules = |default, rule| AccessRules::new(&Config { default, rules: vec![rule] }).unwrap();
    let closed = rules(AccessLevel::Bypass, rule("/admin/*", AccessLevel::Deny));
    let public = rules(AccessLevel::TwoFactor, rule("/x/*", AccessLevel::Bypass));
    let random: &dyn Random = &SeededRandom::new(7);
    let mut found = 0;
    for _ in 0..500 {
        let bytes: [u8; 7] = random.bytes();
        let length = 2 + usize::from(bytes[0] % 5);
        let pieces = bytes[1..].iter().take(length).map(|&byte| PIECES[usize::from(byte) % PIECES.len()]);
        let path = format!("/{}", pieces.collect::<String>());
        if path::check(&path).is_err() {
            continue;
        }
        let request = AccessRequest::new(&Method::GET, &HeaderMap::new(), &path, None, [10, 0, 0, 1].into());
        let (closed, public) = (closed.of(&request).level, public.of(&request).level);
        for _ in 0..256 {
            let habits = u16::from_le_bytes(random.bytes()) % (1 << 15);
            let read = read(path.as_bytes(), habits);
            let segment = read.split(|&byte| byte == b'/').nth(1).unwrap_or_default();
            if segment == b"admin" {
                found += 1;
                assert_eq!(
                    closed,
                    AccessLevel::Deny,
                    "{path} is {} to {habits:b}",
                    String::from_utf8_lossy(&read)
                );
                assert_ne!(
                    public,
                    AccessLevel::Bypass,
                    "{path} is {} to {habits:b}",
                    String::from_utf8_lossy(&read)
                );
            }
        }
    }
    assert!(found > 500, "{found}");
}
