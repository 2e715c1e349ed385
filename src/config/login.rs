//! `[login]` and `[login.throttle]`: who checks passwords, the rules for new ones, and the limits for wrong ones.

use std::time::Duration;

use serde::Deserialize;

use super::{
    layers::Layers,
    values::{ConfigValue, Parsed},
};
use crate::throttle;

/// NIST SP 800-63B-4, 3.1.1.2: shorter passwords must not be accepted, and ones this long must not be refused.
const SHORTEST_ALLOWED: usize = 8;
const LONGEST_REQUIRED: usize = 64;
/// Above this, hashing a password costs more than a login should.
const LONGEST_ALLOWED: usize = 4096;

/// `[login]`, validated.
pub(super) struct LoginSettings {
    pub(super) throttle: throttle::Config,
    pub(super) password_min_length: usize,
    pub(super) password_max_length: usize,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    /// Who checks passwords: `local`, the gateway's own store.
    source: Parsed<PasswordSource>,
    /// Minimum length of a new password in characters, at least 8.
    password_min_length: usize,
    /// Maximum length of a new password in characters, at least 64.
    password_max_length: usize,
    throttle: Throttle,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Throttle {
    /// Failures for one account from one network, or in one known browser, within `find_time` before it has to wait.
    max_retries: u32,
    /// Failures from one network, for any account, within `find_time` before it has to wait; twice as many for a /56,
    /// four times for a /48.
    network_max_retries: u32,
    /// How long a failure counts.
    find_time: Parsed<Duration>,
    /// The length of the wait.
    ban_time: Parsed<Duration>,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            source: Parsed(PasswordSource::Local),
            password_min_length: 15,
            password_max_length: 256,
            throttle: Throttle::default(),
        }
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            max_retries: 5,
            network_max_retries: 50,
            find_time: Parsed(Duration::from_mins(2)),
            ban_time: Parsed(Duration::from_mins(5)),
        }
    }
}

impl Section {
    pub(super) fn validate(self, layers: &mut Layers) -> LoginSettings {
        // There is only one source so far, so nothing depends on it.
        let Parsed(PasswordSource::Local) = self.source;
        self.check_lengths(layers);
        let throttle = self.throttle;
        if throttle.max_retries == 0 {
            layers.fault("login.throttle.max_retries", "must be at least 1: nobody could log in");
        } else if throttle.network_max_retries < throttle.max_retries
            && layers.sound(&["login.throttle.max_retries", "login.throttle.network_max_retries"])
        {
            let key = if layers.says("login.throttle.network_max_retries") {
                "network_max_retries"
            } else {
                "max_retries"
            };
            layers.fault(
                &format!("login.throttle.{key}"),
                format!(
                    "`network_max_retries` ({}) must not be less than `max_retries` ({})",
                    throttle.network_max_retries, throttle.max_retries
                ),
            );
        }
        LoginSettings {
            throttle: throttle::Config {
                max_retries: throttle.max_retries,
                network_max_retries: throttle.network_max_retries,
                find_time: throttle.find_time.0,
                ban_time: throttle.ban_time.0,
            },
            password_min_length: self.password_min_length,
            password_max_length: self.password_max_length,
        }
    }

    fn check_lengths(&self, layers: &mut Layers) {
        let (min, max) = (self.password_min_length, self.password_max_length);
        if min < SHORTEST_ALLOWED {
            layers.fault("login.password_min_length", format!("must be at least {SHORTEST_ALLOWED}"));
        }
        if !(LONGEST_REQUIRED..=LONGEST_ALLOWED).contains(&max) {
            let message = format!("must be between {LONGEST_REQUIRED} and {LONGEST_ALLOWED}");
            layers.fault("login.password_max_length", message);
        }
        if min > max && layers.sound(&["login.password_min_length", "login.password_max_length"]) {
            layers.fault(
                "login.password_min_length",
                format!("must not be more than `password_max_length` ({max})"),
            );
        }
    }
}

/// Who checks passwords.
enum PasswordSource {
    Local,
}

impl ConfigValue for PasswordSource {
    const EXPECTED: &'static str = "`local`";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "local" => Ok(Self::Local),
            "portal" | "ldap" => Err(format!("`{text}` is not in this version; use `local`")),
            _ => Err(format!("`{text}` is not known; expected `local`")),
        }
    }
}
