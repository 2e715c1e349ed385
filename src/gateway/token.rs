//! Requests with a token instead of a session.
//!
//! A request stands on a token or on a session: with a token the session is ignored, and a valid session does not make
//! up for an invalid token.

use std::{net::IpAddr, rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderValue, header};

use super::{
    Gateway, Passed, Site,
    access::{PUBLIC_UNDER_STRAIN, asked},
    body::{BodySource, RequestRecord},
    context::ConnectionContext,
    failure::Failure,
};
use crate::{
    access::{AccessLevel, AccessRequest, Ruling, SignedIn},
    gate::{Credential, Identity},
    proxy::ForwardError,
    server::ConnectionHandle,
    tokens::{LiveToken, Shown, TokenFault, TokenRefusal},
    web::{
        field_set::X_PORTCULLIS_TOKEN,
        gate::CanonicalRequest,
        incoming::Incoming,
        origin::{self, Provenance},
        reply::Reply,
    },
};

/// Fields that browsers send with a page's requests, and programs do not. A browser would ask its user for the
/// password.
const OF_BROWSERS: [&str; 6] =
    ["sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "origin", "referer", "x-requested-with"];

/// Takes the token from a request for the portal, so that it is not forwarded.
pub(super) fn take(request: &mut CanonicalRequest<Incoming>) -> Option<Shown> {
    let shown = Shown::of(request.headers(), request.field_set()).filter(|_| !request.is_ours())?;
    request.leave_out(std::slice::from_ref(&X_PORTCULLIS_TOKEN));
    if shown.in_authorization {
        request.leave_out(&[header::AUTHORIZATION]);
    }
    Some(shown)
}

/// Whether to ask for a token: it would suffice for this request, and the client is a program.
pub(super) fn is_welcome(site: &Site, request: &CanonicalRequest<Incoming>, client: IpAddr) -> bool {
    let headers: &HeaderMap = request.headers();
    let by_browser = OF_BROWSERS.iter().any(|&name| headers.contains_key(name));
    !by_browser && request.upgrade().is_none() && ruling(site, &with_token(request, client)).takes_tokens()
}

pub(super) fn with_token(request: &CanonicalRequest<Incoming>, client: IpAddr) -> AccessRequest<'_> {
    asked(request, client).with_token()
}

pub(super) fn ruling(site: &Site, request: &AccessRequest<'_>) -> Ruling {
    let rules = &site.shared.access;
    if rules.is_empty() { rules.default_ruling() } else { rules.of(request) }
}

impl Gateway {
    /// Handles a request with a token. `cookies` are the portal's.
    pub(super) async fn by_token(
        &self,
        site: &Rc<Site>,
        request: CanonicalRequest<Incoming>,
        (shown, cookies): (Shown, Option<&HeaderValue>),
        on: (&ConnectionHandle, &ConnectionContext),
        record: &mut RequestRecord,
    ) -> Result<Reply<BodySource>, Failure> {
        let about_any = ruling(site, &with_token(&request, record.client_ip));
        let token = self.token_for(site, &request, &about_any, &shown, record).await;
        let has_place = match &token {
            Ok(Some(_)) => true,
            Ok(None) => self.public.get() < PUBLIC_UNDER_STRAIN,
            Err(_) => false,
        };
        if self.shared.load.is_strained() && !has_place {
            on.0.finish();
            return Err(Failure::Overload);
        }
        let token = token?;
        let now = self.shared.sessions.time_at(&self.shared.clock.moment());
        let identity = self.judge_token(site, &request, about_any, token, record)?;
        let passed = Passed { site, identity: &identity, cookies, now, whole: None };
        self.pass(request, passed, on, record).await.map_err(|failure| match failure {
            // Revoked or expired since it was checked.
            Failure::Forward(ForwardError::SessionEnded) if let Some(live) = identity.subject() => {
                let is_expired = live.session.expires_at <= self.shared.sessions.now();
                let refusal = if is_expired { TokenRefusal::Expired } else { TokenRefusal::Revoked };
                Failure::Token { fault: TokenFault::Refused(refusal), is_basic: shown.is_basic }
            }
            failure => failure,
        })
    }

