//! Drives a login from e-mail and password, or a certificate, to a session. Sees no HTTP.
//!
//! Every step looks the user up again: a user who was disabled meanwhile gets no session. Refusals are outcomes; errors
//! mean that a store did not answer, and never let anybody in.

mod certificate;
mod enrolment;
mod known;
mod outcome;
mod pending;

use std::{net::IpAddr, sync::Arc};

use aws_lc_rs::hmac;
use secrecy::SecretString;

pub use enrolment::{BindOutcome, Enrolment, FRESH, NewDevice};
pub use known::{KNOWN_FOR, KnownBrowsers};
pub use outcome::{CodeOutcome, Finish, FirstCodeOutcome, LoginError, NewLogin, Next, PasswordOutcome};
use pending::Arrival;
pub use pending::{Pending, PendingLogins, ShownBefore, Step};

use crate::{
    audit::{Audit, AuditEvent, Context},
    client_certificates::{ClientCertificates, ShownCertificate},
    clock::Clock,
    credentials::{
        By, Claim, CodeCheck, Devices, FirstCode, LoginQueue, Passwords, RecoveryCodes, SecondFactor, Tries,
        VerifiedPassword, Wrong,
    },
    database::Alongside,
    errors::Chain,
    notices::{Event, Notices, Place},
    random::Random,
    rollout,
    secret::{TokenHash, hex},
    sessions::{self, FirstFactor, Method, NewSession, Origin, SessionSummary, Sessions},
    throttle::{Admission, Attempt, Kind, KnownBrowser, Networks, Throttle, Throttled},
    users::{CanonicalName, User, UserId, Users},
};

/// Wrong tries from the user's own network that are not reported.
const OWN_SLIPS: u32 = 4;

/// Where a step of a login comes from.
#[derive(Clone, Debug)]
pub struct Source {
    pub client_ip: IpAddr,
    pub user_agent: String,
    pub request_id: String,
    /// The session that the browser already has; it ends when another replaces it.
    pub replaces: Option<TokenHash>,
    /// The user of that session, by canonical name.
    pub user: Option<String>,
    /// The cookie with the accounts that the browser is known to.
    pub known: Option<String>,
    /// What the browser has shown with its connection.
    pub certificate: Option<Arc<ShownCertificate>>,
}

/// The input of the login page.
#[derive(Debug)]
pub struct Credentials<'a> {
    pub email: &'a str,
    pub password: SecretString,
    /// Whether to keep the user signed in, if the operator allows it.
    pub remember: bool,
}

/// The dependencies of a login.
#[derive(Clone)]
pub struct Login {
    pub users: Users,
    pub passwords: Arc<Passwords>,
    /// What counts in place of a password; absent: nothing does.
    pub certificates: Option<Arc<ClientCertificates>>,
    pub devices: Devices,
    pub second_factor: SecondFactor,
    pub recovery_codes: RecoveryCodes,
    pub sessions: Arc<Sessions>,
    pub pending: PendingLogins,
    pub throttle: Throttle,
    pub tries: Tries,
    pub queue: LoginQueue,
    pub known: KnownBrowsers,
    /// Masks names in the log that no user has.
    pub names: hmac::Key,
    pub audit: Arc<Audit>,
    pub notices: Notices,
    pub rollout: rollout::Config,
    /// Derives the secrets of devices that are bound in a session.
    pub seeds: hmac::Key,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
}

