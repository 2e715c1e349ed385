//! The portal's own way out: who has taken it has no session with us either.
//!
//! Nothing is refused because of which site the request came from: what the portal lets another site do, it has done by then,
//! and a session of ours that stays behind would be worse.

use http::{HeaderName, Response};

use super::{Note, Source};
use crate::{
    login,
    web::{cookies, logout::Attempt, portal_fields},
};

static CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// Takes our cookie away when the portal has logged out, and has the session ended when its answer is over: not before, since
/// the answer would be cut.
pub(super) fn follow(response: &mut Response<Source>, attempt: Attempt, note: &mut Note) {
    portal_fields::unpack(response);
    if !attempt.worked(response) {
        return;
    }
    let names = &note.shared().cookies;
    cookies::clear(response, &names.session);
    cookies::clear(response, &names.forms);
    response.headers_mut().entry(&CLEAR_SITE_DATA).or_insert(cookies::WHAT_WAS_KEPT);
    note.signs_off = true;
}

/// Ends the session of a request that has logged out at the portal.
pub(super) fn end(note: &Note) {
    let Some(live) = note.session.clone() else { return };
    let shared = note.shared();
    let (pages, source) = (
        shared.pages.clone(),
        login::Source {
            client_ip: note.client_ip,
            user_agent: String::new(),
            request_id: note.request_id().to_owned(),
            replaces: None,
        },
    );
    shared.control.spawn(async move { pages.log_out(&live.session, &source).await });
}
