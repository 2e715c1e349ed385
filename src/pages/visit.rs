//! A request for one of our pages, as its handler sees it.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, Method, header};
use http_body_util::{BodyExt as _, Limited};

use super::{PageError, Route};
use crate::{
    client_certificates::ShownCertificate,
    login::Source,
    secret::{Token, TokenHash},
    sessions::{Level, Live},
    web::{
        body::Stream,
        client::{self, Destination},
        form::{self, Form},
        incoming::Incoming,
        origin::{self, Provenance},
        return_to::ReturnTo,
    },
};

/// A request for a page of ours.
pub struct Visit {
    pub method: Method,
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    /// The requested page, from the address.
    pub return_to: ReturnTo,
    /// The browser has the cookie of a session that has ended.
    pub session_ended: bool,
    /// Taken by the handler that reads the form.
    pub body: Option<Incoming>,
    pub client_ip: IpAddr,
    pub request_id: String,
    /// The token of a login in progress, or of the form before one.
    pub login: Option<Token>,
    /// Proves that this is the browser in which a form was saved.
    pub forms: Option<TokenHash>,
    /// The cookie with the accounts that the browser is known to.
    pub known: Option<String>,
    /// What the browser has shown with its connection; nobody has asked yet whether it counts.
    pub certificate: Option<Arc<ShownCertificate>>,
    /// The session of the browser, of any level.
    pub session: Option<Arc<Live>>,
}

impl Visit {
    /// The requested page, from the address.
    pub(super) fn return_to(&self) -> ReturnTo {
        self.return_to.clone()
    }

    /// Whether the address has the parameter `name` with the value `1`.
    pub(super) fn has_flag(&self, name: &str) -> bool {
        self.query.as_deref().and_then(|query| form::query_value(query, name)).as_deref() == Some("1")
    }

    /// Whether a signed-in user is asked to prove it again.
    pub(super) fn is_again(&self) -> bool {
        self.session.is_some() && self.has_flag("again")
    }

    /// The token of a login in progress, or of the form before one.
    pub(super) fn login_token(&self) -> Option<Token> {
        self.login.clone()
    }

    /// The session, if it has proved both factors.
    pub(super) fn full_session(&self) -> Option<&Arc<Live>> {
        self.session.as_ref().filter(|live| live.session.level() == Level::Two)
    }

    /// The source of a step, for the records.
    pub(super) fn source(&self) -> Source {
        let agent = self.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("");
        Source {
            client_ip: self.client_ip,
            user_agent: agent.to_owned(),
            request_id: self.request_id.clone(),
            replaces: self.session.as_ref().map(|live| live.session.id),
            user: self.session.as_ref().map(|live| live.session.name.clone()),
            known: self.known.clone(),
            certificate: self.certificate.clone(),
        }
    }

    /// Whether the browser itself says that a page of `origin` sent the form.
    pub(super) fn is_from(&self, origin: &str) -> bool {
        origin::provenance(&self.headers, origin) == Provenance::Here
    }

    /// Whether the browser asks for anything other than a page for a window of its own.
    pub(super) fn is_embedded(&self) -> bool {
        self.headers
            .get("sec-fetch-dest")
            .is_some_and(|dest| !matches!(dest.as_bytes(), b"document" | b"empty"))
    }

    /// Whether the requester may see this page. A browser says so if a script asks; one too old to say is trusted as
    /// long as no secret is at stake.
    pub(super) fn may_see(&self, route: Route<'_>) -> bool {
        let says = self.headers.contains_key("sec-fetch-mode");
        !route.is_page()
            || !(says || route.shows_secrets())
            || client::destination(&self.method, &self.headers) == Destination::Window
    }

    /// Reads the posted form.
    pub(super) async fn form(&mut self) -> Result<Form, PageError> {
        if !form::is_urlencoded(&self.headers) {
            return Err(PageError::FormType);
        }
        let Some(body) = self.body.take() else { return Ok(Form::default()) };
        let body = Limited::new(Stream::new(body, form::STALL).at_rate(form::RATE), form::LARGEST);
        let bytes = body.collect().await.map_err(PageError::FormBody)?.to_bytes();
        Form::parse(&bytes).map_err(PageError::Form)
    }
}