    /// The token, if it is valid for the request. Where everybody gets through an invalid token stops nobody, and where
    /// nobody does it is not checked.
    async fn token_for(
        &self,
        site: &Site,
        request: &CanonicalRequest<Incoming>,
        ruling: &Ruling,
        shown: &Shown,
        record: &RequestRecord,
    ) -> Result<Option<Arc<LiveToken>>, Failure> {
        let is_closed = ruling.level == AccessLevel::Deny && !ruling.needs_to_know();
        if is_closed || !ruling.asks_who() {
            return Ok(None);
        }
        match self.good_token(site, request, (shown, ruling.needs_to_know()), record).await {
            Ok(token) => Ok(Some(token)),
            Err(failure) => {
                if let Failure::Token { fault: TokenFault::Refused(refusal), .. } = &failure {
                    self.shared.metrics.token_refused(refusal.word());
                }
                if ruling.needs_to_know() { Err(failure) } else { Ok(None) }
            }
        }
    }

    async fn good_token(
        &self,
        site: &Site,
        request: &CanonicalRequest<Incoming>,
        (shown, counts): (&Shown, bool),
        record: &RequestRecord,
    ) -> Result<Arc<LiveToken>, Failure> {
        let refused = |fault| Failure::Token { fault, is_basic: shown.is_basic };
        // A browser that has stored it as a Basic password also sends it for pages of other sites.
        if shown.is_basic && origin::provenance(request.headers(), site.origin()) == Provenance::Elsewhere {
            return Err(Failure::ForeignOrigin);
        }
        let unknown = || refused(TokenFault::Refused(TokenRefusal::Unknown));
        let text = shown.token.clone().ok_or_else(unknown)?;
        let tokens = Arc::clone(&self.shared.tokens);
        let token = match tokens.cached(&text, &record.began) {
            Some(known) => known,
            None => {
                let client = record.client_ip;
                let loaded =
                    self.shared.control.spawn(async move { tokens.load(&text, client, counts).await });
                loaded.await.map_err(Failure::Lost)?.map_err(refused)?
            }
        };
        if !token.admits(&asked(request, record.client_ip), site.authority()) {
            return Err(refused(TokenFault::Refused(TokenRefusal::OutOfScope)));
        }
        Ok(token)
    }

    /// What is asked of a machine that is known: of any it is `about_any`.
    pub(super) fn ruling_for(
        site: &Site,
        request: &CanonicalRequest<Incoming>,
        about_any: Ruling,
        token: &LiveToken,
        record: &RequestRecord,
    ) -> Ruling {
        if !about_any.depends_on_user && !token.is_own {
            return about_any;
        }
        let facts = &token.live.session;
        let user = SignedIn { name: &facts.name, groups: &facts.groups };
        let by_token = ruling(site, &with_token(request, record.client_ip).by(user));
        if token.is_own {
            by_token.and(ruling(site, &asked(request, record.client_ip).by(user)))
        } else {
            by_token
        }
    }

    fn judge_token(
        &self,
        site: &Site,
        request: &CanonicalRequest<Incoming>,
        about_any: Ruling,
        token: Option<Arc<LiveToken>>,
        record: &mut RequestRecord,
    ) -> Result<Identity, Failure> {
        let ruling = match &token {
            Some(token) => Self::ruling_for(site, request, about_any, token, record),
            None => about_any,
        };
        record.session = token.as_ref().map(|token| Arc::clone(&token.live));
        record.token.clone_from(&token);
        let credential =
            token.map_or(Credential::Nothing, |token| Credential::Token(Arc::clone(&token.live)));
        let now = self.shared.sessions.now();
        // Without a token, only a request to a public path gets this far.
        self.decide(site, &ruling, credential, now, record)?.map_err(|_| Failure::Token {
            fault: TokenFault::Refused(TokenRefusal::Unknown),
            is_basic: false,
        })
    }
}
