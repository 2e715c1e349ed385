//! Budgets of failed logins: of an account from a network, of an account over all strangers, of a network, a household
//! and an organisation, and of a browser in which the account is known.
//!
//! A known browser has a budget that nobody else can use up. The caller describes the attempt; the name must be
//! canonical, or each spelling would have its own budget. `docs/guessing.md` explains the effects.

mod budget;
mod lately;
mod networks;
mod redis;
mod sql;
mod store;

use std::{net::IpAddr, sync::Arc, time::Duration};

pub use self::{
    budget::Budget,
    networks::Networks,
    redis::RedisThrottle,
    sql::SqlThrottle,
    store::{Counted, Key, Kind, Meter, Settlement, ThrottleError, ThrottleStore, Verdict},
};
use self::{budget::Ladder, lately::Lately};
use crate::{clock::Clock, errors::Chain, secret::sha256};

const MINUTE: Duration = Duration::from_mins(1);

/// Strangers' guesses at one account: at most nine in any hour, three and fewer later. Correct passwords do not count.
static STRANGERS: Ladder = Ladder {
    steps: &[
        (5, Duration::from_mins(5)),
        (6, Duration::from_mins(10)),
        (7, Duration::from_mins(15)),
        (8, Duration::from_mins(20)),
        (20, Duration::from_mins(30)),
        (50, Duration::from_hours(1)),
    ],
    few: Duration::from_hours(1),
    many: Duration::from_hours(24),
};

/// A browser in which an account is known: after a hundred failures in a row its mark is void for a day.
static MARKS: Ladder = Ladder {
    steps: &[
        (10, Duration::from_mins(15)),
        (20, Duration::from_mins(30)),
        (50, Duration::from_hours(1)),
        (100, Duration::from_hours(24)),
    ],
    few: Duration::from_hours(1),
    many: Duration::from_hours(30 * 24),
};

/// Codes of one user, in a browser or from a network. The hundred in a row are counted elsewhere, for ever.
static CODES: Ladder = Ladder {
    steps: &[
        (5, MINUTE),
        (6, Duration::from_mins(2)),
        (7, Duration::from_mins(4)),
        (8, Duration::from_mins(8)),
        (9, Duration::from_mins(15)),
        (10, Duration::from_mins(30)),
        (15, Duration::from_hours(1)),
    ],
    few: Duration::from_mins(30),
    many: Duration::from_hours(24),
};

/// Attempts for one account, correct or wrong, per allowed failure.
const TRIES: u32 = 4;

/// How many failures are too many.
#[derive(Clone, Debug)]
pub struct Config {
    /// Failures for one account from one network, or in one known browser, within `find_time`.
    pub max_retries: u32,
    /// Failures from one network, for any account, within `find_time`; twice as many for a /56, four times for a /48.
    pub network_max_retries: u32,
    pub find_time: Duration,
    pub ban_time: Duration,
}

/// Identifies a browser in which somebody has logged in before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownBrowser(Key);

impl KnownBrowser {
    /// `account` and `id` as proved by a cookie.
    pub fn new(account: &str, id: &[u8]) -> Self {
        Self(sha256(&[&sha256(account.as_bytes())[..], id].concat()))
    }
}

/// Who makes an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The canonical name, whether or not a user has it.
    pub account: &'a str,
    pub networks: Networks,
    /// `None`: a stranger.
    pub browser: Option<KnownBrowser>,
}

impl<'a> Attempt<'a> {
    pub fn new(account: &'a str, address: IpAddr, browser: Option<KnownBrowser>) -> Self {
        Self { account, networks: Networks::of(address), browser }
    }
}

/// Too many failures recently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many failed attempts")]
pub struct Throttled {
    pub retry_after: Duration,
}

/// The budgets of all gateways that share a store; clones share them as well.
#[derive(Clone)]
pub struct Throttle {
    store: Arc<dyn ThrottleStore>,
    lately: Arc<Lately>,
    clock: Arc<dyn Clock>,
    config: Config,
}

/// Permission for one attempt. It counts as failed from the start, so that concurrent guesses cannot outrun the count;
/// if dropped, it stays counted.
#[must_use = "an attempt that succeeded has to say so, or it stays counted as failed"]
pub struct Admission {
    store: Arc<dyn ThrottleStore>,
    lately: Arc<Lately>,
    counted: Vec<Counted>,
}

