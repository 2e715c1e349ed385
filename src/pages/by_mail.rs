//! The pages of links in mail: a forgotten password, an invitation, "this was not me".
//!
//! To look at any of them changes nothing, however often: programs that check mail open every link in it.

use http::{HeaderValue, StatusCode, header};
use secrecy::SecretString;

use super::{
    PageError, Pages,
    csrf::CsrfVerdict,
    route::paths,
    sign_in::{minutes, with_flag},
    texts,
    views::{Action, ForgotPage, NotMePage, SetPasswordPage, ToldPage, View},
    visit::Visit,
};
use crate::{
    by_mail::PasswordByLink,
    links::LinkPurpose,
    users::User,
    web::{
        answer::{self, Answer},
        cookies,
        form::Form,
    },
};

impl Pages {
    pub(super) fn show_forgot(&self, visit: &Visit) -> Answer {
        self.forgot_page(visit, StatusCode::OK, "", None)
    }

    pub(super) async fn post_forgot(&self, visit: Visit, form: &Form) -> Result<Answer, PageError> {
        let email = form.value("email");
        if !self.is_own_form(&visit, form.value("csrf")) {
            let kept = visit.login_token().is_some();
            let text = if kept { texts::FORM_OUT_OF_DATE } else { texts::COOKIES_BLOCKED };
            return Ok(self.forgot_page(&visit, StatusCode::FORBIDDEN, email, Some(text)));
        }
        if let Err(throttled) = self.by_mail.forgot(email, &visit.source()).await? {
            let text = texts::throttled(minutes(throttled.retry_after));
            let mut answer = self.forgot_page(&visit, StatusCode::TOO_MANY_REQUESTS, email, Some(&text));
            answer::retry_after(&mut answer, throttled.retry_after);
            return Ok(answer);
        }
        let action = Action { label: "Back to sign in", path: paths::LOGIN, target: None };
        Ok(self.told(StatusCode::OK, "Check your e-mail", &texts::LINK_SENT, Some(action)))
    }

    fn forgot_page(&self, visit: &Visit, status: StatusCode, email: &str, error: Option<&str>) -> Answer {
        let (browser, is_new) = self.browser_of(visit);
        let csrf = self.csrf.token(&browser.hash());
        let view = View::Forgot(ForgotPage { email, error, csrf: &csrf });
        let mut answer = answer::html(status, self.templates.render(&view));
        if is_new {
            cookies::set(&mut answer, &self.cookies.login, &browser);
        }
        answer
    }

    pub(super) async fn show_link(&self, token: &str, visit: &Visit) -> Result<Answer, PageError> {
        Ok(match self.by_mail.open(token).await? {
            Some((link, user)) => self.link_page(visit, StatusCode::OK, (token, link.purpose), &user, None),
            None => self.link_gone(),
        })
    }

    pub(super) async fn post_link(
        &self,
        token: &str,
        visit: Visit,
        form: &Form,
    ) -> Result<Answer, PageError> {
        let Some((link, user)) = self.by_mail.open(token).await? else { return Ok(self.link_gone()) };
        // The browser says nothing of where the form came from: its page sends no referrer.
        let holder = visit.login_token().map(|token| token.hash());
        if self.csrf.check(form.value("csrf"), holder.as_ref()) != CsrfVerdict::Bound {
            let text = if holder.is_some() { texts::FORM_OUT_OF_DATE } else { texts::COOKIES_BLOCKED };
            return Ok(self.link_page(
                &visit,
                StatusCode::FORBIDDEN,
                (token, link.purpose),
                &user,
                Some(text),
            ));
        }
        let source = visit.source();
        if link.purpose == LinkPurpose::NotMe {
            if !self.by_mail.not_me(token, &source).await? {
                return Ok(self.link_gone());
            }
            return Ok(unreferred(self.told(
                StatusCode::OK,
                "Your account is blocked",
                &texts::ACCOUNT_BLOCKED,
                None,
            )));
        }
        let password = SecretString::from(form.value("password").to_owned());
        match self.by_mail.set_password(token, password, &source).await? {
            PasswordByLink::Done => Ok(unreferred(answer::see_other(&with_flag(paths::LOGIN, "password")))),
            PasswordByLink::Gone => Ok(self.link_gone()),
            PasswordByLink::Weak(weakness) => {
                let text = weakness.to_string();
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                Ok(self.link_page(&visit, status, (token, link.purpose), &user, Some(&text)))
            }
        }
    }

    fn link_page(
        &self,
        visit: &Visit,
        status: StatusCode,
        (token, purpose): (&str, LinkPurpose),
        user: &User,
        error: Option<&str>,
    ) -> Answer {
        let (browser, is_new) = self.browser_of(visit);
        let csrf = self.csrf.token(&browser.hash());
        let email = &user.email;
        let view = match purpose {
            LinkPurpose::NotMe => View::NotMe(NotMePage { email, error, token, csrf: &csrf }),
            LinkPurpose::Invitation | LinkPurpose::Password => View::SetPassword(SetPasswordPage {
                email,
                first: purpose == LinkPurpose::Invitation,
                min_length: self.by_mail.administration.policy.password_min_length,
                error,
                token,
                csrf: &csrf,
            }),
        };
        let mut answer = answer::html(status, self.templates.render(&view));
        if is_new {
            cookies::set(&mut answer, &self.cookies.login, &browser);
        }
        unreferred(answer)
    }

    fn link_gone(&self) -> Answer {
        let action = Action { label: "Get a new link", path: paths::FORGOT, target: None };
        unreferred(self.told(StatusCode::GONE, "This link no longer works", &texts::LINK_GONE, Some(action)))
    }

    fn told(
        &self,
        status: StatusCode,
        title: &'static str,
        texts: &[&str],
        action: Option<Action<'_>>,
    ) -> Answer {
        answer::html(status, self.templates.render(&View::Told(ToldPage { title, texts, action })))
    }
}

/// The address of the page is a secret: no page that is reached from here hears of it.
fn unreferred(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}
