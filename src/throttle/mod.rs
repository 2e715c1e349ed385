//! Budgets of failed logins, per (account, network) and per network.

use std::time::Duration;

/// How many failures are too many.
#[derive(Clone, Debug)]
pub struct Config {
    /// Failures of one account from one network within `find_time` before it is banned.
    pub max_retries: u32,
    /// Failures of one network, whatever the account, within `find_time` before it is banned.
    pub network_max_retries: u32,
    pub find_time: Duration,
    pub ban_time: Duration,
}
