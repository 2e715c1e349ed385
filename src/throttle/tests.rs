//! The contract of a throttle, checked with every store, and what each store keeps.

use aws_lc_rs::hmac;
use sqlx::Row as _;

use super::*;
use crate::{
    clock::{ManualClock, Timestamp},
    database::{
        Database,
        test_database::{On, TestDatabase},
    },
    random::OsRandom,
    redis_pool::{self, RedisPool, test_server::RedisServer},
};

const CONFIG: Config = Config {
    max_retries: 5,
    network_max_retries: 50,
    find_time: Duration::from_mins(2),
    ban_time: Duration::from_mins(5),
};
const HOUR: Duration = Duration::from_hours(1);

/// A throttle, its clock and its store.
struct Bench {
    clock: Arc<ManualClock>,
    throttle: Throttle,
    database: Option<(TestDatabase, Database)>,
    server: Option<RedisServer>,
}

fn names() -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &[7; 32])
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_000_000)))
}

impl Bench {
    async fn in_database(on: On) -> Self {
        let (store, database) = TestDatabase::new(on).await;
        let clock = clock();
        let mut counts = SqlThrottle::new(database.clone(), names(), clock.clone());
        counts.asks_the_time = false;
        let throttle = Throttle::new(&CONFIG, Arc::new(counts), clock.clone());
        Self { clock, throttle, database: Some((store, database)), server: None }
    }

    async fn in_redis() -> Self {
        let server = RedisServer::start().await;
        let clock = clock();
        let throttle = Throttle::new(&CONFIG, Arc::new(in_redis(&server, &clock).await), clock.clone());
        Self { clock, throttle, database: None, server: Some(server) }
    }
}

async fn in_redis(server: &RedisServer, clock: &Arc<ManualClock>) -> RedisThrottle {
    let config = redis_pool::Config { timeout: Duration::from_secs(5), ..server.config() };
    let pool = RedisPool::open(&config, Arc::new(OsRandom)).await.unwrap();
    let mut counts = RedisThrottle::new(Arc::new(pool), names());
    counts.clock = Some(clock.clone());
    counts
}

/// One for each kind of store.
async fn benches() -> [Bench; 3] {
    [Bench::in_database(On::Sqlite).await, Bench::in_database(On::Postgres).await, Bench::in_redis().await]
}

fn stranger<'a>(account: &'a str, network: &str) -> Attempt<'a> {
    Attempt::new(account, network.parse().unwrap(), None)
}

fn known(account: &str, browser: u8) -> Attempt<'_> {
    Attempt { browser: Some(KnownBrowser::new(account, &[browser])), ..stranger(account, "192.0.2.1") }
}

async fn fail(throttle: &Throttle, attempt: &Attempt<'_>, times: u32) {
    for _ in 0..times {
        drop(throttle.admit(attempt).await.unwrap().unwrap());
    }
}

async fn wait(throttle: &Throttle, attempt: &Attempt<'_>) -> Option<Duration> {
    match throttle.admit(attempt).await.unwrap() {
        Ok(admission) => {
            admission.withdrawn().await;
            None
        }
        Err(throttled) => Some(throttled.retry_after),
    }
}

async fn fail_code(throttle: &Throttle, kind: Kind, attempt: &Attempt<'_>, times: u32) {
    for _ in 0..times {
        drop(throttle.admit_code(kind, attempt).await.unwrap().unwrap());
    }
}

