//! Budgets of failed logins, per (account, network) and per network, and of failed codes per user.
//!
//! An account has no budget of its own: nobody can lock somebody else out from another network. What an attempt is
//! about is for the caller to know; the name must be canonical, or its spellings would have a budget each.

mod memory;
mod redis;
mod store;
mod table;

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use self::table::Budget;
pub use self::{
    memory::MemoryThrottle,
    redis::RedisThrottle,
    store::{Counted, Key, Kind, Meter, Settlement, ThrottleError, ThrottleStore, Verdict},
};
use crate::{clock::Clock, errors::Chain, secret::sha256};

/// Wrong codes of one user within `find_time` before codes are refused for `ban_time`.
const CODE_RETRIES: u32 = 10;

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

/// A login about to be tried.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The canonical name, whether or not a user has it.
    pub account: &'a str,
    /// The client's address; an IPv6 address stands for its /64.
    pub network: IpAddr,
}

/// Too many failures lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many failed attempts")]
pub struct Throttled {
    pub retry_after: Duration,
}

/// The budgets of all who share a store; clones share it as well.
#[derive(Clone)]
pub struct Throttle {
    store: Arc<dyn ThrottleStore>,
    clock: Arc<dyn Clock>,
    config: Config,
}

/// Leave to try once. The attempt counts as failed from the start, so that guesses at once cannot outrun the count;
/// dropped, it stays counted.
#[must_use = "an attempt that succeeded has to say so, or it stays counted as failed"]
pub struct Admission {
    store: Arc<dyn ThrottleStore>,
    counted: Vec<Counted>,
}

impl Throttle {
    pub fn new(config: &Config, store: Arc<dyn ThrottleStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, config: config.clone() }
    }

    /// Counts a login, unless its account from this network, or the network, has none left.
    pub async fn admit(&self, attempt: &Attempt<'_>) -> Result<Result<Admission, Throttled>, ThrottleError> {
        let network = network_key(attempt.network);
        let pair = sha256(&[&network, attempt.account.as_bytes()].concat());
        self.count(
            network,
            vec![
                self.meter(Kind::Pair, pair, self.config.max_retries),
                self.meter(Kind::Network, network, self.config.network_max_retries),
            ],
        )
        .await
    }

    /// Counts a code of either kind, unless the user, by id, has none left.
    pub async fn admit_code(&self, user: &str) -> Result<Result<Admission, Throttled>, ThrottleError> {
        let key = sha256(user.as_bytes());
        self.count(key, vec![self.meter(Kind::Code, key, CODE_RETRIES)]).await
    }

    fn meter(&self, kind: Kind, key: Key, failures: u32) -> Meter {
        let Config { find_time, ban_time, .. } = self.config;
        // A budget of nothing would lock everybody out for ever.
        Meter { kind, key, budget: Budget { failures: failures.max(1), find_time, ban_time } }
    }

    async fn count(
        &self,
        together: Key,
        meters: Vec<Meter>,
    ) -> Result<Result<Admission, Throttled>, ThrottleError> {
        match self.store.admit(&together, &meters, self.clock.now()).await? {
            Verdict::Wait(retry_after) => Ok(Err(Throttled { retry_after })),
            Verdict::Counted(windows) => {
                let counted = meters
                    .into_iter()
                    .zip(windows)
                    .map(|(meter, window)| Counted { together, kind: meter.kind, key: meter.key, window })
                    .collect();
                Ok(Ok(Admission { store: Arc::clone(&self.store), counted }))
            }
        }
    }
}

impl Admission {
    /// Takes the count back and forgives what failed before: of this account from this network, or of this user's
    /// codes. What else failed from the network stays.
    pub async fn succeeded(self) {
        self.settle(|kind| match kind {
            Kind::Pair | Kind::Code => Settlement::Clear,
            Kind::Network => Settlement::TakeBack,
        })
        .await;
    }

    /// Takes the count back and nothing else: nobody learnt whether the guess was right.
    pub async fn withdrawn(self) {
        self.settle(|_| Settlement::TakeBack).await;
    }

    /// A store that does not answer leaves the attempt counted, which lets nobody try more often.
    async fn settle(self, how: impl Fn(Kind) -> Settlement) {
        let settled: Vec<_> = self.counted.iter().map(|counted| (*counted, how(counted.kind))).collect();
        if let Err(error) = self.store.settle(&settled).await {
            tracing::warn!(error = %Chain(&error), "an attempt to log in stays counted as failed");
        }
    }
}

/// One key for the addresses that one client can choose among: an IPv4 address, or the /64 of an IPv6 one.
fn network_key(address: IpAddr) -> Key {
    match address.to_canonical() {
        IpAddr::V4(address) => sha256(&address.octets()),
        IpAddr::V6(address) => sha256(&Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).octets()),
    }
}

#[cfg(test)]
mod tests;
