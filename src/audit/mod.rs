//! The audit trail: what happened to whom and from where, one structured line each, under names that never change.
//!
//! The log is the only sink; every event goes through [`Audit::record`]. Takes no secret: a context has no field for
//! one.

use std::{borrow::Cow, fmt, net::IpAddr};

use crate::secret::TokenHash;

macro_rules! events {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $words:literal;)+) => {
        /// The events. Their names are a contract: filters and metrics depend on them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum AuditEvent {
            $($(#[$doc])* $variant,)+
        }

        impl AuditEvent {
            /// Every event there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The stable, dotted name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The same for people.
            const fn words(self) -> &'static str {
                match self {
                    $(Self::$variant => $words,)+
                }
            }
        }
    };
}

events! {
    LoginPasswordAccepted = "login.password.accepted", "password accepted";
    /// Wrong, unknown or disabled. An unknown name is logged as a keyed digest: it may be a password in the wrong
    /// field.
    LoginPasswordRefused = "login.password.refused", "password refused";
    /// A certificate in place of a password.
    LoginCertificateAccepted = "login.certificate.accepted", "certificate accepted";
    /// Its user is disabled, or not there.
    LoginCertificateRefused = "login.certificate.refused", "certificate refused";
    LoginThrottled = "login.throttled", "too many failed logins";
    /// A code before the password, which makes the browser known for a while.
    LoginFirstCodeAccepted = "login.first_code.accepted", "code accepted before the password";
    LoginFirstCodeRefused = "login.first_code.refused", "code refused before the password";
    LoginCodeAccepted = "login.code.accepted", "code accepted";
    LoginCodeRefused = "login.code.refused", "code refused";
    LoginRecoveryAccepted = "login.recovery.accepted", "recovery code accepted";
    LoginRecoveryRefused = "login.recovery.refused", "recovery code refused";
    /// Too many wrong codes in a row.
    LoginCodesOff = "login.codes.off", "devices are off after too many wrong codes";
    /// The user has the maximum number of sessions.
    LoginFull = "login.full", "login refused, for too many sessions";
    LoginFinished = "login.finished", "logged in";
    Logout = "logout", "logged out";
    /// From the first site to another, in the same browser.
    SessionHandedOver = "session.handed_over", "session handed over to another site";
    SessionRevoked = "session.revoked", "session revoked";
    EnrolmentStarted = "enrolment.started", "enrolment started";
    EnrolmentFinished = "enrolment.finished", "device enrolled";
    EnrolmentSkipped = "enrolment.skipped", "enrolment put off";
    EnrolmentRefused = "enrolment.refused", "enrolment refused";
    DeviceRemoved = "device.removed", "device removed";
    RecoveryCodesShown = "recovery_codes.shown", "recovery codes shown";
    RecoveryCodesAcknowledged = "recovery_codes.acknowledged", "recovery codes saved by their user";
    RecoveryCodesReplaced = "recovery_codes.replaced", "recovery codes replaced";
    UserAdded = "user.added", "user added";
    UserDisabled = "user.disabled", "user disabled";
    UserEnabled = "user.enabled", "user enabled";
    UserRemoved = "user.removed", "user removed";
    UserPasswordSet = "user.password_set", "password set";
    /// By a link from a mail.
    PasswordLinkRequested = "password.link_requested", "link for a forgotten password requested";
    PasswordSetByLink = "password.set_by_link", "password set by a link";
    /// "This was not me", in a notice.
    UserFrozen = "user.frozen", "user disabled by a link from a notice";
    UserInvited = "user.invited", "user invited";
    UserReminded = "user.reminded", "user reminded of the roll-out";
    UserNameSet = "user.name_set", "display name changed";
    UserGroupsSet = "user.groups_set", "groups changed";
    /// The e-mail, by which the user logs in.
    UserEmailSet = "user.email_set", "e-mail changed";
    TokenCreated = "token.created", "token created";
    /// Its name goes to another token; it may stay valid for a while.
    TokenRotated = "token.rotated", "token replaced";
    TokenRevoked = "token.revoked", "token revoked";
    /// After a day of attempts, or refused for good.
    MailGivenUp = "mail.given_up", "mail given up";
    SigningKeyMade = "signing_key.made", "signing key made";
    /// All keys before the new one are compromised.
    SigningKeysRetired = "signing_key.retired", "all signing keys replaced";
    SealingKeyMade = "sealing_key.made", "sealing key made";
    SealingKeyActivated = "sealing_key.activated", "sealing key in use";
    SealingKeyRemoved = "sealing_key.removed", "sealing key removed";
}