async fn wait_for_code(throttle: &Throttle, kind: Kind, attempt: &Attempt<'_>) -> Option<Duration> {
    match throttle.admit_code(kind, attempt).await.unwrap() {
        Ok(admission) => {
            admission.withdrawn().await;
            None
        }
        Err(throttled) => Some(throttled.retry_after),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sixth_wrong_password_of_strangers_waits_wherever_they_are() {
    for Bench { clock, throttle, .. } in benches().await {
        fail(&throttle, &stranger("ada", "192.0.2.1"), 5).await;
        for network in ["192.0.2.1", "198.51.100.7", "2001:db8::1"] {
            assert_eq!(wait(&throttle, &stranger("ada", network)).await, Some(CONFIG.ban_time), "{network}");
        }
        assert_eq!(wait(&throttle, &stranger("bob", "192.0.2.1")).await, None);
        // Asking again does not extend the wait.
        clock.advance(Duration::from_mins(4));
        assert_eq!(wait(&throttle, &stranger("ada", "192.0.2.1")).await, Some(Duration::from_mins(1)));
        clock.advance(Duration::from_mins(1));
        fail(&throttle, &stranger("ada", "192.0.2.1"), 1).await;
        assert_eq!(wait(&throttle, &stranger("ada", "192.0.2.1")).await, Some(2 * CONFIG.ban_time));
    }
}

#[test]
fn the_waits_of_strangers_bound_the_guesses_of_any_hour_and_day() {
    let budget = Budget::Rising(&STRANGERS);
    // One who tries as soon as possible, and ones who wait until as much as possible is forgotten.
    for pause in [0, 59, 60, 61, 23 * 60, 24 * 60] {
        let (mut record, mut now, mut guesses) = (None, Timestamp::from_unix_seconds(0), Vec::new());
        let end = now.plus(Duration::from_hours(10 * 24));
        while now < end {
            if let Some(wait) = record.as_ref().and_then(|record| budget.wait(record, now)) {
                now = now.plus(wait);
                continue;
            }
            let (counted, _) = budget.count(record, now);
            guesses.push(now);
            if counted.failures % 4 == 0 {
                now = now.plus(pause * MINUTE);
            }
            record = Some(counted);
        }
        let within = |length: Duration| {
            let from = |first: &Timestamp| {
                guesses.iter().filter(|at| **at >= *first && **at < first.plus(length)).count()
            };
            guesses.iter().map(from).max().unwrap()
        };
        assert!(within(HOUR) <= 10, "{pause}: {} an hour", within(HOUR));
        assert!(within(24 * HOUR) <= 100, "{pause}: {} a day", within(24 * HOUR));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_known_has_a_budget_that_nobody_else_uses_up() {
    for Bench { clock, throttle, .. } in benches().await {
        fail(&throttle, &stranger("ada", "192.0.2.1"), 5).await;
        for number in 0..50 {
            let _ = throttle.admit(&stranger(&format!("nobody-{number}"), "192.0.2.1")).await.unwrap();
        }
        assert!(wait(&throttle, &stranger("eve", "192.0.2.1")).await.is_some());
        fail(&throttle, &known("ada", 1), 5).await;
        assert_eq!(wait(&throttle, &known("ada", 1)).await, Some(CONFIG.ban_time));
        assert_eq!(wait(&throttle, &known("ada", 2)).await, None);
        // Nor do known browsers use up each other's budget.
        clock.advance(CONFIG.ban_time);
        assert_eq!(wait(&throttle, &stranger("ada", "198.51.100.1")).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn right_passwords_have_a_rate_as_well() {
    for Bench { clock, throttle, .. } in benches().await {
        for attempt in [stranger("ada", "192.0.2.1"), known("bob", 1)] {
            for _ in 0..20 {
                throttle.admit(&attempt).await.unwrap().unwrap().succeeded().await;
            }
            assert_eq!(wait(&throttle, &attempt).await, Some(CONFIG.ban_time));
        }
        clock.advance(CONFIG.ban_time);
        assert_eq!(wait(&throttle, &stranger("ada", "192.0.2.1")).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_at_once_all_count_before_any_is_decided() {
    for Bench { throttle, .. } in benches().await {
        let attempt = stranger("ada", "192.0.2.1");
        let tried = futures_util::future::join_all((0..40).map(|_| throttle.admit(&attempt))).await;
        let mut admitted: Vec<_> = tried.into_iter().filter_map(|tried| tried.unwrap().ok()).collect();
        assert_eq!(admitted.len(), 5);
        admitted.pop().unwrap().succeeded().await;
        // Failures from here are forgiven with it.
        assert_eq!(wait(&throttle, &attempt).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn success_forgives_what_failed_from_there_and_nothing_else() {
    for Bench { throttle, .. } in benches().await {
        fail(&throttle, &stranger("ada", "192.0.2.1"), 2).await;
        fail(&throttle, &stranger("ada", "192.0.2.2"), 2).await;
        throttle.admit(&stranger("ada", "192.0.2.2")).await.unwrap().unwrap().succeeded().await;
        fail(&throttle, &stranger("ada", "192.0.2.2"), 2).await;
        assert_eq!(wait(&throttle, &stranger("ada", "192.0.2.2")).await, None);
        fail(&throttle, &stranger("ada", "192.0.2.2"), 1).await;
        assert!(wait(&throttle, &stranger("ada", "192.0.2.2")).await.is_some());
        // The network has seven failures.
        for number in 0..45 {
            fail(&throttle, &stranger(&format!("nobody-{number}"), "192.0.2.2"), 1).await;
        }
        assert_eq!(wait(&throttle, &stranger("eve", "192.0.2.2")).await, Some(CONFIG.ban_time));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_password_after_a_wait_brings_no_other_wait() {
    for Bench { clock, throttle, .. } in benches().await {
        fail(&throttle, &stranger("ada", "192.0.2.1"), 5).await;
        clock.advance(CONFIG.ban_time);
        for network in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            throttle.admit(&stranger("ada", network)).await.unwrap().unwrap().succeeded().await;
        }
        fail(&throttle, &stranger("ada", "192.0.2.2"), 1).await;
        assert_eq!(wait(&throttle, &stranger("ada", "192.0.2.3")).await, Some(2 * CONFIG.ban_time));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_has_a_budget_over_all_names_known_or_not() {
    for Bench { clock, throttle, .. } in benches().await {
        for number in 0..50 {
            fail(&throttle, &stranger(&format!("nobody-{number}"), "192.0.2.1"), 1).await;
        }
        assert_eq!(wait(&throttle, &stranger("ada", "192.0.2.1")).await, Some(CONFIG.ban_time));
        assert_eq!(wait(&throttle, &stranger("ada", "192.0.2.2")).await, None);
        clock.advance(CONFIG.ban_time);
        assert_eq!(wait(&throttle, &stranger("ada", "192.0.2.1")).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn households_and_organisations_have_a_budget_over_their_networks() {
    for Bench { throttle, .. } in benches().await {
        // Fewer from each /64 than it may have.
        for number in 0..100_u32 {
            let address = format!("2001:db8:1:2{:02x}::1", number % 4);
            fail(&throttle, &stranger(&format!("nobody-{number}"), &address), 1).await;
        }
        assert!(wait(&throttle, &stranger("ada", "2001:db8:1:2ff::1")).await.is_some());
        assert!(wait(&throttle, &stranger("ada", "2001:db8:1:3ff::1")).await.is_none());
        for number in 0..100_u32 {
            let address = format!("2001:db8:1:{:x}::1", 0x300 * (1 + number % 60));
            fail(&throttle, &stranger(&format!("somebody-{number}"), &address), 1).await;
        }
        assert!(wait(&throttle, &stranger("ada", "2001:db8:1:ff00::1")).await.is_some());
        assert!(wait(&throttle, &stranger("ada", "2001:db8:2::1")).await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_one_client_can_choose_among_are_one_network() {
    for (here, there) in
        [("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"), ("192.0.2.1", "::ffff:192.0.2.1")]
    {
        let networks = [here, there].map(|address| Networks::of(address.parse().unwrap()));
        assert_eq!(networks[0], networks[1]);
    }
    let name = |address: &str| Networks::of(address.parse().unwrap()).name();
    assert_eq!(name("2001:db8:1:2::1"), "2001:db8:1:2::/64");
    assert_eq!(name("::ffff:192.0.2.1"), "192.0.2.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_failures_are_forgotten() {
    for Bench { clock, throttle, .. } in benches().await {
        fail(&throttle, &known("ada", 1), 4).await;
        fail(&throttle, &stranger("bob", "192.0.2.1"), 4).await;
        clock.advance(CONFIG.find_time + Duration::from_millis(1));
        fail(&throttle, &known("ada", 1), 4).await;
        assert_eq!(wait(&throttle, &known("ada", 1)).await, None);
        fail(&throttle, &known("ada", 1), 1).await;
        assert!(wait(&throttle, &known("ada", 1)).await.is_some());
        // Those of strangers an hour after the last.
        clock.advance(HOUR);
        fail(&throttle, &stranger("bob", "192.0.2.1"), 4).await;
        assert_eq!(wait(&throttle, &stranger("bob", "192.0.2.1")).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_attempt_stays_counted_and_a_withdrawn_one_does_not() {
    for Bench { throttle, .. } in benches().await {
        let attempt = stranger("ada", "192.0.2.1");
        for _ in 0..20 {
            throttle.admit(&attempt).await.unwrap().unwrap().withdrawn().await;
        }
        fail(&throttle, &attempt, 5).await;
        assert!(wait(&throttle, &attempt).await.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_ends_in_a_later_window_takes_nothing_from_it() {
    for Bench { clock, throttle, .. } in benches().await {
        let attempt = known("ada", 1);
        let slow = throttle.admit(&attempt).await.unwrap().unwrap();
        clock.advance(Duration::from_mins(10));
        fail(&throttle, &attempt, 5).await;
        slow.withdrawn().await;
        assert!(wait(&throttle, &attempt).await.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_back_lifts_no_ban() {
    for Bench { clock, throttle, .. } in benches().await {
        let attempt = stranger("ada", "192.0.2.1");
        fail(&throttle, &attempt, 5).await;
        clock.set(Timestamp::from_unix_seconds(0));
        assert_eq!(wait(&throttle, &attempt).await, Some(CONFIG.ban_time));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_wait_by_where_they_come_from_and_longer_each_time() {
    for Bench { clock, throttle, .. } in benches().await {
        let attacker = stranger("u1", "203.0.113.5");
        fail_code(&throttle, Kind::Code, &attacker, 5).await;
        assert_eq!(wait_for_code(&throttle, Kind::Code, &attacker).await, Some(MINUTE));
        // The user is elsewhere, or known, or has recovery codes.
        for user in [stranger("u1", "192.0.2.1"), known("u1", 1)] {
            assert_eq!(wait_for_code(&throttle, Kind::Code, &user).await, None);
        }
        assert_eq!(wait_for_code(&throttle, Kind::Recovery, &attacker).await, None);
        clock.advance(MINUTE);
        fail_code(&throttle, Kind::Code, &attacker, 1).await;
        assert_eq!(wait_for_code(&throttle, Kind::Code, &attacker).await, Some(2 * MINUTE));
        clock.advance(2 * MINUTE);
        throttle.admit_code(Kind::Code, &attacker).await.unwrap().unwrap().succeeded().await;
        fail_code(&throttle, Kind::Code, &attacker, 4).await;
        assert_eq!(wait_for_code(&throttle, Kind::Code, &attacker).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_before_the_password_take_from_the_network_alone() {
    for Bench { throttle, .. } in benches().await {
        for number in 0..5 {
            let admission = throttle.admit_first_code(&stranger("ada", "203.0.113.5")).await.unwrap();
            drop(admission.unwrap_or_else(|_| panic!("{number}")));
        }
        assert!(throttle.admit_first_code(&stranger("ada", "203.0.113.5")).await.unwrap().is_err());
        assert!(throttle.admit_first_code(&stranger("ada", "203.0.113.6")).await.unwrap().is_ok());
        assert_eq!(wait(&throttle, &stranger("ada", "203.0.113.5")).await, None);
        assert_eq!(wait_for_code(&throttle, Kind::Code, &stranger("ada", "203.0.113.5")).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_run_out_leaves_the_database() {
    for on in [On::Sqlite, On::Postgres] {
        let Bench { clock, throttle, database, .. } = Bench::in_database(on).await;
        let (_store, database) = database.unwrap();
        let count = async || -> i64 {
            let row = sqlx::query("SELECT COUNT(*) FROM failed_logins").fetch_one(&database).await;
            row.unwrap().get(0)
        };
        for number in 0..40_u32 {
            let network = IpAddr::V4((0x0a00_0000 + number).into());
            drop(throttle.admit(&Attempt::new(&number.to_string(), network, None)).await.unwrap().unwrap());
        }
        assert_eq!(count().await, 160);
        clock.advance(25 * HOUR);
        for _ in 0..32 {
            throttle.admit(&stranger("ada", "192.0.2.1")).await.unwrap().unwrap().withdrawn().await;
        }
        assert_eq!(count().await, 4);
        let names = sqlx::query("SELECT name FROM failed_logins").fetch_all(&database).await.unwrap();
        assert!(names.iter().all(|row| row.get::<Vec<u8>, _>(0).len() == 16));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_attempt_writes_nothing() {
    let Bench { throttle, database, clock, .. } = Bench::in_database(On::Sqlite).await;
    let (_store, database) = database.unwrap();
    fail(&throttle, &stranger("ada", "192.0.2.1"), 5).await;
    let held = database.write().await.unwrap();
    for _ in 0..10 {
        clock.advance(Duration::from_secs(2));
        assert!(throttle.admit(&stranger("ada", "192.0.2.1")).await.unwrap().is_err());
    }
    held.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_share_a_store_share_the_counts_whatever_their_clocks_say() {
    let (_store, database) = TestDatabase::new(On::Postgres).await;
    let server = RedisServer::start().await;
    let gateway = async |hours: i64, redis: bool| {
        let clock = clock();
        clock.set(Timestamp::from_unix_seconds(1_800_000_000 + hours * 3600));
        let store: Arc<dyn ThrottleStore> = if redis {
            let pool = RedisPool::open(&server.config(), Arc::new(OsRandom)).await.unwrap();
            Arc::new(RedisThrottle::new(Arc::new(pool), names()))
        } else {
            Arc::new(SqlThrottle::new(database.clone(), names(), clock.clone()))
        };
        Throttle::new(&CONFIG, store, clock)
    };
    for redis in [false, true] {
        let gateways = [gateway(-1, redis).await, gateway(0, redis).await, gateway(1, redis).await];
        let mut admitted = 0;
        for round in 0..5 {
            for gateway in &gateways {
                let attempt = stranger("ada@example.com", ["192.0.2.1", "192.0.2.2"][round % 2]);
                admitted += u32::from(gateway.admit(&attempt).await.unwrap().is_ok());
            }
        }
        assert_eq!(admitted, 5);
        // When one forgives, all do.
        for gateway in &gateways {
            fail(gateway, &known("bob", 1), 1).await;
        }
        gateways[0].admit(&known("bob", 1)).await.unwrap().unwrap().succeeded().await;
        fail(&gateways[2], &known("bob", 1), 4).await;
        assert_eq!(wait(&gateways[1], &known("bob", 1)).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_names_nobody_and_forgets_by_itself() {
    let bench = Bench::in_redis().await;
    let server = bench.server.as_ref().unwrap();
    fail(&bench.throttle, &stranger("ada@example.com", "2001:db8::1"), 5).await;
    let code = bench.throttle.admit_code(Kind::Code, &stranger("u1", "192.0.2.1")).await.unwrap().unwrap();
    let keys: Vec<String> = server.command(&["KEYS", "*"]).await;
    assert_eq!(keys.len(), 7);
    let digests = [sha256(b"ada@example.com"), sha256(b"u1")].map(|digest| crate::secret::hex(&digest[..]));
    for key in &keys {
        assert!(
            key.starts_with("portcullis:t:{t}") && !key.contains("ada") && !key.contains("2001"),
            "{key}"
        );
        assert!(digests.iter().all(|digest| !key.contains(&digest[..16])), "{key}");
        let left: i64 = server.command(&["TTL", key]).await;
        let expected = match key.as_bytes()["portcullis:t:{t}".len()] {
            b's' => 86_400,
            b'c' => 1800,
            b'p' => 300,
            // Not exhausted yet.
            _ => 120,
        };
        assert!((expected - 10..=expected + 1).contains(&left), "{key} {left}");
    }
    code.succeeded().await;
    assert_eq!(server.command::<Vec<String>>(&["KEYS", "*}c:*"]).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_dead_nobody_may_try_and_what_was_tried_stays_counted() {
    let mut bench = Bench::in_redis().await;
    let admitted = bench.throttle.admit(&stranger("ada", "192.0.2.1")).await.unwrap().unwrap();
    bench.server.as_mut().unwrap().kill();
    assert!(bench.throttle.admit(&stranger("bob", "192.0.2.2")).await.is_err());
    assert!(bench.throttle.admit_code(Kind::Code, &stranger("u1", "192.0.2.2")).await.is_err());
    admitted.withdrawn().await;
}