impl Login {
    /// The first factor. An unknown account takes the same time, counts the same and gets the same response as a wrong
    /// password.
    ///
    /// `previous` is the cookie of an earlier login in the same browser: for the same user, its QR code stays.
    pub async fn password(
        &self,
        given: Credentials<'_>,
        previous: Option<&TokenHash>,
        source: &Source,
    ) -> Result<PasswordOutcome, LoginError> {
        let Credentials { email, password, remember } = given;
        let name = CanonicalName::parse(email);
        let account = name.as_ref().map_or("", CanonicalName::as_str);
        let attempt = Attempt::new(account, source.client_ip, self.browser(account, source));
        let claim = Claim::of(&attempt);
        let masked = self.masked(account);
        // Before any store is asked: a flood takes nothing from others.
        let (turn, admission) = match self.throttle.told(&attempt) {
            Some(throttled) => (None, Err(throttled)),
            None => (Some(self.queue.take(&claim).await?), self.throttle.admit(&attempt).await?),
        };
        // Only an existing account can have a known browser.
        let shown = if attempt.browser.is_some() { account } else { &masked };
        let admission = match self.admitted(admission, &source.context(shown)) {
            Ok(admission) => admission,
            Err(Throttled { retry_after }) => return Ok(PasswordOutcome::Throttled { retry_after }),
        };
        let by = if attempt.browser.is_some() { By::Known } else { By::Stranger };
        let checked = self.check_password(name.as_ref(), password, by).await;
        let (admission, (user, verified)) = withdraw_if_unknown(admission, checked).await?;
        let context = source.context(if user.is_some() { account } else { &masked });
        let Some((user, verified)) = user.as_ref().filter(|user| !user.disabled).zip(verified) else {
            self.audit.record(AuditEvent::LoginPasswordRefused, &context);
            self.note_wrong(user.map(|user| user.id), &attempt, Wrong::Password(by));
            return Ok(PasswordOutcome::Refused);
        };
        admission.succeeded().await;
        self.queue.was_right(&claim);
        drop(turn);
        self.audit.record(AuditEvent::LoginPasswordAccepted, &context);
        let arrival = Arrival { cookie: previous.copied(), client_ip: source.client_ip };
        self.begin(user, &FirstFactor::from(verified), remember, arrival).await
    }

    /// Begins a login with its first factor. What comes next is a code of a device, or else the first device.
    async fn begin(
        &self,
        user: &User,
        first: &FirstFactor,
        remember: bool,
        arrival: Arrival,
    ) -> Result<PasswordOutcome, LoginError> {
        if user.first_login_at.is_none() {
            // The grace of the roll-out runs from here: where that cannot be recorded, the login goes no further.
            self.users.note_first_login(&user.id).await?;
        }
        let has_device = self.devices.count(&user.id).await? > 0;
        let step = if has_device { Step::Code } else { Step::Enrol };
        let token = self.pending.begin(first, step, remember, arrival).await?;
        Ok(PasswordOutcome::Continue { token, step })
    }

    /// A one-time code before the password, for a user who has to wait because of strangers' guesses: it opens nothing,
    /// and makes the browser known for a while. An unknown account gets the same response as a wrong code.
    pub async fn first_code(
        &self,
        email: &str,
        code: &str,
        source: &Source,
    ) -> Result<FirstCodeOutcome, LoginError> {
        let name = CanonicalName::parse(email);
        let account = name.as_ref().map_or("", CanonicalName::as_str);
        let attempt = Attempt::new(account, source.client_ip, None);
        let _turn = self.queue.take(&Claim::of(&attempt)).await?;
        let masked = self.masked(account);
        let admission = self.throttle.admit_first_code(&attempt).await?;
        let admission = match self.admitted(admission, &source.context(&masked)) {
            Ok(admission) => admission,
            Err(Throttled { retry_after }) => return Ok(FirstCodeOutcome::Throttled { retry_after }),
        };
        let checked = self.check_first_code(name.as_ref(), code).await;
        let (admission, checked) = withdraw_if_unknown(admission, checked).await?;
        if checked != FirstCode::Right {
            self.audit.record(AuditEvent::LoginFirstCodeRefused, &source.context(&masked));
            if checked == FirstCode::Wrong {
                return Ok(FirstCodeOutcome::Refused);
            }
            admission.withdrawn().await;
            return Ok(FirstCodeOutcome::AlreadyUsed);
        }
        admission.succeeded().await;
        self.audit.record(AuditEvent::LoginFirstCodeAccepted, &source.context(account));
        let known = self.known.afresh(source.known.as_deref(), account, self.clock.now(), &*self.random);
        Ok(FirstCodeOutcome::Accepted { known })
    }

