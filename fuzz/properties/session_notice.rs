//! A page gets the tag of the session notice once or not at all, and nothing else of it changes; in whatever pieces it comes,
//! the tag is at the same place. What a policy becomes is a policy that needs nothing more, and in which only what is said of
//! scripts and connections has changed.

use bytes::{Bytes, BytesMut};
use http::{HeaderName, StatusCode, header};
use portcullis::{
    upstream::http1::parse,
    web::{
        portal_fields::PortalFields,
        session_notice::{Insertion, SessionNotice},
    },
};

const TAG: &[u8] = b"[the tag]";

/// A byte that says in what pieces, two lines of policies, and a page.
pub(crate) fn holds(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    let mut parts = rest.splitn(3, |&byte| byte == b'\n');
    let mut next = || parts.next().unwrap_or_default();
    let (enforced, reported, page) = (next(), next(), next());
    fits(enforced, reported);

    let whole = passed([page].into_iter());
    assert_eq!(passed(page.chunks(usize::from(choice).max(1))), whole, "in pieces of {choice}");
    let at = page.iter().zip(&whole).take_while(|(one, other)| one == other).count();
    let without =
        |at: usize| [whole.get(..at), whole.get(at + TAG.len()..)].map(Option::unwrap_or_default).concat();
    // Where the page goes on as the tag begins, the place is further in front.
    assert!(whole == page || (0..=at).any(|at| without(at) == page), "{:?}", String::from_utf8_lossy(&whole));
}

fn passed<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut insertion = Insertion::new(Bytes::from_static(TAG));
    let mut out = Vec::new();
    for piece in pieces {
        out.extend_from_slice(&insertion.pass(Bytes::copy_from_slice(piece)));
    }
    out.extend(insertion.rest().into_iter().flatten());
    out
}

fn fits(enforced: &[u8], reported: &[u8]) {
    let names = [header::CONTENT_SECURITY_POLICY, header::CONTENT_SECURITY_POLICY_REPORT_ONLY];
    let Some(mut fields) = read([&names[0], &names[1]], [enforced, reported]) else { return };
    let notice = SessionNotice::new("https://iot.example.com".into(), "/.portcullis/assets/n.js".into(), b"");
    let before = names.each_ref().map(|name| policies(&fields, name));
    if notice.fit(StatusCode::OK, &mut fields).is_none() {
        return;
    }
    let after = names.each_ref().map(|name| policies(&fields, name));
    for (before, after) in before.iter().zip(&after) {
        let others = |policies: &[Vec<String>]| {
            let of_ours =
                |line: &String| ["script-src", "connect-src"].iter().any(|name| line.starts_with(name));
            policies.iter().flatten().filter(|line| !of_ours(line)).cloned().collect::<Vec<_>>()
        };
        assert_eq!(others(before), others(after));
    }
    assert!(notice.fit(StatusCode::OK, &mut fields).is_some());
    assert_eq!(names.each_ref().map(|name| policies(&fields, name)), after, "once more");
}

fn read(names: [&HeaderName; 2], values: [&[u8]; 2]) -> Option<PortalFields> {
    let mut head = BytesMut::from(&b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"[..]);
    for (name, value) in names.into_iter().zip(values) {
        head.extend_from_slice(&[name.as_str().as_bytes(), b": ", value, b"\r\n"].concat());
    }
    head.extend_from_slice(b"\r\n");
    Some(parse(&mut head, false).ok()??.fields)
}

/// The policies of a name, each as its directives: the name in small letters, and the words.
fn policies(fields: &PortalFields, name: &HeaderName) -> Vec<Vec<String>> {
    let lines = fields.values(name).map(String::from_utf8_lossy).collect::<Vec<_>>();
    let policies = lines.iter().flat_map(|line| line.split(','));
    let directives = |policy: &str| {
        let mut known: Vec<String> = Vec::new();
        for directive in policy.split(';') {
            let mut words = directive.split_ascii_whitespace();
            let Some(name) = words.next().map(str::to_ascii_lowercase) else { continue };
            // The first of a name counts.
            if !known.iter().any(|line| line.split(' ').next() == Some(&name)) {
                known.push(std::iter::once(&*name).chain(words).collect::<Vec<_>>().join(" "));
            }
        }
        known
    };
    policies.map(directives).filter(|policy| !policy.is_empty()).collect()
}
