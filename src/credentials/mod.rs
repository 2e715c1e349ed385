//! Credentials: passwords, devices, recovery codes.
//!
//! Every durable decision is made in one transaction: a crash leaves the old state or the new, and each of several
//! concurrent guesses counts. Secrets are sealed, codes and passwords stored as hashes.

mod devices;
mod hashing;
mod password;
pub mod password_policy;
mod queue;
mod recovery_codes;
mod second_factor;
mod stored_hash;
mod totp;
mod typed;
mod wrong_tries;

pub use devices::{Device, Devices, EnrolRefusal, EnrolmentScope, ImportedDevice};
pub use hashing::{Hashing, HashingError};
pub use password::{By, PasswordError, Passwords, VerifiedPassword};
pub use queue::{Claim, Full, LoginQueue, Turn};
pub use recovery_codes::RecoveryCodes;
pub use second_factor::{CodeCheck, CodeKind, FirstCode, SecondFactor, VerifiedCode};
pub use stored_hash::{HashRefusal, StoredHash};
pub use totp::TotpSecret;
pub use wrong_tries::{Tries, Wrong, WrongTries};

use std::time::Duration;

use crate::{clock::Watermark, database::DatabaseError, sealing::Unsealable};

/// Failures in a row after which a proof is no longer accepted (NIST SP 800-63B-4, section 3.2.2).
const MAX_FAILURES: i64 = 100;

/// The rules for passwords and devices.
#[derive(Clone, Debug)]
pub struct Config {
    /// Minimum length of a new password in code points; never below 8.
    pub password_min_length: usize,
    /// Maximum length of a new password in code points.
    pub password_max_length: usize,
    /// The name that authenticator apps show above the code. No colon.
    pub issuer: String,
}

/// Why a device or a code was neither accepted nor refused.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot read or change devices and codes")]
    Database(#[from] DatabaseError),
    #[error("a secret in the store was not sealed with this key for this user")]
    Sealed(#[from] Unsealable),
    #[error(
        "the machine's clock was set back by {} s: no one-time code counts until it has caught up, since those of \
         the time in between would be good once more; if it was wrong before and is right now, restart this gateway",
        .0.as_secs()
    )]
    SetBack(Duration),
}

/// How far the clock may be behind: a step of TOTP, for which a code is valid anyway.
pub const TOLERANCE: Duration = Duration::from_secs(30);

/// Fails while the clock shows times that it has shown before.
fn check_clock(watermark: &Watermark) -> Result<(), CredentialsError> {
    match watermark.behind() {
        behind if behind > TOLERANCE => Err(CredentialsError::SetBack(behind)),
        _ => Ok(()),
    }
}

impl From<sqlx::Error> for CredentialsError {
    fn from(error: sqlx::Error) -> Self {
        DatabaseError::from(error).into()
    }
}

#[cfg(test)]
mod tests;