    async fn check_first_code(
        &self,
        name: Option<&CanonicalName>,
        code: &str,
    ) -> Result<FirstCode, LoginError> {
        let user = match name {
            Some(name) => self.users.find(name).await?.filter(|user| !user.disabled),
            None => None,
        };
        Ok(self.second_factor.verify_first(user.as_ref().map(|user| &user.id), code).await?)
    }

    /// The browser, if `account` is or has been logged in there.
    fn browser(&self, account: &str, source: &Source) -> Option<KnownBrowser> {
        let by_cookie =
            source.known.as_deref().and_then(|cookie| self.known.find(cookie, account, self.clock.now()));
        let is_in = source.user.as_deref() == Some(account);
        by_cookie.or_else(|| {
            let session = source.replaces.as_ref().filter(|_| is_in)?;
            Some(KnownBrowser::new(account, session.as_bytes()))
        })
    }

    /// The cookie that makes the browser known to `account`.
    fn known_from_now_on(&self, account: &str, source: &Source) -> String {
        self.known.with(source.known.as_deref(), account, self.clock.now(), &*self.random)
    }

    /// The text in the log for a name that no user has: it may be a password in the wrong field.
    fn masked(&self, account: &str) -> String {
        if account.is_empty() {
            return String::new();
        }
        let digest = hmac::sign(&self.names, account.as_bytes());
        format!("unknown-{}", hex(digest.as_ref().get(..8).unwrap_or_default()))
    }

    /// Records a wrong try for the report at the next login. Runs in the background, also for unknown accounts, or the
    /// time taken would reveal which exist.
    fn note_wrong(&self, user: Option<UserId>, attempt: &Attempt<'_>, wrong: Wrong) {
        let (tries, network) = (self.tries.clone(), attempt.networks.name());
        tokio::spawn(async move {
            let Some(user) = user.or_else(UserId::nobody) else { return };
            if let Err(error) = tries.note(&user, &network, wrong).await {
                tracing::warn!(user.id = %user, error = %Chain(&error), "a wrong try could not be noted");
            }
        });
    }

    /// Records in the audit log if there have been too many tries.
    fn admitted(
        &self,
        admission: Result<Admission, Throttled>,
        context: &Context<'_>,
    ) -> Result<Admission, Throttled> {
        if admission.is_err() {
            self.audit.record(AuditEvent::LoginThrottled, context);
        }
        admission
    }

    /// The user, and the proof if the password is correct. Takes as long for an unknown account.
    async fn check_password(
        &self,
        name: Option<&CanonicalName>,
        password: SecretString,
        by: By,
    ) -> Result<(Option<User>, Option<VerifiedPassword>), LoginError> {
        let user = match name {
            Some(name) => self.users.find(name).await?,
            None => None,
        };
        let verified = self.passwords.verify(user.as_ref().map(|user| &user.id), password, by).await?;
        Ok((user, verified))
    }

    /// The current step of a login; `None` if it is over, or if the user may no longer log in. One that began with a certificate
    /// takes it at each step.
    pub async fn progress(
        &self,
        id: &TokenHash,
        shown: Option<&ShownCertificate>,
    ) -> Result<Option<(Pending, User)>, LoginError> {
        let Some(mut pending) = self.pending.load(id).await? else { return Ok(None) };
        let Some(user) = self.users.by_id(pending.user()).await?.filter(|user| !user.disabled) else {
            return Ok(None);
        };
        if pending.first.method() == Method::Certificate && !self.is_first_factor_of(shown, &user) {
            return Ok(None);
        }
        // A device was bound meanwhile, in another browser or just before a crash: now its code is required.
        if pending.step == Step::Enrol && self.devices.count(&user.id).await? > 0 {
            pending.step = Step::Code;
        }
        Ok(Some((pending, user)))
    }

    /// The second factor: a code of any of the user's devices.
    pub async fn code(&self, id: &TokenHash, code: &str, source: &Source) -> Result<CodeOutcome, LoginError> {
        self.second_step(id, source, SecondStep::Code(code)).await
    }

