//! The watcher of raw bytes says the same however the bytes arrive, and wherever it finds nothing ambiguous it begins the
//! next request just where hyper and its parser do.

#[path = "raw_head/hyper_reads.rs"]
mod hyper_reads;

use httparse::Status;
use portcullis::web::raw_head::RawHead;

pub(crate) fn holds(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    let size = usize::from(size).max(1);
    let verdict = RawHead::default().watch(bytes);
    let mut piecemeal = RawHead::default();
    let in_pieces = bytes.chunks(size).try_for_each(|piece| piecemeal.watch(piece));
    assert_eq!(verdict, in_pieces, "in pieces of {size}");
    if verdict.is_err() {
        return;
    }
    let expected = requests(bytes);
    let read = hyper_reads::requests(bytes, size);
    assert_eq!(read, expected.get(..read.len()).expect("hyper reads no more than there is"));
}

/// What a reader that forgives nothing finds: each request's target and body. Ends where bytes are missing, or where the
/// parser refuses; each boundary is one for the watcher too.
fn requests(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((target, framing, head)) = bytes.get(at..).and_then(parse) {
        let body_at = at + head;
        let (length, body) = match framing {
            Framing::Length(length) => {
                let Some(body) = bytes.get(body_at..body_at.saturating_add(length)) else { break };
                (length, body.to_vec())
            }
            Framing::Chunked => {
                let Some(read) = dechunk(bytes.get(body_at..).unwrap_or_default()) else { break };
                read
            }
            Framing::Switches => {
                found.push((target, Vec::new()));
                break;
            }
        };
        at = body_at + length;
        assert!(begins_here(bytes, at), "the watcher does not begin at {at}");
        found.push((target, body));
    }
    found
}

enum Framing {
    Length(usize),
    Chunked,
    Switches,
}

fn parse(bytes: &[u8]) -> Option<(String, Framing, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut fields);
    let Ok(Status::Complete(head)) = request.parse(bytes) else { return None };
    let values = |name: &str| -> Vec<String> {
        let named = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| String::from_utf8_lossy(field.value).trim().to_lowercase()).collect()
    };
    // As hyper shows it, which gives an absolute target the path that it lacks.
    let target = request.path?.parse::<http::Uri>().ok()?.to_string();
    let framing = match (&*values("content-length"), &*values("transfer-encoding")) {
        ([], []) => Framing::Length(0),
        ([length], []) => Framing::Length(length.parse().unwrap_or(usize::MAX)),
        ([], [coding]) if coding == "chunked" && request.version == Some(1) => Framing::Chunked,
        (lengths, codings) => panic!("the watcher passed {lengths:?} and {codings:?}"),
    };
    let switches = matches!(framing, Framing::Length(0)) && !values("upgrade").is_empty();
    Some((target, if switches { Framing::Switches } else { framing }, head))
}

/// The length of a chunked body on the wire, and what it carries.
fn dechunk(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let rest = bytes.get(at..)?;
        let Ok(Status::Complete((line, size))) = httparse::parse_chunk_size(rest) else { return None };
        at += line;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).ok()?;
        body.extend_from_slice(bytes.get(at..at.checked_add(size)?)?);
        at += size;
        assert_eq!(bytes.get(at..at + 2)?, b"\r\n", "the watcher passed a chunk without an end");
        at += 2;
    }
    loop {
        let line = bytes.get(at..)?.iter().position(|&byte| byte == b'\n')? + 1;
        at += line;
        if line == 2 {
            return Some((at, body));
        }
    }
}

/// Whether the watcher takes what follows these bytes for a new head.
fn begins_here(bytes: &[u8], at: usize) -> bool {
    let mut watcher = RawHead::default();
    watcher.watch(bytes.get(..at).unwrap_or_default()).is_ok() && watcher.is_between()
}
