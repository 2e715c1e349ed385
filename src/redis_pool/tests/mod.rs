//! Against real servers: refusals, outages of every kind, and the pool's reports of them.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep, timeout};

use super::{test_server::RedisServer, *};
use crate::{errors::Chain, random::OsRandom};

/// Long enough for a busy machine, and never waited for in full.
const PATIENCE: Duration = Duration::from_secs(10);
/// For a machine that is busy with other tests.
const SLACK: Duration = Duration::from_secs(1);

async fn open(config: &Config) -> Result<RedisPool, RedisError> {
    RedisPool::open(config, Arc::new(OsRandom)).await
}

/// How long it takes until `pool` answers as `wanted`.
async fn until(pool: &RedisPool, wanted: impl Fn(&Result<(), RedisError>) -> bool) -> Duration {
    let start = Instant::now();
    timeout(PATIENCE, async {
        while !wanted(&pool.ping().await) {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("the link changes its state");
    start.elapsed()
}

/// Whether a command fails without waiting.
fn is_down_at_once(pool: &RedisPool) -> bool {
    matches!(pool.ping().now_or_never(), Some(Err(RedisError { reason: Reason::Down, .. })))
}

#[tokio::test]
async fn a_command_is_answered_and_keys_carry_the_prefix() {
    let server = RedisServer::start().await;
    let pool = open(&server.config()).await.unwrap();
    pool.ping().await.unwrap();
    pool.query::<()>("", redis::cmd("SET").arg(pool.key("x")).arg("1")).await.unwrap();
    assert_eq!(server.command::<String>(&["GET", "portcullis:x"]).await, "1");
}

#[tokio::test]
async fn a_wrong_password_is_a_clear_error_without_the_password() {
    let server = RedisServer::start_with(&["--requirepass", "right"]).await;
    let wrong = Config { password: Some("guessed-wrong".into()), ..server.config() };
    for config in [wrong, server.config()] {
        let refused = open(&config).await.unwrap_err();
        assert!(matches!(refused.reason, Reason::Refused(_)), "{refused}");
        let text = format!("{} {refused:?}", Chain(&refused));
        assert!(text.contains("password") && !text.contains("guessed-wrong"), "{text}");
        assert!(text.contains(&format!("redis://127.0.0.1:{}/0", server.port())), "{text}");
    }
    let right = Config { password: Some("right".into()), ..server.config() };
    open(&right).await.unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn the_documented_acl_is_enough_and_less_is_refused() {
    let acl = "user gate on >pass ~portcullis:* +@read +@write +@scripting +@connection -@dangerous";
    let words: Vec<_> = acl.split(' ').collect();
    let arguments = |more: &[&'static str]| {
        let mut all = vec!["--user"];
        all.extend(words[1..].iter().copied());
        all.extend(more.iter().copied());
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for (more, enough) in [(&["+role"][..], true), (&["-role"], false)] {
        let arguments = arguments(more);
        let server = RedisServer::start_with(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let config = Config { user: Some("gate".into()), password: Some("pass".into()), ..server.config() };
        match open(&config).await {
            Ok(pool) => {
                assert!(enough);
                pool.ping().await.unwrap();
                pool.query::<()>("", redis::cmd("SET").arg(pool.key("x")).arg("1")).await.unwrap();
                assert!(pool.query::<()>("", redis::cmd("SET").arg("foreign").arg("1")).await.is_err());
            }
            Err(error) => assert!(!enough && matches!(error.reason, Reason::Refused(_)), "{error}"),
        }
    }
}

#[tokio::test]
async fn tls_needs_the_right_authority() {
    let server = RedisServer::start_encrypted().await;
    open(&server.config()).await.unwrap().ping().await.unwrap();

    let stranger = RedisServer::start_encrypted().await;
    let mistrusting = Config { ca: Some(stranger.ca()), ..server.config() };
    let pool = open(&mistrusting).await.unwrap();
    assert!(matches!(pool.ping().await, Err(RedisError { reason: Reason::Down, .. })));

    let missing = Config { ca: Some("/nowhere/ca.pem".into()), ..server.config() };
    assert!(matches!(open(&missing).await, Err(RedisError { reason: Reason::File { .. }, .. })));
    let insecure = Config { url: "rediss://localhost:1/#insecure".into(), ..server.config() };
    assert!(matches!(
        open(&insecure).await,
        Err(RedisError { reason: Reason::Url(RedisUrlError::Options), .. })
    ));
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_ours() {
    let server = RedisServer::start_with_clients_certificates().await;
    let (certificate, key) = server.identity();
    let known = Config { certificate: Some(certificate.clone()), key: Some(key.clone()), ..server.config() };
    open(&known).await.unwrap().ping().await.unwrap();
    let pool = open(&server.config()).await.unwrap();
    assert!(matches!(pool.ping().await, Err(RedisError { reason: Reason::Down, .. })));
    for (certificate, key) in [(key.clone(), key), (certificate.clone(), certificate)] {
        let mixed = Config { certificate: Some(certificate), key: Some(key), ..server.config() };
        assert!(matches!(
            open(&mixed).await,
            Err(RedisError { reason: Reason::NoCertificate { .. } | Reason::NoKey { .. }, .. })
        ));
    }
}

#[tokio::test]
async fn a_url_that_cannot_be_used_is_refused_without_being_told() {
    let server = RedisServer::start().await;
    for url in ["http://:hunter2@x", "redis://:hunter2@", "hunter2", "redis+sentinel://:hunter2@h"] {
        let error = open(&Config { url: url.into(), ..server.config() }).await.unwrap_err();
        assert!(matches!(error.reason, Reason::Url(_)));
        assert!(!format!("{} {error:?}", Chain(&error)).contains("hunter2"));
    }
}

#[tokio::test]
async fn a_killed_server_fails_fast_and_is_found_again_within_a_second() {
    let mut server = RedisServer::start().await;
    let pool = open(&server.config()).await.unwrap();
    server.kill();
    let start = Instant::now();
    assert!(pool.ping().await.is_err());
    assert!(start.elapsed() < server.config().timeout + SLACK);
    until(&pool, |answer| matches!(answer, Err(RedisError { reason: Reason::Down, .. }))).await;
    assert!(is_down_at_once(&pool));

    server.restart().await;
    assert!(until(&pool, Result::is_ok).await < Duration::from_secs(1));
}

#[tokio::test]
async fn a_frozen_server_costs_one_deadline_and_then_nothing() {
    let server = RedisServer::start().await;
    let pool = open(&server.config()).await.unwrap();
    pool.ping().await.unwrap();
    server.freeze();
    let start = Instant::now();
    let first = pool.ping().await;
    assert!(matches!(first, Err(RedisError { reason: Reason::Slow | Reason::Down, .. })), "{first:?}");
    assert!(start.elapsed() < server.config().timeout + SLACK);
    assert!(is_down_at_once(&pool));

    server.thaw();
    assert!(until(&pool, Result::is_ok).await < Duration::from_secs(1));
}

#[tokio::test]
async fn a_frozen_server_is_noticed_without_a_caller() {
    let server = RedisServer::start().await;
    let pool = open(&server.config()).await.unwrap();
    server.freeze();
    timeout(Duration::from_secs(1), async {
        while pool.shared.routes.load().servers[0].connection().is_some() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_primary_that_is_demoted_is_no_longer_asked() {
    let server = RedisServer::start().await;
    let pool = open(&server.config()).await.unwrap();
    server.command::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    until(&pool, |answer| matches!(answer, Err(RedisError { reason: Reason::Down, .. }))).await;
    server.command::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    assert!(until(&pool, Result::is_ok).await < Duration::from_secs(1));
}

#[tokio::test]
async fn what_redis_refuses_has_its_reason() {
    let server = RedisServer::start_with(&["--enable-protected-configs", "yes"]).await;
    let pool = open(&server.config()).await.unwrap();
    let told =
        async |pool: &RedisPool| pool.query::<()>("", redis::cmd("SET").arg("x").arg("1")).await.unwrap_err();
    let set = async |name: &str, value: &str| {
        server.command::<()>(&["CONFIG", "SET", name, value]).await;
    };
    set("maxmemory", "1").await;
    assert!(matches!(told(&pool).await.reason, Reason::Full));
    set("maxmemory", "0").await;
    set("min-replicas-to-write", "1").await;
    assert!(matches!(told(&pool).await.reason, Reason::TooFewReplicas));
    set("min-replicas-to-write", "0").await;
    // It cannot write, so saving fails.
    set("save", "1 1").await;
    set("dbfilename", "absent").await;
    server.command::<()>(&["SET", "x", "1"]).await;
    let folder = server.ca().with_file_name("absent");
    std::fs::create_dir(&folder).unwrap();
    server.command::<redis::Value>(&["BGSAVE"]).await;
    timeout(PATIENCE, async {
        while server.command::<String>(&["INFO", "persistence"]).await.contains("last_bgsave_status:ok") {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert!(matches!(told(&pool).await.reason, Reason::Unsaved));
    // None of that is a reason to reconnect.
    pool.ping().await.unwrap();
    assert_eq!(pool.report().borrow().connections, 1);
}

#[tokio::test]
async fn a_command_that_finds_a_replica_ends_the_connection_at_once() {
    let server = RedisServer::start().await;
    let pool = open(&server.config()).await.unwrap();
    server.command::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let told = pool.query::<()>("", redis::cmd("SET").arg("x").arg("1")).await;
    assert!(matches!(told, Err(RedisError { reason: Reason::Replica | Reason::Down, .. })), "{told:?}");
    assert!(matches!(pool.ping().await, Err(RedisError { reason: Reason::Down, .. })));
    // With READONLY as well as with MASTERDOWN.
    server.command::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    until(&pool, Result::is_ok).await;
    server.command::<()>(&["CONFIG", "SET", "replica-serve-stale-data", "no"]).await;
    server.command::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let told = pool.query::<Option<String>>("", redis::cmd("GET").arg("x")).await;
    assert!(matches!(told, Err(RedisError { reason: Reason::Replica | Reason::Down, .. })), "{told:?}");
}

#[tokio::test]
async fn a_server_that_is_still_loading_is_waited_for() {
    let server = RedisServer::start_with(&["--enable-debug-command", "yes"]).await;
    let pool = open(&server.config()).await.unwrap();
    server.command::<()>(&["DEBUG", "POPULATE", "20000"]).await;
    server.command::<()>(&["CONFIG", "SET", "loading-process-events-interval-bytes", "1024"]).await;
    server.command::<()>(&["CONFIG", "SET", "key-load-delay", "100"]).await;
    let (reloaded, told) =
        tokio::join!(test_server::command_at::<redis::Value>(server.port(), &["DEBUG", "RELOAD"]), async {
            loop {
                match pool.query::<()>("", redis::cmd("SET").arg("y").arg("1")).await {
                    Ok(()) => sleep(Duration::from_millis(5)).await,
                    Err(error) => break error,
                }
            }
        });
    drop(reloaded);
    assert!(matches!(told.reason, Reason::Loading | Reason::Slow | Reason::Down), "{told:?}");
    until(&pool, Result::is_ok).await;
}

#[tokio::test]
async fn a_password_that_is_changed_under_us_is_told_and_waited_for() {
    let server = RedisServer::start_with(&["--user", "gate", "on", ">pass", "~*", "+@all"]).await;
    let config = Config { user: Some("gate".into()), password: Some("pass".into()), ..server.config() };
    let pool = open(&config).await.unwrap();
    server.command::<()>(&["ACL", "SETUSER", "gate", "resetpass", ">other"]).await;
    server.command::<()>(&["CLIENT", "KILL", "USER", "gate"]).await;
    until(&pool, Result::is_err).await;
    assert!(matches!(open(&config).await, Err(RedisError { reason: Reason::Refused(_), .. })));
    server.command::<()>(&["ACL", "SETUSER", "gate", ">pass"]).await;
    until(&pool, Result::is_ok).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let mut server = RedisServer::start().await;
    server.kill();
    let pool = open(&server.config()).await.unwrap();
    assert!(matches!(pool.ping().await, Err(RedisError { reason: Reason::Down, .. })));
    server.restart().await;
    assert!(until(&pool, Result::is_ok).await < Duration::from_secs(1));
}

#[tokio::test]
async fn a_new_connection_is_told_together_with_what_it_vouches_for() {
    let mut server = RedisServer::start().await;
    let pool = open(&server.config()).await.unwrap();
    let mut report = pool.report();
    let before = *report.borrow_and_update();
    assert!(before.asked.is_some());
    server.kill();
    let killed = Instant::now();
    server.restart().await;
    loop {
        timeout(PATIENCE, report.changed()).await.expect("a beat").unwrap();
        let now = *report.borrow_and_update();
        let vouched = now.asked.is_some_and(|asked| asked > killed);
        assert_eq!(vouched, now.connections > before.connections);
        if vouched {
            break;
        }
    }
}

mod fleets;
