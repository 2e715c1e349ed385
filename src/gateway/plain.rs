//! Requests over plain HTTP: a page request is redirected to HTTPS, everything else is refused.
//!
//! A client that posts or signs in here has exposed its secrets on the network. A response that works would hide that.

use std::rc::Rc;

use http::{HeaderValue, Method, Request, StatusCode, header};

use super::{Gateway, Outcome, Site, body::RequestRecord, health};
use crate::web::{
    answer::{self, Answer},
    client,
    field_set::X_PORTCULLIS_TOKEN,
    gate::{CanonicalRequest, Refusal},
};

/// The prefix of our cookies.
const OURS: &[u8] = b"__Host-portcullis";

impl Gateway {
    /// The response to a request over plain HTTP. `has_body`: the request has a body.
    pub(super) fn plainly(
        &self,
        mut request: Box<Request<()>>,
        has_body: bool,
        record: &mut RequestRecord,
    ) -> Answer {
        self.request_gate.readdress(&mut request);
        let (request, site) = match self.request_gate.admit(request, has_body) {
            Ok(admitted) => admitted,
            Err(refusal) => return refused(&refusal),
        };
        record.site = Rc::clone(site);
        let shared = &self.shared;
        record.client_ip = client::address(
            record.client_ip,
            request.headers(),
            &shared.trusted_proxies,
            shared.client_address,
        );
        if request.is_health() {
            record.outcome = Outcome::Own;
            return health(false);
        }
        if shows_credentials(&request) {
            record.outcome = Outcome::Deny;
            return advice(
                site,
                "This request carried a password, a token or a session over plain HTTP, where anybody on the way can read it. \
                 Replace it, and send requests to",
            );
        }
        let reads = matches!(*request.method(), Method::GET | Method::HEAD) && !has_body;
        if reads && client::is_navigation(request.method(), request.headers()) {
            record.outcome = Outcome::Own;
            return moved(site, &request);
        }
        record.outcome = Outcome::Deny;
        advice(site, "This port only leads browsers to HTTPS. Send requests to")
    }
}

/// The response to a malformed request.
pub(super) fn refused(refusal: &Refusal) -> Answer {
    answer::text(refusal.status(), format!("{refusal}\n"))
}

fn shows_credentials<B>(request: &CanonicalRequest<B>) -> bool {
    let headers = request.headers();
    let named = [&header::AUTHORIZATION, &header::PROXY_AUTHORIZATION, &X_PORTCULLIS_TOKEN];
    let cookies = headers.get_all(header::COOKIE);
    named.into_iter().any(|name| headers.contains_key(name))
        || cookies.iter().any(|line| memchr::memmem::find(line.as_bytes(), OURS).is_some())
}

/// The redirect to the same page of the same site. Not a permanent one: `public_url` may change.
fn moved<B>(site: &Site, request: &CanonicalRequest<B>) -> Answer {
    let mut answer = answer::empty(StatusCode::MOVED_PERMANENTLY);
    match HeaderValue::from_str(&format!("{}{}", site.origin(), request.target())) {
        Ok(location) => {
            answer.headers_mut().insert(header::LOCATION, location);
            answer
        }
        Err(_) => refused(&Refusal::Target),
    }
}

fn advice(site: &Site, text: &str) -> Answer {
    answer::text(StatusCode::FORBIDDEN, format!("{text} {}.\n", site.origin()))
}
