//! The pages of a login: e-mail and password, code, recovery code.

use http::{StatusCode, header};
use secrecy::SecretString;

use super::{
    PageError, Pages,
    csrf::{CsrfVerdict, StepVerdict},
    route::{Factor, paths},
    texts,
    views::{CodePage, LoginPage, Message, RecoveryPage, Remember, View},
    visit::Visit,
};
use crate::{
    login::{CodeOutcome, Credentials, Finish, KNOWN_FOR, NewLogin, Next, PasswordOutcome, Pending, Step},
    secret::Token,
    users::{CanonicalName, User},
    web::{
        answer::{self, Answer},
        cookies,
        form::Form,
        return_to::ReturnTo,
    },
};

impl Pages {
    pub(super) fn show_login(&self, visit: &Visit) -> Answer {
        let return_to = visit.return_to();
        if visit.session.is_some() && !visit.is_again() {
            return answer::redirect(StatusCode::FOUND, return_to.as_str());
        }
        let notice = if visit.has_flag("expired") {
            Some(texts::LOGIN_TIMED_OUT)
        } else if visit.is_again() {
            Some(if return_to.is_saved_form() { texts::FORM_IS_SAFE_AGAIN } else { texts::SIGN_IN_AGAIN })
        } else if visit.has_flag("password") {
            Some(texts::PASSWORD_SET)
        } else if visit.has_flag("code") {
            Some(texts::CODE_FIRST_ACCEPTED)
        } else if return_to.is_saved_form() {
            Some(texts::FORM_IS_SAFE)
        } else {
            visit.session_ended.then_some(texts::SESSION_ENDED)
        };
        let blocked = visit.has_flag("cookies") && visit.login_token().is_none();
        let error = blocked.then_some(texts::COOKIES_BLOCKED);
        // A user with a session is here to prove it again: the name is known.
        let email = visit.session.as_ref().map_or("", |live| &live.session.email);
        let remember = visit.session.as_ref().is_some_and(|live| live.session.remembered);
        self.login_page(
            visit,
            &return_to,
            LoginForm { email, error, notice, remember, ..LoginForm::default() },
        )
    }

