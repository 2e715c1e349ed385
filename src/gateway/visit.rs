//! The way to our own pages: what they are told of a request, and the turn that it waits for.

use std::sync::Arc;

use http::{Method, Version};

use super::{Gateway, Lookup, Site, body::RequestRecord, context::ConnectionContext, failure::Failure};
use crate::{
    pages::{Route, Visit},
    secret::TokenHash,
    web::{answer::Answer, cookies, form, gate::CanonicalRequest, incoming::Incoming, return_to::ReturnTo},
};

impl Gateway {
    /// Our own pages, off the worker: what they do can take its time.
    pub(super) async fn own(
        &self,
        site: &Site,
        request: CanonicalRequest<Incoming>,
        claimed: Option<TokenHash>,
        context: &ConnectionContext,
        record: &mut RequestRecord,
    ) -> Result<Answer, Failure> {
        // Before there is a page, or many would be made for somebody who takes none of them.
        if request.version() == Version::HTTP_2 {
            record.unread = Some(context.unread_in_time().await.ok_or(Failure::TooManyPages)?);
        }
        let _form = match *request.method() {
            Method::POST => Some(context.form().ok_or(Failure::TooManyPages)?),
            _ => None,
        };
        let wants_session = Route::parse(request.path()).is_some_and(Route::wants_session);
        let counts = self.counts(site, &request);
        let session = match self.known_session(claimed, counts, &self.shared.clock.moment()) {
            Lookup::Session(live) => Some(live),
            Lookup::Ask(id) if wants_session => self.load_session(id, counts).await?,
            Lookup::Ask(_) | Lookup::Nobody => None,
        };
        record.session.clone_from(&session);
        let (path, query) = (request.path().to_owned(), request.query().map(str::to_owned));
        let (parts, body) = request.into_request().into_parts();
        let held = |name: &str| cookies::token(&parts.headers, name);
        let (names, returns) = (&site.shared.cookies, site.shared.challenger.returns());
        let asked = query.as_deref().and_then(|query| form::query_value(query, "rd"));
        let visit = Visit {
            return_to: asked.map_or_else(ReturnTo::default, |asked| returns.to(&asked)),
            session_ended: claimed.is_some() && session.is_none() && wants_session,
            login: held(&names.login),
            forms: names.forms_token(&parts.headers).map(|token| token.hash()),
            known: cookies::text(&parts.headers, &names.known).map(str::to_owned),
            certificate: context.certificate().cloned(),
            method: parts.method,
            path,
            query,
            headers: parts.headers,
            body: Some(body),
            client_ip: record.client_ip,
            request_id: record.request_id().to_owned(),
            session,
        };
        let pages = Arc::clone(&site.shared.pages);
        let answered = self.shared.control.spawn(async move { pages.answer(visit).await });
        Ok(answered.await.map_err(Failure::Lost)??)
    }
}
