//! The gate decides what happens to a request for the portal: allow, challenge or deny.
//!
//! Pure: no clock, no store, no HTTP. The caller loads the session and acts on the [`Decision`].

mod challenge;

use std::{future::pending, sync::Arc};

use tokio_util::sync::CancellationToken;

pub use challenge::{BASIC, Challenger, Visitor};

use crate::{
    access::{AccessLevel, Ruling},
    clock::Timestamp,
    http1::fields::Block,
    identity::{IdentityHeaders, Unrepresentable},
    sessions::{Level, Live},
};

/// Proof that a request passed the gate, and as whom. Only [`decide`] makes one, so its kinds are private.
#[derive(Clone, Debug)]
pub struct Identity(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Session(Arc<Live>),
    /// The same where one factor is always enough.
    OneFactor(Arc<Live>),
    /// A machine, by its token.
    Token(Arc<Live>),
    /// A request that needs no identity.
    Anonymous,
}

impl Identity {
    /// The session that passed; `None` for a token, and for an anonymous request.
    pub fn session(&self) -> Option<&Arc<Live>> {
        match &self.0 {
            Kind::Session(live) | Kind::OneFactor(live) => Some(live),
            Kind::Token(_) | Kind::Anonymous => None,
        }
    }

    /// The session or token that the portal is told of; `None` if anonymous.
    pub fn subject(&self) -> Option<&Arc<Live>> {
        match &self.0 {
            Kind::Session(live) | Kind::OneFactor(live) | Kind::Token(live) => Some(live),
            Kind::Anonymous => None,
        }
    }

    /// The identity headers for the portal; `None` if anonymous.
    pub fn headers(&self, names: &IdentityHeaders) -> Result<Option<&Block>, Unrepresentable> {
        self.subject().map(|live| names.of(live)).transpose()
    }

    /// Whether the session or token has ended.
    pub fn has_ended(&self) -> bool {
        self.ending().is_some_and(CancellationToken::is_cancelled)
    }

    /// Cancelled when the session or token ends; `None` if anonymous.
    pub fn ended(&self) -> Option<CancellationToken> {
        self.ending().cloned()
    }

    /// Waits until the session or token ends.
    pub fn end(&self) -> impl Future<Output = ()> + use<> {
        let ended = self.ended();
        async move {
            match ended {
                Some(ended) => ended.cancelled_owned().await,
                None => pending().await,
            }
        }
    }

    fn ending(&self) -> Option<&CancellationToken> {
        match &self.0 {
            Kind::Session(live) => Some(&live.ended),
            Kind::OneFactor(live) | Kind::Token(live) => Some(live.over()),
            Kind::Anonymous => None,
        }
    }
}

/// The credential of a request.
#[derive(Clone, Debug)]
pub enum Credential {
    Nothing,
    Session(Arc<Live>),
    /// A token that is valid for the request, and whom it stands for.
    Token(Arc<Live>),
}

/// The decision about a request.
#[derive(Clone, Debug)]
pub enum Decision {
    Allow(Identity),
    Challenge(Missing),
    /// A rule denies the request.
    Deny,
}

/// What has to be proved first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// There is no session.
    Session,
    /// The session has only proved a password, and that is no longer enough.
    Device,
    /// The last code is too old.
    FreshCode,
}

/// Compares what a target requires with what a request can show.
///
/// `now` is the time that sessions go by. A store failure is for the caller to report: it must never arrive here as
/// "no session". A credential that does not suffice for the portal is not named to it either.
pub fn decide(ruling: &Ruling, credential: Credential, now: Timestamp) -> Decision {
    match (ruling.level, credential) {
        (AccessLevel::Deny, _) => Decision::Deny,
        (AccessLevel::Bypass, Credential::Session(live)) if !ruling.anonymous && live.suffices(now) => {
            Decision::Allow(Identity(Kind::Session(live)))
        }
        (AccessLevel::Bypass, Credential::Token(live)) if !ruling.anonymous => {
            Decision::Allow(Identity(Kind::Token(live)))
        }
        (AccessLevel::Bypass, _) => Decision::Allow(Identity(Kind::Anonymous)),
        // Only a person can have a fresh code.
        (_, Credential::Token(_)) if !ruling.takes_tokens() => Decision::Deny,
        (_, Credential::Token(live)) => Decision::Allow(Identity(Kind::Token(live))),
        (AccessLevel::OneFactor | AccessLevel::TwoFactor, Credential::Nothing) => {
            Decision::Challenge(Missing::Session)
        }
        (AccessLevel::OneFactor, Credential::Session(live)) => {
            Decision::Allow(Identity(Kind::OneFactor(live)))
        }
        (AccessLevel::TwoFactor, Credential::Session(live)) => match missing(ruling, &live, now) {
            Some(missing) => Decision::Challenge(missing),
            None => Decision::Allow(Identity(Kind::Session(live))),
        },
    }
}

