//! The enrolment page: binds the first device during a login, or a device of a signed-in user.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::StatusCode;
use secrecy::ExposeSecret as _;

use super::{
    PageError, Pages,
    csrf::StepVerdict,
    qr::QrSvg,
    route::paths,
    sign_in::{minutes, page_of, prove_again, start_over},
    texts,
    views::{DEVICE_NAME_LIMIT, EnrolErrors, EnrolPage, Invite, View},
    visit::Visit,
};
use crate::{
    clock::Timestamp,
    credentials::EnrolRefusal,
    login::{BindOutcome, Enrolment, FRESH, NewDevice, Pending, ShownBefore},
    rollout::Requirement,
    secret::TokenHash,
    sessions::{Level, Live, Session},
    users::User,
    web::{
        answer::{self, Answer},
        cookies,
        form::Form,
        return_to::ReturnTo,
    },
};

/// How long the page stays valid in a session: as long as a login may take.
const OPEN: Duration = Duration::from_mins(30);

/// The login or the session that a device is bound in.
enum Way {
    Login { id: TokenHash, pending: Box<Pending>, user: Box<User> },
    Session(Arc<Live>),
}

impl Pages {
    /// Shows the QR code for the login in progress, or for a signed-in user.
    pub(super) async fn show_enrol(&self, visit: &Visit) -> Result<Answer, PageError> {
        let return_to = visit.return_to();
        if let Some(token) = visit.login_token()
            && let Some((pending, user)) =
                self.login.progress(&token.hash(), visit.certificate.as_deref()).await?
        {
            let way = Way::Login { id: token.hash(), pending: Box::new(pending), user: Box::new(user) };
            return self.enrol_page(&way, visit, EnrolForm::default()).await;
        }
        let Some(live) = &visit.session else { return Ok(start_over(visit)) };
        // The login was finished in another tab: on to its page. A request to add a device names no page.
        if visit.full_session().is_some() && return_to.unless_start().is_some() {
            return Ok(start_over(visit));
        }
        if !self.login.is_fresh(&live.session) {
            return Ok(enrol_after_proof(&live.session, &return_to));
        }
        self.enrol_page(&Way::Session(Arc::clone(live)), visit, EnrolForm::default()).await
    }

    pub(super) async fn post_enrol(&self, visit: Visit, form: &Form) -> Result<Answer, PageError> {
        let way = match self.way(&visit, form).await? {
            Ok(way) => way,
            Err(answer) => return Ok(answer),
        };
        let (skip, name) = (form.value("skip") == "1", form.value("device_name"));
        if form.value("cancel") == "1" {
            return self.cancel(&way).await;
        }
        if let Some(errors) = name_fault(name).filter(|_| !skip) {
            let page = EnrolForm { status: StatusCode::UNPROCESSABLE_ENTITY, errors, device_name: name };
            return self.enrol_page(&way, &visit, page).await;
        }
        let (source, device) = (visit.source(), NewDevice { code: form.value("code"), name });
        let outcome = match &way {
            Way::Login { id, .. } if skip => self.login.skip(id, &source).await?,
            Way::Login { id, .. } => self.login.bind(id, device, &source).await?,
            Way::Session(live) if skip => self.login.skip_in(live, &source),
            Way::Session(live) if self.was_shown_in_time(&live.session, form.value("csrf")) => {
                self.login.bind_in(&live.session, device, &source).await?
            }
            Way::Session(live) => return Ok(enrol_after_proof(&live.session, &visit.return_to())),
        };
        self.bound(outcome, &way, &visit, name).await
    }

    /// The login or session of a form, or the response if there is none any more.
    async fn way(&self, visit: &Visit, form: &Form) -> Result<Result<Way, Answer>, PageError> {
        let csrf = form.value("csrf");
        if let Some(live) = visit.session.as_ref().filter(|live| self.is_session_form(&live.session.id, csrf))
        {
            return Ok(Ok(Way::Session(Arc::clone(live))));
        }
        let Some(token) = visit.login_token() else { return Ok(Err(self.stale_form(visit, csrf))) };
        let id = token.hash();
        let Some((pending, user)) = self.login.progress(&id, visit.certificate.as_deref()).await? else {
            return Ok(Err(self.stale_form(visit, csrf)));
        };
        let verdict = self.step_form(visit, csrf, &pending);
        if verdict == StepVerdict::OtherUser {
            return Ok(Err(self.other_login(&pending, &user, visit)));
        }
        let way = Way::Login { id, pending: Box::new(pending), user: Box::new(user) };
        if verdict == StepVerdict::Bound {
            return Ok(Ok(way));
        }
        let errors = EnrolErrors { form: Some(texts::FORM_OUT_OF_DATE.into()), ..EnrolErrors::default() };
        let page =
            EnrolForm { status: StatusCode::FORBIDDEN, errors, device_name: form.value("device_name") };
        self.enrol_page(&way, visit, page).await.map(Err)
    }

