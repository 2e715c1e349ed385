//! Requests that are read are those that Node's server reads: llhttp is what many portals have, and shares no line with
//! hyper's parser. Each is read from its first byte to its last, and to no other. What it refuses is refused here, but for
//! what only it judges.

#[path = "second_reader/llhttp.rs"]
mod llhttp;

use std::ops::Range;

use bytes::BytesMut;
use portcullis::{
    http1::{body_part::Part, framing::Framing, request_head::parse},
    secret::hex,
};

use self::llhttp::Request;

pub(crate) fn holds(bytes: &[u8]) {
    let mut from = 0;
    while let Some((request, range, body)) = read_one(bytes, from) {
        from = range.end;
        // A target of no form, or of one that is not this method's, is for the request gate to refuse.
        if !request.target.starts_with('/') || request.method == "CONNECT" {
            continue;
        }
        match llhttp::read(&bytes[range]) {
            Err(refusal) if is_its_own(&refusal, &bytes[body]) => {}
            // Letters beyond ASCII go on as they are; it takes none, other servers do.
            Err(refusal) if refusal.contains("in url") && !request.target.is_ascii() => {}
            peer => assert_eq!(Ok(request), peer),
        }
    }
}

/// Whether the reason is one that nothing follows from: it knows some methods only; extensions of chunks and framing fields
/// in trailers are read over here, whatever they are, and never go on.
fn is_its_own(refusal: &str, behind_head: &[u8]) -> bool {
    let behind_head = String::from_utf8_lossy(behind_head).to_ascii_lowercase();
    refusal.contains("method")
        || refusal.contains("chunk extensions")
        || ["Transfer-Encoding", "Content-Length"]
            .iter()
            .any(|name| refusal.contains(name) && behind_head.contains(&name.to_ascii_lowercase()))
}

/// The request that begins there, if it is whole, the bytes that it takes, and those of them behind its head.
fn read_one(bytes: &[u8], from: usize) -> Option<(Request, Range<usize>, Range<usize>)> {
    let rest = bytes.get(from..).filter(|rest| !rest.is_empty())?;
    let mut buffer = BytesMut::from(rest);
    let head = parse(&mut buffer).ok()??;
    let body_from = bytes.len() - buffer.len();
    let mut body = Vec::new();
    let mut framing = head.announced.map_or(Framing::Length(0), |announced| announced.framing);
    while !framing.is_end() {
        match framing.next(&mut buffer).ok()?? {
            Part::Data(data) => body.extend_from_slice(&data),
            Part::Trailers(_) | Part::End => {}
        }
    }
    let mut fields: Vec<_> = head
        .request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), hex(value.as_bytes())))
        .collect();
    // The order within a name is what a reader may depend on; a map keeps no other.
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    let request = Request {
        method: head.request.method().to_string(),
        target: head.request.uri().to_string(),
        fields,
        body: hex(&body),
    };
    let end = bytes.len() - buffer.len();
    Some((request, from..end, body_from..end))
}
