//! The scripts of the portal's service workers: refused, or guarded so that the worker cannot see our pages.

use http::{HeaderName, StatusCode, header};

use super::failure::Failure;
use crate::{
    proxy::Followed,
    web::{
        gate::CanonicalRequest, incoming::Incoming, portal_answers::PortalAnswers,
        portal_fields::PortalFields, service_worker,
    },
};

/// Fields that no longer hold for a script with a prefix.
const ABOUT_ITS_BYTES: [HeaderName; 4] =
    [header::CONTENT_LENGTH, header::ETAG, header::LAST_MODIFIED, header::ACCEPT_RANGES];

/// Checks a request for such a script; any other request passes. Returns whether the script has to be [guarded](guard).
pub(super) fn admit(
    request: &mut CanonicalRequest<Incoming>,
    answers: &PortalAnswers,
) -> Result<bool, Failure> {
    let (method, headers) = (request.method(), request.headers());
    let asks = request.field_set().may_have(&service_worker::ASKS) && service_worker::asks(method, headers);
    if asks && answers.refuses_worker(request.path()) {
        return Err(Failure::ServiceWorker);
    }
    let guards = answers.guards_workers() && service_worker::asks_for_part(method, headers);
    if asks || guards {
        // A script in the browser's cache may still have an old scope, and a partial response cannot be guarded.
        request.leave_out(&service_worker::PARTIAL);
    }
    Ok(guards)
}

/// Puts the guard, which hides our pages from the worker, in front of its script.
pub(super) fn guard(
    status: StatusCode,
    fields: &mut PortalFields,
    followed: &mut Followed,
) -> Result<(), Failure> {
    if !status.is_success() && status != StatusCode::NOT_MODIFIED {
        return Ok(());
    }
    let is_plain = fields.get(&header::CONTENT_ENCODING).is_none_or(|coding| coding == b"identity");
    let Followed::Body(body) = followed else { return Err(Failure::ServiceWorker) };
    if !is_plain || status != StatusCode::OK {
        return Err(Failure::ServiceWorker);
    }
    body.lead_with(service_worker::guard());
    fields.drop_where(|name| ABOUT_ITS_BYTES.contains(name));
    Ok(())
}
