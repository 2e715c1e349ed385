//! The notice in a page that is open when its session ends: which requests are for such a page, and what becomes of the answer.

use http::{Method, StatusCode};

use super::Site;
use crate::{
    gate::Identity,
    proxy::Followed,
    web::{gate::CanonicalRequest, incoming::Incoming, portal_fields::PortalFields, session_notice},
};

/// Lets a request pass. Answers whether its answer may be a page that gets the notice, in which case it is asked for whole and
/// without compression.
pub(super) fn admit(request: &mut CanonicalRequest<Incoming>, identity: &Identity, site: &Site) -> bool {
    let wants = site.answers.session_notice().is_some()
        && identity.session().is_some()
        && request.upgrade().is_none()
        && session_notice::opens_page(request.method(), request.headers());
    if wants {
        request.leave_out(&session_notice::COMPRESSED);
        // Elsewhere they forbid a change.
        if *request.method() == Method::GET {
            request.leave_out(&session_notice::UNCHANGED);
        }
    }
    wants
}

/// Puts the notice's script into a page.
pub(super) fn insert(status: StatusCode, fields: &mut PortalFields, followed: &mut Followed, site: &Site) {
    let Followed::Body(body) = followed else { return };
    let notice = site.answers.session_notice();
    if let Some(insertion) = notice.and_then(|notice| notice.fit(status, fields)) {
        body.insert(insertion);
    }
}
