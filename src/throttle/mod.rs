//! Budgets of failed logins: of an account from a network, of an account over all strangers, of a network, a household and
//! an organisation, and of a browser in which the account is known.
//!
//! Whoever is known has a budget that nobody else can use up. What an attempt is about is for the caller to know; the name
//! must be canonical, or its spellings would have a budget each. `docs/guessing.md` says what comes of it.

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

/// Strangers at one account: at most nine guesses in any hour, three and fewer later. Right passwords take nothing.
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

/// One browser in which an account is known: after a hundred in a row its mark is worth nothing for a day.
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

/// Tries for one account, right or wrong, for each failure that it may have.
const TRIES: u32 = 4;

/// How many failures are too many.
#[derive(Clone, Debug)]
pub struct Config {
    /// Failures of one account from one network, or in one browser that it is known in, within `find_time`.
    pub max_retries: u32,
    /// Failures of one network, whatever the account, within `find_time`; twice as many of a /56, four times of a /48.
    pub network_max_retries: u32,
    pub find_time: Duration,
    pub ban_time: Duration,
}

/// What tells a browser in which somebody has logged in before.
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
    /// Absent: a stranger.
    pub browser: Option<KnownBrowser>,
}

impl<'a> Attempt<'a> {
    pub fn new(account: &'a str, address: IpAddr, browser: Option<KnownBrowser>) -> Self {
        Self { account, networks: Networks::of(address), browser }
    }
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
    lately: Arc<Lately>,
    clock: Arc<dyn Clock>,
    config: Config,
}

/// Leave to try once. The attempt counts as failed from the start, so that guesses at once cannot outrun the count;
/// dropped, it stays counted.
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

    /// Counts a password, unless there has been too much of it: by the browser that is known, or by strangers.
    pub async fn admit(&self, attempt: &Attempt<'_>) -> Result<Result<Admission, Throttled>, ThrottleError> {
        self.count(self.meters(attempt)).await
    }

    /// Counts a token that nobody has, unless there have been too many from the network. Whoever signs in with a password has
    /// a budget of its own.
    pub async fn admit_token(&self, from: Networks) -> Result<Result<Admission, Throttled>, ThrottleError> {
        self.count(self.of_tokens(from)).await
    }

    /// Whether the store has just told of a wait for tokens from the network.
    pub fn told_of_tokens(&self, from: Networks) -> Option<Throttled> {
        let retry_after = self.lately.wait(&self.of_tokens(from), self.clock.now())?;
        Some(Throttled { retry_after })
    }

    fn of_tokens(&self, from: Networks) -> Vec<Meter> {
        let apart = |meter: Meter| Meter { key: sha256(&[&b"token"[..], &meter.key].concat()), ..meter };
        self.of_networks(from).map(apart).collect()
    }

    /// Whether the store has just told of a wait: then it need not be asked.
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
                // However many browsers an account is known in, its tries are as many.
                self.meter(Kind::KnownTries, name, tries),
            ],
            // What cannot be a name is nobody's, and not to be guessed at.
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

    /// Counts a one-time code or a recovery code of a user, by id: in the browser that is known, or from the network.
    pub async fn admit_code(
        &self,
        kind: Kind,
        user: &Attempt<'_>,
    ) -> Result<Result<Admission, Throttled>, ThrottleError> {
        let place = user.browser.map_or_else(|| user.networks.key(), |browser| browser.0);
        let key = sha256(&[place, sha256(user.account.as_bytes())].concat());
        self.count(vec![Meter { kind, key, budget: Budget::Rising(&CODES) }]).await
    }

    /// Counts a one-time code that comes before the password. It takes from the network alone: nobody can keep a user out
    /// with it.
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
        // A budget of nothing would lock everybody out for ever.
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
    /// Takes the count back and forgives what failed before: of this account from this network or in this browser, or of
    /// these codes. What others failed with stays, and so does the try.
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
        self.lately.forget(&self.counted);
    }
}

#[cfg(test)]
mod tests;
