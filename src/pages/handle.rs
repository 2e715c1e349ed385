//! Dispatches a request for one of our pages to its handler.

use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode, header};
use quick_cache::sync::Cache;
use url::Url;

use super::{
    Config,
    assets::{self, Asset, Assets},
    csrf::Csrf,
    error::PageError,
    neighbours::{Crossing, Neighbours},
    route::{Factor, Route, paths},
    templates::{Templates, TemplatesError},
    texts::Trouble,
    views::{LeavingPage, Message, View},
    visit::Visit,
};
use crate::{
    account::Accounts,
    by_mail::ByMail,
    clock::Clock,
    gate::{Challenger, Missing},
    hand_overs::HandOvers,
    identity::SigningKeys,
    login::Login,
    saved_forms::SavedForms,
    sealing::Sealer,
    secret::TokenHash,
    sessions::Newcomer,
    tokens,
    web::{
        answer::{self, Answer, ProblemDetails},
        cookies,
        form::Form,
    },
};

/// Much shorter than the time for which a key is published before and after it signs.
const JWKS_CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// Logins in progress whose page requests are counted: the latest.
const NEWCOMERS: usize = 4096;

/// Our pages and their dependencies.
pub struct Pages {
    pub(super) templates: Templates,
    pub(super) assets: Assets,
    /// The policy of pages that inline the style sheet.
    message_policy: HeaderValue,
    /// The pages for strangers when there are too many of them.
    prepared: [(Trouble, Prepared); 2],
    pub(super) login: Login,
    pub(super) by_mail: ByMail,
    pub(super) accounts: Accounts,
    pub(super) own_tokens: tokens::Config,
    pub(super) csrf: Csrf,
    pub(super) challenger: Challenger,
    pub(super) saved_forms: SavedForms,
    pub(super) clear_on_sign_out: Option<HeaderValue>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) cookies: cookies::CookieNames,
    newcomers: Cache<TokenHash, Arc<Newcomer>>,
    /// `None`: no assertions.
    signing_keys: Option<Arc<SigningKeys>>,
    pub(super) issuer: String,
    /// Whether pages of the portal get the notice of a session's end.
    notices: bool,
    /// The public origin, without a trailing slash.
    pub(super) origin: String,
    pub(super) neighbours: Neighbours,
    pub(super) hand_overs: HandOvers,
}

/// The dependencies of the pages.
pub struct PageDependencies {
    pub login: Login,
    pub by_mail: ByMail,
    pub accounts: Accounts,
    pub own_tokens: tokens::Config,
    pub challenger: Challenger,
    pub saved_forms: SavedForms,
    /// The `Clear-Site-Data` value for a sign-out; `None`: not sent.
    pub clear_on_sign_out: Option<HeaderValue>,
    pub clock: Arc<dyn Clock>,
    pub cookies: cookies::CookieNames,
    /// The keys whose public parts are published.
    pub signing_keys: Option<Arc<SigningKeys>>,
    /// The name that authenticator apps show above a code.
    pub issuer: String,
    /// Whether pages of the portal get the notice of a session's end.
    pub notices: bool,
    pub origin: String,
    pub crossing: Crossing,
}

impl Pages {
    pub fn new(
        config: &Config,
        dependencies: PageDependencies,
        sealer: &Sealer,
    ) -> Result<Self, TemplatesError> {
        let assets = Assets::embedded();
        let style = format!("style-src '{}'", assets.style_digest());
        let policy = answer::POLICY.replace("style-src 'self'", &style);
        let templates = Templates::new(config)?;
        Ok(Self {
            prepared: [Trouble::Overload, Trouble::ManySignIns]
                .map(|trouble| (trouble, Prepared::new(trouble, &templates))),
            templates,
            // A digest in base64 is a valid header value.
            message_policy: HeaderValue::from_str(&policy)
                .unwrap_or(HeaderValue::from_static("default-src 'none'")),
            assets,
            csrf: Csrf::new(sealer, Arc::clone(&dependencies.clock)),
            login: dependencies.login,
            by_mail: dependencies.by_mail,
            accounts: dependencies.accounts,
            own_tokens: dependencies.own_tokens,
            challenger: dependencies.challenger,
            saved_forms: dependencies.saved_forms,
            clear_on_sign_out: dependencies.clear_on_sign_out,
            clock: dependencies.clock,
            cookies: dependencies.cookies,
            newcomers: Cache::new(NEWCOMERS),
            signing_keys: dependencies.signing_keys,
            issuer: dependencies.issuer,
            notices: dependencies.notices,
            origin: dependencies.origin,
            neighbours: dependencies.crossing.neighbours,
            hand_overs: dependencies.crossing.hand_overs,
        })
    }

