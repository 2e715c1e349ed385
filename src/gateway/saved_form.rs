//! Forms that arrive after their session has ended: saved until the user has signed in, then sent if the user confirms.
//!
//! A saved form is sent through its own address, with a mark at the end of the query, so that the browser adds the
//! cookies of that path and resolves the portal's response against it.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header, uri::PathAndQuery};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::task::JoinError;

use super::{
    ConnectionContext, Gateway, Passed, Site,
    body::{BodySource, RequestRecord, own},
    challenge,
    failure::Failure,
    fair_queue::Way,
};
use crate::{
    gate::{Identity, Missing},
    http1::fields,
    pages::{NotSaved, PageError},
    proxy::ForwardError,
    saved_forms::{FormClaim, FormId, Found, NoRoom, SavedForm, SavedHead},
    secret::TokenHash,
    server::ConnectionHandle,
    telemetry::Outcome,
    throttle::Networks,
    web::{
        answer::{self, Answer},
        body::Stream,
        client::{self, Destination},
        cookies,
        form::{self, MARK},
        gate::CanonicalRequest,
        incoming::Incoming,
        origin::{Provenance, provenance},
        reply::Reply,
        return_to::ReturnTo,
    },
};

/// Fields of another site's form that are shown for confirmation. Each is longer as an input of a page than in the
/// form.
const MOST_FIELDS: usize = 200;
/// Length of `csrf=` and a token, with a margin.
const LONGEST_WISH: u8 = 128;

/// The saved form that a request asks for, by the mark at the end of its query.
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
    // Also without the `?` or `&` before it.
    target.get(..mark_start(target)?.checked_sub(1)?)
}

impl Gateway {
    /// Handles a POST that did not pass the gate, or one that may ask for a saved form.
    pub(super) async fn posted(
        &self,
        mut posted: Posted<'_>,
        decision: Result<Identity, Missing>,
        record: &mut RequestRecord,
    ) -> Result<Reply<BodySource>, Failure> {
        let asked = match named(&posted.request) {
            Some(id) => asked(&mut posted, id).await?,
            None => None,
        };
        match (decision, asked) {
            (Ok(identity), Some(asked)) => self.send_saved(posted, asked, &identity, record).await,
            (Ok(identity), None) => self.send(posted, &identity, record).await,
            (Err(missing), asked) => {
                record.outcome = Outcome::Challenge;
                let (method, headers) = (posted.request.method(), posted.request.headers());
                // The session that was to send it has ended as well: the form is still saved.
                if let Some(Asked { id, .. }) = asked.filter(|_| client::is_navigation(method, headers)) {
                    return Ok(own(posted.site.shared.challenger.to_saved_form(id.as_str(), missing)));
                }
                Ok(own(self.save(posted, missing, record).await?))
            }
        }
    }

    async fn send(
        &self,
        posted: Posted<'_>,
        identity: &Identity,
        record: &mut RequestRecord,
    ) -> Result<Reply<BodySource>, Failure> {
        // The request passed before its body was read or the form was looked up.
        if identity.has_ended() {
            return Err(ForwardError::SessionEnded.into());
        }
        if !self.enters(Way::Connection, identity, record) {
            self.wait_turn(Way::Connection, identity, record).await?;
        }
        let Posted { site, request, cookies, connection, context, whole, .. } = posted;
        let passed = Passed { site, identity, cookies, now: self.shared.clock.now(), whole };
        self.forward(request, passed, connection, context, record)?.await
    }

    /// Saves a form whose session has expired or does not suffice, and redirects to the login.
    async fn save(
        &self,
        posted: Posted<'_>,
        missing: Missing,
        record: &mut RequestRecord,
    ) -> Result<Answer, Failure> {
        let Posted { site, mut request, session: claimed, context, whole, .. } = posted;
        let forms = &self.shared.saved_forms;
        if claimed.is_none() && comes_from_elsewhere(site, &request) {
            return self.ask_once_more(site, request, context, record).await;
        }
        let savable = claimed.zip(self.savable(site, &request));
        let Some((session, content_type)) = savable else {
            return Ok(challenge(site, &request, claimed.is_some(), missing, record));
        };
        let owner = match &record.session {
            Some(live) => Some(live.session.user.clone()),
            None => {
                let sessions = self.shared.sessions.clone();
                let asked = self.shared.control.spawn(async move { sessions.ran_out(&session).await });
                asked.await.map_err(Failure::Lost)??
            }
        };
        let Some(owner) = owner else { return Ok(challenge(site, &request, true, missing, record)) };
        let _form = context.form_in_time().await.ok_or(Failure::TooManyPages)?;
        let Some(_room) = forms.room_for_user(&owner).await else {
            return Ok(not_saved(NotSaved::TooMany(NoRoom::Everybody), record));
        };
        let max = forms.max();
        if length(request.headers()).is_some_and(|length| length > u64::try_from(max).unwrap_or(u64::MAX)) {
            return Ok(not_saved(NotSaved::TooLarge(max), record));
        }
        let body = match whole {
            Some(body) => body,
            None => match read(&mut request, max).await {
                Ok(body) => body,
                Err(error) if error.is::<LengthLimitError>() => {
                    return Ok(not_saved(NotSaved::TooLarge(max), record));
                }
                Err(error) => return Err(PageError::FormBody(error).into()),
            },
        };
        let referer = request.headers().get(header::REFERER).and_then(|value| value.to_str().ok());
        let head = SavedHead {
            target: request.target().to_owned(),
            content_type,
            referer: referer.map(str::to_owned),
        };
        let browser = forms.browser(&session, site.authority());
        let (saved, holder) = (forms.clone(), browser.hash());
        let saved =
            self.on_control(async move { saved.save(&owner, &holder, &SavedForm { head, body }).await });
        let id = match saved.await?? {
            Ok(id) => id,
            Err(full) => return Ok(not_saved(NotSaved::TooMany(full), record)),
        };
        let mut answer = site.shared.challenger.to_saved_form(id.as_str(), missing);
        cookies::set(&mut answer, &site.shared.cookies.forms, &site.shared.cookies.given(&browser));
        Ok(answer)
    }

