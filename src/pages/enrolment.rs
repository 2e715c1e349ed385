//! The pages on which a device is bound and recovery codes are shown.

use http::StatusCode;
use secrecy::ExposeSecret as _;

use super::{
    PageError, Pages,
    qr::QrSvg,
    route::paths,
    sign_in::{minutes, page_of, start_over},
    texts,
    views::{DEVICE_NAME_LIMIT, Enrol, EnrolErrors, Invite, RecoveryCodes, View},
    visit::Visit,
};
use crate::{
    clock::Timestamp,
    credentials::EnrolRefusal,
    login::{BindOutcome, Enrolment, Pending, Step},
    rollout::Requirement,
    secret::{Token, TokenHash},
    sessions::Session,
    users::User,
    web::{
        answer::{self, Answer},
        cookies,
        form::Form,
        return_to::ReturnTo,
    },
};

/// For how long a login lets somebody add a device without proving it once more.
const FRESH: std::time::Duration = std::time::Duration::from_mins(10);

impl Pages {
    /// Shows the QR code of the login in progress, or begins binding a device from a session.
    pub(super) async fn show_enrol(&self, visit: &Visit) -> Result<Answer, PageError> {
        let return_to = visit.return_to();
        if let Some(token) = visit.login_token()
            && let Some((pending, user)) = self.login.progress(&token.hash()).await?
        {
            return self.enrol_or_code(&token, &pending, user, visit);
        }
        let Some(live) = &visit.session else { return Ok(start_over(visit)) };
        // A login that was finished in another tab: on to its page. Whoever wants another device asks for no page.
        if visit.full_session().is_some() && return_to.unless_start().is_some() {
            return Ok(start_over(visit));
        }
        if visit.full_session().is_some() && self.clock.now().since(live.session.created_at) > FRESH {
            let again = format!("{}?rd={}&again=1", paths::LOGIN, paths::ENROL);
            return Ok(answer::redirect(StatusCode::FOUND, &again));
        }
        let Some((token, pending, user)) = self.login.begin_device(&live.session).await? else {
            return Ok(start_over(visit));
        };
        let mut answer = self.enrol_or_code(&token, &pending, user, visit)?;
        cookies::set(&mut answer, &self.cookies.login, &token);
        Ok(answer)
    }

    /// The QR code, or on to the page for a code when the user has a device.
    fn enrol_or_code(
        &self,
        token: &Token,
        pending: &Pending,
        user: User,
        visit: &Visit,
    ) -> Result<Answer, PageError> {
        let return_to = visit.return_to();
        match self.login.enrolment(pending, user, &visit.source()) {
            Some(enrolment) => self.enrol_page(token, &return_to, &enrolment, EnrolPage::default()),
            None => Ok(answer::redirect(StatusCode::FOUND, &return_to.append_to(page_of(pending.step)))),
        }
    }

    pub(super) async fn post_enrol(&self, visit: Visit, form: &Form) -> Result<Answer, PageError> {
        let return_to = visit.return_to();
        let Some(token) = visit.login_token() else { return Ok(start_over(&visit)) };
        let id = token.hash();
        if !self.is_own_form(&visit, form.value("csrf")) {
            let errors = EnrolErrors { form: Some(texts::FORM_OUT_OF_DATE), ..EnrolErrors::default() };
            return self.enrol_again(&visit, form, StatusCode::FORBIDDEN, errors).await;
        }
        let source = visit.source();
        let outcome = if form.value("skip") == "1" {
            self.login.skip(&id, &source).await?
        } else {
            let name = form.value("device_name");
            if let Some(errors) = name_fault(name) {
                return self.enrol_again(&visit, form, StatusCode::UNPROCESSABLE_ENTITY, errors).await;
            }
            self.login.bind(&id, form.value("code"), name, &source).await?
        };
        match outcome {
            BindOutcome::Finished(finish) => {
                // Whoever adds a further device comes from their own page, unless they say otherwise.
                let adds = visit.full_session().is_some() && return_to.unless_start().is_none();
                let return_to = if adds { ReturnTo::parse(paths::ACCOUNT) } else { return_to };
                Ok(self.finished(&finish, &return_to, &visit))
            }
            BindOutcome::Over => self.bind_is_over(&visit, &id).await,
            BindOutcome::Mandatory => {
                let errors = EnrolErrors { form: Some(texts::MANDATORY_NOW), ..EnrolErrors::default() };
                self.enrol_again(&visit, form, StatusCode::FORBIDDEN, errors).await
            }
            BindOutcome::Throttled { retry_after } => {
                let text = texts::throttled(minutes(retry_after));
                let errors = EnrolErrors { code: Some(&text), ..EnrolErrors::default() };
                let mut answer =
                    self.enrol_again(&visit, form, StatusCode::TOO_MANY_REQUESTS, errors).await?;
                answer::retry_after(&mut answer, retry_after);
                Ok(answer)
            }
            BindOutcome::Refused(refusal) => {
                let errors = match refusal {
                    EnrolRefusal::WrongCode => {
                        EnrolErrors { code: Some(texts::WRONG_CODE_AT_ENROLMENT), ..EnrolErrors::default() }
                    }
                    EnrolRefusal::AlreadyEnrolled => return self.bind_is_over(&visit, &id).await,
                    EnrolRefusal::NameMissing => name_error(texts::DEVICE_NAME_MISSING),
                    EnrolRefusal::NameTooLong => name_error(texts::DEVICE_NAME_TOO_LONG),
                    EnrolRefusal::NameTaken => name_error(texts::DEVICE_NAME_TAKEN),
                };
                self.enrol_again(&visit, form, StatusCode::UNPROCESSABLE_ENTITY, errors).await
            }
        }
    }

