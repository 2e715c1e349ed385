//! Decides what happens to a request of the portal: pass, log in, or bind a device first.
//!
//! Pure: no clock, no store, no HTTP. The caller loads the session and acts on the [`Decision`].

mod challenge;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use challenge::{Challenger, Visitor};

use crate::{
    clock::Timestamp,
    rollout::{self, Requirement},
    sessions::{Level, Live},
};

/// Proof that the gate was passed, and by whom. Only [`Gate`] makes one.
#[derive(Clone, Debug)]
pub struct Identity(Arc<Live>);

impl Identity {
    /// The session that passed.
    pub fn session(&self) -> &Arc<Live> {
        &self.0
    }

    /// Whether the session is over.
    pub fn has_ended(&self) -> bool {
        self.0.ended.is_cancelled()
    }

    /// Cancelled when the session is over.
    pub fn ended(&self) -> CancellationToken {
        self.0.ended.clone()
    }
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

/// Compares what the roll-out requires with what a session has proved.
#[derive(Clone, Debug)]
pub struct Gate {
    rollout: rollout::Config,
}

impl Gate {
    pub fn new(rollout: rollout::Config) -> Self {
        Self { rollout }
    }

    /// `now` is the time that sessions go by. A store failure is the caller's to report: it must never arrive here as
    /// "no session".
    pub fn decide(&self, session: Option<Arc<Live>>, now: Timestamp) -> Decision {
        let Some(session) = session else { return Decision::LogIn };
        match (session.session.level(), self.rollout.requirement(now)) {
            (Level::Two, _) | (Level::One, Requirement::Invite { .. }) => Decision::Allow(Identity(session)),
            (Level::One, Requirement::Demand) => Decision::BindDevice,
        }
    }
}
