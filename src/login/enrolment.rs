//! Binding a device: the first one on the way to a session, or one from a session.

use aws_lc_rs::hmac;

use super::{Finish, Login, LoginError, Pending, ShownBefore, Source, Step, withdraw_if_unknown};
use crate::{
    audit::{AuditEvent, Context},
    credentials::{self, EnrolRefusal, TotpSecret, VerifiedCode},
    errors::Chain,
    rollout::Requirement,
    secret::TokenHash,
    sessions::{Level, NewSession, Session},
    throttle::{Kind, Throttled},
    users::User,
};

/// For how long a proof lets its user bind a device, or see recovery codes, without proving it once more.
pub const FRESH: std::time::Duration = std::time::Duration::from_mins(10);

/// What the page shows on which a device is bound.
pub struct Enrolment {
    pub user: User,
    pub secret: TotpSecret,
    /// Present for a first device: whether it can wait.
    pub requirement: Option<Requirement>,
    pub shown_before: Option<ShownBefore>,
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
    /// It is put off, and the session goes on as it was.
    PutOff,
    Finished(Finish),
}

/// What a user types to bind a device.
#[derive(Clone, Copy, Debug)]
pub struct NewDevice<'a> {
    pub code: &'a str,
    pub name: &'a str,
}

impl Login {
    /// What to show of the device that is being bound; `None` on the step that binds none.
    pub fn enrolment(&self, pending: &Pending, user: User, source: &Source) -> Option<Enrolment> {
        let secret = pending.secret().filter(|_| pending.step == Step::Enrol)?;
        self.audit.record(AuditEvent::EnrolmentStarted, &source.context(user.name.as_str()));
        let requirement = Some(self.requirement());
        Some(Enrolment { user, secret, requirement, shown_before: pending.shown_before })
    }

    /// What to show of a device that is bound from a session: the first, or a further one. `None` when its user may not.
    ///
    /// Nothing is stored: the secret follows from the session, which ends when a device is bound.
    pub async fn enrolment_in(
        &self,
        session: &Session,
        source: &Source,
    ) -> Result<Option<Enrolment>, LoginError> {
        let Some(user) = self.users.by_id(&session.user).await?.filter(|user| !user.disabled) else {
            return Ok(None);
        };
        let Some(secret) = self.secret_in(session) else { return Ok(None) };
        self.audit.record(AuditEvent::EnrolmentStarted, &source.context(user.name.as_str()));
        let requirement = (session.level() == Level::One).then(|| self.requirement());
        Ok(Some(Enrolment { user, secret, requirement, shown_before: None }))
    }

    /// Whether what a session has proved is recent enough to bind a device or to see recovery codes with.
    pub fn is_fresh(&self, session: &Session) -> bool {
        self.sessions.now().since(session.proved_at()) <= FRESH
    }

    /// Binds the first device when the code is right, and finishes the login.
    pub async fn bind(
        &self,
        id: &TokenHash,
        device: NewDevice<'_>,
        source: &Source,
    ) -> Result<BindOutcome, LoginError> {
        let Some((pending, user)) = self.progress(id).await? else { return Ok(BindOutcome::Over) };
        let Some(secret) = pending.secret().filter(|_| pending.step == Step::Enrol) else {
            return Ok(BindOutcome::Over);
        };
        let first = credentials::EnrolmentScope::FirstDevice;
        let verified = match self.enrol(&user, &secret, device, first, source).await? {
            Ok(verified) => verified,
            Err(outcome) => return Ok(outcome),
        };
        let session =
            NewSession::two_factor(&pending.password, verified, &user)?.remembered(pending.remember);
        self.end_one_factor(&user, source).await;
        let finish = self.finish(&user, session, source).await?;
        self.pending.remove(id).await?;
        Ok(BindOutcome::Finished(finish))
    }

    /// Binds a device from a session when the code is right, and puts another session in its place.
    pub async fn bind_in(
        &self,
        session: &Session,
        device: NewDevice<'_>,
        source: &Source,
    ) -> Result<BindOutcome, LoginError> {
        let Some(user) = self.users.by_id(&session.user).await?.filter(|user| !user.disabled) else {
            return Ok(BindOutcome::Over);
        };
        let (Some(secret), Some(password)) = (self.secret_in(session), session.password()) else {
            return Ok(BindOutcome::Over);
        };
        let enrolment = match session.level() {
            // A second device must not be had for a password alone.
            Level::One => credentials::EnrolmentScope::FirstDevice,
            Level::Two => credentials::EnrolmentScope::AnyDevice,
        };
        let verified = match self.enrol(&user, &secret, device, enrolment, source).await? {
            Ok(verified) => verified,
            Err(outcome) => return Ok(outcome),
        };
        let new = NewSession::two_factor(&password, verified, &user)?.remembered(session.remembered);
        let new = match session.level() {
            Level::One => new,
            // The code of a device that is only being added proves nothing.
            Level::Two => new.no_fresher_than(session),
        };
        self.end_one_factor(&user, source).await;
        Ok(BindOutcome::Finished(self.finish(&user, new, source).await?))
    }

