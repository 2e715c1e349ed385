//! Access to a site: what its rules require of a request, and whether it passes as a user, as a stranger, or not at
//! all.

use std::{net::IpAddr, rc::Rc, sync::Arc};

use super::{Gateway, Lookup, Site, body::RequestRecord, failure::Failure};
use crate::{
    access::{AccessLevel, AccessRequest, Ruling, SignedIn},
    clock::{Moment, Timestamp},
    gate::{self, Credential, Decision, Identity, Missing},
    secret::TokenHash,
    server::ConnectionHandle,
    sessions::{Live, Use},
    telemetry::Outcome,
    web::{gate::CanonicalRequest, incoming::Incoming, origin},
};

/// Public requests of strangers that a worker serves at once when overloaded: public paths stay available, and take
/// nothing from users.
pub(super) const PUBLIC_UNDER_STRAIN: u32 = 16;

/// The ruling for a request whose sender is not known yet.
pub(super) fn ruling(site: &Site, request: &CanonicalRequest<Incoming>, client: IpAddr) -> Ruling {
    let rules = &site.shared.access;
    if rules.is_empty() { rules.default_ruling() } else { rules.of(&asked(request, client)) }
}

pub(super) fn asked(request: &CanonicalRequest<Incoming>, client: IpAddr) -> AccessRequest<'_> {
    AccessRequest::new(request.method(), request.headers(), request.path(), request.query(), client)
}

impl Gateway {
    /// Turns requests away when overloaded. Comes before everything else: a stranger costs a look at the cookie, and no
    /// page.
    pub(super) async fn shed(
        &self,
        site: &Site,
        request: &CanonicalRequest<Incoming>,
        (claimed, counts): (Option<TokenHash>, Use),
        connection: &ConnectionHandle,
        record: &RequestRecord,
    ) -> Result<(), Failure> {
        let is_in = match self.known_session(claimed, counts, &record.began) {
            Lookup::Session(_) => Ok(true),
            Lookup::Nobody => Ok(false),
            Lookup::Ask(id) => self.load_session(id, counts).await.map(|loaded| loaded.is_some()),
        };
        let is_public = || {
            !request.is_ours()
                && self.public.get() < PUBLIC_UNDER_STRAIN
                && ruling(site, request, record.client_ip).level == AccessLevel::Bypass
        };
        if matches!(is_in, Ok(true)) || is_public() {
            return Ok(());
        }
        is_in?;
        connection.finish();
        Err(Failure::Overload)
    }

    /// Loads a session. If everybody or nobody gets through anyway, a store that does not answer stops no request.
    pub(super) async fn load_for(
        &self,
        ruling: &Ruling,
        id: TokenHash,
        counts: Use,
    ) -> Result<Option<Arc<Live>>, Failure> {
        if ruling.level == AccessLevel::Deny && !ruling.needs_to_know() {
            return Ok(None);
        }
        match self.load_session(id, counts).await {
            Err(_) if !ruling.needs_to_know() => {
                self.shared.metrics.store_error();
                Ok(None)
            }
            loaded => loaded,
        }
    }

    /// Asks the gate, and records who the request is from: the identity that passes, or what has to be proved first.
    /// `ruling` is the one for a stranger.
    pub(super) fn judge(
        &self,
        (site, request): (&Rc<Site>, &CanonicalRequest<Incoming>),
        ruling: Ruling,
        session: Option<Arc<Live>>,
        at: &Moment,
        record: &mut RequestRecord,
    ) -> Result<Result<Identity, Missing>, Failure> {
        record.session.clone_from(&session);
        let ruling = match &session {
            Some(live) if ruling.depends_on_user => {
                let user = SignedIn { name: &live.session.name, groups: &live.session.groups };
                site.shared.access.of(&asked(request, record.client_ip).by(user))
            }
            _ => ruling,
        };
        let is_public = ruling.level == AccessLevel::Bypass;
        let credential = match session {
            // Another site's page may open a public WebSocket, but not as the user.
            Some(_) if is_public && is_foreign_socket(site, request) => Credential::Nothing,
            Some(live) => Credential::Session(live),
            None => Credential::Nothing,
        };
        let now = self.shared.sessions.time_at(at);
        self.decide(site, &ruling, credential, now, record)
    }

    /// Asks the gate, with the credential of the request.
    pub(super) fn decide(
        &self,
        site: &Site,
        ruling: &Ruling,
        credential: Credential,
        now: Timestamp,
        record: &mut RequestRecord,
    ) -> Result<Result<Identity, Missing>, Failure> {
        match gate::decide(ruling, credential, now) {
            Decision::Allow(identity) => {
                let is_public = ruling.level == AccessLevel::Bypass;
                record.outcome = if is_public { Outcome::Bypass } else { Outcome::Allow };
                if identity.subject().is_none() {
                    // A request that is anonymous to the portal is anonymous in the log and for the limits.
                    (record.session, record.token) = (None, None);
                    record.is_public = true;
                    self.public.set(self.public.get() + 1);
                }
                Ok(Ok(identity))
            }
            Decision::Challenge(missing) => Ok(Err(missing)),
            Decision::Deny => Err(Failure::Denied(site.shared.access.place(ruling).into())),
        }
    }
}

/// Refuses WebSockets opened by pages of other sites: they would come with the user's cookie.
pub(super) fn admit_socket(
    site: &Site,
    request: &CanonicalRequest<Incoming>,
    identity: &Identity,
) -> Result<(), Failure> {
    if identity.session().is_some() && is_foreign_socket(site, request) {
        return Err(Failure::ForeignOrigin);
    }
    Ok(())
}

fn is_foreign_socket(site: &Site, request: &CanonicalRequest<Incoming>) -> bool {
    request.upgrade().is_some() && !origin::names(request.headers(), site.origin())
}

impl RequestRecord {
    /// A public request of a stranger has ended.
    pub(super) fn leaves_public(&self) {
        if self.is_public {
            let public = &self.gateway().public;
            public.set(public.get().saturating_sub(1));
        }
    }
}