    pub(super) async fn post_login(&self, visit: Visit, form: &Form) -> Result<Answer, PageError> {
        let return_to = self.challenger.returns().to(form.value("rd"));
        let email = form.value("email");
        let remember = form.value("remember") == "1";
        let page = |status, error| LoginForm {
            status,
            email,
            error: Some(error),
            notice: None,
            remember,
            // It must not reveal whether the password was correct.
            code_first: status != StatusCode::FORBIDDEN && !visit.is_again(),
        };
        // Another tab was faster: there is nothing left to do, and no password to check.
        if let Some(live) = &visit.session
            && CanonicalName::parse(email).is_some_and(|name| name.as_str() == live.session.name)
            && !visit.is_again()
        {
            return Ok(answer::see_other(return_to.as_str()));
        }
        if !self.is_own_form(&visit, form.value("csrf")) {
            // The page with the form had set a cookie.
            let kept = visit.login_token().is_some();
            let text = if kept { texts::FORM_OUT_OF_DATE } else { texts::COOKIES_BLOCKED };
            let page = page(StatusCode::FORBIDDEN, text);
            return Ok(self.login_page(&visit, &return_to, page));
        }
        if form.value("certificate") == "1" {
            return self.post_certificate(&visit, &return_to).await;
        }
        let previous = visit.login_token().map(|token| token.hash());
        let password = SecretString::from(form.value("password").to_owned());
        let given = Credentials { email, password, remember };
        match self.login.password(given, previous.as_ref(), &visit.source()).await? {
            PasswordOutcome::Refused => {
                let page = page(StatusCode::UNAUTHORIZED, texts::WRONG_CREDENTIALS);
                let mut answer = self.login_page(&visit, &return_to, page);
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, self.challenger.authenticate());
                Ok(answer)
            }
            PasswordOutcome::Throttled { retry_after } => {
                let text = texts::throttled(minutes(retry_after));
                let page = LoginForm { error: Some(&text), ..page(StatusCode::TOO_MANY_REQUESTS, "") };
                let mut answer = self.login_page(&visit, &return_to, page);
                answer::retry_after(&mut answer, retry_after);
                Ok(answer)
            }
            PasswordOutcome::Continue { token, step } => Ok(self.go_on(&visit, &return_to, &token, step)),
        }
    }

    /// The form without a password, of somebody whose certificate does in its place.
    async fn post_certificate(&self, visit: &Visit, return_to: &ReturnTo) -> Result<Answer, PageError> {
        let authority = self.authority();
        if let Some(certificate) = self.login.first_factor_of(visit.certificate.as_deref(), authority) {
            let previous = visit.login_token().map(|token| token.hash());
            let shown = (&certificate, authority);
            let outcome = self.login.certificate(shown, previous.as_ref(), &visit.source()).await?;
            if let PasswordOutcome::Continue { token, step } = outcome {
                return Ok(self.go_on(visit, return_to, &token, step));
            }
        }
        let page = LoginForm {
            status: StatusCode::UNAUTHORIZED,
            error: Some(texts::CERTIFICATE_REFUSED),
            ..LoginForm::default()
        };
        let mut answer = self.login_page(visit, return_to, page);
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, self.challenger.authenticate());
        Ok(answer)
    }

    /// On to the next step, with the cookie of the login that has begun.
    fn go_on(&self, visit: &Visit, return_to: &ReturnTo, token: &Token, step: Step) -> Answer {
        let mut path = return_to.append_to(page_of(step));
        if visit.login_token().is_none() {
            // The page that was just sent had set it: perhaps this browser keeps none.
            path = with_flag(&path, "cookies");
        }
        let mut answer = answer::see_other(&path);
        cookies::set(&mut answer, &self.cookies.login, token);
        answer
    }

    /// The host and port of this site, as certificates are limited to it.
    fn authority(&self) -> &str {
        self.origin.strip_prefix("https://").unwrap_or(&self.origin)
    }

    pub(super) async fn show_second_factor(
        &self,
        visit: &Visit,
        factor: Factor,
    ) -> Result<Answer, PageError> {
        let Some(token) = visit.login_token() else {
            return match visit
                .full_session()
                .filter(|live| factor == Factor::Recovery && self.has_recovered(&live.session))
            {
                Some(live) => self.show_recovered(live, &visit.return_to()).await,
                None => Ok(start_over(visit)),
            };
        };
        match self.login.progress(&token.hash(), visit.certificate.as_deref()).await? {
            Some((pending, user)) if pending.step == Step::Code => {
                Ok(self.factor_page(&pending, &visit.return_to(), FactorPage::new(factor, &user.email)))
            }
            Some((pending, _)) => {
                let path = visit.return_to().append_to(page_of(pending.step));
                Ok(answer::redirect(StatusCode::FOUND, &path))
            }
            None => Ok(start_over(visit)),
        }
    }

    pub(super) async fn post_second_factor(
        &self,
        visit: Visit,
        form: &Form,
        factor: Factor,
    ) -> Result<Answer, PageError> {
        let csrf = form.value("csrf");
        let Some(token) = visit.login_token() else { return Ok(self.stale_form(&visit, csrf)) };
        let id = token.hash();
        let Some((pending, user)) = self.login.progress(&id, visit.certificate.as_deref()).await? else {
            return Ok(self.stale_form(&visit, csrf));
        };
        let return_to = visit.return_to();
        let mut page = FactorPage::new(factor, &user.email);
        match self.step_form(&visit, csrf, &pending) {
            StepVerdict::Bound => {}
            StepVerdict::OtherUser => return Ok(self.other_login(&pending, &user, &visit)),
            StepVerdict::SameUser | StepVerdict::Invalid => {
                page.status = StatusCode::FORBIDDEN;
                page.error = Some(texts::FORM_OUT_OF_DATE);
                return Ok(self.factor_page(&pending, &return_to, page));
            }
        }
        let source = visit.source();
        let outcome = match factor {
            Factor::Code => self.login.code(&id, form.value("code"), &source).await?,
            Factor::Recovery => self.login.recovery(&id, form.value("recovery_code"), &source).await?,
        };
        page.status = StatusCode::UNAUTHORIZED;
        page.error = Some(match outcome {
            CodeOutcome::Finished(finish) => return Ok(self.finished(&finish, &return_to, &visit)),
            CodeOutcome::Over => return Ok(start_over(&visit)),
            CodeOutcome::Throttled { retry_after } => {
                let text = texts::throttled(minutes(retry_after));
                page.status = StatusCode::TOO_MANY_REQUESTS;
                page.error = Some(&text);
                let mut answer = self.factor_page(&pending, &return_to, page);
                answer::retry_after(&mut answer, retry_after);
                return Ok(answer);
            }
            CodeOutcome::AlreadyUsed => texts::CODE_ALREADY_USED,
            CodeOutcome::Off if factor == Factor::Code => texts::DEVICES_OFF,
            CodeOutcome::Off => texts::RECOVERY_CODES_OFF,
            CodeOutcome::Refused if factor == Factor::Code => texts::WRONG_CODE,
            CodeOutcome::Refused => texts::WRONG_RECOVERY_CODE,
        });
        Ok(self.factor_page(&pending, &return_to, page))
    }

    /// Whether a form was shown in this browser: by its token, or, if another tab has changed the state since, by a
    /// valid token and the browser's own statement that one of our pages sent it.
    pub(super) fn is_own_form(&self, visit: &Visit, token: &str) -> bool {
        let holder = visit.login_token().map(|token| token.hash());
        match self.csrf.check(token, holder.as_ref()) {
            CsrfVerdict::Bound => true,
            CsrfVerdict::Elsewhere => visit.is_from(&self.origin),
            CsrfVerdict::Invalid => false,
        }
    }

    /// The browser's half of a form's token, and whether its cookie has to be set.
    pub(super) fn browser_of(&self, visit: &Visit) -> (Token, bool) {
        match visit.login_token() {
            Some(token) => (token, false),
            None => (self.login.pending.cookies().generate(&*self.login.random), true),
        }
    }

    fn login_page(&self, visit: &Visit, return_to: &ReturnTo, page: LoginForm<'_>) -> Answer {
        let (browser, is_new) = self.browser_of(visit);
        let csrf = self.csrf.token(&browser.hash());
        let certificate = self.login.first_factor_of(visit.certificate.as_deref(), self.authority());
        let certificate = certificate.as_ref().and_then(|shown| shown.first_factor_at(self.authority()));
        let view = View::Login(LoginPage {
            certificate: certificate.map(CanonicalName::as_str),
            email: page.email,
            error: page.error,
            notice: page.notice,
            csrf: &csrf,
            again: visit.is_again(),
            code_first: page.code_first,
            forgot: self.by_mail.is_on(),
            remember: self
                .login
                .sessions
                .remember_me()
                .map(|lasts| Remember { lasts: texts::days_or_hours(lasts), chosen: page.remember }),
            rd: return_to.unless_start(),
        });
        let mut answer = answer::html(page.status, self.templates.render(&view));
        if is_new {
            cookies::set(&mut answer, &self.cookies.login, &browser);
        }
        answer
    }

    pub(super) fn finished(&self, finish: &Finish, return_to: &ReturnTo, visit: &Visit) -> Answer {
        match finish {
            Finish::In(login) => self.let_in(login, return_to),
            Finish::Full { others } => {
                let mut answer = self.message(Message::full(*others, &visit.request_id));
                cookies::clear(&mut answer, &self.cookies.login);
                answer
            }
        }
    }

    /// Sets the session cookie and redirects: to what the user has to see first, then to the requested page.
    fn let_in(&self, login: &NewLogin, return_to: &ReturnTo) -> Answer {
        let path = match login.next {
            Next::Portal => return_to.as_str().to_owned(),
            Next::RecoveryCodes => return_to.append_to(paths::RECOVERY_CODES),
            Next::Recovered => return_to.append_to(paths::RECOVERY),
            Next::WrongTries => return_to.append_to(paths::WRONG_TRIES),
        };
        let mut answer = answer::see_other(&path);
        let given = self.cookies.given(&login.token);
        match login.kept_for {
            Some(lasts) => cookies::set_for(&mut answer, &self.cookies.session, &given, lasts),
            None => cookies::set(&mut answer, &self.cookies.session, &given),
        }
        cookies::clear(&mut answer, &self.cookies.login);
        cookies::set_text_for(&mut answer, &self.cookies.known, login.known.clone(), KNOWN_FOR);
        answer
    }

    /// Whether a form belongs to the login in progress: by its token, or, for another login of the same user, by the
    /// browser's own statement that one of our pages sent it.
    pub(super) fn step_form(&self, visit: &Visit, csrf: &str, pending: &Pending) -> StepVerdict {
        match self.csrf.check_step(csrf, pending.user(), Some(&pending.browser)) {
            StepVerdict::SameUser if visit.is_from(&self.origin) => StepVerdict::Bound,
            verdict => verdict,
        }
    }

    /// The response to a step's form without a login in progress: that login is over, and was the current user's or
    /// somebody else's.
    pub(super) fn stale_form(&self, visit: &Visit, csrf: &str) -> Answer {
        match &visit.session {
            Some(live) if self.csrf.check_step(csrf, &live.session.user, None) == StepVerdict::OtherUser => {
                let email = &live.session.email;
                self.message(Message::other_login(email, visit.return_to().as_str(), &visit.request_id))
            }
            None if self.csrf.made(csrf).is_some() => expired(visit),
            Some(_) | None => start_over(visit),
        }
    }

    /// The response to a form of another login than the one in progress.
    pub(super) fn other_login(&self, pending: &Pending, user: &User, visit: &Visit) -> Answer {
        let path = visit.return_to().append_to(page_of(pending.step));
        self.message(Message::other_login(&user.email, &path, &visit.request_id))
    }

    fn factor_page(&self, pending: &Pending, return_to: &ReturnTo, page: FactorPage<'_>) -> Answer {
        let csrf = self.csrf.step_token(pending);
        let rd = return_to.unless_start();
        let FactorPage { factor, status, email, error } = page;
        let view = match factor {
            Factor::Code => View::Code(CodePage { email, error, csrf: &csrf, rd }),
            Factor::Recovery => View::Recovery(RecoveryPage { email, error, csrf: &csrf, rd }),
        };
        let mut answer = answer::html(status, self.templates.render(&view));
        if status == StatusCode::UNAUTHORIZED {
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, self.challenger.authenticate());
        }
        answer
    }
}