    /// Whether the page with this token was shown while the session's proof was recent, and not too long ago.
    pub(super) fn was_shown_in_time(&self, session: &Session, token: &str) -> bool {
        self.csrf.made(token).is_some_and(|shown| {
            shown.since(session.proved_at()) <= FRESH && self.clock.now().since(shown) <= OPEN
        })
    }

    async fn cancel(&self, way: &Way) -> Result<Answer, PageError> {
        Ok(match way {
            Way::Session(_) => answer::see_other(paths::ACCOUNT),
            Way::Login { id, .. } => {
                self.login.pending.remove(id).await?;
                let mut answer = answer::see_other(paths::LOGIN);
                cookies::clear(&mut answer, &self.cookies.login);
                answer
            }
        })
    }

    /// Where to go after a device was bound, or was not.
    async fn bound(
        &self,
        outcome: BindOutcome,
        way: &Way,
        visit: &Visit,
        device_name: &str,
    ) -> Result<Answer, PageError> {
        let return_to = visit.return_to();
        let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
        let (status, errors, wait) = match outcome {
            BindOutcome::Finished(finish) => {
                // A further device was requested on the account page, unless the form says otherwise.
                let adds = matches!(way, Way::Session(live) if live.session.level() == Level::Two)
                    && return_to.unless_start().is_none();
                let return_to = if adds { ReturnTo::parse(paths::ACCOUNT) } else { return_to };
                return Ok(self.finished(&finish, &return_to, visit));
            }
            BindOutcome::PutOff => return Ok(answer::see_other(return_to.as_str())),
            BindOutcome::Over | BindOutcome::Refused(EnrolRefusal::AlreadyEnrolled) => {
                return self.bind_is_over(way, visit).await;
            }
            BindOutcome::Mandatory => {
                let form = Some(texts::MANDATORY_NOW.into());
                (StatusCode::FORBIDDEN, EnrolErrors { form, ..EnrolErrors::default() }, None)
            }
            BindOutcome::Throttled { retry_after } => {
                let code = Some(texts::throttled(minutes(retry_after)).into());
                let errors = EnrolErrors { code, ..EnrolErrors::default() };
                (StatusCode::TOO_MANY_REQUESTS, errors, Some(retry_after))
            }
            BindOutcome::Refused(refusal) => (unprocessable, refused(refusal), None),
        };
        let mut answer = self.enrol_page(way, visit, EnrolForm { status, errors, device_name }).await?;
        if let Some(wait) = wait {
            answer::retry_after(&mut answer, wait);
        }
        Ok(answer)
    }

    /// The form belongs to an earlier step: on to the current step, or to the start.
    async fn bind_is_over(&self, way: &Way, visit: &Visit) -> Result<Answer, PageError> {
        let Way::Login { id, .. } = way else { return Ok(answer::see_other(paths::ACCOUNT)) };
        Ok(match self.login.progress(id, visit.certificate.as_deref()).await? {
            Some((pending, _)) => answer::see_other(&visit.return_to().append_to(page_of(pending.step))),
            None => start_over(visit),
        })
    }

    /// The page with its QR code, the same each time, and errors; or a redirect to the code page.
    async fn enrol_page(&self, way: &Way, visit: &Visit, page: EnrolForm<'_>) -> Result<Answer, PageError> {
        let (return_to, source) = (visit.return_to(), visit.source());
        let (enrolment, csrf) = match way {
            Way::Login { pending, user, .. } => {
                let enrolment = self.login.enrolment(pending, User::clone(user), &source).await;
                (enrolment, self.csrf.step_token(pending))
            }
            Way::Session(live) => {
                let enrolment = self.login.enrolment_in(&live.session, &source).await?;
                (enrolment, self.csrf.token(&live.session.id))
            }
        };
        match (enrolment, way) {
            (Some(enrolment), way) => self.qr_page(&enrolment, way, &return_to, &csrf, page),
            (None, Way::Login { pending, .. }) => {
                Ok(answer::see_other(&return_to.append_to(page_of(pending.step))))
            }
            (None, Way::Session(_)) => Ok(start_over(visit)),
        }
    }