fn missing(ruling: &Ruling, live: &Live, now: Timestamp) -> Option<Missing> {
    if !live.suffices(now) {
        return Some(Missing::Device);
    }
    let max_age = ruling.max_age?;
    match live.session.level() {
        Level::One => Some(Missing::Device),
        // With two factors the last proof is a code.
        Level::Two => (now.since(live.session.proved_at()) > max_age).then_some(Missing::FreshCode),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::{
        access::{AccessRequest, AccessRule, AccessRules, Config},
        sessions::{Method, having_proved},
    };

    fn shown(methods: &[Method], until: Timestamp) -> Credential {
        if methods.is_empty() {
            Credential::Nothing
        } else {
            Credential::Session(having_proved(methods, until))
        }
    }

    /// The ruling of one rule for everything.
    fn ruling(level: AccessLevel, max_age: Option<Duration>, anonymous: bool) -> Ruling {
        let rule = AccessRule { level, max_age, anonymous, ..AccessRule::default() };
        let rules = AccessRules::new(&Config { rules: vec![rule], ..Config::default() }).unwrap();
        let (method, headers) = (http::Method::GET, http::HeaderMap::new());
        rules.of(&AccessRequest::new(&method, &headers, "/", None, [10, 0, 0, 1].into()))
    }

    #[test]
    fn what_suffices_is_allowed_as_its_user_and_all_else_as_the_target_asks() {
        let date = Timestamp::from_unix_seconds(1000);
        let before = date.minus(Duration::from_millis(1));
        let (nothing, one, two) = (&[][..], &[Method::Password][..], &[Method::Password, Method::Totp][..]);
        for (methods, now, two_factor, fresh, one_factor, public) in [
            (two, before, "session", "code", "session", "session"),
            (two, date, "session", "code", "session", "session"),
            (one, before, "session", "device", "session", "session"),
            (one, date, "device", "device", "session", "anonymous"),
            (nothing, before, "log in", "log in", "log in", "anonymous"),
            (nothing, date, "log in", "log in", "log in", "anonymous"),
        ] {
            let decide = |ruling| match decide(&ruling, shown(methods, date), now) {
                Decision::Allow(identity) if identity.session().is_some() => "session",
                Decision::Allow(_) => "anonymous",
                Decision::Challenge(Missing::Session) => "log in",
                Decision::Challenge(Missing::Device) => "device",
                Decision::Challenge(Missing::FreshCode) => "code",
                Decision::Deny => "deny",
            };
            let of = |level| decide(ruling(level, None, false));
            assert_eq!(of(AccessLevel::TwoFactor), two_factor, "{methods:?} {now}");
            assert_eq!(of(AccessLevel::OneFactor), one_factor, "{methods:?} {now}");
            assert_eq!(of(AccessLevel::Bypass), public, "{methods:?} {now}");
            assert_eq!(of(AccessLevel::Deny), "deny", "{methods:?} {now}");
            assert_eq!(decide(ruling(AccessLevel::Bypass, None, true)), "anonymous", "{methods:?} {now}");
            let minute = Some(Duration::from_mins(1));
            assert_eq!(decide(ruling(AccessLevel::TwoFactor, minute, false)), fresh, "{methods:?} {now}");
        }
    }

    #[test]
    fn a_token_stands_for_all_factors_at_any_date_and_for_no_fresh_code() {
        let date = Timestamp::from_unix_seconds(1000);
        for now in [date.minus(Duration::from_millis(1)), date] {
            let decide = |ruling| {
                let token = having_proved(&[Method::Token], date);
                match decide(&ruling, Credential::Token(token), now) {
                    Decision::Allow(identity) if identity.subject().is_some() => {
                        assert!(identity.session().is_none());
                        "token"
                    }
                    Decision::Allow(_) => "anonymous",
                    Decision::Challenge(_) => "challenge",
                    Decision::Deny => "deny",
                }
            };
            let minute = Some(Duration::from_mins(1));
            for (level, max_age, anonymous, expected) in [
                (AccessLevel::Bypass, None, false, "token"),
                (AccessLevel::Bypass, None, true, "anonymous"),
                (AccessLevel::OneFactor, None, false, "token"),
                (AccessLevel::TwoFactor, None, false, "token"),
                (AccessLevel::TwoFactor, minute, false, "deny"),
                (AccessLevel::Deny, None, false, "deny"),
            ] {
                assert_eq!(decide(ruling(level, max_age, anonymous)), expected, "{level} {max_age:?}");
            }
        }
    }

    #[test]
    fn a_code_is_fresh_up_to_its_age() {
        let minute = Duration::from_mins(1);
        let ruling = ruling(AccessLevel::TwoFactor, Some(minute), false);
        let proved = having_proved(&[Method::Password, Method::Totp], Timestamp::from_unix_seconds(0));
        let at = |age| {
            let now = proved.session.proved_at().plus(age);
            matches!(decide(&ruling, Credential::Session(proved.clone()), now), Decision::Allow(_))
        };
        assert!(at(Duration::ZERO) && at(minute) && !at(minute + Duration::from_millis(1)));
    }

    #[test]
    fn an_identity_lasts_as_long_as_its_session_and_for_ever_without_one() {
        let pass = |level, credential| match decide(
            &ruling(level, None, false),
            credential,
            Timestamp::from_unix_seconds(1),
        ) {
            Decision::Allow(identity) => identity,
            other => panic!("{other:?}"),
        };
        let live = having_proved(&[Method::Password, Method::Totp], Timestamp::from_unix_seconds(0));
        let session = || Credential::Session(live.clone());
        let (user, one_factor) =
            (pass(AccessLevel::Bypass, session()), pass(AccessLevel::OneFactor, session()));
        let anonymous = pass(AccessLevel::Bypass, Credential::Nothing);
        assert!(!user.has_ended() && user.end().now_or_never().is_none());
        // One factor is no longer enough elsewhere, but it is here.
        live.ended.cancel();
        assert!(user.has_ended() && user.end().now_or_never().is_some());
        assert!(!one_factor.has_ended() && one_factor.end().now_or_never().is_none());
        live.over().cancel();
        assert!(one_factor.has_ended() && one_factor.end().now_or_never().is_some());
        assert!(
            !anonymous.has_ended() && anonymous.ended().is_none() && anonymous.end().now_or_never().is_none()
        );
    }
}
