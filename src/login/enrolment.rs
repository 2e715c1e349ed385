//! Binding a device: the first one during a login, or one of a signed-in user.

use aws_lc_rs::hmac;

use super::{Finish, Login, LoginError, Pending, ShownBefore, Source, Step, withdraw_if_unknown};
use crate::{
    audit::{AuditEvent, Context},
    credentials::{self, EnrolRefusal, TotpSecret, VerifiedCode},
    errors::Chain,
    notices::Event,
    rollout::Requirement,
    secret::TokenHash,
    sessions::{Level, Live, NewSession, Session},
    throttle::{Kind, Throttled},
    users::User,
};

/// How old a proof may be for binding a device or seeing recovery codes.
pub const FRESH: std::time::Duration = std::time::Duration::from_mins(10);

/// The content of the enrolment page.
pub struct Enrolment {
    pub user: User,
    pub secret: TotpSecret,
    /// Present for a first device: whether it can be skipped.
    pub requirement: Option<Requirement>,
    pub shown_before: Option<ShownBefore>,
}

/// The outcome of binding a device, or of skipping it.
#[derive(Debug)]
pub enum BindOutcome {
    Refused(EnrolRefusal),
    Throttled {
        retry_after: std::time::Duration,
    },
    /// There is no login in progress that could bind a device.
    Over,
    /// It cannot be skipped any more.
    Mandatory,
    /// It was skipped, and the session goes on unchanged.
    PutOff,
    Finished(Finish),
}

/// The user's input for binding a device.
#[derive(Clone, Copy, Debug)]
pub struct NewDevice<'a> {
    pub code: &'a str,
    pub name: &'a str,
}

impl Login {
    /// The device being bound in a login; `None` if this step binds none.
    pub async fn enrolment(&self, pending: &Pending, user: User, source: &Source) -> Option<Enrolment> {
        let secret = pending.secret().filter(|_| pending.step == Step::Enrol)?;
        self.started(&user, source).await;
        let requirement = Some(self.requirement(&user));
        Some(Enrolment { user, secret, requirement, shown_before: pending.shown_before })
    }

    /// The device being bound in a session: the first or a further one. `None` if the session may not bind one.
    ///
    /// Nothing is stored: the secret is derived from the session, which ends when a device is bound.
    pub async fn enrolment_in(
        &self,
        session: &Session,
        source: &Source,
    ) -> Result<Option<Enrolment>, LoginError> {
        let Some(user) = self.users.by_id(&session.user).await?.filter(|user| !user.disabled) else {
            return Ok(None);
        };
        let Some(secret) = self.secret_in(session) else { return Ok(None) };
        self.started(&user, source).await;
        let requirement = (session.level() == Level::One).then(|| self.requirement(&user));
        Ok(Some(Enrolment { user, secret, requirement, shown_before: None }))
    }

    /// Whether the proof of a session is recent enough for binding a device or seeing recovery codes.
    pub fn is_fresh(&self, session: &Session) -> bool {
        self.sessions.now().since(session.proved_at()) <= FRESH
    }

    /// Binds the first device if the code is correct, and finishes the login.
    pub async fn bind(
        &self,
        id: &TokenHash,
        device: NewDevice<'_>,
        source: &Source,
    ) -> Result<BindOutcome, LoginError> {
        let Some((pending, user)) = self.progress(id, source.certificate.as_deref()).await? else {
            return Ok(BindOutcome::Over);
        };
        let Some(secret) = pending.secret().filter(|_| pending.step == Step::Enrol) else {
            return Ok(BindOutcome::Over);
        };
        let first = credentials::EnrolmentScope::FirstDevice;
        let verified = match self.enrol(&user, &secret, device, first, source).await? {
            Ok(verified) => verified,
            Err(outcome) => return Ok(outcome),
        };
        let session = NewSession::two_factor(&pending.first, verified, &user)?.remembered(pending.remember);
        self.end_one_factor(&user, source).await;
        let finish = self.finish(&user, session, source).await?;
        self.pending.remove(id).await?;
        Ok(BindOutcome::Finished(finish))
    }

