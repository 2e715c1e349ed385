//! The head of the answer that the client gets, where it is more than the portal's fields and ours.

use http::{HeaderValue, Response, StatusCode, header};

use crate::web::portal_fields::PortalFields;

/// The head of a 101 that the portal sent: the protocol stays, the rest is as ever.
pub(super) fn rebuild_switch(fields: PortalFields, protocol: HeaderValue) -> Response<()> {
    let mut answer = Response::new(());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    fields.add_all_to(headers);
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
    answer
}
