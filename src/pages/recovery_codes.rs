//! The pages for recovery codes: those to be saved, new ones, and the page after one was used.

use http::StatusCode;
use secrecy::ExposeSecret as _;

use super::{
    PageError, Pages,
    route::paths,
    sign_in::{prove_again, start_over},
    texts,
    views::{NewRecoveryCodesPage, RecoveredPage, RecoveryCodesPage, View},
    visit::Visit,
};
use crate::{
    sessions::{Live, Method, Session},
    web::{
        answer::{self, Answer},
        form::Form,
        return_to::ReturnTo,
    },
};

/// The page that offers new codes.
const NEW_CODES: &str = "/.portcullis/recovery-codes?new=1";

impl Pages {
    /// Shows the codes that have not been confirmed as saved; the same codes each time until then. Only shown to a user
    /// with a recent proof of both factors.
    pub(super) async fn show_recovery_codes(&self, visit: &Visit) -> Result<Answer, PageError> {
        let Some(live) = visit.full_session() else { return Ok(start_over(visit)) };
        if visit.has_flag("new") {
            return self.new_codes_page(&live.session).await;
        }
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
        if !self.accounts.has_unseen_recovery_codes(session).await? {
            return Ok(answer::see_other(return_to.as_str()));
        }
        if !self.login.is_fresh(session) {
            return Ok(codes_after_proof(&return_to));
        }
        let Some(codes) = self.accounts.unseen_recovery_codes(session, &visit.source()).await? else {
            return Ok(answer::see_other(return_to.as_str()));
        };
        let codes: Vec<String> = codes.iter().map(|code| code.expose_secret().to_owned()).collect();
        let csrf = self.csrf.token(&session.id);
        let view = View::RecoveryCodes(RecoveryCodesPage {
            codes: &codes,
            error,
            csrf: &csrf,
            rd: return_to.unless_start(),
        });
        Ok(answer::html(status, self.templates.render(&view)))
    }

    /// Asks for confirmation before codes are replaced that the user may have on paper.
    async fn new_codes_page(&self, session: &Session) -> Result<Answer, PageError> {
        let left = self.accounts.recovery_codes_left(session).await?;
        let view = View::NewRecoveryCodes(NewRecoveryCodesPage { left, csrf: &self.csrf.token(&session.id) });
        Ok(answer::html(StatusCode::OK, self.templates.render(&view)))
    }

    /// Confirms that codes are saved, or replaces them.
    pub(super) async fn post_recovery_codes(&self, visit: Visit, form: &Form) -> Result<Answer, PageError> {
        let Some(live) = visit.full_session() else { return Ok(start_over(&visit)) };
        if !self.is_session_form(&live.session.id, form.value("csrf")) {
            let error = Some(texts::FORM_OUT_OF_DATE);
            return self.recovery_codes_page(&visit, &live.session, StatusCode::FORBIDDEN, error).await;
        }
        let (return_to, source) = (visit.return_to(), visit.source());
        if form.value("new") == "1" {
            if !self.login.is_fresh(&live.session) {
                return Ok(prove_again(&ReturnTo::parse(NEW_CODES)));
            }
            self.accounts.renew_recovery_codes(&live.session, &source).await?;
            return Ok(answer::see_other(&return_to.append_to(paths::RECOVERY_CODES)));
        }
        self.accounts.acknowledge_recovery_codes(&live.session, &source).await?;
        Ok(answer::see_other(return_to.as_str()))
    }

    /// The page after a login with a recovery code: how many are left, and a link to add a device.
    pub(super) async fn show_recovered(
        &self,
        live: &Live,
        return_to: &ReturnTo,
    ) -> Result<Answer, PageError> {
        let left = self.accounts.recovery_codes_left(&live.session).await?;
        let view = View::Recovered(RecoveredPage { left, path: return_to.as_str() });
        Ok(answer::html(StatusCode::OK, self.templates.render(&view)))
    }

    /// Whether a session has just begun with a recovery code.
    pub(super) fn has_recovered(&self, session: &Session) -> bool {
        session.amr.contains(&Method::Recovery) && self.login.is_fresh(session)
    }
}

fn codes_after_proof(return_to: &ReturnTo) -> Answer {
    prove_again(&ReturnTo::parse(&return_to.append_to(paths::RECOVERY_CODES)))
}
