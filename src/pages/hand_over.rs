//! One login for all sites, at the first site. Another site's `login` sets a cookie and redirects to the first site's
//! `hand-over`; that makes a code for the hash of the cookie, with a session or after a login, and redirects to the
//! other site's `arrive`; which redeems the code, with the cookie, once, and sets its own cookie for the session.
//!
//! Whatever does not match ends on a page of the site that asked, never in another round.

use std::time::Duration;

use http::{StatusCode, header};
use url::Url;

use super::{
    PageError, Pages,
    route::{Route, paths},
    sign_in::with_flag,
    views::Message,
    visit::Visit,
};
use crate::{
    account::AccountError,
    audit::{AuditEvent, Context},
    errors::Chain,
    hand_overs::HandOver,
    secret::{Token, TokenHash},
    sessions::{Live, Use},
    web::{
        answer::{self, Answer},
        cookies, form, origin,
        return_to::{HAND_OVER, ReturnTo},
    },
};

/// How long a browser may take to come back: a login lies in between, perhaps with an enrolment.
const ASKED_FOR: Duration = Duration::from_hours(1);

impl Pages {
    /// At another site than the first: redirects to the same page of the first site.
    pub(super) fn ask_first(&self, route: Route<'_>, visit: &Visit) -> Answer {
        let return_to = visit.return_to();
        match route {
            Route::Login if visit.session.is_some() && !visit.is_again() => {
                answer::redirect(StatusCode::FOUND, return_to.as_str())
            }
            Route::Login if visit.has_flag("refused") => {
                let mut page = self.message(Message::not_handed_over(&visit.request_id));
                page.headers_mut().insert(header::WWW_AUTHENTICATE, self.challenger.authenticate());
                page
            }
            Route::Login | Route::Enrol => self.ask(route, visit, &return_to),
            Route::Account | Route::RecoveryCodes => {
                answer::see_other(&format!("{}{}", self.neighbours.first(), paths::ACCOUNT))
            }
            // These are steps of a login, and none is in progress here.
            _ => answer::see_other(&return_to.append_to(paths::LOGIN)),
        }
    }

    /// Redirects to the first site, with a cookie that identifies the browser when it comes back. All its tabs share
    /// the cookie.
    fn ask(&self, route: Route<'_>, visit: &Visit, return_to: &ReturnTo) -> Answer {
        let asked = cookies::token(&visit.headers, &self.cookies.asked);
        let marks = self.login.pending.cookies();
        let asked =
            asked.filter(|token| marks.made(token)).unwrap_or_else(|| marks.generate(&*self.login.random));
        let (site, browser) = (self.neighbours.own_name(), asked.hash().to_hex());
        let hand_over = return_to.append_to(&format!("{HAND_OVER}?site={site}&for={browser}"));
        let next = ReturnTo::parse(&hand_over);
        let path = match route {
            Route::Enrol if visit.session.is_some() => next.append_to(paths::ENROL),
            _ if visit.is_again() => with_flag(&next.append_to(paths::LOGIN), "again"),
            _ => hand_over,
        };
        let mut answer = answer::redirect(StatusCode::FOUND, &format!("{}{path}", self.neighbours.first()));
        cookies::set_for(&mut answer, &self.cookies.asked, &asked, ASKED_FOR);
        answer
    }

    /// At the first site: redirects to the site that asked, with a code, or to a login first.
    pub(super) async fn hand_over(&self, visit: &Visit) -> Result<Answer, PageError> {
        let value = |name| visit.query.as_deref().and_then(|query| form::query_value(query, name));
        let site = value("site").unwrap_or_default();
        let browser = value("for").as_deref().and_then(TokenHash::from_hex);
        let (Some(to), Some(browser)) = (self.neighbours.find(&site), browser) else {
            return Ok(self.message_page(StatusCode::NOT_FOUND, &visit.request_id));
        };
        // Only that site can check the return path.
        let target = value("rd").unwrap_or_else(|| "/".to_owned());
        let token = self.cookies.session_token(&visit.headers);
        let held = visit.session.as_ref().zip(token).filter(|(live, token)| token.hash() == live.session.id);
        let Some((live, session)) = held else {
            let here = format!("{HAND_OVER}?{}", visit.query.as_deref().unwrap_or_default());
            return Ok(answer::redirect(StatusCode::FOUND, &ReturnTo::parse(&here).append_to(paths::LOGIN)));
        };
        let hand_over = HandOver { site: &site, browser: &browser, session: &session, target: &target };
        let code = self.hand_overs.make(hand_over).await.map_err(PageError::HandOver)?;
        self.record(AuditEvent::SessionHandedOver, live, visit);
        let arrive = format!("{to}{}?code={}", paths::ARRIVE, code.expose());
        // Browsers apply `form-action` to the redirects after one of our forms.
        let after_form = origin::is_from_our_page(&visit.headers, &self.origin);
        Ok(match Url::parse(&arrive) {
            Ok(url) if after_form => self.leaving(&url),
            _ => answer::redirect(StatusCode::FOUND, &arrive),
        })
    }

    /// At another site: redeems the code, and lets the user in as the one that the first site knows.
    pub(super) async fn arrive(&self, visit: &Visit) -> Result<Answer, PageError> {
        let code = visit.query.as_deref().and_then(|query| form::query_value(query, "code"));
        let code = code.as_deref().and_then(Token::parse);
        let asked = cookies::token(&visit.headers, &self.cookies.asked);
        let asked = asked.filter(|token| self.login.pending.cookies().made(token));
        let site = self.neighbours.own_name();
        let arrival = match code.zip(asked) {
            Some((code, asked)) => {
                self.hand_overs.take(&code, &asked.hash(), site).await.map_err(PageError::HandOver)?
            }
            None => None,
        };
        let Some(arrival) = arrival else { return Ok(not_handed_over()) };
        let sessions = &self.accounts.sessions;
        let live = sessions.load(&arrival.session.hash(), Use::Counts).await.map_err(AccountError::from)?;
        let Some(live) = live else { return Ok(not_handed_over()) };
        let session = &live.session;
        if let Err(error) = self.hand_overs.note(&session.id, site, session.expires_at).await {
            tracing::warn!(error = %Chain(&error), site, "cannot note at which site a session is used");
        }
        let target = self.challenger.returns().to(&arrival.target);
        let mut answer = answer::redirect(StatusCode::FOUND, target.as_str());
        let given = self.cookies.given(&arrival.session);
        if session.remembered && sessions.remember_me().is_some() {
            let lasts = session.expires_at.since(sessions.now());
            cookies::set_for(&mut answer, &self.cookies.session, &given, lasts);
        } else {
            cookies::set(&mut answer, &self.cookies.session, &given);
        }
        Ok(answer)
    }

    fn record(&self, event: AuditEvent, live: &Live, visit: &Visit) {
        self.accounts.audit.record(
            event,
            &Context {
                user: Some(&live.session.name),
                session: Some(live.session.id),
                client_ip: Some(visit.client_ip),
                request_id: Some(&visit.request_id),
                ..Context::default()
            },
        );
    }
}

/// Redirects to the login page of this site, which says so and does not ask again by itself.
fn not_handed_over() -> Answer {
    answer::see_other(&with_flag(paths::LOGIN, "refused"))
}