    /// The second factor: a recovery code.
    pub async fn recovery(
        &self,
        id: &TokenHash,
        code: &str,
        source: &Source,
    ) -> Result<CodeOutcome, LoginError> {
        self.second_step(id, source, SecondStep::Recovery(code)).await
    }

    async fn second_step(
        &self,
        id: &TokenHash,
        source: &Source,
        step: SecondStep<'_>,
    ) -> Result<CodeOutcome, LoginError> {
        let Some((pending, user)) = self.progress(id, source.certificate.as_deref()).await? else {
            return Ok(CodeOutcome::Over);
        };
        if pending.step != Step::Code {
            return Ok(CodeOutcome::Over);
        }
        let context = source.context(user.name.as_str());
        let kind = match step {
            SecondStep::Code(_) => Kind::Code,
            SecondStep::Recovery(_) => Kind::Recovery,
        };
        let attempt = self.code_attempt(&user, source);
        let admission = match self.admitted(self.throttle.admit_code(kind, &attempt).await?, &context) {
            Ok(admission) => admission,
            Err(Throttled { retry_after }) => return Ok(CodeOutcome::Throttled { retry_after }),
        };
        let (check, accepted, refused) = match step {
            SecondStep::Code(code) => (
                self.second_factor.verify_code(&user.id, code).await,
                AuditEvent::LoginCodeAccepted,
                AuditEvent::LoginCodeRefused,
            ),
            SecondStep::Recovery(code) => (
                self.second_factor
                    .clone()
                    .carrying(self.notice(&Event::RecoveryCodeUsed, &user, source))
                    .redeem_recovery(&user.id, code)
                    .await,
                AuditEvent::LoginRecoveryAccepted,
                AuditEvent::LoginRecoveryRefused,
            ),
        };
        let (admission, check) = withdraw_if_unknown(admission, check).await?;
        match check {
            CodeCheck::Accepted(verified) => {
                admission.succeeded().await;
                self.audit.record(accepted, &context);
                let session = NewSession::two_factor(&pending.first, verified, &user)?;
                let session = session.remembered(pending.remember);
                let finish = self.finish(&user, session, source).await?;
                self.pending.remove(id).await?;
                Ok(CodeOutcome::Finished(finish))
            }
            CodeCheck::Wrong => {
                self.audit.record(refused, &context);
                self.note_wrong(Some(user.id.clone()), &attempt, Wrong::Code);
                Ok(CodeOutcome::Refused)
            }
            CodeCheck::Used => {
                admission.withdrawn().await;
                self.audit.record(refused, &context);
                Ok(CodeOutcome::AlreadyUsed)
            }
            CodeCheck::Off => {
                self.audit.record(AuditEvent::LoginCodesOff, &context);
                Ok(CodeOutcome::Off)
            }
        }
    }