    async fn enrol(
        &self,
        user: &User,
        secret: &TotpSecret,
        NewDevice { code, name }: NewDevice<'_>,
        enrolment: credentials::EnrolmentScope,
        source: &Source,
    ) -> Result<Result<VerifiedCode, BindOutcome>, LoginError> {
        let context = source.context(user.name.as_str());
        let attempt = self.code_attempt(user, source);
        let admission =
            match self.admitted(self.throttle.admit_code(Kind::Binding, &attempt).await?, &context) {
                Ok(admission) => admission,
                Err(Throttled { retry_after }) => return Ok(Err(BindOutcome::Throttled { retry_after })),
            };
        let enrolled = self.devices.enrol(&user.id, secret, code, name, enrolment).await;
        let (admission, enrolled) = withdraw_if_unknown(admission, enrolled).await?;
        match enrolled {
            Ok(verified) => {
                admission.succeeded().await;
                self.audit.record(AuditEvent::EnrolmentFinished, &context);
                Ok(Ok(verified))
            }
            Err(refusal) => {
                if refusal != EnrolRefusal::WrongCode {
                    // Nothing was guessed at.
                    admission.withdrawn().await;
                }
                self.audit.record(AuditEvent::EnrolmentRefused, &context);
                Ok(Err(BindOutcome::Refused(refusal)))
            }
        }
    }

    /// Ends what was begun with the password alone, now that there is a device. What cannot be ended here passes nowhere
    /// all the same: whoever looks such a session up is told of the device.
    async fn end_one_factor(&self, user: &User, source: &Source) {
        match self.sessions.end_one_factor(&user.id).await {
            Ok(ended) => {
                for session in ended {
                    let context = Context { session: Some(session.id), ..source.context(user.name.as_str()) };
                    self.audit.record(AuditEvent::SessionRevoked, &context);
                }
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot end the one-factor sessions of a user who has a device now");
            }
        }
    }

    /// Puts the first device off, as long as the roll-out lets the user.
    pub async fn skip(&self, id: &TokenHash, source: &Source) -> Result<BindOutcome, LoginError> {
        let Some((pending, user)) = self.progress(id).await? else { return Ok(BindOutcome::Over) };
        if pending.step != Step::Enrol {
            return Ok(BindOutcome::Over);
        }
        match self.requirement() {
            Requirement::Demand => Ok(BindOutcome::Mandatory),
            Requirement::Invite { .. } => {
                // No code that works once guards this step, so the login itself has to.
                if !self.pending.remove(id).await? {
                    return Ok(BindOutcome::Over);
                }
                self.audit.record(AuditEvent::EnrolmentSkipped, &source.context(user.name.as_str()));
                let session = NewSession::one_factor(&pending.password, &user)?.remembered(pending.remember);
                Ok(BindOutcome::Finished(self.finish(&user, session, source).await?))
            }
        }
    }

    /// The same for somebody who is in: nothing changes.
    pub fn skip_in(&self, session: &Session, source: &Source) -> BindOutcome {
        match (session.level(), self.requirement()) {
            (Level::Two, _) => BindOutcome::Over,
            (Level::One, Requirement::Demand) => BindOutcome::Mandatory,
            (Level::One, Requirement::Invite { .. }) => {
                self.audit.record(AuditEvent::EnrolmentSkipped, &source.of_session(session));
                BindOutcome::PutOff
            }
        }
    }

    fn requirement(&self) -> Requirement {
        self.rollout.requirement(self.sessions.now())
    }

    /// The secret of a device that is bound from a session: the same on every look, so that nobody scans twice.
    fn secret_in(&self, session: &Session) -> Option<TotpSecret> {
        let digest = hmac::sign(&self.seeds, session.id.as_bytes());
        // 32 bytes hold 20.
        digest.as_ref().get(..20).and_then(TotpSecret::from_bytes)
    }
}