    /// The form belongs to a login that has gone on without it: to where it stands now, or to the start.
    async fn bind_is_over(&self, visit: &Visit, id: &TokenHash) -> Result<Answer, PageError> {
        Ok(match self.login.progress(id).await? {
            Some((pending, _)) => answer::see_other(&visit.return_to().append_to(page_of(pending.step))),
            None => start_over(visit),
        })
    }

    /// The page once more with the same QR code, what was typed, and what is wrong.
    async fn enrol_again(
        &self,
        visit: &Visit,
        form: &Form,
        status: StatusCode,
        errors: EnrolErrors<'_>,
    ) -> Result<Answer, PageError> {
        let Some(token) = visit.login_token() else { return Ok(start_over(visit)) };
        let Some((pending, user)) = self.login.progress(&token.hash()).await? else {
            return Ok(start_over(visit));
        };
        let Some(enrolment) = self.login.enrolment(&pending, user, &visit.source()) else {
            return Ok(answer::see_other(&visit.return_to().append_to(page_of(pending.step))));
        };
        let page = EnrolPage { status, errors, device_name: form.value("device_name") };
        self.enrol_page(&token, &visit.return_to(), &enrolment, page)
    }

    fn enrol_page(
        &self,
        token: &Token,
        return_to: &ReturnTo,
        enrolment: &Enrolment,
        page: EnrolPage<'_>,
    ) -> Result<Answer, PageError> {
        let account = &enrolment.user.email;
        let uri = enrolment.secret.otpauth_uri(&self.issuer, account);
        let uri = uri.expose_secret();
        let label = format!("QR code for {}, account {account}", self.issuer);
        let qr_svg = QrSvg::draw(uri, &label).map_err(PageError::Qr)?;
        let grouped = enrolment.secret.grouped();
        let key_groups: Vec<String> = grouped.expose_secret().split(' ').map(str::to_owned).collect();
        let csrf = self.csrf.token(&token.hash());
        let view = View::Enrol(Enrol {
            account,
            issuer: &self.issuer,
            qr_svg: &qr_svg,
            key_groups: &key_groups,
            otpauth_uri: uri,
            errors: page.errors,
            csrf: &csrf,
            rd: return_to.unless_start(),
            device_name: page.device_name,
            invite: match (enrolment.step, enrolment.requirement) {
                (Step::Enrol, Requirement::Invite { mandatory_from, offset, days_left }) => {
                    Some(Invite { date: texts::date_as_written(mandatory_from, offset), days_left })
                }
                _ => None,
            },
        });
        Ok(answer::html(page.status, self.templates.render(&view)))
    }

    /// The codes that nobody has confirmed to have seen; the same ones on every look until then.
    pub(super) async fn show_recovery_codes(&self, visit: &Visit) -> Result<Answer, PageError> {
        let Some(live) = visit.full_session() else { return Ok(start_over(visit)) };
        self.recovery_codes_page(visit, &live.session, StatusCode::OK, None).await
    }

    async fn recovery_codes_page(
        &self,
        visit: &Visit,
        session: &Session,
        status: StatusCode,
        error: Option<&'static str>,
    ) -> Result<Answer, PageError> {
        let return_to = visit.return_to();
        let Some(codes) = self.login.unseen_recovery_codes(session, &visit.source()).await? else {
            return Ok(answer::see_other(return_to.as_str()));
        };
        let codes: Vec<String> = codes.iter().map(|code| code.expose_secret().to_owned()).collect();
        let csrf = self.csrf.token(&session.id);
        let view = View::RecoveryCodes(RecoveryCodes {
            codes: &codes,
            error,
            csrf: &csrf,
            rd: return_to.unless_start(),
        });
        Ok(answer::html(status, self.templates.render(&view)))
    }

    pub(super) async fn post_recovery_codes(&self, visit: Visit, form: &Form) -> Result<Answer, PageError> {
        let Some(live) = visit.full_session() else { return Ok(start_over(&visit)) };
        if !self.is_session_form(&live.session.id, form.value("csrf")) {
            let error = Some(texts::FORM_OUT_OF_DATE);
            return self.recovery_codes_page(&visit, &live.session, StatusCode::FORBIDDEN, error).await;
        }
        self.login.acknowledge_recovery_codes(&live.session, &visit.source()).await?;
        Ok(answer::see_other(visit.return_to().as_str()))
    }
}

struct EnrolPage<'a> {
    status: StatusCode,
    errors: EnrolErrors<'a>,
    device_name: &'a str,
}

impl Default for EnrolPage<'_> {
    fn default() -> Self {
        Self { status: StatusCode::OK, errors: EnrolErrors::default(), device_name: "" }
    }
}

fn name_error(text: &'static str) -> EnrolErrors<'static> {
    EnrolErrors { device_name: Some(text), ..EnrolErrors::default() }
}

/// Told before the code is looked at, so that a missing name costs no code.
fn name_fault(name: &str) -> Option<EnrolErrors<'static>> {
    match name.trim().chars().count() {
        0 => Some(name_error(texts::DEVICE_NAME_MISSING)),
        length if length > DEVICE_NAME_LIMIT => Some(name_error(texts::DEVICE_NAME_TOO_LONG)),
        _ => None,
    }
}

/// An instant in words: the date, and the time of day where the date alone would mislead.
pub(super) fn date(instant: Timestamp) -> String {
    let Ok(instant) = jiff::Timestamp::from_millisecond(instant.unix_millis()) else {
        return instant.to_string();
    };
    instant.strftime("%-d %B %Y, %H:%M UTC").to_string()
}
