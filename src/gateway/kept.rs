//! Forms that come when there is no session any more: kept for after the login, and sent then if their user says so.
//!
//! Sending goes to the form's own address, with a mark at the end of the query: so the browser adds the cookies that
//! belong there, and understands the portal's answer as one from there.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, header, uri::PathAndQuery};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::task::JoinError;

use super::{
    Gateway, Passed, Presence,
    body::{Note, Source, own},
    rescue::Failure,
};
use crate::{
    gate::{Decision, Identity, Visitor},
    kept_forms::{Claim, Form, FormId, Found, Head},
    pages::{NotKept, PageError},
    proxy::ForwardError,
    secret::TokenHash,
    server::Connection,
    web::{
        answer::{self, Answer},
        body::Stream,
        client, cookies, fields,
        form::{self, MARK},
        gate::CanonicalRequest,
        return_to::ReturnTo,
    },
};

/// The form that a request is to send, by the mark at the end of its query.
pub(super) fn named(request: &CanonicalRequest<Incoming>) -> Option<FormId> {
    if *request.method() != Method::POST {
        return None;
    }
    let (front, name) = request.query()?.split_at_checked(mark_start(request.query()?)?)?;
    let name = name.strip_prefix(MARK)?;
    (front.is_empty() || front.ends_with('&')).then(|| FormId::parse(name)).flatten()
}

fn mark_start(query: &str) -> Option<usize> {
    query.len().checked_sub(MARK.len() + FormId::LENGTH)
}

/// The target without the mark.
fn unmarked(target: &str) -> Option<&str> {
    // One more for the `?` or `&` before it.
    target.get(..mark_start(target)?.checked_sub(1)?)
}

impl Gateway {
    /// A POST of somebody whom the gate does not let pass, or one that is to send a kept form.
    #[expect(clippy::too_many_arguments, reason = "what every request has, and what the gate says")]
    pub(super) async fn posted(
        &self,
        request: CanonicalRequest<Incoming>,
        decision: Decision,
        passed: Cookies<'_>,
        connection: &Connection,
        presence: &Presence,
        note: &mut Note,
    ) -> Result<Response<Source>, Failure> {
        match (decision, named(&request)) {
            (Decision::Allow(identity), Some(id)) => {
                self.send_kept(request, &id, &identity, passed, connection, presence, note).await
            }
            (Decision::Allow(identity), None) => {
                note.decision = "allow";
                let now = self.shared.clock.now();
                let passed = Passed { identity: &identity, cookies: passed.others, now, whole: None };
                self.forward(request, passed, connection, presence, note).await
            }
            (decision, named) => {
                note.decision = "challenge";
                let bind = matches!(decision, Decision::BindDevice);
                // The session that was to send it is over as well: the form is still there.
                if let Some(id) = named.filter(|_| client::is_navigation(request.method(), request.headers()))
                {
                    return Ok(own(self.shared.challenger.keep(id.as_str(), bind)));
                }
                Ok(own(self.keep(request, passed.session, bind, presence, note).await?))
            }
        }
    }

    /// Keeps a form whose user's session has run out, and shows the way in.
    async fn keep(
        &self,
        mut request: CanonicalRequest<Incoming>,
        claimed: Option<TokenHash>,
        bind: bool,
        presence: &Presence,
        note: &mut Note,
    ) -> Result<Answer, Failure> {
        let forms = &self.shared.kept_forms;
        let keepable = claimed.zip(self.keepable(&request));
        let Some((session, content_type)) = keepable else { return Ok(self.challenge(&request, bind)) };
        let owner = match &note.session {
            Some(live) => Some(live.session.user.clone()),
            None => {
                let sessions = self.shared.sessions.clone();
                let asked = self.shared.control.spawn(async move { sessions.ran_out(&session).await });
                asked.await.map_err(Failure::Lost)??
            }
        };
        let Some(owner) = owner else { return Ok(self.challenge(&request, bind)) };
        let _form = presence.form().ok_or(Failure::Crowd)?;
        let Some(_room) = forms.room() else { return Ok(self.not_kept(NotKept::TooMany, note)) };
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(fields::content_length);
        let max = forms.max();
        if length.is_some_and(|length| length > u64::try_from(max).unwrap_or(u64::MAX)) {
            return Ok(self.not_kept(NotKept::TooLarge(max), note));
        }
        let body = match read(&mut request, max).await {
            Ok(body) => body,
            Err(error) if error.is::<LengthLimitError>() => {
                return Ok(self.not_kept(NotKept::TooLarge(max), note));
            }
            Err(error) => return Err(PageError::FormBody(error).into()),
        };
        let referer = request.headers().get(header::REFERER).and_then(|value| value.to_str().ok());
        let head =
            Head { target: request.target().to_owned(), content_type, referer: referer.map(str::to_owned) };
        let browser = forms.browser(&session);
        let (kept, holder) = (forms.clone(), browser.hash());
        let kept = self.on_control(async move { kept.keep(&owner, &holder, &Form { head, body }).await });
        let Some(id) = kept.await?? else { return Ok(self.not_kept(NotKept::TooMany, note)) };
        let mut answer = self.shared.challenger.keep(id.as_str(), bind);
        cookies::set(&mut answer, cookies::FORMS, &browser);
        Ok(answer)
    }