/// For a page without a login in progress: on to the portal if the login was finished elsewhere, or to the start.
pub(super) fn start_over(visit: &Visit) -> Answer {
    let return_to = visit.return_to();
    if visit.session.is_some() {
        return answer::see_other(return_to.as_str());
    }
    if visit.login_token().is_none() {
        let path = return_to.append_to(paths::LOGIN);
        let blocked = visit.has_flag("cookies");
        return answer::see_other(&if blocked { with_flag(&path, "cookies") } else { path });
    }
    expired(visit)
}

/// Redirects to the start, which says why.
fn expired(visit: &Visit) -> Answer {
    answer::see_other(&with_flag(&visit.return_to().append_to(paths::LOGIN), "expired"))
}

/// Requires a new proof from a signed-in user, then comes back to a page of this site.
pub(super) fn prove_again(to: &ReturnTo) -> Answer {
    answer::see_other(&with_flag(&to.append_to(paths::LOGIN), "again"))
}

pub(super) fn with_flag(path: &str, flag: &str) -> String {
    let join = if path.contains('?') { '&' } else { '?' };
    format!("{path}{join}{flag}=1")
}

/// The page for a step of a login.
pub(super) fn page_of(step: Step) -> &'static str {
    match step {
        Step::Code => paths::CODE,
        Step::Enrol => paths::ENROL,
    }
}

/// Whole minutes, rounded up.
pub(super) fn minutes(wait: std::time::Duration) -> u32 {
    u32::try_from(wait.as_secs().div_ceil(60)).unwrap_or(u32::MAX)
}

#[derive(Clone, Copy)]
struct LoginForm<'a> {
    status: StatusCode,
    email: &'a str,
    error: Option<&'a str>,
    notice: Option<&'a str>,
    /// Whether the user asks, or has asked, to be kept signed in.
    remember: bool,
    code_first: bool,
}

impl Default for LoginForm<'_> {
    fn default() -> Self {
        Self {
            status: StatusCode::OK,
            email: "",
            error: None,
            notice: None,
            remember: false,
            code_first: false,
        }
    }
}

#[derive(Clone, Copy)]
struct FactorPage<'a> {
    factor: Factor,
    status: StatusCode,
    email: &'a str,
    error: Option<&'a str>,
}

impl<'a> FactorPage<'a> {
    fn new(factor: Factor, email: &'a str) -> Self {
        Self { factor, status: StatusCode::OK, email, error: None }
    }
}