    /// Answers a request for one of our pages.
    pub async fn answer(&self, mut visit: Visit) -> Result<Answer, PageError> {
        // A cookie that we did not make may be known to somebody else.
        visit.login = visit.login.take().filter(|token| self.login.pending.cookies().made(token));
        let path = visit.path.clone();
        let route = Route::parse(&path).filter(|route| self.notices || !route.is_for_notices());
        let Some(route) = route else {
            return Ok(self.message_page(StatusCode::NOT_FOUND, &visit.request_id));
        };
        if !route.allows(&visit.method) {
            let mut answer = self.message_page(StatusCode::METHOD_NOT_ALLOWED, &visit.request_id);
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(route.allowed()));
            return Ok(answer);
        }
        if let Route::Asset(_) | Route::Jwks = route {
            return Ok(self
                .resource(route)
                .unwrap_or_else(|| self.message_page(StatusCode::NOT_FOUND, &visit.request_id)));
        }
        // Our pages open in a window of their own, not in a frame, an image or a script.
        if visit.is_embedded() {
            return Ok(self.message_page(StatusCode::FORBIDDEN, &visit.request_id));
        }
        // A script of the portal has our origin: it can read whatever it can fetch, and so can an injected script.
        if !visit.may_see(route) {
            return Ok(answer::problem(&ProblemDetails {
                kind: "about:blank",
                title: "Forbidden",
                status: StatusCode::FORBIDDEN.as_u16(),
                detail: Some("This page is not for scripts: open it in a browser window."),
                login_url: None,
                request_id: Some(&visit.request_id),
            }));
        }
        // Read before the turn is taken: nobody waits for a client that sends a form slowly.
        let form = if visit.method == Method::POST { Some(visit.form().await?) } else { None };
        let (session, newcomer) = (visit.session.clone(), self.newcomer(&visit, route));
        let turn = match (&session, &newcomer) {
            (Some(live), _) if route.takes_turns() => Some(live.page(self.clock.elapsed()).await),
            (None, Some(newcomer)) => Some(newcomer.page(self.clock.elapsed()).await),
            _ => None,
        };
        let _turn = turn.transpose().map_err(|often| PageError::TooOften(often.retry_after))?;
        // Boxed, so that little memory is held for a client that sends a form slowly.
        match form {
            Some(form) => Box::pin(self.post(route, visit, &form)).await,
            None => Box::pin(self.show(route, &visit)).await,
        }
    }

    /// The login in progress of that cookie, for a page that continues it.
    fn newcomer(&self, visit: &Visit, route: Route<'_>) -> Option<Arc<Newcomer>> {
        let id = visit.login.as_ref().filter(|_| route.goes_on())?.hash();
        if let Some(known) = self.newcomers.get(&id) {
            return Some(known);
        }
        let newcomer = Arc::<Newcomer>::default();
        self.newcomers.insert(id, Arc::clone(&newcomer));
        Some(newcomer)
    }

    /// The resources that are the same for everybody, with or without a session.
    fn resource(&self, route: Route<'_>) -> Option<Answer> {
        match route {
            Route::Asset(file) => self.assets.find(file).map(serve),
            Route::Jwks => {
                let keys = self.signing_keys.as_ref()?.public(self.clock.now());
                let mut answer = answer::json(StatusCode::OK, &keys);
                answer.headers_mut().insert(header::CACHE_CONTROL, JWKS_CACHE_CONTROL);
                Some(answer)
            }
            _ => None,
        }
    }

    async fn show(&self, route: Route<'_>, visit: &Visit) -> Result<Answer, PageError> {
        match route {
            _ if route.is_of_first_site() && !self.neighbours.is_first() => Ok(self.ask_first(route, visit)),
            Route::HandOver if self.neighbours.is_first() => self.hand_over(visit).await,
            Route::Arrive if !self.neighbours.is_first() => self.arrive(visit).await,
            Route::Login => Ok(self.show_login(visit)),
            Route::Code => self.show_second_factor(visit, Factor::Code).await,
            Route::Recovery => self.show_second_factor(visit, Factor::Recovery).await,
            Route::FirstCode => Ok(self.show_first_code(visit)),
            Route::WrongTries => self.show_wrong_tries(visit).await,
            Route::Enrol => self.show_enrol(visit).await,
            Route::RecoveryCodes => self.show_recovery_codes(visit).await,
            Route::Account => self.show_account(visit).await,
            Route::NewToken => Ok(self.show_new_token(visit)),
            Route::Logout => Ok(self.show_logout(visit)),
            Route::Forgot if self.by_mail.is_on() => Ok(self.show_forgot(visit)),
            Route::Link(token) => self.show_link(token, visit).await,
            Route::SavedForm(name) => self.show_saved(name, visit).await,
            Route::WhoAmI => Ok(self.who_am_i(visit)),
            Route::Session => self.standing(visit).await,
            Route::SignedIn => Ok(self.show_signed_in(visit)),
            Route::Stay | Route::Jwks | Route::Asset(_) | Route::HandOver | Route::Arrive | Route::Forgot => {
                Ok(self.message_page(StatusCode::NOT_FOUND, &visit.request_id))
            }
        }
    }

    async fn post(&self, route: Route<'_>, visit: Visit, form: &Form) -> Result<Answer, PageError> {
        match route {
            // Other sites have no such form.
            _ if route.is_of_first_site() && !self.neighbours.is_first() => {
                Ok(answer::see_other(paths::LOGIN))
            }
            Route::Login => self.post_login(visit, form).await,
            Route::Code => self.post_second_factor(visit, form, Factor::Code).await,
            Route::Recovery => self.post_second_factor(visit, form, Factor::Recovery).await,
            Route::FirstCode => self.post_first_code(visit, form).await,
            Route::WrongTries => self.post_wrong_tries(visit, form).await,
            Route::Enrol => self.post_enrol(visit, form).await,
            Route::RecoveryCodes => self.post_recovery_codes(visit, form).await,
            Route::Logout => self.post_logout(visit, form).await,
            Route::Forgot if self.by_mail.is_on() => self.post_forgot(visit, form).await,
            Route::Link(token) => self.post_link(token, visit, form).await,
            Route::SavedForm(name) => self.discard_saved(name, &visit, form).await,
            Route::Account => self.post_account(visit, form).await,
            Route::NewToken => self.post_new_token(visit, form).await,
            Route::Stay => self.post_stay(&visit).await,
            Route::WhoAmI
            | Route::Session
            | Route::SignedIn
            | Route::Jwks
            | Route::Asset(_)
            | Route::HandOver
            | Route::Forgot
            | Route::Arrive => Ok(self.message_page(StatusCode::METHOD_NOT_ALLOWED, &visit.request_id)),
        }
    }

    /// A page for a person that explains a status and what to do.
    pub fn message_page(&self, status: StatusCode, request_id: &str) -> Answer {
        self.message(Message::for_status(status.as_u16(), Some(request_id)))
    }

    /// A page for a person that explains a trouble beyond the status.
    pub fn trouble_page(&self, trouble: Trouble, status: StatusCode, request_id: &str) -> Answer {
        match self.prepared.iter().find(|(known, _)| *known == trouble) {
            Some((_, page)) => self.message_of(Prepared::STATUS, page.with(request_id)),
            None => self.message(Message::for_trouble(trouble, status.as_u16(), request_id)),
        }
    }

    /// The page for a frame of the portal: a link to the login, for the whole window.
    pub fn in_frame(&self, way_in: &str, missing: Missing, was_sent: bool, request_id: &str) -> Answer {
        let mut page = self.message(Message::in_frame(way_in, missing, was_sent, request_id));
        page.headers_mut().insert(header::WWW_AUTHENTICATE, self.challenger.authenticate());
        answer::allow_framing(&mut page);
        page
    }

    /// A page with a link to another site.
    pub fn leaving(&self, to: &Url) -> Answer {
        let host = to.host_str().unwrap_or_default();
        answer::html(
            StatusCode::OK,
            self.templates.render(&View::Leaving(LeavingPage { host, to: to.as_str() })),
        )
    }

    /// A page that loads nothing: where it is shown, other requests may be refused as well.
    pub(super) fn message(&self, message: Message<'_>) -> Answer {
        let status = StatusCode::from_u16(message.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.message_of(status, self.templates.render(&View::Message(message)))
    }

    fn message_of(&self, status: StatusCode, page: String) -> Answer {
        let mut answer = answer::html(status, page);
        answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, self.message_policy.clone());
        answer
    }
}