    fn qr_page(
        &self,
        enrolment: &Enrolment,
        way: &Way,
        return_to: &ReturnTo,
        csrf: &str,
        page: EnrolForm<'_>,
    ) -> Result<Answer, PageError> {
        let account = &enrolment.user.email;
        let uri = enrolment.secret.otpauth_uri(&self.issuer, account);
        let uri = uri.expose_secret();
        let label = format!("QR code for {}, account {account}", self.issuer);
        let qr_svg = QrSvg::draw(uri, &label).map_err(PageError::Qr)?;
        let grouped = enrolment.secret.grouped();
        let key_groups: Vec<String> = grouped.expose_secret().split(' ').map(str::to_owned).collect();
        let view = View::Enrol(EnrolPage {
            account,
            issuer: &self.issuer,
            qr_svg: &qr_svg,
            key_groups: &key_groups,
            otpauth_uri: uri,
            notice: enrolment.shown_before.map(|shown_before| match shown_before {
                ShownBefore::Same => texts::SAME_QR_CODE,
                ShownBefore::Other => texts::OTHER_QR_CODE,
            }),
            errors: page.errors,
            csrf,
            rd: return_to.unless_start(),
            device_name: page.device_name,
            invite: match enrolment.requirement {
                Some(Requirement::Invite { due, days_left, skips_left }) => {
                    Some(Invite { date: due.in_words(), days_left, skips_left })
                }
                _ => None,
            },
            signing_in: matches!(way, Way::Login { .. }),
        });
        Ok(answer::html(page.status, self.templates.render(&view)))
    }
}

/// Requires the proofs once more, then comes back. The login itself leads a user without a device to this page.
fn enrol_after_proof(session: &Session, return_to: &ReturnTo) -> Answer {
    match session.level() {
        Level::One => prove_again(return_to),
        Level::Two => prove_again(&ReturnTo::parse(paths::ENROL)),
    }
}

fn refused(refusal: EnrolRefusal) -> EnrolErrors<'static> {
    match refusal {
        EnrolRefusal::WrongCode | EnrolRefusal::AlreadyEnrolled => {
            EnrolErrors { code: Some(texts::WRONG_CODE_AT_ENROLMENT.into()), ..EnrolErrors::default() }
        }
        EnrolRefusal::NameMissing => name_error(texts::DEVICE_NAME_MISSING),
        EnrolRefusal::NameTooLong => name_error(texts::DEVICE_NAME_TOO_LONG),
        EnrolRefusal::NameTaken => name_error(texts::DEVICE_NAME_TAKEN),
        EnrolRefusal::TooMany => {
            EnrolErrors { form: Some(texts::TOO_MANY_DEVICES.into()), ..EnrolErrors::default() }
        }
        EnrolRefusal::TooSoon => {
            EnrolErrors { form: Some(texts::TOO_MANY_DEVICES_LATELY.into()), ..EnrolErrors::default() }
        }
    }
}

struct EnrolForm<'a> {
    status: StatusCode,
    errors: EnrolErrors<'a>,
    device_name: &'a str,
}

impl Default for EnrolForm<'_> {
    fn default() -> Self {
        Self { status: StatusCode::OK, errors: EnrolErrors::default(), device_name: "" }
    }
}

fn name_error(text: &'static str) -> EnrolErrors<'static> {
    EnrolErrors { device_name: Some(Cow::Borrowed(text)), ..EnrolErrors::default() }
}

/// Checked before the code, so that a missing name uses up no code.
fn name_fault(name: &str) -> Option<EnrolErrors<'static>> {
    match name.trim().chars().count() {
        0 => Some(name_error(texts::DEVICE_NAME_MISSING)),
        length if length > DEVICE_NAME_LIMIT => Some(name_error(texts::DEVICE_NAME_TOO_LONG)),
        _ => None,
    }
}

/// An instant in words: the date, and the time of day if the date alone would mislead.
pub(super) fn date(instant: Timestamp) -> String {
    let Ok(instant) = jiff::Timestamp::from_millisecond(instant.unix_millis()) else {
        return instant.to_string();
    };
    instant.strftime("%-d %B %Y, %H:%M UTC").to_string()
}