    /// Binds a device in a session if the code is correct, and replaces the session.
    pub async fn bind_in(
        &self,
        session: &Session,
        device: NewDevice<'_>,
        source: &Source,
    ) -> Result<BindOutcome, LoginError> {
        let Some(user) = self.users.by_id(&session.user).await?.filter(|user| !user.disabled) else {
            return Ok(BindOutcome::Over);
        };
        let (Some(secret), Some(first)) = (self.secret_in(session), session.first_factor()) else {
            return Ok(BindOutcome::Over);
        };
        let enrolment = match session.level() {
            // The password alone must not suffice for a second device.
            Level::One => credentials::EnrolmentScope::FirstDevice,
            Level::Two => credentials::EnrolmentScope::AnyDevice,
        };
        let verified = match self.enrol(&user, &secret, device, enrolment, source).await? {
            Ok(verified) => verified,
            Err(outcome) => return Ok(outcome),
        };
        let new = NewSession::two_factor(&first, verified, &user)?.remembered(session.remembered);
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
        let notice = self.notice(&Event::DeviceAdded(name.trim()), user, source);
        let devices = self.devices.clone().carrying(notice);
        let enrolled = devices.enrol(&user.id, secret, code, name, enrolment).await;
        let (admission, enrolled) = withdraw_if_unknown(admission, enrolled).await?;
        match enrolled {
            Ok(verified) => {
                admission.succeeded().await;
                self.audit.record(AuditEvent::EnrolmentFinished, &context);
                Ok(Ok(verified))
            }
            Err(refusal) => {
                if refusal != EnrolRefusal::WrongCode {
                    // That was not a guess.
                    admission.withdrawn().await;
                }
                self.audit.record(AuditEvent::EnrolmentRefused, &context);
                Ok(Err(BindOutcome::Refused(refusal)))
            }
        }
    }

    /// Ends the sessions with the password alone, now that there is a device. A session that cannot be ended here is
    /// refused anyway: looking it up shows the device.
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

    /// Skips the first device, as long as the roll-out allows it.
    pub async fn skip(&self, id: &TokenHash, source: &Source) -> Result<BindOutcome, LoginError> {
        let Some((pending, user)) = self.progress(id, source.certificate.as_deref()).await? else {
            return Ok(BindOutcome::Over);
        };
        if pending.step != Step::Enrol {
            return Ok(BindOutcome::Over);
        }
        match self.requirement(&user) {
            Requirement::Demand => Ok(BindOutcome::Mandatory),
            Requirement::Invite { .. } => {
                // This step has no one-time code, so the login itself must be usable only once.
                if !self.pending.remove(id).await? {
                    return Ok(BindOutcome::Over);
                }
                if !self.users.put_off(&user.id, self.rollout.skips).await? {
                    return Ok(BindOutcome::Over);
                }
                self.audit.record(AuditEvent::EnrolmentSkipped, &source.context(user.name.as_str()));
                let session = NewSession::one_factor(&pending.first, &user)?.remembered(pending.remember);
                Ok(BindOutcome::Finished(self.finish(&user, session, source).await?))
            }
        }
    }

    /// The same in a session, which does not change, nor does how often it was put off.
    pub fn skip_in(&self, live: &Live, source: &Source) -> BindOutcome {
        let session = &live.session;
        match session.level() {
            Level::Two => BindOutcome::Over,
            Level::One if live.suffices(self.sessions.now()) => {
                self.audit.record(AuditEvent::EnrolmentSkipped, &source.of_session(session));
                BindOutcome::PutOff
            }
            Level::One => BindOutcome::Mandatory,
        }
    }

    async fn started(&self, user: &User, source: &Source) {
        self.audit.record(AuditEvent::EnrolmentStarted, &source.context(user.name.as_str()));
        if user.qr_seen_at.is_none()
            && let Err(error) = self.users.note_qr_seen(&user.id).await
        {
            // It is only for the report, so the enrolment goes on.
            tracing::warn!(user.id = %user.id, error = %Chain(&error), "the roll-out report will miss a QR code that was shown");
        }
    }

    fn requirement(&self, user: &User) -> Requirement {
        self.rollout.requirement(user, self.sessions.now())
    }

    /// The secret of a device that is bound in a session: the same each time, so that nobody has to scan twice.
    fn secret_in(&self, session: &Session) -> Option<TotpSecret> {
        let digest = hmac::sign(&self.seeds, session.id.as_bytes());
        // 20 of 32 bytes.
        digest.as_ref().get(..20).and_then(TotpSecret::from_bytes)
    }
}
