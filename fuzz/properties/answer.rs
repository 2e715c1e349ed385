//! An answer of the portal that is taken is the one that hyper's client reads: the same status, and the same body, ending at
//! the same byte. It comes out alike however its bytes arrive.

#[path = "answer/hyper_reads.rs"]
mod hyper_reads;

use bytes::{Bytes, BytesMut};
use portcullis::{
    upstream::http1::parse,
    web::{
        chunked::Chunked,
        framing::{Framing, Part},
    },
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
    assert_eq!(peer, Some((status, body)));
}

/// The first final answer, if it is whole and does not last until the end of the connection.
fn read(bytes: &[u8], size: usize, is_head: bool) -> Option<Answer> {
    let mut pieces = bytes.chunks(size);
    let mut buffer = BytesMut::new();
    let head = loop {
        match parse(&mut buffer, is_head).ok()? {
            Some(head) if head.response.status() == 101 => return None,
            Some(head) if !head.response.status().is_informational() => break head,
            Some(_) => {}
            None => buffer.extend_from_slice(pieces.next()?),
        }
    };
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
    Some((head.response.status().as_u16(), body, left))
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