impl fmt::Display for AuditEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The subject and origin of an event; unknown fields are `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// The canonical name, whether or not a user has it.
    pub user: Option<&'a str>,
    /// The user's former name.
    pub previous: Option<&'a str>,
    pub client_ip: Option<IpAddr>,
    pub request_id: Option<&'a str>,
    /// Only its short form is written.
    pub session: Option<TokenHash>,
    /// The name of a key, which reveals nothing about the key.
    pub key: Option<&'a str>,
    /// The name of a token, which reveals nothing about the token.
    pub token: Option<&'a str>,
}

/// The audit trail of this process.
pub struct Audit {
    on_event: Box<dyn Fn(&'static str) + Send + Sync>,
}

impl Audit {
    /// `on_event` is called with the name of every event, to count it.
    pub fn new(on_event: Box<dyn Fn(&'static str) + Send + Sync>) -> Self {
        Self { on_event }
    }

    pub fn record(&self, event: AuditEvent, context: &Context<'_>) {
        tracing::info!(
            target: "audit",
            event = event.name(),
            user.name = context.user.map(one_line).as_deref(),
            user.previous_name = context.previous.map(one_line).as_deref(),
            client.ip = context.client_ip.map(tracing::field::display),
            request.id = context.request_id.map(one_line).as_deref(),
            session.id = context.session.map(TokenHash::short),
            key.id = context.key,
            token.name = context.token.map(one_line).as_deref(),
            "{}",
            event.words(),
        );
        (self.on_event)(event.name());
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Audit(…)")
    }
}

/// Escapes characters that could end a line, colour a terminal or reverse the direction of text, in any log format.
fn one_line(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmful(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        io,
        sync::{Arc, Mutex},
    };

    use serde_json::{Value, json};
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Captured {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    /// The lines that `act` logs.
    fn lines(act: impl FnOnce(&Audit)) -> Vec<String> {
        let captured = Captured::default();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .without_time()
            .with_writer(captured.clone())
            .finish();
        let audit = Audit::new(Box::new(|_| ()));
        tracing::subscriber::with_default(subscriber, || act(&audit));
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn an_event_is_one_line_with_dotted_fields() {
        let lines = lines(|audit| {
            audit.record(
                AuditEvent::LoginFinished,
                &Context {
                    user: Some("ada@example.com"),
                    client_ip: Some("192.0.2.1".parse().unwrap()),
                    request_id: Some("01J"),
                    session: Some(TokenHash::from_bytes([0xab; 32])),
                    key: Some("c0ffee00"),
                    ..Context::default()
                },
            );
            audit.record(AuditEvent::LoginThrottled, &Context::default());
        });
        let parsed: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            parsed,
            [
                json!({
                    "level": "INFO", "target": "audit", "message": "logged in", "event": "login.finished",
                    "user.name": "ada@example.com", "client.ip": "192.0.2.1", "request.id": "01J",
                    "session.id": "abababababababab", "key.id": "c0ffee00",
                }),
                json!({
                    "level": "INFO", "target": "audit", "message": "too many failed logins",
                    "event": "login.throttled",
                }),
            ]
        );
    }

    #[test]
    fn a_name_cannot_forge_a_line() {
        let user = "a\r\nlogin.finished\u{1b}[31m\0\u{85}\u{2028}\u{202e}ü";
        let lines = lines(|audit| {
            let context = Context { user: Some(user), request_id: Some("x\ny"), ..Context::default() };
            audit.record(AuditEvent::LoginPasswordRefused, &context);
        });
        assert_eq!(lines.len(), 1);
        let parsed: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(parsed["user.name"], "a\\r\\nlogin.finished\\u{1b}[31m\\u{0}\\u{85}\\u{2028}\\u{202e}ü");
        assert_eq!(parsed["request.id"], "x\\ny");
    }

    #[test]
    fn every_event_is_counted_by_its_name() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let audit = Audit::new({
            let heard = Arc::clone(&heard);
            Box::new(move |name| heard.lock().unwrap().push(name))
        });
        for &event in AuditEvent::ALL {
            audit.record(event, &Context::default());
        }
        let names: Vec<_> = AuditEvent::ALL.iter().map(|event| event.name()).collect();
        assert_eq!(*heard.lock().unwrap(), names);
    }

    #[test]
    fn names_are_dotted_lower_case_and_unlike_each_other() {
        let names: HashSet<_> = AuditEvent::ALL.iter().map(|event| event.name()).collect();
        assert_eq!(names.len(), AuditEvent::ALL.len());
        for name in names {
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'.' | b'_')),
                "{name}"
            );
        }
    }
}