    /// The content type of a form that can be saved: a page of this site sent it, with one of the three types of HTML
    /// forms.
    fn savable(&self, site: &Site, request: &CanonicalRequest<Incoming>) -> Option<String> {
        let headers = request.headers();
        let may_save = self.shared.saved_forms.max() > 0
            && client::destination(request.method(), headers) == Destination::Window
            && !headers.contains_key(header::CONTENT_ENCODING)
            // A form of another site would be submitted in the user's name after an unrelated login.
            && provenance(headers, site.origin()) == Provenance::Here
            // The return path of our pages has to lead back to this target.
            && site.shared.challenger.returns().to(request.target()).as_str() == request.target();
        let content_type = headers.get(header::CONTENT_TYPE).filter(|_| may_save)?.to_str().ok()?;
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"]
            .iter()
            .any(|known| kind.eq_ignore_ascii_case(known))
            .then(|| content_type.to_owned())
    }

    /// Asks the user to submit another site's form again, from our page and so with our cookie. Without the question it
    /// would pass for a form of the portal.
    async fn ask_once_more(
        &self,
        site: &Site,
        mut request: CanonicalRequest<Incoming>,
        context: &ConnectionContext,
        record: &mut RequestRecord,
    ) -> Result<Answer, Failure> {
        record.outcome = Outcome::Challenge;
        let _form = context.form_in_time().await.ok_or(Failure::TooManyPages)?;
        let forms = &self.shared.saved_forms;
        let Some(_room) = forms.room_for_stranger(Networks::of(record.client_ip)).await else {
            return Ok(not_saved(NotSaved::TooMany(NoRoom::Everybody), record));
        };
        let most = forms.max();
        let body = match read(&mut request, most).await {
            Ok(body) => body,
            Err(error) if error.is::<LengthLimitError>() => {
                record.closes = true;
                return Ok(challenge(site, &request, false, Missing::Session, record));
            }
            Err(error) => return Err(PageError::FormBody(error).into()),
        };
        let fields: Vec<(String, String)> =
            url::form_urlencoded::parse(&body).into_owned().take(MOST_FIELDS + 1).collect();
        if fields.len() > MOST_FIELDS {
            return Ok(challenge(site, &request, false, Missing::Session, record));
        }
        let origin = request.headers().get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
        let from = origin
            .and_then(|origin| url::Url::parse(origin).ok())
            .and_then(|url| url.host_str().map(str::to_owned));
        Ok(site.shared.pages.once_more(request.target(), from.as_deref(), &fields))
    }