    /// The content type of a form that a page of this site sent, when it is one of the three that pages send.
    fn keepable(&self, request: &CanonicalRequest<Incoming>) -> Option<String> {
        let headers = request.headers();
        let kept = self.shared.kept_forms.max() > 0
            && client::is_navigation(request.method(), headers)
            && !headers.contains_key(header::CONTENT_ENCODING)
            && headers.get("sec-fetch-dest").is_none_or(|dest| dest == "document")
            && self.is_from_here(headers)
            // What a page of ours can lead to without leading to another site.
            && ReturnTo::parse(request.target()).as_str() == request.target();
        let content_type = headers.get(header::CONTENT_TYPE).filter(|_| kept)?.to_str().ok()?;
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"]
            .iter()
            .any(|known| kind.eq_ignore_ascii_case(known))
            .then(|| content_type.to_owned())
    }

    /// Whether the browser says that a page of this site sent the form. What another site sends would be carried out in the
    /// user's name after a login that has nothing to do with it.
    fn is_from_here(&self, headers: &HeaderMap) -> bool {
        let own = self.shared.request_gate.is_own_origin(headers);
        match (headers.get("sec-fetch-site"), headers.get(header::ORIGIN)) {
            // A portal that tells its pages to send no referrer makes their origin `null`.
            (Some(site), origin) => {
                site == "same-origin" && (own || origin.is_none_or(|origin| origin == "null"))
            }
            (None, _) => own,
        }
    }

    fn challenge(&self, request: &CanonicalRequest<Incoming>, bind: bool) -> Answer {
        let (method, headers, target) = (request.method(), request.headers(), request.target());
        let visitor = Visitor { method, headers, target };
        let challenger = &self.shared.challenger;
        if bind { challenger.bind_device(visitor) } else { challenger.log_in(visitor) }
    }

    fn not_kept(&self, why: NotKept, note: &mut Note) -> Answer {
        // What has not been read of it is never read.
        note.closes = true;
        self.shared.pages.not_kept(why, note.request_id())
    }

    /// Sends a kept form to the portal in place of the request that asks for it.
    #[expect(clippy::too_many_arguments, reason = "what every request has, and the form's name")]
    async fn send_kept(
        &self,
        mut request: CanonicalRequest<Incoming>,
        id: &FormId,
        identity: &Identity,
        passed: Cookies<'_>,
        connection: &Connection,
        presence: &Presence,
        note: &mut Note,
    ) -> Result<Response<Source>, Failure> {
        let pages = &self.shared.pages;
        note.decision = "own";
        if !form::is_urlencoded(request.headers()) || request.upgrade().is_some() {
            return Err(PageError::FormType.into());
        }
        let asked = {
            let _form = presence.form().ok_or(Failure::Crowd)?;
            let bytes = read(&mut request, form::LARGEST).await.map_err(PageError::FormBody)?;
            form::Form::parse(&bytes).map_err(PageError::Form)?
        };
        let session = &identity.session().session;
        if !pages.is_session_form(&session.id, asked.value("csrf")) {
            return Ok(own(pages.not_sent(id, note.request_id())));
        }
        let target = unmarked(request.target()).unwrap_or_default().to_owned();
        let (forms, name, user) = (self.shared.kept_forms.clone(), id.clone(), session.user.clone());
        let browser = cookies::token(request.headers(), cookies::FORMS).map(|token| token.hash());
        let taken = self.on_control(async move {
            let claim = Claim { id: &name, user: &user, browser: browser.as_ref() };
            match forms.take(claim, &target).await? {
                Some(form) => Ok(Ok(form)),
                None => forms.find(claim).await.map(Err),
            }
        });
        let form = match taken.await?? {
            Ok(form) => form,
            Err(Found::Nothing) => return Ok(own(answer::see_other("/"))),
            Err(_) => return Ok(own(pages.form_is_gone(note.request_id()))),
        };
        let Form { head, body } = form;
        let value = |text: &str| HeaderValue::from_str(text).ok();
        let Some((target, content_type)) =
            PathAndQuery::try_from(head.target).ok().zip(value(&head.content_type))
        else {
            return Ok(own(pages.form_is_gone(note.request_id())));
        };
        request.announce(target, content_type, head.referer.as_deref().and_then(value), body.len());
        note.decision = "allow";
        let now = self.shared.clock.now();
        let passed = Passed { identity, cookies: passed.others, now, whole: Some(body) };
        let sent = self.forward(request, passed, connection, presence, note).await;
        let (forms, id) = (self.shared.kept_forms.clone(), id.clone());
        match &sent {
            // Nothing of it has gone out, so it can be sent another time.
            Err(Failure::Forward(ForwardError::Connect(_))) => {
                self.on_control(async move { forms.put_back(&id).await }).await??;
            }
            _ => self.on_control(async move { forms.forget(&id).await }).await??,
        }
        sent
    }

    async fn on_control<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Failure> {
        self.shared.control.spawn(work).await.map_err(|error: JoinError| Failure::Lost(error))
    }
}

/// What the cookies of the request came to.
pub(super) struct Cookies<'a> {
    pub(super) session: Option<TokenHash>,
    pub(super) others: Option<&'a HeaderValue>,
}

async fn read(
    request: &mut CanonicalRequest<Incoming>,
    most: usize,
) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    let body = Stream::new(request.body_mut(), form::STALL).at_rate(form::RATE);
    Ok(Limited::new(body, most).collect().await?.to_bytes())
}
