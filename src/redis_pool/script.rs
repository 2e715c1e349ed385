//! Lua scripts, called by their hash, so that each text is sent once per server.
//!
//! A script takes exactly one key, or several with the same hash tag: it runs on the server of that key.

use std::time::Duration;

use aws_lc_rs::digest;
use redis::{Cmd, ToRedisArgs};

use crate::secret::hex;

/// A script, and the hash by which a server knows it.
pub struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    pub fn new(text: &'static str) -> Self {
        // Redis identifies scripts by it; it protects nothing.
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        Self { text, hash: hex(hash.as_ref()) }
    }

    /// A call with these keys.
    pub fn on<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> Call {
        let keys = keys.into_iter().map(str::to_owned).collect();
        Call { text: self.text, hash: self.hash.clone(), keys, arguments: Vec::new() }
    }
}

/// A script with its keys and arguments.
pub struct Call {
    text: &'static str,
    hash: String,
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
}

impl Call {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.arguments.extend(argument.to_redis_args());
        self
    }

    /// Adds an argument in milliseconds, as for all times to live.
    #[must_use]
    pub fn millis(self, duration: Duration) -> Self {
        self.arg(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    }

    /// The key by which the server is chosen.
    pub(super) fn place(&self) -> &str {
        self.keys.first().map_or("", String::as_str)
    }

    pub(super) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", &self.hash)
    }

    pub(super) fn by_text(&self) -> Cmd {
        self.command("EVAL", self.text)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len());
        for key in &self.keys {
            command.arg(key);
        }
        for argument in &self.arguments {
            command.arg(argument);
        }
        command
    }
}
