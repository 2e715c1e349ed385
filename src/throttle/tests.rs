//! What a throttle promises, held against every store there is; and what each of them keeps.

use aws_lc_rs::hmac;

use super::*;
use crate::{
    clock::{ManualClock, Timestamp},
    random::OsRandom,
    redis_pool::{self, RedisPool, test_server::RedisServer},
};

const CONFIG: Config = Config {
    max_retries: 5,
    network_max_retries: 50,
    find_time: Duration::from_mins(2),
    ban_time: Duration::from_mins(5),
};

/// A throttle, its clock, and what it counts in.
struct Bench {
    clock: Arc<ManualClock>,
    throttle: Throttle,
    memory: Option<Arc<MemoryThrottle>>,
    server: Option<RedisServer>,
}

impl Bench {
    fn in_memory(capacity: usize) -> Self {
        let memory = Arc::new(MemoryThrottle::with_capacity(capacity));
        Self { memory: Some(Arc::clone(&memory)), ..Self::on(memory) }
    }

    async fn in_redis() -> Self {
        let server = RedisServer::start().await;
        let config = redis_pool::Config { timeout: Duration::from_secs(5), ..server.config() };
        let pool = RedisPool::open(&config, Arc::new(OsRandom)).await.unwrap();
        let names = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        Self { server: Some(server), ..Self::on(Arc::new(RedisThrottle::new(Arc::new(pool), names))) }
    }

    fn on(store: Arc<dyn ThrottleStore>) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_000_000)));
        let throttle = Throttle::new(&CONFIG, store, clock.clone());
        Self { clock, throttle, memory: None, server: None }
    }
}

/// One of each kind.
async fn benches() -> [Bench; 2] {
    [Bench::in_memory(1000), Bench::in_redis().await]
}

fn attempt<'a>(account: &'a str, network: &str) -> Attempt<'a> {
    Attempt { account, network: network.parse().unwrap() }
}

async fn fail(throttle: &Throttle, account: &str, network: &str, times: u32) {
    for _ in 0..times {
        drop(throttle.admit(&attempt(account, network)).await.unwrap().unwrap());
    }
}

async fn wait(throttle: &Throttle, account: &str, network: &str) -> Option<Duration> {
    match throttle.admit(&attempt(account, network)).await.unwrap() {
        Ok(admission) => {
            admission.withdrawn().await;
            None
        }
        Err(throttled) => Some(throttled.retry_after),
    }
}

#[tokio::test]
async fn the_sixth_wrong_password_is_refused_for_the_pair_alone() {
    for Bench { clock, throttle, server: _server, .. } in benches().await {
        fail(&throttle, "ada", "192.0.2.1", 5).await;
        assert_eq!(wait(&throttle, "ada", "192.0.2.1").await, Some(CONFIG.ban_time));
        assert_eq!(wait(&throttle, "bob", "192.0.2.1").await, None);
        assert_eq!(wait(&throttle, "ada", "192.0.2.2").await, None);

        // Asking again does not prolong the ban.
        clock.advance(Duration::from_mins(4));
        assert_eq!(wait(&throttle, "ada", "192.0.2.1").await, Some(Duration::from_mins(1)));
        clock.advance(Duration::from_mins(1));
        fail(&throttle, "ada", "192.0.2.1", 5).await;
        assert!(wait(&throttle, "ada", "192.0.2.1").await.is_some());
    }
}

#[tokio::test]
async fn attempts_at_once_all_count_before_any_is_decided() {
    for Bench { throttle, server: _server, .. } in benches().await {
        let attempt = attempt("ada", "192.0.2.1");
        let tried = futures_util::future::join_all((0..100).map(|_| throttle.admit(&attempt))).await;
        let mut admitted: Vec<_> = tried.into_iter().filter_map(|tried| tried.unwrap().ok()).collect();
        assert_eq!(admitted.len(), 5);
        admitted.pop().unwrap().succeeded().await;
        assert_eq!(wait(&throttle, "ada", "192.0.2.1").await, None);
    }
}