    /// Sends a saved form to the portal in place of the request that asks for it.
    async fn send_saved(
        &self,
        mut posted: Posted<'_>,
        Asked { id, csrf }: Asked,
        identity: &Identity,
        record: &mut RequestRecord,
    ) -> Result<Reply<BodySource>, Failure> {
        let (site, request) = (&posted.site.shared, &mut posted.request);
        let pages = &site.pages;
        record.outcome = Outcome::Own;
        let session = identity.session().map(|live| &live.session);
        let Some(session) = session.filter(|session| pages.is_session_form(&session.id, &csrf)) else {
            return Ok(own(pages.not_sent(&id, record.request_id())));
        };
        let target = unmarked(request.target()).unwrap_or_default().to_owned();
        let (forms, name, user) = (self.shared.saved_forms.clone(), id.clone(), session.user.clone());
        let browser = site.cookies.forms_token(request.headers()).map(|token| token.hash());
        let taken = self.on_control(async move {
            let claim = FormClaim { id: &name, user: &user, browser: browser.as_ref() };
            match forms.take(claim, &target).await? {
                Some(form) => Ok(Ok(form)),
                None => forms.find(claim).await.map(Err),
            }
        });
        let SavedForm { head, body } = match taken.await?? {
            Ok(form) => form,
            Err(Found::Nothing) => return Ok(own(answer::see_other("/"))),
            Err(Found::OtherUser) => return Ok(own(pages.form_of_another_user())),
            Err(_) => return Ok(own(pages.form_is_gone(record.request_id()))),
        };
        let value = |text: &str| HeaderValue::from_str(text).ok();
        let Some((target, content_type)) =
            PathAndQuery::try_from(head.target).ok().zip(value(&head.content_type))
        else {
            return Ok(own(pages.form_is_gone(record.request_id())));
        };
        let referer = head.referer.as_deref().and_then(value);
        if request.announce(target, content_type, referer, body.len()).is_err() {
            return Ok(own(pages.form_is_gone(record.request_id())));
        }
        posted.whole = Some(body);
        let (forms, name) = (self.shared.saved_forms.clone(), id.clone());
        if identity.has_ended() {
            self.on_control(async move { forms.put_back(&name).await }).await??;
            record.outcome = Outcome::Challenge;
            return Ok(own(site.challenger.to_saved_form(id.as_str(), Missing::Session)));
        }
        record.outcome = Outcome::Allow;
        match self.send(posted, identity, record).await {
            // No part of it has been sent, so it can be sent another time.
            Err(Failure::Forward(ForwardError::Connect(error))) => {
                self.on_control(async move { forms.put_back(&name).await }).await??;
                Err(Failure::Unsent(id, error))
            }
            sent => {
                self.on_control(async move { forms.forget(&name).await }).await??;
                sent
            }
        }
    }

    async fn on_control<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Failure> {
        self.shared.control.spawn(work).await.map_err(|error: JoinError| Failure::Lost(error))
    }
}

/// A request that may concern a saved form.
pub(super) struct Posted<'a> {
    pub(super) site: &'a Rc<Site>,
    pub(super) request: CanonicalRequest<Incoming>,
    /// The session named by its cookie.
    pub(super) session: Option<TokenHash>,
    /// The portal's share of the cookies.
    pub(super) cookies: Option<&'a HeaderValue>,
    pub(super) connection: &'a ConnectionHandle,
    pub(super) context: &'a ConnectionContext,
    /// The body, once it has been read.
    pub(super) whole: Option<Bytes>,
}

/// A request by our page to send a form.
struct Asked {
    id: FormId,
    csrf: String,
}

/// Whether the body is what our page sends: a token, and nothing else. Any other body at an address with a mark comes
/// from the page that the portal returned for the sent form: it goes to the portal, without the mark.
async fn asked(posted: &mut Posted<'_>, id: FormId) -> Result<Option<Asked>, Failure> {
    let Posted { request, context, whole, .. } = posted;
    let small = length(request.headers()).is_some_and(|length| length <= u64::from(LONGEST_WISH));
    if small && form::is_urlencoded(request.headers()) && request.upgrade().is_none() {
        let _form = context.form_in_time().await.ok_or(Failure::TooManyPages)?;
        let body = read(request, usize::from(LONGEST_WISH)).await.map_err(PageError::FormBody)?;
        let csrf = std::str::from_utf8(&body).ok().and_then(|body| body.strip_prefix("csrf="));
        if let Some(csrf) = csrf.filter(|csrf| !csrf.contains('&')) {
            return Ok(Some(Asked { id, csrf: csrf.to_owned() }));
        }
        *whole = Some(body);
    }
    if let Some(target) = unmarked(request.target()).and_then(|target| PathAndQuery::try_from(target).ok()) {
        request.lead_to(target)?;
    }
    Ok(None)
}

/// Whether another site's page has sent a form here. Browsers then leave out our cookie (`SameSite=Lax`), so it is not
/// known whether the user is signed in.
fn comes_from_elsewhere(site: &Site, request: &CanonicalRequest<Incoming>) -> bool {
    let headers = request.headers();
    provenance(headers, site.origin()) == Provenance::Elsewhere
        && client::destination(request.method(), headers) == Destination::Window
        && !headers.contains_key(header::CONTENT_ENCODING)
        && form::is_urlencoded(headers)
        && ReturnTo::parse(request.target()).as_str() == request.target()
}

fn not_saved(why: NotSaved, record: &mut RequestRecord) -> Answer {
    // The rest of it is never read.
    record.closes = true;
    record.site.shared.pages.not_saved(why, record.request_id())
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH).and_then(|length| fields::content_length(length.as_bytes()))
}

async fn read(
    request: &mut CanonicalRequest<Incoming>,
    most: usize,
) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    let body = Stream::new(request.body_mut(), form::STALL).at_rate(form::RATE);
    Ok(Limited::new(body, most).collect().await?.to_bytes())
}
