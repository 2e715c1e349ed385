//! What proves who somebody is: passwords, devices, recovery codes.

mod hashing;
mod password;
pub mod password_policy;
mod stored_hash;

pub use hashing::{Hashing, HashingError};
pub use password::{PasswordError, Passwords, VerifiedPassword};
pub use stored_hash::{HashRefusal, StoredHash};

/// What is asked of passwords and devices.
#[derive(Clone, Debug)]
pub struct Config {
    /// Fewest code points of a new password; never under 8.
    pub password_min_length: usize,
    /// Most code points of a new password.
    pub password_max_length: usize,
    /// The name that authenticator apps show above the code. No colon.
    pub issuer: String,
}

#[cfg(test)]
mod tests;