#[tokio::test]
async fn success_forgives_the_pair_and_takes_back_its_own_count_of_the_network() {
    for Bench { throttle, server: _server, .. } in benches().await {
        for _ in 0..20 {
            fail(&throttle, "ada", "192.0.2.1", 2).await;
            throttle.admit(&attempt("ada", "192.0.2.1")).await.unwrap().unwrap().succeeded().await;
        }
        fail(&throttle, "ada", "192.0.2.1", 4).await;
        assert_eq!(wait(&throttle, "ada", "192.0.2.1").await, None);
        // 44 failed so far, whoever succeeded in between.
        for account in ["a", "b", "c", "d", "e", "f"] {
            fail(&throttle, account, "192.0.2.1", 1).await;
        }
        assert_eq!(wait(&throttle, "ada", "192.0.2.1").await, Some(CONFIG.ban_time));
    }
}

#[tokio::test]
async fn a_network_has_a_budget_over_all_names_known_or_not() {
    for Bench { clock, throttle, server: _server, .. } in benches().await {
        for number in 0..50 {
            fail(&throttle, &format!("nobody-{number}"), "192.0.2.1", 1).await;
        }
        assert_eq!(wait(&throttle, "ada", "192.0.2.1").await, Some(CONFIG.ban_time));
        assert_eq!(wait(&throttle, "ada", "192.0.2.2").await, None);
        clock.advance(CONFIG.ban_time);
        assert_eq!(wait(&throttle, "ada", "192.0.2.1").await, None);
    }
}

#[tokio::test]
async fn addresses_that_one_client_can_choose_among_are_one_network() {
    for Bench { throttle, server: _server, .. } in benches().await {
        fail(&throttle, "ada", "2001:db8:1:2::1", 3).await;
        fail(&throttle, "ada", "2001:db8:1:2:ffff:ffff:ffff:ffff", 2).await;
        assert!(wait(&throttle, "ada", "2001:db8:1:2:3::").await.is_some());
        assert!(wait(&throttle, "ada", "2001:db8:1:3::1").await.is_none());
        fail(&throttle, "ada", "192.0.2.1", 3).await;
        fail(&throttle, "ada", "::ffff:192.0.2.1", 2).await;
        assert!(wait(&throttle, "ada", "192.0.2.1").await.is_some());
    }
}

#[tokio::test]
async fn old_failures_are_forgotten() {
    for Bench { clock, throttle, server: _server, .. } in benches().await {
        fail(&throttle, "ada", "192.0.2.1", 4).await;
        clock.advance(CONFIG.find_time + Duration::from_millis(1));
        fail(&throttle, "ada", "192.0.2.1", 4).await;
        assert_eq!(wait(&throttle, "ada", "192.0.2.1").await, None);
        fail(&throttle, "ada", "192.0.2.1", 1).await;
        assert!(wait(&throttle, "ada", "192.0.2.1").await.is_some());
    }
}

#[tokio::test]
async fn a_dropped_attempt_stays_counted_and_a_withdrawn_one_does_not() {
    for Bench { throttle, server: _server, .. } in benches().await {
        for _ in 0..20 {
            throttle.admit(&attempt("ada", "192.0.2.1")).await.unwrap().unwrap().withdrawn().await;
        }
        for _ in 0..5 {
            drop(throttle.admit(&attempt("ada", "192.0.2.1")).await.unwrap().unwrap());
        }
        assert!(wait(&throttle, "ada", "192.0.2.1").await.is_some());
    }
}

#[tokio::test]
async fn an_attempt_that_ends_in_a_later_window_takes_nothing_from_it() {
    for Bench { clock, throttle, server: _server, .. } in benches().await {
        let slow = throttle.admit(&attempt("ada", "192.0.2.1")).await.unwrap().unwrap();
        clock.advance(Duration::from_mins(10));
        fail(&throttle, "ada", "192.0.2.1", 5).await;
        slow.withdrawn().await;
        assert!(wait(&throttle, "ada", "192.0.2.1").await.is_some());
    }
}

#[tokio::test]
async fn a_clock_that_jumps_back_lifts_no_ban() {
    for Bench { clock, throttle, server: _server, .. } in benches().await {
        fail(&throttle, "ada", "192.0.2.1", 5).await;
        clock.set(Timestamp::from_unix_seconds(0));
        assert_eq!(wait(&throttle, "ada", "192.0.2.1").await, Some(CONFIG.ban_time));
    }
}

