//! A certificate in place of a password. From there on the login is the same.

use super::{Login, LoginError, PasswordOutcome, Source, pending::Arrival};
use crate::{
    audit::AuditEvent,
    client_certificates::{Role, ShownCertificate, VerifiedCertificate},
    secret::TokenHash,
    sessions::FirstFactor,
    users::User,
};

impl Login {
    /// The certificate of a connection, if it counts as a first factor at a site. Whether the user exists is not checked here: the
    /// sign-in page would give it away.
    pub fn first_factor_of(
        &self,
        shown: Option<&ShownCertificate>,
        authority: &str,
    ) -> Option<VerifiedCertificate> {
        let verified = self.certificates.as_ref()?.judge(shown?, self.clock.now()).ok()?;
        verified.first_factor_at(authority).is_some().then_some(verified)
    }

    /// Whether a certificate counts in place of a user's password now.
    pub(super) fn is_first_factor_of(&self, shown: Option<&ShownCertificate>, user: &User) -> bool {
        let verified = self.certificates.as_ref().zip(shown);
        let verified = verified.and_then(|(known, shown)| known.judge(shown, self.clock.now()).ok());
        verified.is_some_and(|verified| verified.client().role == Role::FirstFactor(user.name.clone()))
    }

    /// The first factor by a certificate. Nothing can be guessed, so nothing is throttled. A user who does not exist and one who is
    /// disabled get the same answer.
    pub async fn certificate(
        &self,
        (certificate, authority): (&VerifiedCertificate, &str),
        previous: Option<&TokenHash>,
        source: &Source,
    ) -> Result<PasswordOutcome, LoginError> {
        let Some(name) = certificate.first_factor_at(authority) else { return Ok(PasswordOutcome::Refused) };
        let context = source.context(name.as_str());
        let user = self.users.find(name).await?.filter(|user| !user.disabled);
        let first = user.as_ref().and_then(|user| FirstFactor::by_certificate(certificate, authority, user));
        let Some((user, first)) = user.as_ref().zip(first) else {
            self.audit.record(AuditEvent::LoginCertificateRefused, &context);
            return Ok(PasswordOutcome::Refused);
        };
        self.audit.record(AuditEvent::LoginCertificateAccepted, &context);
        let arrival = Arrival { cookie: previous.copied(), client_ip: source.client_ip };
        self.begin(user, &first, false, arrival).await
    }
}
