//! The port for proxies. A question follows the straight line like the client's request that it is about, up to the
//! point where that would be forwarded; our pages are served as everywhere.

use http::{HeaderName, HeaderValue, Request, StatusCode, header};

use super::{
    Gateway, Passed, Site, access, assertion,
    body::{BodySource, RequestRecord, own},
    context::ConnectionContext,
    failure::Failure,
    rescue::Audience,
    workers,
};
use crate::{
    forward_auth::{self, ProxyRequest, Question, Unclear},
    proxy::X_PORTCULLIS_JWT_ASSERTION,
    server::ConnectionHandle,
    web::{
        answer,
        field_set::X_PORTCULLIS_TOKEN,
        gate::CanonicalRequest,
        incoming::Incoming,
        reply::{Head, Reply},
    },
};

impl Gateway {
    /// Checks a question: it has to be about a request of the portal that carries nothing else to say who it is from.
    pub(super) fn check_question(
        &self,
        site: &Site,
        request: &CanonicalRequest<Incoming>,
        context: &ConnectionContext,
        record: &RequestRecord,
    ) -> Result<(), Failure> {
        let Some(Question { dialect, .. }) = record.question else {
            // This port forwards nothing to the portal.
            let is_astray = context.is_for_questions() && !request.is_ours();
            return if is_astray { Err(Unclear::NotHere.into()) } else { Ok(()) };
        };
        if request.is_ours() || request.is_health() {
            return Err(Unclear::Own.into());
        }
        let is_reserved = |name: &HeaderName| site.shared.identity.is_reserved(name);
        let field = self.shared.client_address;
        match forward_auth::forged(request.headers(), dialect, field, is_reserved) {
            Some(name) => Err(Unclear::Forged(name.clone()).into()),
            None => Ok(()),
        }
    }

    /// Answers a request on the port for proxies.
    pub(super) async fn hear(
        &self,
        request: Box<Request<Incoming>>,
        audience: Audience,
        (connection, context): (&ConnectionHandle, &ConnectionContext),
        record: &mut RequestRecord,
    ) -> Reply<BodySource> {
        let (dialect, asked) = match forward_auth::read(request, self.shared.client_address) {
            Ok(ProxyRequest::Page(request)) => (None, Ok(request)),
            Ok(ProxyRequest::About(dialect, request)) => (Some(dialect), Ok(request)),
            Err((dialect, unclear)) => (dialect, Err(unclear)),
        };
        record.question = dialect.map(|dialect| Question { dialect, passes: false });
        let answered = match asked {
            Ok(request) => {
                record.method.clone_from(request.method());
                record.uri.clone_from(request.uri());
                self.handle(request, connection, context, record).await
            }
            Err(unclear) => Err(unclear.into()),
        };
        let mut reply = answered.unwrap_or_else(|failure| own(self.rescue(&failure, audience, record)));
        if let Some(Question { dialect, passes: false }) = &record.question {
            // No question reaches the portal.
            let Head::Own(headers) = &mut reply.head else {
                return own(answer::empty(StatusCode::INTERNAL_SERVER_ERROR));
            };
            forward_auth::dress(*dialect, &mut reply.status, headers, record.site.origin());
        }
        reply
    }

    /// The response for a request that may pass, with everything that the portal is told.
    pub(super) fn allow(
        request: &mut CanonicalRequest<Incoming>,
        passed: &Passed<'_>,
        record: &mut RequestRecord,
    ) -> Result<Reply<BodySource>, Failure> {
        let Passed { site, identity, cookies, now, .. } = *passed;
        access::admit_socket(site, request, identity)?;
        // A service worker's script cannot be guarded from here.
        workers::admit(request, &site.answers)?;
        let names = &site.shared.identity;
        let block = identity.headers(names)?;
        let assertion = assertion(site, identity, now)?;
        let nothing = || HeaderValue::from_static("");
        let fields = names.all(block).chain([
            (X_PORTCULLIS_JWT_ASSERTION, assertion.unwrap_or_else(nothing)),
            (X_PORTCULLIS_TOKEN.clone(), nothing()),
            (header::COOKIE, cookies.cloned().unwrap_or_else(nothing)),
            (
                header::AUTHORIZATION,
                request.headers().get(header::AUTHORIZATION).cloned().unwrap_or_else(nothing),
            ),
        ]);
        let Some(question) = &mut record.question else { return Err(Unclear::NotHere.into()) };
        let answer = forward_auth::allowance(question.dialect, fields);
        question.passes = answer.status().is_success();
        Ok(own(answer))
    }
}
