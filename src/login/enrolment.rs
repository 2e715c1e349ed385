//! Binding a device: the first one on the way to a session, or a further one later.

use aws_lc_rs::hmac;

use super::{Finish, Login, LoginError, Pending, Source, Step, withdraw_if_unknown};
use crate::{
    audit::AuditEvent,
    credentials::{self, EnrolRefusal, TotpSecret},
    rollout::Requirement,
    secret::{Token, TokenHash},
    sessions::{self, Level, PasswordProof},
    throttle::Throttled,
    users::{User, UserId},
};

/// What the page shows on which a device is bound.
pub struct Enrolment {
    pub user: User,
    pub secret: TotpSecret,
    pub requirement: Requirement,
    pub step: Step,
}

/// What became of a code and a name for a new device, or of putting it off.
#[derive(Debug)]
pub enum BindOutcome {
    Refused(EnrolRefusal),
    Throttled {
        retry_after: std::time::Duration,
    },
    /// There is no login in progress that could bind a device.
    Over,
    /// It cannot be put off any more.
    Mandatory,
    Finished(Finish),
}

impl Login {
    /// A login in progress that waits for the user's first device. The secret of `previous` is kept when that was the
    /// same user's in the same browser.
    pub(super) async fn first_device(
        &self,
        password: PasswordProof,
        previous: Option<&TokenHash>,
    ) -> Result<Pending, LoginError> {
        let user = password.user();
        let earlier = match previous {
            Some(id) => self.pending.load(id).await?,
            None => None,
        };
        let kept = earlier
            .filter(|earlier| earlier.user() == user && earlier.step == Step::Enrol)
            .and_then(|earlier| earlier.secret());
        let secret = kept.unwrap_or_else(|| match previous {
            Some(browser) => self.secret_for(user, browser),
            None => TotpSecret::generate(&*self.random),
        });
        Ok(Pending::new(password, Step::Enrol, Some(&secret)))
    }

    /// The secret that `user` is shown in the browser of this cookie: the same in all its tabs, whichever is first, and
    /// as random to everybody else as the cookie itself.
    fn secret_for(&self, user: &UserId, browser: &TokenHash) -> TotpSecret {
        let place = [browser.as_bytes().as_slice(), user.as_str().as_bytes()].concat();
        let digest = hmac::sign(&self.seeds, &place);
        // 32 bytes hold 20.
        digest
            .as_ref()
            .get(..20)
            .and_then(TotpSecret::from_bytes)
            .unwrap_or_else(|| TotpSecret::generate(&*self.random))
    }

    /// Begins binding a device from a session: the first, for a session of level one, or a further one.
    pub async fn begin_device(
        &self,
        session: &sessions::Session,
    ) -> Result<Option<(Token, Pending, User)>, LoginError> {
        let Some(user) = self.user(&session.user).await?.filter(|user| !user.disabled) else {
            return Ok(None);
        };
        let step = match session.level() {
            // A second device must not be had for a password alone.
            Level::One if self.devices.count(&user.id).await? > 0 => Step::Code,
            Level::One => Step::Enrol,
            Level::Two => Step::AddDevice,
        };
        let secret = (step != Step::Code).then(|| TotpSecret::generate(&*self.random));
        let Some(password) = session.password() else { return Ok(None) };
        let pending = Pending::new(password, step, secret.as_ref()).begun_from(session);
        let token = self.pending.begin(&pending).await?;
        Ok(Some((token, pending, user)))
    }

    /// What to show of the device that is being bound; `None` on a step that binds none.
    pub fn enrolment(&self, pending: &Pending, user: User, source: &Source) -> Option<Enrolment> {
        let secret = pending.secret().filter(|_| pending.step != Step::Code)?;
        self.audit.record(AuditEvent::EnrolmentStarted, &source.context(user.name.as_str()));
        let requirement = self.rollout.requirement(self.clock.now());
        Some(Enrolment { user, secret, requirement, step: pending.step })
    }

    /// Binds the device when the code is right, and finishes the login.
    pub async fn bind(
        &self,
        id: &TokenHash,
        code: &str,
        device_name: &str,
        source: &Source,
    ) -> Result<BindOutcome, LoginError> {
        let Some((pending, user)) = self.progress(id).await? else { return Ok(BindOutcome::Over) };
        let first = match pending.step {
            Step::Code => return Ok(BindOutcome::Over),
            Step::Enrol => credentials::Enrolment::FirstDevice,
            Step::AddDevice => credentials::Enrolment::AnyDevice,
        };
        let Some(secret) = pending.secret() else { return Ok(BindOutcome::Over) };
        let context = source.context(user.name.as_str());
        let admission = match self.admitted(self.throttle.admit_code(user.id.as_str()).await?, &context) {
            Ok(admission) => admission,
            Err(Throttled { retry_after }) => return Ok(BindOutcome::Throttled { retry_after }),
        };
        let enrolled = self.devices.enrol(&user.id, &secret, code, device_name, first).await;
        let (admission, enrolled) = withdraw_if_unknown(admission, enrolled).await?;
        match enrolled {
            Ok(verified) => {
                admission.succeeded().await;
                self.audit.record(AuditEvent::EnrolmentFinished, &context);
                Ok(BindOutcome::Finished(self.finish(id, &pending, &user, Some(verified), source).await?))
            }
            Err(refusal) => {
                if refusal != EnrolRefusal::WrongCode {
                    // Nothing was guessed at.
                    admission.withdrawn().await;
                }
                self.audit.record(AuditEvent::EnrolmentRefused, &context);
                Ok(BindOutcome::Refused(refusal))
            }
        }
    }

    /// Puts the first device off, as long as the roll-out lets the user.
    pub async fn skip(&self, id: &TokenHash, source: &Source) -> Result<BindOutcome, LoginError> {
        let Some((pending, user)) = self.progress(id).await? else { return Ok(BindOutcome::Over) };
        if pending.step != Step::Enrol {
            return Ok(BindOutcome::Over);
        }
        match self.rollout.requirement(self.clock.now()) {
            Requirement::Demand => Ok(BindOutcome::Mandatory),
            Requirement::Invite { .. } => {
                // No code that works once guards this step, so the login itself has to.
                if !self.pending.remove(id).await? {
                    return Ok(BindOutcome::Over);
                }
                self.audit.record(AuditEvent::EnrolmentSkipped, &source.context(user.name.as_str()));
                let session = self.finish(id, &pending, &user, None, source).await?;
                Ok(BindOutcome::Finished(session))
            }
        }
    }
}
