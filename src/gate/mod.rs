//! Decides what happens to a request of the portal: pass, log in, or bind a device first.
//!
//! Pure: no clock, no store, no HTTP. The caller loads the session and acts on the [`Decision`].

mod challenge;

use std::{future::pending, sync::Arc};

use tokio_util::sync::CancellationToken;

pub use challenge::{Challenger, Visitor};

use crate::{
    clock::Timestamp,
    http1::fields::Block,
    identity::{IdentityHeaders, Unrepresentable},
    rollout::{self, Requirement},
    sessions::{Level, Live, Session},
};

/// Proof that the gate was passed, and as whom. Only [`Gate`] makes one, which is why the kinds of it are not public.
#[derive(Clone, Debug)]
pub struct Identity(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Session(Arc<Live>),
    /// Nobody needs to be known.
    Anonymous,
}

impl Identity {
    /// The session that passed; absent: anonymous.
    pub fn session(&self) -> Option<&Arc<Live>> {
        match &self.0 {
            Kind::Session(live) => Some(live),
            Kind::Anonymous => None,
        }
    }

    /// What the portal is told about the user in plain headers; absent: nothing.
    pub fn headers(&self, names: &IdentityHeaders) -> Result<Option<&Block>, Unrepresentable> {
        self.session().map(|live| names.of(live)).transpose()
    }

    /// Whether what it stands for is over.
    pub fn has_ended(&self) -> bool {
        self.session().is_some_and(|live| live.ended.is_cancelled())
    }

    /// Cancelled when what it stands for is over; absent: it never is.
    pub fn ended(&self) -> Option<CancellationToken> {
        self.session().map(|live| live.ended.clone())
    }

    /// Waits until what it stands for is over.
    pub fn end(&self) -> impl Future<Output = ()> + use<> {
        let ended = self.ended();
        async move {
            match ended {
                Some(ended) => ended.cancelled_owned().await,
                None => pending().await,
            }
        }
    }
}

/// What a target asks of whoever wants something of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLevel {
    /// Nothing.
    Bypass,
    /// A password, and a second factor as soon as the roll-out demands it.
    TwoFactor,
}

/// What came with a request to show who it is from.
#[derive(Clone, Debug)]
pub enum Credential {
    Nothing,
    Session(Arc<Live>),
}

/// What is to happen to a request.
#[derive(Clone, Debug)]
pub enum Decision {
    Allow(Identity),
    /// There is no session.
    LogIn,
    /// The session has proved a password only, and that is no longer enough.
    BindDevice,
}

/// Compares what a target and the roll-out require with what a request can show.
#[derive(Clone, Debug)]
pub struct Gate {
    rollout: rollout::Config,
}

impl Gate {
    pub fn new(rollout: rollout::Config) -> Self {
        Self { rollout }
    }

    /// `now` is the time that sessions go by. A store failure is the caller's to report: it must never arrive here as
    /// "no session". What is not good enough for the portal is not good enough to be named to it either.
    pub fn decide(&self, level: AccessLevel, credential: Credential, now: Timestamp) -> Decision {
        let lacking = match credential {
            Credential::Session(live) if self.suffices(&live.session, now) => {
                return Decision::Allow(Identity(Kind::Session(live)));
            }
            Credential::Session(_) => Decision::BindDevice,
            Credential::Nothing => Decision::LogIn,
        };
        match level {
            AccessLevel::Bypass => Decision::Allow(Identity(Kind::Anonymous)),
            AccessLevel::TwoFactor => lacking,
        }
    }

    fn suffices(&self, session: &Session, now: Timestamp) -> bool {
        match (session.level(), self.rollout.requirement(now)) {
            (Level::Two, _) | (Level::One, Requirement::Invite { .. }) => true,
            (Level::One, Requirement::Demand) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use jiff::tz::Offset;

    use super::*;
    use crate::sessions::{Method, having_proved};

    fn shown(methods: &[Method]) -> Credential {
        if methods.is_empty() { Credential::Nothing } else { Credential::Session(having_proved(methods)) }
    }

    #[test]
    fn what_suffices_is_allowed_as_its_user_and_all_else_as_the_target_asks() {
        let date = Timestamp::from_unix_seconds(1000);
        let gate = Gate::new(rollout::Config { mandatory_from: Some(date), offset: Offset::UTC });
        let before = date.minus(Duration::from_millis(1));
        let (nothing, one, two) = (&[][..], &[Method::Password][..], &[Method::Password, Method::Totp][..]);
        for (methods, now, at_portal, in_public) in [
            (two, before, "session", "session"),
            (two, date, "session", "session"),
            (one, before, "session", "session"),
            (one, date, "bind", "anonymous"),
            (nothing, before, "log in", "anonymous"),
            (nothing, date, "log in", "anonymous"),
        ] {
            let decide = |level| match gate.decide(level, shown(methods), now) {
                Decision::Allow(identity) if identity.session().is_some() => "session",
                Decision::Allow(_) => "anonymous",
                Decision::LogIn => "log in",
                Decision::BindDevice => "bind",
            };
            assert_eq!(decide(AccessLevel::TwoFactor), at_portal, "{methods:?} {now}");
            assert_eq!(decide(AccessLevel::Bypass), in_public, "{methods:?} {now}");
        }
    }

    #[test]
    fn an_identity_lasts_as_long_as_its_session_and_for_ever_without_one() {
        let gate = Gate::new(rollout::Config::default());
        let pass = |credential| match gate.decide(
            AccessLevel::Bypass,
            credential,
            Timestamp::from_unix_seconds(1),
        ) {
            Decision::Allow(identity) => identity,
            other => panic!("{other:?}"),
        };
        let live = having_proved(&[Method::Password, Method::Totp]);
        let (user, anonymous) = (pass(Credential::Session(live.clone())), pass(Credential::Nothing));
        assert!(!user.has_ended() && user.end().now_or_never().is_none());
        live.ended.cancel();
        assert!(user.has_ended() && user.end().now_or_never().is_some());
        assert!(
            !anonymous.has_ended() && anonymous.ended().is_none() && anonymous.end().now_or_never().is_none()
        );
    }
}
