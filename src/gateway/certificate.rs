//! Requests of machines that have a certificate on their connection and neither a token nor a session.
//!
//! A browser sends its certificate whichever page makes it ask, so requests made by pages of other sites are treated as having
//! none. A certificate that does not count leaves the request as it is, with the answer that everybody gets.

use std::{rc::Rc, sync::Arc};

use http::HeaderValue;

use super::{
    Gateway, Passed, Site,
    access::asked,
    body::{BodySource, RequestRecord},
    context::ConnectionContext,
    failure::Failure,
    token::{ruling, with_token},
};
use crate::{
    access::Ruling,
    client_certificates::ShownCertificate,
    gate::{Credential, Identity},
    server::ConnectionHandle,
    tokens::{LiveToken, TokenFault},
    web::{
        gate::{CanonicalRequest, Refusal},
        incoming::Incoming,
        origin::{self, Provenance},
        reply::Reply,
    },
};

impl Gateway {
    /// A browser may send requests for one site over a connection that it opened for another. If only this site asks for
    /// certificates, the browser has to open a new one.
    pub(super) fn check_connection(&self, site: &Site, context: &ConnectionContext) -> Result<(), Failure> {
        let Some(certificates) = &self.shared.certificates else { return Ok(()) };
        if context.could_show() || !certificates.asks(Some(site.authority())) {
            return Ok(());
        }
        Err(Refusal::Connection.into())
    }

    /// The machine whose certificate the connection has, and the access decision for it. None: the certificate does not apply to
    /// this request.
    pub(super) async fn certified(
        &self,
        site: &Site,
        request: &CanonicalRequest<Incoming>,
        shown: &Arc<ShownCertificate>,
        record: &RequestRecord,
    ) -> Result<Option<(Arc<LiveToken>, Ruling)>, Failure> {
        if self.shared.certificates.as_ref().is_none_or(|certificates| certificates.is_strange(shown)) {
            return Ok(None);
        }
        let about_any = ruling(site, &with_token(request, record.client_ip));
        let is_foreign = origin::provenance(request.headers(), site.origin()) == Provenance::Elsewhere;
        if is_foreign || !about_any.asks_who() {
            return Ok(None);
        }
        let tokens = Arc::clone(&self.shared.tokens);
        let known = match tokens.cached_certificate(shown, &record.began) {
            Some(known) => Some(known),
            None => {
                let shown = Arc::clone(shown);
                let loaded = self.shared.control.spawn(async move { tokens.load_certificate(&shown).await });
                match loaded.await.map_err(Failure::Lost)? {
                    Ok(known) => known,
                    Err(_) if !about_any.needs_to_know() => None,
                    Err(error) => {
                        return Err(Failure::Token { fault: TokenFault::Store(error), is_basic: false });
                    }
                }
            }
        };
        let admits =
            |known: &Arc<LiveToken>| known.admits(&asked(request, record.client_ip), site.authority());
        let Some(known) = known.filter(admits) else { return Ok(None) };
        let ruling = Self::ruling_for(site, request, about_any, &known, record);
        Ok(ruling.takes_tokens().then_some((known, ruling)))
    }

    /// Handles a request of a machine with a certificate. `cookies` are the portal's.
    pub(super) async fn by_certificate(
        &self,
        site: &Rc<Site>,
        request: CanonicalRequest<Incoming>,
        ((machine, ruling), cookies): ((Arc<LiveToken>, Ruling), Option<&HeaderValue>),
        on: (&ConnectionHandle, &ConnectionContext),
        record: &mut RequestRecord,
    ) -> Result<Reply<BodySource>, Failure> {
        let now = self.shared.sessions.time_at(&self.shared.clock.moment());
        let identity = self.judge_certificate(site, ruling, machine, record)?;
        let passed = Passed { site, identity: &identity, cookies, now, whole: None };
        self.pass(request, passed, on, record).await
    }

    fn judge_certificate(
        &self,
        site: &Site,
        ruling: Ruling,
        machine: Arc<LiveToken>,
        record: &mut RequestRecord,
    ) -> Result<Identity, Failure> {
        record.session = Some(Arc::clone(&machine.live));
        let credential = Credential::Token(Arc::clone(&machine.live));
        record.token = Some(machine);
        let now = self.shared.sessions.now();
        self.decide(site, &ruling, credential, now, record)?
            .map_err(|_| Failure::Denied(site.shared.access.place(&ruling).into()))
    }
}
