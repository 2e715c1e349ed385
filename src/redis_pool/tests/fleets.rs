//! Sentinels and clusters: which servers are trusted, how a key is followed, and how long a change of masters takes.

use super::*;
use crate::redis_pool::test_fleet::{Cluster, SentinelFleet};

/// The promised time after a fail-over, once the others have agreed on it.
const BACK: Duration = Duration::from_secs(3);

async fn set(pool: &RedisPool, key: &str, value: &str) -> Result<(), RedisError> {
    pool.query(key, redis::cmd("SET").arg(key).arg(value)).await
}

async fn value(pool: &RedisPool, key: &str) -> Result<Option<String>, RedisError> {
    pool.query(key, redis::cmd("GET").arg(key)).await
}

/// The timeout for tests that are not about it.
fn patient(config: Config) -> Config {
    Config { timeout: Duration::from_secs(5), ..config }
}

#[tokio::test]
async fn a_killed_master_is_left_for_the_one_that_the_sentinels_elect() {
    let mut watched = SentinelFleet::start().await;
    let pool = open(&watched.config()).await.unwrap();
    set(&pool, "x", "1").await.unwrap();
    watched.master.copied().await;
    watched.master.kill();
    until(&pool, |answer| matches!(answer, Err(RedisError { reason: Reason::Down, .. }))).await;
    watched.replica_leads().await;
    let back = until(&pool, Result::is_ok).await;
    assert!(back < BACK, "{back:?}");
    set(&pool, "x", "2").await.unwrap();
    assert_eq!(watched.replica.command::<String>(&["GET", "x"]).await, "2");

    // The old one comes back, empty and at first as a master.
    watched.master.restart().await;
    for _ in 0..50 {
        if let Ok(found) = value(&pool, "x").await {
            assert_eq!(found.as_deref(), Some("2"));
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_master_that_was_stopped_is_not_believed_when_it_goes_on() {
    let watched = SentinelFleet::start().await;
    let pool = open(&watched.config()).await.unwrap();
    set(&pool, "x", "old").await.unwrap();
    watched.master.freeze();
    watched.replica_leads().await;
    assert!(until(&pool, Result::is_ok).await < BACK);
    set(&pool, "x", "new").await.unwrap();
    watched.master.thaw();
    for _ in 0..100 {
        if let Ok(found) = value(&pool, "x").await {
            assert_eq!(found.as_deref(), Some("new"));
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn without_a_majority_of_the_sentinels_no_master_is_taken_and_a_lonely_one_is_left() {
    let mut watched = SentinelFleet::start().await;
    let config = watched.config();
    let pool = open(&config).await.unwrap();
    let beats = async |count: u64| {
        let mut report = pool.report();
        let start = report.borrow().rounds;
        timeout(PATIENCE, report.wait_for(|report| report.rounds >= start + count)).await.unwrap().unwrap();
    };
    beats(2).await;
    watched.leave(1);
    // It still has its replica, unlike a master that was replaced.
    beats(4).await;
    pool.ping().await.unwrap();
    let newcomer = open(&config).await.unwrap();
    assert!(matches!(newcomer.ping().await, Err(RedisError { reason: Reason::Down, .. })));

    watched.replica.kill();
    until(&pool, |answer| matches!(answer, Err(RedisError { reason: Reason::Down, .. }))).await;
    assert_eq!(watched.master.command::<String>(&["PING"]).await, "PONG");
}

#[tokio::test]
async fn a_name_that_the_sentinels_do_not_know_is_no_master() {
    let watched = SentinelFleet::start().await;
    let url = secrecy::ExposeSecret::expose_secret(&watched.config().url).replace("/main", "/other");
    let config = Config { url: url.into(), ..watched.config() };
    let url = RedisUrl::parse(secrecy::ExposeSecret::expose_secret(&config.url)).unwrap();
    let mut survey = Survey::new(&config, &url).unwrap();
    assert!(matches!(survey.find().await, Err(Reason::UnknownMaster)));
    let pool = open(&config).await.unwrap();
    assert!(matches!(pool.ping().await, Err(RedisError { reason: Reason::Down, .. })));
}

#[tokio::test]
async fn sentinels_and_servers_may_have_users_of_their_own() {
    let accounts = "user watch on >guard -@all +@connection +sentinel|get-master-addr-by-name\n";
    let arguments =
        "--user gate on >pass ~portcullis:* +@read +@write +@scripting +@connection -@dangerous +role";
    let arguments: Vec<_> = arguments.split(' ').collect();
    let watched = SentinelFleet::start_with(&arguments, accounts).await;
    let config = Config {
        user: Some("gate".into()),
        password: Some("pass".into()),
        sentinel_user: Some("watch".into()),
        sentinel_password: Some("guard".into()),
        ..patient(watched.config())
    };
    let pool = open(&config).await.unwrap();
    until(&pool, Result::is_ok).await;
    set(&pool, "portcullis:x", "1").await.unwrap();
    let wrong = Config { sentinel_password: Some("wrong".into()), ..config };
    assert!(matches!(open(&wrong).await, Err(RedisError { reason: Reason::Refused(_), .. })));
}

#[tokio::test]
async fn every_key_of_a_cluster_is_found_and_followed_when_it_moves() {
    let cluster = Cluster::start(2, false).await;
    let pool = open(&patient(cluster.config())).await.unwrap();
    let keys: Vec<_> = (0..50).map(|number| format!("key-{number}")).collect();
    for key in &keys {
        set(&pool, key, key).await.unwrap();
    }
    let size = async |node: usize| cluster.nodes[node].command::<usize>(&["DBSIZE"]).await;
    assert!(size(0).await > 0 && size(1).await > 0 && size(0).await + size(1).await == 50);
    let mut found = pool.scan("key-*").await.unwrap();
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 50);

    // "foo" has slot 12182, on the second node.
    let slot = "12182";
    set(&pool, "foo", "1").await.unwrap();
    set(&pool, "{foo}stays", "1").await.unwrap();
    cluster.begin_to_move(slot, 1, 0).await;
    cluster.move_key("foo", 1, 0).await;
    assert_eq!(value(&pool, "foo").await.unwrap().as_deref(), Some("1"), "ASK");
    assert_eq!(value(&pool, "{foo}stays").await.unwrap().as_deref(), Some("1"));
    let both = Script::new("return #redis.call('MGET', KEYS[1], KEYS[2])");
    let half_way = both.on(["foo", "{foo}stays"]);
    let (counted, ()) = tokio::join!(pool.invoke::<i64>(&half_way), async {
        // TRYAGAIN, until both keys are in one place.
        cluster.move_key("{foo}stays", 1, 0).await;
        cluster.finish_to_move(slot, 0).await;
    });
    assert_eq!(counted.unwrap(), 2);
    assert_eq!(value(&pool, "foo").await.unwrap().as_deref(), Some("1"), "MOVED");
}

#[tokio::test]
async fn a_cluster_goes_on_with_the_replica_of_a_killed_master() {
    let mut cluster = Cluster::start(3, true).await;
    let pool = open(&cluster.config()).await.unwrap();
    // "bar" has slot 5061, on the first node.
    set(&pool, "bar", "1").await.unwrap();
    cluster.nodes[0].copied().await;
    cluster.nodes[0].kill();
    until(&pool, |answer| matches!(answer, Err(RedisError { reason: Reason::Down, .. }))).await;
    // Another master's keys are still there.
    set(&pool, "foo", "1").await.unwrap();
    cluster.replica_leads().await;
    assert!(until(&pool, Result::is_ok).await < BACK);
    assert_eq!(value(&pool, "bar").await.unwrap().as_deref(), Some("1"));
    set(&pool, "bar", "2").await.unwrap();
}

#[tokio::test]
async fn a_stopped_master_of_a_cluster_is_not_believed_when_it_goes_on() {
    let cluster = Cluster::start(3, true).await;
    let pool = open(&cluster.config()).await.unwrap();
    set(&pool, "bar", "old").await.unwrap();
    cluster.nodes[0].copied().await;
    cluster.nodes[0].freeze();
    until(&pool, Result::is_err).await;
    cluster.replica_leads().await;
    assert!(until(&pool, Result::is_ok).await < BACK);
    set(&pool, "bar", "new").await.unwrap();
    cluster.nodes[0].thaw();
    for _ in 0..100 {
        if let Ok(found) = value(&pool, "bar").await {
            assert_eq!(found.as_deref(), Some("new"));
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_cluster_without_a_master_for_a_slot_says_so() {
    let cluster = Cluster::start(2, false).await;
    let config = patient(cluster.config());
    let pool = open(&config).await.unwrap();
    cluster.nodes[1].command::<()>(&["CLUSTER", "DELSLOTS", "12182"]).await;
    let refused = loop {
        match set(&pool, "foo", "1").await {
            Ok(()) => sleep(Duration::from_millis(5)).await,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused.reason, Reason::ClusterDown | Reason::Down), "{refused}");
    until(&pool, Result::is_err).await;
    let direct = RedisPool::open(&Config { ..cluster.nodes[1].config() }, Arc::new(OsRandom)).await.unwrap();
    let told = set(&direct, "foo", "1").await;
    assert!(matches!(told, Err(RedisError { reason: Reason::ClusterDown, .. })), "{told:?}");
}
