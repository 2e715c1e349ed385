//! Budgets of failed logins, per (account, network) and per network, and of failed codes per user. In memory.
//!
//! An account has no budget of its own: nobody can lock somebody else out from another network. What an attempt is
//! about is for the caller to know; the name must be canonical, or its spellings would have a budget each.

mod table;

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use table::{Budget, Key, Table};

use crate::{
    clock::{Clock, Timestamp},
    secret::sha256,
};

/// Wrong codes of one user within `find_time` before codes are refused for `ban_time`.
const CODE_RETRIES: u32 = 10;

/// Records of one kind; together some 30 MB at most.
const CAPACITY: usize = 100_000;

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

/// The budgets of this process; clones share them.
#[derive(Clone, Debug)]
pub struct Throttle {
    clock: Arc<dyn Clock>,
    tables: Arc<Mutex<Tables>>,
}

#[derive(Debug)]
struct Tables {
    pairs: Table,
    networks: Table,
    codes: Table,
}

/// Leave to try once. The attempt counts as failed from the start, so that guesses at once cannot outrun the count;
/// dropped, it stays counted.
#[derive(Debug)]
#[must_use = "an attempt that succeeded has to say so, or it stays counted as failed"]
pub struct Admission {
    tables: Arc<Mutex<Tables>>,
    counted: Counted,
}

/// What was counted, each with its window.
#[derive(Clone, Copy, Debug)]
enum Counted {
    Login { pair: (Key, Timestamp), network: (Key, Timestamp) },
    Code { user: (Key, Timestamp) },
}

impl Throttle {
    pub fn new(config: &Config, clock: Arc<dyn Clock>) -> Self {
        Self::with_capacity(config, clock, CAPACITY)
    }

    fn with_capacity(config: &Config, clock: Arc<dyn Clock>, capacity: usize) -> Self {
        let &Config { max_retries, network_max_retries, find_time, ban_time } = config;
        let table = |failures: u32| {
            // A budget of nothing would lock everybody out for ever.
            let budget = Budget { failures: failures.max(1), find_time, ban_time };
            Table::new(budget, capacity)
        };
        let tables = Tables {
            pairs: table(max_retries),
            networks: table(network_max_retries),
            codes: table(CODE_RETRIES),
        };
        Self { clock, tables: Arc::new(Mutex::new(tables)) }
    }

    /// Counts a login, unless its account from this network, or the network, has none left.
    pub fn admit(&self, attempt: &Attempt<'_>) -> Result<Admission, Throttled> {
        let network = network_key(attempt.network);
        let pair = sha256(&[&network, attempt.account.as_bytes()].concat());
        let now = self.clock.now();
        let mut tables = lock(&self.tables);
        let wait = tables.pairs.wait(&pair, now).max(tables.networks.wait(&network, now));
        if let Some(retry_after) = wait {
            return Err(Throttled { retry_after });
        }
        let counted = Counted::Login {
            pair: (pair, tables.pairs.count(pair, now)),
            network: (network, tables.networks.count(network, now)),
        };
        Ok(Admission { tables: Arc::clone(&self.tables), counted })
    }

    /// Counts a code of either kind, unless the user, by id, has none left.
    pub fn admit_code(&self, user: &str) -> Result<Admission, Throttled> {
        let key = sha256(user.as_bytes());
        let now = self.clock.now();
        let mut tables = lock(&self.tables);
        if let Some(retry_after) = tables.codes.wait(&key, now) {
            return Err(Throttled { retry_after });
        }
        let counted = Counted::Code { user: (key, tables.codes.count(key, now)) };
        Ok(Admission { tables: Arc::clone(&self.tables), counted })
    }
}

impl Admission {
    /// Takes the count back and forgives what failed before: of this account from this network, or of this user's
    /// codes. What else failed from the network stays.
    pub fn succeeded(self) {
        let mut tables = lock(&self.tables);
        match self.counted {
            Counted::Login { pair: (pair, _), network: (network, window) } => {
                tables.pairs.clear(&pair);
                tables.networks.take_back(&network, window);
            }
            Counted::Code { user: (user, _) } => tables.codes.clear(&user),
        }
    }

    /// Leaves the attempt counted.
    pub fn failed(self) {}

    /// Takes the count back and nothing else: nobody learnt whether the guess was right.
    pub fn withdrawn(self) {
        let mut tables = lock(&self.tables);
        match self.counted {
            Counted::Login { pair, network } => {
                tables.pairs.take_back(&pair.0, pair.1);
                tables.networks.take_back(&network.0, network.1);
            }
            Counted::Code { user } => tables.codes.take_back(&user.0, user.1),
        }
    }
}

