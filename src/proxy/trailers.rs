//! The trailers that are forwarded, in either direction.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderName, header};
use http_body::Frame;

use crate::{http1::fields, identity::IdentityHeaders};

/// Trailers are never merged into a head; fields for framing, routing or identity are not allowed in them (RFC 9110
/// §6.5.1).
pub(super) fn without_forged_trailers(
    frame: Frame<Bytes>,
    reserved: Option<&Rc<IdentityHeaders>>,
) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            let forbidden: Vec<HeaderName> = trailers
                .keys()
                .filter(|name| {
                    is_forbidden_trailer(name) || reserved.is_some_and(|reserved| reserved.is_reserved(name))
                })
                .cloned()
                .collect();
            for name in forbidden {
                trailers.remove(&name);
            }
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

fn is_forbidden_trailer(name: &HeaderName) -> bool {
    // The HTTP/2 parser allows a quotation mark in a name (RFC 9110 §5.6.2).
    fields::is_hop_by_hop(name)
        || name.as_str().contains('"')
        || matches!(
            *name,
            header::CONTENT_LENGTH
                | header::HOST
                | header::COOKIE
                | header::SET_COOKIE
                | header::AUTHORIZATION
                | header::EXPECT
                | header::MAX_FORWARDS
                | header::RANGE
                | header::CONTENT_ENCODING
                | header::CONTENT_TYPE
                | header::CONTENT_RANGE
                | header::LOCATION
                | header::VIA
                // The gateway sets the fields about plain HTTP and other ports.
                | header::STRICT_TRANSPORT_SECURITY
                | header::ALT_SVC
        )
}