    /// Where a code of `user` is counted: at the known browser, or at the network.
    fn code_attempt<'a>(&self, user: &'a User, source: &Source) -> Attempt<'a> {
        Attempt {
            account: user.id.as_str(),
            networks: Networks::of(source.client_ip),
            browser: self.browser(user.name.as_str(), source),
        }
    }

    /// Whether there is more to report than the user's own mistakes: a few from the network of this login.
    async fn has_wrong_tries(&self, user: &User, source: &Source) -> Result<bool, LoginError> {
        let here = Networks::of(source.client_ip).name();
        let tries = self.tries.list(&user.id).await?;
        Ok(tries.iter().any(|from| {
            from.network.as_deref() != Some(here.as_str()) || from.passwords + from.codes > OWN_SLIPS
        }))
    }

    /// Makes the session, and ends the one that the browser had.
    async fn finish(&self, user: &User, session: NewSession, source: &Source) -> Result<Finish, LoginError> {
        let next = match session.second() {
            Some(Method::Recovery) => Next::Recovered,
            Some(Method::Totp) if self.recovery_codes.has_unseen(&user.id).await? => Next::RecoveryCodes,
            Some(_) | None if self.has_wrong_tries(user, source).await? => Next::WrongTries,
            Some(_) | None => Next::Portal,
        };
        let kept_for = self.sessions.kept_for(&session);
        let origin = Origin::new(source.client_ip, &source.user_agent);
        let token = self.sessions.create(session, origin).await?;
        if let Some(old) = &source.replaces {
            self.sessions.revoke(old).await?;
        }
        let hash = token.hash();
        let mut context = source.context(user.name.as_str());
        let mut is_in = true;
        for beyond in self.within_limits(user, &hash).await? {
            if beyond.id == hash && self.sessions.refuses_when_full() {
                is_in = false;
                continue;
            }
            let context = Context { session: Some(beyond.id), ..context };
            self.audit.record(AuditEvent::SessionRevoked, &context);
        }
        if !is_in {
            self.audit.record(AuditEvent::LoginFull, &context);
            let others = self.sessions.list(Some(&user.id)).await?.len();
            return Ok(Finish::Full { others });
        }
        context.session = Some(hash);
        self.audit.record(AuditEvent::LoginFinished, &context);
        if let Err(error) = self.users.note_login(&user.id).await {
            // It is only for the operator's list, so the login goes on.
            tracing::warn!(user.id = %user.id, error = %Chain(&error), "the time of a login could not be noted");
        }
        if let Err(error) = self.tries.forgive(&user.id).await {
            tracing::warn!(user.id = %user.id, error = %Chain(&error), "wrong passwords stay counted");
        }
        self.tell_of_new_browser(user, source).await;
        let known = self.known_from_now_on(user.name.as_str(), source);
        Ok(Finish::In(NewLogin { token, next, kept_for, known }))
    }

    /// What tells the user of something from here, in its transaction.
    fn notice(&self, event: &Event<'_>, user: &User, source: &Source) -> Alongside {
        self.notices.of(event, (&user.id, &user.email), &source.place(), self.sessions.now())
    }

    /// The first login is told of as that of a new device.
    async fn tell_of_new_browser(&self, user: &User, source: &Source) {
        if user.last_login_at.is_none() || self.browser(user.name.as_str(), source).is_some() {
            return;
        }
        let notice = self.notice(&Event::NewBrowser, user, source);
        if let Err(error) = self.notices.outbox.write(&notice).await {
            tracing::warn!(user.id = %user.id, error = %Chain(&error), "a notice could not be written");
        }
    }

    /// Ends sessions beyond the maximum, perhaps the `new` one. If they cannot be counted, the new one ends.
    async fn within_limits(&self, user: &User, new: &TokenHash) -> Result<Vec<SessionSummary>, LoginError> {
        match self.sessions.evict_excess(&user.id).await {
            Ok(beyond) => Ok(beyond),
            Err(error) => {
                self.sessions.revoke(new).await?;
                Err(error.into())
            }
        }
    }
}

/// A check that failed has not revealed whether a guess was correct: it does not count as one.
async fn withdraw_if_unknown<T, E>(admission: Admission, check: Result<T, E>) -> Result<(Admission, T), E> {
    match check {
        Ok(known) => Ok((admission, known)),
        Err(error) => {
            admission.withdrawn().await;
            Err(error)
        }
    }
}

#[derive(Clone, Copy)]
enum SecondStep<'a> {
    Code(&'a str),
    Recovery(&'a str),
}

impl Source {
    /// The same for a notice.
    pub fn place(&self) -> Place {
        Place {
            network: Some(Networks::of(self.client_ip).name()),
            browser: Origin::new(self.client_ip, &self.user_agent).known_device(),
        }
    }

    pub(crate) fn context<'a>(&'a self, user: &'a str) -> Context<'a> {
        Context {
            user: Some(user).filter(|user| !user.is_empty()),
            client_ip: Some(self.client_ip),
            request_id: Some(&self.request_id),
            ..Context::default()
        }
    }

    pub fn of_session<'a>(&'a self, session: &'a sessions::Session) -> Context<'a> {
        Context { session: Some(session.id), ..self.context(&session.name) }
    }
}
