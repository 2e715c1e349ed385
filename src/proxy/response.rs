//! The head of the answer that the client gets: the portal's, less what is not its to set.

use http::{HeaderValue, Response, header, response::Parts};

use super::body::PortalBody;
use crate::web::{answer::HSTS, cookies, fields};

/// Cleans the head in place and puts the body on.
pub(super) fn rebuild(mut parts: Parts, body: PortalBody) -> Response<PortalBody> {
    clean(&mut parts);
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
    cookies::drop_set_ours(headers);
    // It would lead browsers to another port, around the wall.
    headers.remove(header::ALT_SVC);
    headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    headers.append(header::VIA, fields::via(parts.version));
    parts.version = http::Version::HTTP_11;
}