impl Throttle {
    pub fn new(config: &Config, store: Arc<dyn ThrottleStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, lately: Arc::default(), clock, config: config.clone() }
    }

    /// Counts a password, unless there have been too many: in the known browser, or by strangers.
    pub async fn admit(&self, attempt: &Attempt<'_>) -> Result<Result<Admission, Throttled>, ThrottleError> {
        self.count(self.meters(attempt)).await
    }

    /// Counts an unknown token, unless there have been too many from the network. Password logins have a separate
    /// budget.
    pub async fn admit_token(&self, from: Networks) -> Result<Result<Admission, Throttled>, ThrottleError> {
        self.count(self.of_tokens(from)).await
    }

    /// Counts a request for mail, unless there have been too many from the network, with a budget of its own.
    pub async fn admit_mail(&self, from: Networks) -> Result<Result<Admission, Throttled>, ThrottleError> {
        let apart = |meter: Meter| Meter { key: sha256(&[&b"mail"[..], &meter.key].concat()), ..meter };
        self.count(self.of_networks(from).map(apart).collect()).await
    }

    /// Whether the store has just returned a wait for tokens from the network.
    pub fn told_of_tokens(&self, from: Networks) -> Option<Throttled> {
        let retry_after = self.lately.wait(&self.of_tokens(from), self.clock.now())?;
        Some(Throttled { retry_after })
    }

    fn of_tokens(&self, from: Networks) -> Vec<Meter> {
        let apart = |meter: Meter| Meter { key: sha256(&[&b"token"[..], &meter.key].concat()), ..meter };
        self.of_networks(from).map(apart).collect()
    }

    /// Whether the store has just returned a wait: then it need not be asked.
    pub fn told(&self, attempt: &Attempt<'_>) -> Option<Throttled> {
        let retry_after = self.lately.wait(&self.meters(attempt), self.clock.now())?;
        Some(Throttled { retry_after })
    }

    fn meters(&self, attempt: &Attempt<'_>) -> Vec<Meter> {
        let Attempt { account, networks, browser } = attempt;
        let max = self.config.max_retries;
        let tries = max.saturating_mul(TRIES);
        let name = sha256(account.as_bytes());
        match browser {
            Some(browser) => vec![
                self.meter(Kind::Known, browser.0, max),
                Meter { kind: Kind::Mark, key: browser.0, budget: Budget::Rising(&MARKS) },
                // The number of attempts does not depend on how many browsers the account is known in.
                self.meter(Kind::KnownTries, name, tries),
            ],
            // An invalid name is nobody's, and there is nothing to guess.
            None if account.is_empty() => self.of_networks(*networks).collect(),
            None => {
                let pair = sha256(&[networks.key(), name].concat());
                let mut meters = vec![
                    self.meter(Kind::Pair, pair, max),
                    Meter { kind: Kind::Strangers, key: name, budget: Budget::Rising(&STRANGERS) },
                    self.meter(Kind::Tries, name, tries),
                ];
                meters.extend(self.of_networks(*networks));
                meters
            }
        }
    }

    /// Counts a one-time code or a recovery code of a user, by id: in the known browser, or from the network.
    pub async fn admit_code(
        &self,
        kind: Kind,
        user: &Attempt<'_>,
    ) -> Result<Result<Admission, Throttled>, ThrottleError> {
        let place = user.browser.map_or_else(|| user.networks.key(), |browser| browser.0);
        let key = sha256(&[place, sha256(user.account.as_bytes())].concat());
        self.count(vec![Meter { kind, key, budget: Budget::Rising(&CODES) }]).await
    }

    /// Counts a one-time code that comes before the password. Only the network's budget is used: nobody can lock a user
    /// out with it.
    pub async fn admit_first_code(
        &self,
        attempt: &Attempt<'_>,
    ) -> Result<Result<Admission, Throttled>, ThrottleError> {
        let key = sha256(&[attempt.networks.key(), sha256(attempt.account.as_bytes())].concat());
        let mut meters = vec![self.meter(Kind::FirstCode, key, self.config.max_retries)];
        meters.extend(self.of_networks(attempt.networks));
        self.count(meters).await
    }

    fn of_networks(&self, networks: Networks) -> impl Iterator<Item = Meter> {
        networks.keys().map(|(kind, key, times)| {
            self.meter(kind, key, self.config.network_max_retries.saturating_mul(times))
        })
    }

    fn meter(&self, kind: Kind, key: Key, failures: u32) -> Meter {
        let Config { find_time, ban_time, .. } = self.config;
        // A budget of zero would lock everybody out for ever.
        Meter { kind, key, budget: Budget::Window { failures: failures.max(1), find_time, ban_time } }
    }

    async fn count(&self, meters: Vec<Meter>) -> Result<Result<Admission, Throttled>, ThrottleError> {
        if let Some(retry_after) = self.lately.wait(&meters, self.clock.now()) {
            return Ok(Err(Throttled { retry_after }));
        }
        match self.store.admit(&meters).await? {
            Verdict::Wait { meter, wait } => {
                if let Some(meter) = meters.get(meter) {
                    self.lately.note(meter, wait, self.clock.now());
                }
                Ok(Err(Throttled { retry_after: wait }))
            }
            Verdict::Counted(windows) => {
                let counted = meters
                    .into_iter()
                    .zip(windows)
                    .map(|(meter, window)| Counted { kind: meter.kind, key: meter.key, window })
                    .collect();
                Ok(Ok(Admission {
                    store: Arc::clone(&self.store),
                    lately: Arc::clone(&self.lately),
                    counted,
                }))
            }
        }
    }
}

impl Admission {
    /// Takes the count back and forgives earlier failures: for this account from this network or in this browser, or
    /// for these codes. Failures of others stay, and so does the attempt.
    pub async fn succeeded(self) {
        self.settle(|kind| match kind {
            Kind::Pair
            | Kind::Known
            | Kind::Mark
            | Kind::Code
            | Kind::Recovery
            | Kind::Binding
            | Kind::FirstCode => Settlement::Clear,
            Kind::Strangers => Settlement::TakeBackAll,
            Kind::Network | Kind::Site | Kind::Organisation => Settlement::TakeBack,
            Kind::Tries | Kind::KnownTries => Settlement::Keep,
        })
        .await;
    }

    /// Takes the count back and nothing else: nobody learnt whether the guess was correct.
    pub async fn withdrawn(self) {
        self.settle(|_| Settlement::TakeBack).await;
    }

    /// If the store does not answer the attempt stays counted, which gives nobody more attempts.
    async fn settle(self, how: impl Fn(Kind) -> Settlement) {
        let settled: Vec<_> = self.counted.iter().map(|counted| (*counted, how(counted.kind))).collect();
        if let Err(error) = self.store.settle(&settled).await {
            tracing::warn!(error = %Chain(&error), "an attempt to log in stays counted as failed");
        }
        self.lately.forget(&self.counted);
    }
}

#[cfg(test)]
mod tests;
