//! The pages about guessing: a code before the password, and the report of wrong tries.

use http::{StatusCode, header};

use super::{
    PageError, Pages,
    enrolment::date,
    route::paths,
    sign_in::{minutes, start_over, with_flag},
    texts,
    views::{FirstCodePage, View, WrongTriesPage, WrongTriesRow},
    visit::Visit,
};
use crate::{
    clock::Timestamp,
    credentials,
    login::{FirstCodeOutcome, KNOWN_FOR},
    sessions::{Level, Session},
    web::{
        answer::{self, Answer},
        cookies,
        form::Form,
        return_to::ReturnTo,
    },
};

impl Pages {
    pub(super) fn show_first_code(&self, visit: &Visit) -> Answer {
        self.first_code_page(visit, &visit.return_to(), StatusCode::OK, "", None)
    }

    pub(super) async fn post_first_code(&self, visit: Visit, form: &Form) -> Result<Answer, PageError> {
        let (return_to, email) = (visit.return_to(), form.value("email"));
        if !self.is_own_form(&visit, form.value("csrf")) {
            let kept = visit.login_token().is_some();
            let text = if kept { texts::FORM_OUT_OF_DATE } else { texts::COOKIES_BLOCKED };
            return Ok(self.first_code_page(&visit, &return_to, StatusCode::FORBIDDEN, email, Some(text)));
        }
        match self.login.first_code(email, form.value("code"), &visit.source()).await? {
            outcome @ (FirstCodeOutcome::Refused | FirstCodeOutcome::AlreadyUsed) => {
                let text = Some(match outcome {
                    FirstCodeOutcome::AlreadyUsed => texts::CODE_ALREADY_USED,
                    _ => texts::WRONG_FIRST_CODE,
                });
                let mut answer =
                    self.first_code_page(&visit, &return_to, StatusCode::UNAUTHORIZED, email, text);
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, self.challenger.authenticate());
                Ok(answer)
            }
            FirstCodeOutcome::Throttled { retry_after } => {
                let text = texts::throttled(minutes(retry_after));
                let status = StatusCode::TOO_MANY_REQUESTS;
                let mut answer = self.first_code_page(&visit, &return_to, status, email, Some(&text));
                answer::retry_after(&mut answer, retry_after);
                Ok(answer)
            }
            FirstCodeOutcome::Accepted { known } => {
                let path = with_flag(&return_to.append_to(paths::LOGIN), "code");
                let mut answer = answer::see_other(&path);
                // The signed mark contains its own expiry.
                cookies::set_text_for(&mut answer, &self.cookies.known, known, KNOWN_FOR);
                Ok(answer)
            }
        }
    }

    fn first_code_page(
        &self,
        visit: &Visit,
        return_to: &ReturnTo,
        status: StatusCode,
        email: &str,
        error: Option<&str>,
    ) -> Answer {
        let (browser, fresh) = self.browser_of(visit);
        let csrf = self.csrf.token(&browser.hash());
        let view = View::FirstCode(FirstCodePage { email, error, csrf: &csrf, rd: return_to.unless_start() });
        let mut answer = answer::html(status, self.templates.render(&view));
        if fresh {
            cookies::set(&mut answer, &self.cookies.login, &browser);
        }
        answer
    }

    /// The report of wrong tries; a redirect to the requested page if there is nothing to report.
    pub(super) async fn show_wrong_tries(&self, visit: &Visit) -> Result<Answer, PageError> {
        let Some(live) = &visit.session else { return Ok(start_over(visit)) };
        self.wrong_tries_page(&live.session, &visit.return_to(), StatusCode::OK, None).await
    }

    pub(super) async fn post_wrong_tries(&self, visit: Visit, form: &Form) -> Result<Answer, PageError> {
        let Some(live) = &visit.session else { return Ok(start_over(&visit)) };
        let return_to = visit.return_to();
        if !self.is_session_form(&live.session.id, form.value("csrf")) {
            let error = Some(texts::FORM_OUT_OF_DATE);
            return self.wrong_tries_page(&live.session, &return_to, StatusCode::FORBIDDEN, error).await;
        }
        // Somebody with only the password may be the one who guessed: the next login reports it again.
        if live.session.level() == Level::Two
            && let Ok(until) = form.value("until").parse()
        {
            self.accounts.forget_wrong_tries(&live.session, Timestamp::from_unix_millis(until)).await?;
        }
        Ok(answer::see_other(return_to.as_str()))
    }

    async fn wrong_tries_page(
        &self,
        session: &Session,
        return_to: &ReturnTo,
        status: StatusCode,
        error: Option<&str>,
    ) -> Result<Answer, PageError> {
        let tries = self.accounts.wrong_tries(session).await?;
        let Some(last) = tries.iter().map(|from| from.last).max() else {
            return Ok(answer::see_other(return_to.as_str()));
        };
        let rows: Vec<_> = tries.iter().map(row).collect();
        let view = View::WrongTries(WrongTriesPage {
            email: &session.email,
            rows: &rows,
            codes: tries.iter().any(|from| from.codes > 0),
            until: last.unix_millis(),
            error,
            csrf: &self.csrf.token(&session.id),
            rd: return_to.unless_start(),
        });
        Ok(answer::html(status, self.templates.render(&view)))
    }
}

fn row(tries: &credentials::WrongTries) -> WrongTriesRow {
    WrongTriesRow {
        what: texts::wrong_tries(tries.passwords, tries.codes),
        from: tries.network.clone().unwrap_or_else(|| texts::OTHER_NETWORKS.to_owned()),
        last: date(tries.last),
    }
}