#[tokio::test]
async fn codes_have_a_budget_of_their_own_per_user() {
    for Bench { clock, throttle, server: _server, .. } in benches().await {
        for _ in 0..9 {
            drop(throttle.admit_code("u1").await.unwrap().unwrap());
        }
        throttle.admit_code("u1").await.unwrap().unwrap().succeeded().await;
        for _ in 0..10 {
            drop(throttle.admit_code("u1").await.unwrap().unwrap());
        }
        let refused = throttle.admit_code("u1").await.unwrap().err();
        assert_eq!(refused, Some(Throttled { retry_after: CONFIG.ban_time }));
        throttle.admit_code("u2").await.unwrap().unwrap().withdrawn().await;
        assert_eq!(wait(&throttle, "u1", "192.0.2.1").await, None);
        clock.advance(CONFIG.ban_time);
        drop(throttle.admit_code("u1").await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn a_flood_of_names_neither_grows_the_table_nor_lifts_a_ban() {
    let Bench { throttle, memory, .. } = Bench::in_memory(100);
    fail(&throttle, "ada", "192.0.2.1", 5).await;
    for number in 0..10_000_u32 {
        let network = IpAddr::V4((0x0a00_0000 + number).into());
        drop(throttle.admit(&Attempt { account: &"x".repeat(254), network }).await.unwrap().unwrap());
    }
    assert!(wait(&throttle, "ada", "192.0.2.1").await.is_some());
    assert_eq!(memory.unwrap().sizes(), (100, 100));
}

#[tokio::test]
async fn a_table_full_of_bans_still_counts_newcomers() {
    let Bench { throttle, memory, .. } = Bench::in_memory(100);
    for number in 0..200 {
        fail(&throttle, "ada", &format!("10.0.0.{number}"), 5).await;
    }
    fail(&throttle, "ada", "192.0.2.1", 5).await;
    assert!(wait(&throttle, "ada", "192.0.2.1").await.is_some());
    assert_eq!(memory.unwrap().sizes().0, 100);
}

#[tokio::test]
async fn what_has_run_out_leaves_the_table() {
    let Bench { clock, throttle, memory, .. } = Bench::in_memory(1000);
    for number in 0..1000_u32 {
        let network = IpAddr::V4((0x0a00_0000 + number).into());
        drop(throttle.admit(&Attempt { account: "ada", network }).await.unwrap().unwrap());
    }
    clock.advance(Duration::from_mins(10));
    for number in 0..600_u32 {
        let network = IpAddr::V4((0x0b00_0000 + number).into());
        drop(throttle.admit(&Attempt { account: "ada", network }).await.unwrap().unwrap());
    }
    assert!(memory.unwrap().sizes().0 < 700);
}

#[tokio::test]
async fn redis_counts_for_all_gateways_names_nobody_and_forgets_by_itself() {
    let here = Bench::in_redis().await;
    let server = here.server.as_ref().unwrap();
    let pool = RedisPool::open(&server.config(), Arc::new(OsRandom)).await.unwrap();
    let names = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    let there = Bench::on(Arc::new(RedisThrottle::new(Arc::new(pool), names)));
    fail(&here.throttle, "ada@example.com", "192.0.2.1", 3).await;
    fail(&there.throttle, "ada@example.com", "192.0.2.1", 2).await;
    for bench in [&here, &there] {
        assert!(wait(&bench.throttle, "ada@example.com", "192.0.2.1").await.is_some());
    }
    let code = here.throttle.admit_code("u1").await.unwrap().unwrap();
    let keys: Vec<String> = server.command(&["KEYS", "*"]).await;
    assert_eq!(keys.len(), 3);
    let digests =
        [network_key("192.0.2.1".parse().unwrap()), sha256(b"u1")].map(|digest| crate::secret::hex(&digest));
    for key in &keys {
        assert!(key.starts_with("portcullis:t:{") && !key.contains("ada") && !key.contains("192"), "{key}");
        assert!(digests.iter().all(|digest| !key.contains(&digest[..16])), "{key}");
        let left: i64 = server.command(&["TTL", key]).await;
        assert!((290..=301).contains(&left), "{key} {left}");
    }
    code.succeeded().await;
    assert_eq!(server.command::<Vec<String>>(&["KEYS", "*c"]).await, [""; 0]);
}

#[tokio::test]
async fn while_redis_is_dead_nobody_may_try_and_what_was_tried_stays_counted() {
    let mut bench = Bench::in_redis().await;
    let admitted = bench.throttle.admit(&attempt("ada", "192.0.2.1")).await.unwrap().unwrap();
    bench.server.as_mut().unwrap().kill();
    assert!(bench.throttle.admit(&attempt("bob", "192.0.2.2")).await.is_err());
    assert!(bench.throttle.admit_code("u1").await.is_err());
    admitted.withdrawn().await;
}
