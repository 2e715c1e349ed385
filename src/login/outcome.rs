//! What a step of a login can come to.

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

/// Something did not answer. Nobody is let in, and nothing is forgotten.
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

/// What became of e-mail and password.
#[derive(Debug)]
pub enum PasswordOutcome {
    Refused,
    Throttled { retry_after: Duration },
    Continue { token: Token, step: Step },
}

/// What became of a code before the password.
#[derive(Debug)]
pub enum FirstCodeOutcome {
    Refused,
    /// The code was right, and has been used before.
    AlreadyUsed,
    Throttled {
        retry_after: Duration,
    },
    /// The cookie of a browser that is known for a while.
    Accepted {
        known: String,
    },
}

/// What became of a code.
#[derive(Debug)]
pub enum CodeOutcome {
    Refused,
    /// The code was right, and has been used before.
    AlreadyUsed,
    /// Too many wrong codes of this kind in a row: none counts until an operator steps in.
    Off,
    Throttled {
        retry_after: Duration,
    },
    /// There is no login in progress: it is finished, took too long, or its user may not log in.
    Over,
    Finished(Finish),
}

/// How a login ends that has proved everything.
#[derive(Debug)]
pub enum Finish {
    In(NewLogin),
    /// Its user has as many sessions as there may be, and is in none by this login.
    Full {
        others: usize,
    },
}

/// What there is to tell somebody who has just got in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Portal,
    /// There are recovery codes that the user has not confirmed to have saved.
    RecoveryCodes,
    /// The user has used a recovery code.
    Recovered,
    /// Somebody has tried wrong passwords or codes since the last login.
    WrongTries,
}

/// A login that has succeeded.
#[derive(Debug)]
pub struct NewLogin {
    pub token: Token,
    pub next: Next,
    /// For how long the browser is to keep it; absent: until it is closed.
    pub kept_for: Option<Duration>,
    /// The cookie that says to whom the browser is known.
    pub known: String,
}
