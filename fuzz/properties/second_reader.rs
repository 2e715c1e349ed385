//! Requests that are read are those that Node's server reads: llhttp is what many portals have, and shares no line with
//! hyper's parser. Each is read from its first byte to its last, and to no other. What it refuses is refused here, but for
//! methods that it does not know.

#[path = "second_reader/llhttp.rs"]
mod llhttp;

use std::ops::Range;

use bytes::BytesMut;
use portcullis::{
    secret::hex,
    web::{
        framing::{Framing, Part},
        request_head::parse,
    },
};

use self::llhttp::Request;

pub(crate) fn holds(bytes: &[u8]) {
    let mut from = 0;
    while let Some((request, range)) = read_one(bytes, from) {
        from = range.end;
        // A target of no form, or of one that is not this method's, is for the request gate to refuse.
        if !request.target.starts_with('/') || request.method == "CONNECT" {
            continue;
        }
        match llhttp::read(&bytes[range]) {
            // Extensions are read over here, whatever they are, and never go on.
            Err(refusal) if refusal.contains("chunk extensions") => {}
            // It knows some methods only.
            Err(refusal) if refusal.contains("method") => {}
            peer => assert_eq!(Ok(request), peer),
        }
    }
}

/// The request that begins there, if it is whole, and the bytes that it takes.
fn read_one(bytes: &[u8], from: usize) -> Option<(Request, Range<usize>)> {
    let rest = bytes.get(from..).filter(|rest| !rest.is_empty())?;
    let mut buffer = BytesMut::from(rest);
    let head = parse(&mut buffer).ok()??;
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
    Some((request, from..bytes.len() - buffer.len()))
}
