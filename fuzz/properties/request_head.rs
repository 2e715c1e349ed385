//! Requests that are read are those that hyper's server reads: the same heads, and the same bodies, each ending at the same
//! byte. They come out alike however the bytes arrive.

#[path = "request_head/hyper_reads.rs"]
mod hyper_reads;

use bytes::BytesMut;
use http::Request;
use portcullis::http1::{body_part::Part, framing::Framing, request_head::parse};

pub(crate) fn holds(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    let size = usize::from(size).max(1);
    let (requests, left) = read(bytes, bytes.len().max(1));
    let piecemeal = read(bytes, size);
    assert_eq!(format!("{:?}", (&requests, left)), format!("{piecemeal:?}"), "in pieces of {size}");
    let (taken, _) = bytes.split_at(bytes.len() - left);
    let peer = hyper_reads::requests(taken, size);
    assert_eq!(format!("{requests:?}"), format!("{peer:?}"));
}

/// The requests that are whole, and how many bytes are left behind the last of them.
fn read(bytes: &[u8], size: usize) -> (Vec<Request<Vec<u8>>>, usize) {
    let mut pieces = bytes.chunks(size);
    let mut buffer = BytesMut::new();
    let (mut requests, mut left) = (Vec::new(), bytes.len());
    while let Some((request, goes_on)) = read_one(&mut buffer, &mut pieces) {
        requests.push(request);
        left = buffer.len() + pieces.clone().map(<[u8]>::len).sum::<usize>();
        if !goes_on {
            break;
        }
    }
    (requests, left)
}

fn read_one<'a>(
    buffer: &mut BytesMut,
    pieces: &mut impl Iterator<Item = &'a [u8]>,
) -> Option<(Request<Vec<u8>>, bool)> {
    let head = loop {
        match parse(buffer).ok()? {
            Some(head) => break head,
            None => buffer.extend_from_slice(pieces.next()?),
        }
    };
    let mut body = Vec::new();
    let mut framing = head.announced.map_or(Framing::Length(0), |announced| announced.framing);
    while !framing.is_end() {
        match framing.next(buffer).ok()? {
            Some(Part::Data(data)) => body.extend_from_slice(&data),
            Some(Part::Trailers(_) | Part::End) => {}
            None => buffer.extend_from_slice(pieces.next()?),
        }
    }
    Some((head.request.map(|_| body), head.keep_alive))
}
