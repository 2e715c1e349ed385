//! The connection to Redis: one multiplexed link that reconnects by itself, with our deadline on every command.

use std::time::Duration;

use secrecy::SecretString;

/// Where Redis is.
#[derive(Clone, Debug)]
pub struct Config {
    /// `redis://[user[:password]@]host[:port][/database]` or `rediss://…`.
    pub url: SecretString,
    /// Overrides the password of the URL.
    pub password: Option<SecretString>,
    /// Overrides the ACL user of the URL.
    pub user: Option<String>,
    /// PEM file with the authority that signed the server's certificate; absent: the system's authorities.
    pub ca: Option<std::path::PathBuf>,
    /// What every key of ours begins with.
    pub key_prefix: String,
    /// The longest that one command may take.
    pub timeout: Duration,
}
