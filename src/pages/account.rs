//! The account page, signing out, and `whoami` for scripts.

use std::collections::HashMap;

use http::StatusCode;
use serde::Serialize;

use super::{
    PageError, Pages,
    csrf::CsrfVerdict,
    enrolment::date,
    route::paths,
    views::{AccountPage, DeviceRow, Message, SessionRow, View},
    visit::Visit,
};
use crate::{
    errors::Chain,
    login::Source,
    secret::TokenHash,
    sessions::{Level, Live, Session, SessionSummary},
    web::{
        answer::{self, Answer},
        clear_site_data, cookies,
        form::Form,
        return_to::ReturnTo,
    },
};

/// The body of `whoami`.
#[derive(Serialize)]
struct WhoAmI<'a> {
    email: &'a str,
    groups: &'a [String],
    level: &'static str,
    expires_at: String,
    amr: Vec<&'static str>,
}

impl Pages {
    pub(super) async fn show_account(&self, visit: &Visit) -> Result<Answer, PageError> {
        let Some(live) = &visit.session else {
            let path = ReturnTo::parse(paths::ACCOUNT).append_to(paths::LOGIN);
            return Ok(answer::redirect(StatusCode::FOUND, &path));
        };
        let session = &live.session;
        let account = self.accounts.overview(session).await?;
        let devices: Vec<DeviceRow> = account
            .devices
            .iter()
            .map(|device| DeviceRow {
                name: device.name.clone(),
                added: date(device.created_at),
                last_used: device.last_used_at.map(date),
            })
            .collect();
        let mut sites = self.sites_of(&account.sessions).await?;
        let sessions: Vec<SessionRow> = account
            .sessions
            .iter()
            .map(|other| SessionRow {
                sites: sites.remove(&other.id).unwrap_or_default(),
                when: date(other.created_at),
                where_: other.origin.client_ip.to_string(),
                seen: date(other.last_seen),
                agent: other.origin.device(),
                id: other.id.short(),
                current: other.id == session.id,
                kept_until: other.remembered.then(|| date(other.expires_at)),
            })
            .collect();
        let tokens = self.token_rows(session).await?;
        let view = View::Account(AccountPage {
            email: &session.email,
            signed_in_since: &date(session.created_at),
            devices: &devices,
            recovery_left: account.recovery_left,
            sessions: &sessions,
            others: sessions.iter().any(|other| !other.current),
            full: session.level() == Level::Two,
            tokens: &tokens,
            makes_tokens: self.own_tokens.self_service,
            csrf: &self.csrf.token(&session.id),
        });
        Ok(answer::html(StatusCode::OK, self.templates.render(&view)))
    }

    /// The sites where each session is used, if there are several.
    async fn sites_of(
        &self,
        sessions: &[SessionSummary],
    ) -> Result<HashMap<TokenHash, Vec<String>>, PageError> {
        if !self.neighbours.are_several() {
            return Ok(HashMap::new());
        }
        let ids: Vec<_> = sessions.iter().map(|session| session.id).collect();
        let mut others = self.hand_overs.sites_of(&ids).await.map_err(PageError::HandOver)?;
        let all = ids.into_iter().map(|id| {
            let mut sites = vec![self.neighbours.first_name().to_owned()];
            sites.extend(others.remove(&id).unwrap_or_default());
            (id, sites)
        });
        Ok(all.collect())
    }

    /// Ends another session of the same user, or all others, or a token that the user has made.
    pub(super) async fn post_account(&self, visit: Visit, form: &Form) -> Result<Answer, PageError> {
        let Some(live) = &visit.session else {
            let path = ReturnTo::parse(paths::ACCOUNT).append_to(paths::LOGIN);
            return Ok(answer::see_other(&path));
        };
        if !self.is_session_form(&live.session.id, form.value("csrf")) {
            return Ok(self.message(Message::still_signed_in(&visit.request_id)));
        }
        if live.session.level() == Level::One {
            return Ok(self.message(Message::takes_a_second_factor(&visit.request_id)));
        }
        let token = form.value("revoke");
        if !token.is_empty() {
            self.accounts.revoke_token(&live.session, token, &visit.source()).await?;
            return Ok(answer::see_other(paths::ACCOUNT));
        }
        let which = match form.value("end") {
            "others" => None,
            id => Some(id),
        };
        self.accounts.end_others(&live.session, which, &visit.source()).await?;
        Ok(answer::see_other(paths::ACCOUNT))
    }

    /// The sign-out page. Only its form signs out, so a link cannot.
    pub(super) fn show_logout(&self, visit: &Visit) -> Answer {
        if visit.session.is_some() {
            answer::see_other(paths::ACCOUNT)
        } else {
            answer::html(StatusCode::OK, self.templates.render(&View::SignedOut))
        }
    }

    pub(super) async fn post_logout(&self, visit: Visit, form: &Form) -> Result<Answer, PageError> {
        if let Some(live) = visit.session.clone() {
            if !self.is_session_form(&live.session.id, form.value("csrf")) {
                return Ok(self.message(Message::still_signed_in(&visit.request_id)));
            }
            let pending = visit.login_token().map(|token| token.hash());
            self.accounts.log_out(&live.session, pending.as_ref(), &visit.source()).await?;
        }
        // A page of its own, so that going back to it submits nothing again.
        let mut answer = answer::see_other(paths::LOGOUT);
        cookies::clear(&mut answer, &self.cookies.session);
        cookies::clear(&mut answer, &self.cookies.login);
        cookies::clear(&mut answer, &self.cookies.forms);
        if !self.neighbours.is_first() {
            cookies::clear(&mut answer, &self.cookies.asked);
        }
        if let Some(value) = &self.clear_on_sign_out {
            answer.headers_mut().insert(clear_site_data::NAME.clone(), value.clone());
        }
        Ok(answer)
    }

    /// Ends the session of a user who has logged out at the portal.
    pub async fn log_out(&self, session: &Session, source: &Source) {
        if let Err(error) = self.accounts.log_out(session, None, source).await {
            tracing::error!(
                session.id = session.id.short(),
                error = %Chain(&error),
                "a session could not be ended after the portal had logged out"
            );
        }
    }

    pub(super) fn who_am_i(&self, visit: &Visit) -> Answer {
        match &visit.session {
            Some(live) => answer::json(StatusCode::OK, &who(live)),
            None => self.challenger.no_session(&visit.request_id),
        }
    }

    /// Whether a form was rendered for this session.
    pub fn is_session_form(&self, session: &TokenHash, token: &str) -> bool {
        self.csrf.check(token, Some(session)) == CsrfVerdict::Bound
    }
}

fn level(session: &Session) -> &'static str {
    match session.level() {
        Level::One => "one_factor",
        Level::Two => "two_factor",
    }
}

fn who(live: &Live) -> WhoAmI<'_> {
    let session = &live.session;
    WhoAmI {
        email: &session.email,
        groups: &session.groups,
        level: level(session),
        expires_at: session.expires_at.to_string(),
        amr: session.amr.iter().map(|method| method.amr()).collect(),
    }
}