/// Nothing panics while it holds the lock, and a table is usable after any step.
fn lock(tables: &Mutex<Tables>) -> MutexGuard<'_, Tables> {
    tables.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One key for the addresses that one client can choose among: an IPv4 address, or the /64 of an IPv6 one.
fn network_key(address: IpAddr) -> Key {
    match address.to_canonical() {
        IpAddr::V4(address) => sha256(&address.octets()),
        IpAddr::V6(address) => sha256(&Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const CONFIG: Config = Config {
        max_retries: 5,
        network_max_retries: 50,
        find_time: Duration::from_mins(2),
        ban_time: Duration::from_mins(5),
    };

    fn throttle_of(capacity: usize) -> (Arc<ManualClock>, Throttle) {
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_000_000)));
        let throttle = Throttle::with_capacity(&CONFIG, clock.clone(), capacity);
        (clock, throttle)
    }

    fn throttle() -> (Arc<ManualClock>, Throttle) {
        throttle_of(CAPACITY)
    }

    fn attempt<'a>(account: &'a str, network: &str) -> Attempt<'a> {
        Attempt { account, network: network.parse().unwrap() }
    }

    fn fail(throttle: &Throttle, account: &str, network: &str, times: u32) {
        for _ in 0..times {
            throttle.admit(&attempt(account, network)).unwrap().failed();
        }
    }

    fn wait(throttle: &Throttle, account: &str, network: &str) -> Option<Duration> {
        match throttle.admit(&attempt(account, network)) {
            Ok(admission) => {
                admission.withdrawn();
                None
            }
            Err(throttled) => Some(throttled.retry_after),
        }
    }

    #[test]
    fn the_sixth_wrong_password_is_refused_for_the_pair_alone() {
        let (clock, throttle) = throttle();
        fail(&throttle, "ada", "192.0.2.1", 5);
        assert_eq!(wait(&throttle, "ada", "192.0.2.1"), Some(CONFIG.ban_time));
        assert_eq!(wait(&throttle, "bob", "192.0.2.1"), None);
        assert_eq!(wait(&throttle, "ada", "192.0.2.2"), None);

        // Asking again does not prolong the ban.
        clock.advance(Duration::from_mins(4));
        assert_eq!(wait(&throttle, "ada", "192.0.2.1"), Some(Duration::from_mins(1)));
        clock.advance(Duration::from_mins(1));
        fail(&throttle, "ada", "192.0.2.1", 5);
        assert!(wait(&throttle, "ada", "192.0.2.1").is_some());
    }

    #[test]
    fn attempts_at_once_all_count_before_any_is_decided() {
        let (_clock, throttle) = throttle();
        let admitted = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..100 {
                scope.spawn(|| {
                    if let Ok(admission) = throttle.admit(&attempt("ada", "192.0.2.1")) {
                        admitted.lock().unwrap().push(admission);
                    }
                });
            }
        });
        let mut admitted = admitted.into_inner().unwrap();
        assert_eq!(admitted.len(), 5);
        admitted.pop().unwrap().succeeded();
        assert_eq!(wait(&throttle, "ada", "192.0.2.1"), None);
    }

    #[test]
    fn success_forgives_the_pair_and_takes_back_its_own_count_of_the_network() {
        let (_clock, throttle) = throttle();
        for _ in 0..20 {
            fail(&throttle, "ada", "192.0.2.1", 2);
            throttle.admit(&attempt("ada", "192.0.2.1")).unwrap().succeeded();
        }
        fail(&throttle, "ada", "192.0.2.1", 4);
        assert_eq!(wait(&throttle, "ada", "192.0.2.1"), None);
        // 44 failed so far, whoever succeeded in between.
        for account in ["a", "b", "c", "d", "e", "f"] {
            fail(&throttle, account, "192.0.2.1", 1);
        }
        assert_eq!(wait(&throttle, "ada", "192.0.2.1"), Some(CONFIG.ban_time));
    }

    #[test]
    fn a_network_has_a_budget_over_all_names_known_or_not() {
        let (clock, throttle) = throttle();
        for number in 0..50 {
            fail(&throttle, &format!("nobody-{number}"), "192.0.2.1", 1);
        }
        assert_eq!(wait(&throttle, "ada", "192.0.2.1"), Some(CONFIG.ban_time));
        assert_eq!(wait(&throttle, "ada", "192.0.2.2"), None);
        clock.advance(CONFIG.ban_time);
        assert_eq!(wait(&throttle, "ada", "192.0.2.1"), None);
    }

    #[test]
    fn addresses_that_one_client_can_choose_among_are_one_network() {
        let (_clock, throttle) = throttle();
        fail(&throttle, "ada", "2001:db8:1:2::1", 3);
        fail(&throttle, "ada", "2001:db8:1:2:ffff:ffff:ffff:ffff", 2);
        assert!(wait(&throttle, "ada", "2001:db8:1:2:3::").is_some());
        assert!(wait(&throttle, "ada", "2001:db8:1:3::1").is_none());
        fail(&throttle, "ada", "192.0.2.1", 3);
        fail(&throttle, "ada", "::ffff:192.0.2.1", 2);
        assert!(wait(&throttle, "ada", "192.0.2.1").is_some());
    }

    #[test]
    fn old_failures_are_forgotten() {
        let (clock, throttle) = throttle();
        fail(&throttle, "ada", "192.0.2.1", 4);
        clock.advance(CONFIG.find_time + Duration::from_millis(1));
        fail(&throttle, "ada", "192.0.2.1", 4);
        assert_eq!(wait(&throttle, "ada", "192.0.2.1"), None);
        fail(&throttle, "ada", "192.0.2.1", 1);
        assert!(wait(&throttle, "ada", "192.0.2.1").is_some());
    }

    #[test]
    fn a_dropped_attempt_stays_counted_and_a_withdrawn_one_does_not() {
        let (_clock, throttle) = throttle();
        for _ in 0..20 {
            throttle.admit(&attempt("ada", "192.0.2.1")).unwrap().withdrawn();
        }
        for _ in 0..5 {
            drop(throttle.admit(&attempt("ada", "192.0.2.1")).unwrap());
        }
        assert!(wait(&throttle, "ada", "192.0.2.1").is_some());
    }

    #[test]
    fn an_attempt_that_ends_in_a_later_window_takes_nothing_from_it() {
        let (clock, throttle) = throttle();
        let slow = throttle.admit(&attempt("ada", "192.0.2.1")).unwrap();
        clock.advance(Duration::from_mins(10));
        fail(&throttle, "ada", "192.0.2.1", 5);
        slow.withdrawn();
        assert!(wait(&throttle, "ada", "192.0.2.1").is_some());
    }

    #[test]
    fn a_clock_that_jumps_back_lifts_no_ban() {
        let (clock, throttle) = throttle();
        fail(&throttle, "ada", "192.0.2.1", 5);
        clock.set(Timestamp::from_unix_seconds(0));
        assert_eq!(wait(&throttle, "ada", "192.0.2.1"), Some(CONFIG.ban_time));
    }

    #[test]
    fn codes_have_a_budget_of_their_own_per_user() {
        let (clock, throttle) = throttle();
        for _ in 0..9 {
            throttle.admit_code("u1").unwrap().failed();
        }
        throttle.admit_code("u1").unwrap().succeeded();
        for _ in 0..10 {
            throttle.admit_code("u1").unwrap().failed();
        }
        assert_eq!(throttle.admit_code("u1").unwrap_err().retry_after, CONFIG.ban_time);
        throttle.admit_code("u2").unwrap().withdrawn();
        assert_eq!(wait(&throttle, "u1", "192.0.2.1"), None);
        clock.advance(CONFIG.ban_time);
        throttle.admit_code("u1").unwrap().failed();
    }

    #[test]
    fn a_flood_of_names_neither_grows_the_table_nor_lifts_a_ban() {
        let (_clock, throttle) = throttle_of(100);
        fail(&throttle, "ada", "192.0.2.1", 5);
        for number in 0..10_000_u32 {
            let network = IpAddr::V4((0x0a00_0000 + number).into());
            throttle.admit(&Attempt { account: &"x".repeat(254), network }).unwrap().failed();
        }
        assert!(wait(&throttle, "ada", "192.0.2.1").is_some());
        let tables = lock(&throttle.tables);
        assert_eq!((tables.pairs.len(), tables.networks.len()), (100, 100));
    }

    #[test]
    fn a_table_full_of_bans_still_counts_newcomers() {
        let (_clock, throttle) = throttle_of(100);
        for number in 0..200 {
            fail(&throttle, "ada", &format!("10.0.0.{number}"), 5);
        }
        fail(&throttle, "ada", "192.0.2.1", 5);
        assert!(wait(&throttle, "ada", "192.0.2.1").is_some());
        assert_eq!(lock(&throttle.tables).pairs.len(), 100);
    }

    #[test]
    fn what_has_run_out_leaves_the_table() {
        let (clock, throttle) = throttle();
        for number in 0..1000_u32 {
            let network = IpAddr::V4((0x0a00_0000 + number).into());
            throttle.admit(&Attempt { account: "ada", network }).unwrap().failed();
        }
        clock.advance(Duration::from_mins(10));
        for number in 0..600_u32 {
            let network = IpAddr::V4((0x0b00_0000 + number).into());
            throttle.admit(&Attempt { account: "ada", network }).unwrap().failed();
        }
        assert!(lock(&throttle.tables).pairs.len() < 700);
    }
}
