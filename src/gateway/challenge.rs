//! What whoever sent a request gets when the gate does not let it pass.

use http::Method;

use super::{Site, body::RequestRecord, token};
use crate::{
    gate::{Missing, Visitor},
    telemetry::Outcome,
    web::{
        answer::Answer,
        client::{self, Destination},
        gate::CanonicalRequest,
        incoming::Incoming,
        origin::{self, Provenance},
    },
};

/// The way to prove what is missing, for a request that the gate does not let pass.
pub(super) fn challenge(
    site: &Site,
    request: &CanonicalRequest<Incoming>,
    has_cookie: bool,
    missing: Missing,
    record: &mut RequestRecord,
) -> Answer {
    record.outcome = Outcome::Challenge;
    let (method, headers, challenger) = (request.method(), request.headers(), &site.shared.challenger);
    let has_been_in = has_cookie || origin::provenance(headers, site.origin()) == Provenance::Here;
    let offers_basic = !has_been_in && token::is_welcome(site, request, record.client_ip);
    let visitor = Visitor { method, headers, target: request.target(), has_been_in, offers_basic };
    if client::destination(method, headers) == Destination::Frame {
        let was_sent = *method == Method::POST;
        let way_in = challenger.from_page(visitor, missing);
        site.shared.pages.in_frame(&way_in, missing, was_sent, record.request_id())
    } else {
        challenger.challenge(missing, visitor)
    }
}
