//! The user's own page, signing out, and what a script may know of the session.

use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::{
    PageError, Pages,
    csrf::Verdict,
    enrolment::date,
    route::paths,
    views::{Account, DeviceRow, Message, SessionRow, View},
    visit::Visit,
};
use crate::{
    secret::TokenHash,
    sessions::{Level, Live, Session},
    web::{
        answer::{self, Answer},
        cookies,
        form::Form,
        return_to::ReturnTo,
    },
};

/// What `whoami` tells.
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
        let account = self.login.account(session).await?;
        let devices: Vec<DeviceRow> = account
            .devices
            .iter()
            .map(|device| DeviceRow {
                name: device.name.clone(),
                added: date(device.created_at),
                last_used: device.last_used_at.map(date),
            })
            .collect();
        let sessions: Vec<SessionRow> = account
            .sessions
            .iter()
            .map(|other| SessionRow {
                when: date(other.created_at),
                where_: other.origin.client_ip.to_string(),
                agent: agent_in_words(&other.origin.user_agent),
                current: other.id == session.id,
            })
            .collect();
        let view = View::Account(Account {
            email: &session.email,
            signed_in_since: &date(session.created_at),
            devices: &devices,
            recovery_left: account.recovery_left,
            sessions: &sessions,
            csrf: &self.csrf.token(&session.id),
        });
        Ok(answer::html(StatusCode::OK, self.templates.render(&view)))
    }

    /// Without a form there is nothing to confirm signing out with, so the page that has one is shown.
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
                let message = View::Message(Message::still_signed_in(&visit.request_id));
                return Ok(answer::html(StatusCode::FORBIDDEN, self.templates.render(&message)));
            }
            let pending = visit.login_token().map(|token| token.hash());
            self.login.log_out(&live.session, pending.as_ref(), &visit.source()).await?;
        }
        // A page of its own, so that going back to it sends nothing again.
        let mut answer = answer::see_other(paths::LOGOUT);
        cookies::clear(&mut answer, cookies::SESSION);
        cookies::clear(&mut answer, cookies::LOGIN);
        cookies::clear(&mut answer, cookies::FORMS);
        // What the browser kept of the portal is not for whoever uses it next.
        answer.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cache\", \"storage\""));
        Ok(answer)
    }

    pub(super) fn who_am_i(&self, visit: &Visit) -> Answer {
        match &visit.session {
            Some(live) => answer::json(StatusCode::OK, &who(live)),
            None => self.challenger.no_session(&visit.request_id),
        }
    }

    /// Whether a form was shown to this very session.
    pub fn is_session_form(&self, session: &TokenHash, token: &str) -> bool {
        self.csrf.check(token, Some(session)) == Verdict::Bound
    }
}

/// A browser's name for itself, in words where it is a usual one. For the user's eyes: nothing is decided by it.
fn agent_in_words(agent: &str) -> String {
    const BROWSERS: [(&str, &str); 6] = [
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("SamsungBrowser/", "Samsung Internet"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    ];
    const SYSTEMS: [(&str, &str); 6] = [
        ("Windows", "Windows"),
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Mac OS X", "macOS"),
        ("Linux", "Linux"),
    ];
    let find = |known: &[(&str, &'static str)]| {
        known.iter().find(|(mark, _)| agent.contains(mark)).map(|(_, name)| *name)
    };
    match (find(&BROWSERS), find(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(browser), None) => browser.to_owned(),
        (None, _) if agent.is_empty() => "Unknown program".to_owned(),
        (None, _) => agent.to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_browsers_are_called_by_their_names() {
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36";
        let edge = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/156.0.0.0 Safari/537.36 Edg/156.0.0.0";
        let phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 Version/19.0 Safari/604.1";
        assert_eq!(agent_in_words(chrome), "Chrome on Linux");
        assert_eq!(agent_in_words(edge), "Edge on Windows");
        assert_eq!(agent_in_words(phone), "Safari on iPhone");
        assert_eq!(agent_in_words("curl/8.1"), "curl/8.1");
        assert_eq!(agent_in_words(""), "Unknown program");
    }
}
