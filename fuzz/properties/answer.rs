//! An answer of the portal that is taken is the one that hyper's client reads: the same status, and the same body, ending at
//! the same byte. It comes out alike however its bytes arrive. Its fields are the same ones to a client of HTTP/1, which gets
//! them line by line, and to one of HTTP/2.

#[path = "answer/hyper_reads.rs"]
mod hyper_reads;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use portcullis::{
    http1::{body_part::Part, chunked::Chunked, framing::Framing},
    upstream::http1::parse,
    web::portal_fields::PortalFields,
};

/// Status, body, and how many bytes are left behind.
type Answer = (u16, Vec<u8>, usize);

pub(crate) fn holds(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let (size, is_head) = (usize::from(choice / 2).max(1), choice % 2 == 1);
    let at_once = read(bytes, bytes.len().max(1), is_head);
    assert_eq!(at_once, read(bytes, size, is_head), "in pieces of {size}");
    let Some((status, body, left)) = at_once else { return };
    let (answer, _) = bytes.split_at(bytes.len() - left);
    let peer = hyper_reads::answer(answer, is_head);
    assert_eq!(peer.map(|answer| (answer.status, answer.body)), Some((status, body)));
}

/// The fields as HTTP/2 gets them are those that hyper reads off the lines which HTTP/1 gets.
fn pass_on(fields: PortalFields) {
    let mut wire = b"HTTP/1.1 200 OK\r\n".to_vec();
    fields.write(&mut wire, |_| false);
    wire.extend_from_slice(b"\r\n");
    let mut headers = HeaderMap::new();
    fields.add_to(&mut headers);
    assert_eq!(hyper_reads::answer(&wire, true).map(|answer| answer.fields), Some(headers));
}

/// The first final answer, if it is whole and does not last until the end of the connection.
fn read(bytes: &[u8], size: usize, is_head: bool) -> Option<Answer> {
    let mut pieces = bytes.chunks(size);
    let mut buffer = BytesMut::new();
    let head = loop {
        match parse(&mut buffer, is_head).ok()? {
            Some(head) if head.status == 101 => return None,
            Some(head) if !head.status.is_informational() => break head,
            Some(_) => {}
            None => buffer.extend_from_slice(pieces.next()?),
        }
    };
    pass_on(head.fields);
    let mut body = Vec::new();
    match head.framing {
        Framing::Length(length) => {
            let length = usize::try_from(length).ok()?;
            while buffer.len() < length {
                buffer.extend_from_slice(pieces.next()?);
            }
            body.extend_from_slice(&buffer.split_to(length));
        }
        Framing::Chunked(chunked) => body = read_chunks(chunked, &mut buffer, &mut pieces)?,
        Framing::UntilClose => return None,
    }
    let left = buffer.len() + pieces.map(<[u8]>::len).sum::<usize>();
    Some((head.status.as_u16(), body, left))
}

fn read_chunks<'a>(
    mut chunked: Chunked,
    buffer: &mut BytesMut,
    pieces: &mut impl Iterator<Item = &'a [u8]>,
) -> Option<Vec<u8>> {
    let mut parts: Vec<Bytes> = Vec::new();
    while !chunked.is_done() {
        match chunked.next(buffer).ok()? {
            Some(Part::Data(data)) => parts.push(data),
            Some(Part::Trailers(_) | Part::End) => {}
            None => buffer.extend_from_slice(pieces.next()?),
        }
    }
    Some(parts.concat())
}