/// A page for floods: rendered once, since that is most of the work, except for the request id.
struct Prepared {
    before: String,
    after: String,
}

impl Prepared {
    const STATUS: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
    /// The placeholder for the id.
    const MARK: &str = "REQUEST-ID";

    fn new(trouble: Trouble, templates: &Templates) -> Self {
        let message = Message::for_trouble(trouble, Self::STATUS.as_u16(), Self::MARK);
        let page = templates.render(&View::Message(message));
        let (before, after) = page.split_once(Self::MARK).unwrap_or((&page, ""));
        Self { before: before.to_owned(), after: after.to_owned() }
    }

    /// The id is made by us and needs no escaping.
    fn with(&self, request_id: &str) -> String {
        [&self.before, request_id, &self.after].concat()
    }
}

fn serve(asset: &Asset) -> Answer {
    let mut answer = answer::empty(StatusCode::OK);
    *answer.body_mut() = bytes::Bytes::from_static(asset.body);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(assets::CACHE_CONTROL));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_flood_is_told_is_prepared_but_for_the_id() {
        let config = Config { portal_name: "Portal".into(), support: Some("mailto:help@example.com".into()) };
        let templates = Templates::new(&config).unwrap();
        for trouble in [Trouble::Overload, Trouble::ManySignIns] {
            let page = Prepared::new(trouble, &templates);
            for id in ["0123456789abcdef", "fedcba9876543210"] {
                let rendered = templates.render(&View::Message(Message::for_trouble(trouble, 503, id)));
                assert!(rendered.contains(id));
                assert_eq!(page.with(id), rendered);
            }
        }
    }
}
