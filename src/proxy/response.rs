//! The head of the answer that the client gets: the portal's, less what is about one connection or not its to set.

use http::{HeaderValue, Response, header, response::Parts};

use super::{body, body::PortalBody};
use crate::web::{answer::HSTS, cookies, fields};

/// Cleans the head in place and puts the body on.
pub(super) fn rebuild(mut parts: Parts, body: PortalBody) -> Response<PortalBody> {
    let trailers = body::announced_trailers(&parts.headers);
    clean(&mut parts);
    if let Some(trailers) = trailers {
        parts.headers.insert(header::TRAILER, trailers);
    }
    Response::from_parts(parts, body)
}

/// The head of a 101 that the portal sent: the protocol stays, the rest is cleaned as ever.
pub(super) fn rebuild_switch(mut parts: Parts, protocol: HeaderValue) -> Parts {
    clean(&mut parts);
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(header::UPGRADE, protocol);
    parts
}

fn clean(parts: &mut Parts) {
    let headers = &mut parts.headers;
    fields::remove_hop_by_hop(headers);
    cookies::drop_set_ours(headers);
    // It would lead browsers to another port, around the wall.
    headers.remove(header::ALT_SVC);
    headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    fields::append_via(headers, parts.version);
    parts.version = http::Version::HTTP_11;
    // hyper notes how the portal spelt the reason; that is not for the client.
    parts.extensions.clear();
}
