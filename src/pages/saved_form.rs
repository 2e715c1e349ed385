//! The page on which a user sends or discards a form that arrived without a session. The gateway does the sending.

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};

use super::{
    PageError, Pages,
    texts::{self, NotSaved},
    views::{Message, OnceMorePage, SavedFormPage, View},
    visit::Visit,
};
use crate::{
    saved_forms::{FormClaim, FormId, Found, SavedHead},
    secret::TokenHash,
    sessions::Session,
    web::{
        answer::{self, Answer},
        cookies,
        form::{Form, MARK},
        return_to::{ReturnTo, SAVED_FORM},
    },
};

/// Our usual policy allows forms only to this site, and browsers apply it to the portal's redirects too.
const FORMS_LEAD_ANYWHERE: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action https:; base-uri 'none'; \
     frame-ancestors 'none'",
);

impl Pages {
    pub(super) async fn show_saved(&self, name: &str, visit: &Visit) -> Result<Answer, PageError> {
        let Some(live) = &visit.session else {
            return Ok(answer::redirect(
                StatusCode::FOUND,
                &ReturnTo::parse(&visit.path).append_to(super::route::paths::LOGIN),
            ));
        };
        let Some(id) = FormId::parse(name) else { return Ok(answer::see_other("/")) };
        let browser = visit.forms;
        match self.saved_forms.find(claim(&id, &live.session, browser.as_ref())).await? {
            Found::Waiting { head, saved_at } => {
                let minutes = self.clock.now().since(saved_at).as_secs() / 60;
                let view = View::SavedForm(SavedFormPage {
                    path: head.target.split('?').next().unwrap_or_default(),
                    when: &texts::sent_ago(minutes),
                    action: &marked(&head, &id),
                    discard: &page_of(&id),
                    csrf: &self.csrf.token(&live.session.id),
                });
                let mut answer = answer::html(StatusCode::OK, self.templates.render(&view));
                answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, FORMS_LEAD_ANYWHERE);
                Ok(answer)
            }
            Found::Gone => Ok(self.form_is_gone(&visit.request_id)),
            Found::OtherUser => Ok(self.form_of_another_user()),
            Found::Nothing => Ok(answer::see_other("/")),
        }
    }

    /// Discards the form, and redirects to the page that it was on.
    pub(super) async fn discard_saved(
        &self,
        name: &str,
        visit: &Visit,
        form: &Form,
    ) -> Result<Answer, PageError> {
        let Some((live, id)) = visit.session.as_ref().zip(FormId::parse(name)) else {
            return Ok(answer::see_other("/"));
        };
        if !self.is_session_form(&live.session.id, form.value("csrf")) {
            return Ok(self.not_sent(&id, &visit.request_id));
        }
        let browser = visit.forms;
        let claim = claim(&id, &live.session, browser.as_ref());
        let found = self.saved_forms.find(claim).await?;
        self.saved_forms.discard(claim).await?;
        let referer = match &found {
            Found::Waiting { head, .. } => head.referer.as_deref(),
            Found::OtherUser => return Ok(self.form_of_another_user()),
            Found::Gone | Found::Nothing => None,
        };
        Ok(answer::see_other(self.challenger.returns().to(referer.unwrap_or("/")).as_str()))
    }

    /// Says nothing of a form that another user left in this browser, and removes the browser's claim to it: anybody
    /// may sign in next.
    pub fn form_of_another_user(&self) -> Answer {
        let mut answer = answer::see_other("/");
        cookies::clear(&mut answer, &self.cookies.forms);
        answer
    }

    /// Another site's form, to be submitted from here if the user wants to. The portal then sees neither its own
    /// `Origin` nor a `Referer`.
    pub fn once_more(&self, target: &str, from: Option<&str>, fields: &[(String, String)]) -> Answer {
        let path = target.split('?').next().unwrap_or_default();
        let view = View::OnceMore(OnceMorePage { from, path, action: target, fields });
        let mut answer = answer::html(StatusCode::OK, self.templates.render(&view));
        answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, FORMS_LEAD_ANYWHERE);
        answer.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        answer
    }

    /// Why a form is not saved, and what to do.
    pub fn not_saved(&self, why: NotSaved, request_id: &str) -> Answer {
        let mut answer = self.message(Message::not_saved(why, request_id));
        if matches!(why, NotSaved::TooMany(_)) {
            answer::retry_after(&mut answer, Duration::from_mins(1));
        }
        answer
    }

    /// The page for a saved form that was not requested by its page.
    pub fn not_sent(&self, id: &FormId, request_id: &str) -> Answer {
        self.message(Message::not_sent(&page_of(id), request_id))
    }

    /// The page for a saved form that the portal could not be reached for; it can be sent later.
    pub fn form_waits(&self, id: &FormId, status: StatusCode, request_id: &str) -> Answer {
        self.message(Message::form_waits(&page_of(id), status.as_u16(), request_id))
    }

    /// The page when there is nothing to send any more.
    pub fn form_is_gone(&self, request_id: &str) -> Answer {
        self.message(Message::form_is_gone(request_id))
    }
}

fn claim<'a>(id: &'a FormId, session: &'a Session, browser: Option<&'a TokenHash>) -> FormClaim<'a> {
    FormClaim { id, user: &session.user, browser }
}

fn page_of(id: &FormId) -> String {
    format!("{SAVED_FORM}{}", id.as_str())
}

/// The form's own address, with the mark by which the gateway finds the saved form.
fn marked(head: &SavedHead, id: &FormId) -> String {
    let join = if head.target.contains('?') { '&' } else { '?' };
    format!("{}{join}{MARK}{}", head.target, id.as_str())
}
