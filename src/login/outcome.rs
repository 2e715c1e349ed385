//! The outcomes of a login's steps.

use std::time::Duration;

use super::Step;
use crate::{
    credentials::{CredentialsError, Full, HashingError, PasswordError},
    database::DatabaseError,
    secret::Token,
    sessions::{OtherUser, SessionError},
    throttle::ThrottleError,
    users::UsersError,
};

/// A store did not answer. Nobody is let in, and nothing is lost.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error("cannot look up the user")]
    Users(#[from] UsersError),
    #[error("cannot read or change devices and passwords")]
    Credentials(#[from] CredentialsError),
    #[error("cannot read the failed-login counters")]
    Throttle(#[from] ThrottleError),
    #[error("cannot read or save the login in progress")]
    Pending(#[from] DatabaseError),
    #[error("cannot read or save the session")]
    Sessions(#[from] SessionError),
    #[error("cannot finish the login")]
    Proofs(#[from] OtherUser),
    #[error("cannot check the password")]
    Password(#[source] PasswordError),
    #[error("too many passwords are being checked at once")]
    Busy,
}

impl From<Full> for LoginError {
    fn from(Full: Full) -> Self {
        Self::Busy
    }
}

impl From<PasswordError> for LoginError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Hashing(HashingError::Busy) => Self::Busy,
            error => Self::Password(error),
        }
    }
}

/// The outcome of e-mail and password.
#[derive(Debug)]
pub enum PasswordOutcome {
    Refused,
    Throttled { retry_after: Duration },
    Continue { token: Token, step: Step },
}

/// The outcome of a code before the password.
#[derive(Debug)]
pub enum FirstCodeOutcome {
    Refused,
    /// The code was correct, but has been used before.
    AlreadyUsed,
    Throttled {
        retry_after: Duration,
    },
    /// The cookie that makes the browser known for a while.
    Accepted {
        known: String,
    },
}

/// The outcome of a code.
#[derive(Debug)]
pub enum CodeOutcome {
    Refused,
    /// The code was correct, but has been used before.
    AlreadyUsed,
    /// Too many wrong codes of this kind in a row: none is accepted until an operator unblocks the account.
    Off,
    Throttled {
        retry_after: Duration,
    },
    /// There is no login in progress: it is finished, took too long, or its user may not log in.
    Over,
    Finished(Finish),
}

/// The end of a login that has proved everything.
#[derive(Debug)]
pub enum Finish {
    In(NewLogin),
    /// The user has the maximum number of sessions, and this login makes none.
    Full {
        others: usize,
    },
}

/// What to show a user after the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Portal,
    /// There are recovery codes that the user has not confirmed as saved.
    RecoveryCodes,
    /// The user has used a recovery code.
    Recovered,
    /// There were wrong passwords or codes since the last login.
    WrongTries,
}

/// A successful login.
#[derive(Debug)]
pub struct NewLogin {
    pub token: Token,
    pub next: Next,
    /// How long the browser is to store the cookie; `None`: until it is closed.
    pub kept_for: Option<Duration>,
    /// The cookie with the accounts that the browser is known to.
    pub known: String,
}
