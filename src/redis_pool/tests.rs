//! Against real servers: refusals, outages of every kind, and what the link tells of them.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{test_server::RedisServer, *};
use crate::random::OsRandom;

/// Long enough for a busy machine, and never waited for in full.
const PATIENCE: Duration = Duration::from_secs(10);
/// For a machine that is busy with other tests.
const SLACK: Duration = Duration::from_millis(250);

async fn open(config: &Config) -> Result<RedisPool, RedisError> {
    RedisPool::open(config, Arc::new(OsRandom)).await
}

/// How long it takes until `pool` answers as `wanted`.
async fn until(pool: &RedisPool, wanted: impl Fn(&Result<(), RedisError>) -> bool) -> Duration {
    let start = Instant::now();
    timeout(PATIENCE, async {
        while !wanted(&pool.ping().await) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("the link changes its state");
    start.elapsed()
}

/// Whether commands fail without waiting: the fastest of five says that, and a busy machine does not.
async fn is_down_at_once(pool: &RedisPool) -> bool {
    let mut fastest = PATIENCE;
    for _ in 0..5 {
        let start = Instant::now();
        assert!(matches!(pool.ping().await, Err(RedisError::Down)));
        fastest = fastest.min(start.elapsed());
    }
    fastest < Duration::from_millis(50)
}

async fn next(news: &mut broadcast::Receiver<News>) -> News {
    timeout(PATIENCE, news.recv()).await.expect("news").unwrap()
}

#[tokio::test]
async fn a_command_is_answered_and_keys_carry_the_prefix() {
    let server = RedisServer::start().await;
    let pool = open(&server.config()).await.unwrap();
    pool.ping().await.unwrap();
    pool.query::<()>(redis::cmd("SET").arg(pool.key("x")).arg("1")).await.unwrap();
    assert_eq!(server.command::<String>(&["GET", "portcullis:x"]).await, "1");
}

#[tokio::test]
async fn a_wrong_password_is_a_clear_error_without_the_password() {
    let server = RedisServer::start_with(&["--requirepass", "right"]).await;
    let wrong = Config { password: Some("guessed-wrong".into()), ..server.config() };
    for config in [wrong, server.config()] {
        let refused = open(&config).await.unwrap_err();
        assert!(matches!(refused, RedisError::Refused(_)), "{refused}");
        let text = format!("{} {refused:?}", Chain(&refused));
        assert!(text.contains("password") && !text.contains("guessed-wrong"), "{text}");
    }
    let right = Config { password: Some("right".into()), ..server.config() };
    open(&right).await.unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn the_documented_acl_is_enough_and_less_is_refused() {
    let acl = "user gate on >pass ~portcullis:* &portcullis:* \
               +@read +@write +@scripting +@pubsub +@connection -@dangerous";
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
                pool.query::<()>(redis::cmd("SET").arg(pool.key("x")).arg("1")).await.unwrap();
                assert!(pool.query::<()>(redis::cmd("SET").arg("foreign").arg("1")).await.is_err());
            }
            Err(error) => assert!(!enough && matches!(error, RedisError::Refused(_)), "{error}"),
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
    assert!(matches!(pool.ping().await, Err(RedisError::Down)));

    let missing = Config { ca: Some("/nowhere/ca.pem".into()), ..server.config() };
    assert!(matches!(open(&missing).await, Err(RedisError::Authority { .. })));
    let insecure = Config { url: "rediss://localhost:1/#insecure".into(), ..server.config() };
    assert!(matches!(open(&insecure).await, Err(RedisError::Insecure)));
}

#[tokio::test]
async fn a_url_that_cannot_be_used_is_refused_without_being_told() {
    let server = RedisServer::start().await;
    for url in ["http://:hunter2@x", "redis://:hunter2@", "hunter2"] {
        let error = open(&Config { url: url.into(), ..server.config() }).await.unwrap_err();
        assert!(matches!(error, RedisError::Url(_)));
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
    until(&pool, |answer| matches!(answer, Err(RedisError::Down))).await;
    assert!(is_down_at_once(&pool).await);

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
    assert!(matches!(first, Err(RedisError::Slow | RedisError::Down)), "{first:?}");
    assert!(start.elapsed() < server.config().timeout + SLACK);
    assert!(is_down_at_once(&pool).await);

    server.thaw();
    assert!(until(&pool, Result::is_ok).await < Duration::from_secs(1));
}

#[tokio::test]
async fn a_frozen_server_is_noticed_without_a_caller() {
    let server = RedisServer::start().await;
    let pool = open(&server.config()).await.unwrap();
    server.freeze();
    timeout(Duration::from_secs(1), async {
        while pool.link.circuit().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
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
    until(&pool, |answer| matches!(answer, Err(RedisError::Down))).await;
    server.command::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    assert!(until(&pool, Result::is_ok).await < Duration::from_secs(1));
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let mut server = RedisServer::start().await;
    server.kill();
    let pool = open(&server.config()).await.unwrap();
    assert!(matches!(pool.ping().await, Err(RedisError::Down)));
    server.restart().await;
    assert!(until(&pool, Result::is_ok).await < Duration::from_secs(1));
}

#[tokio::test]
async fn messages_come_before_the_beat_that_vouches_for_them() {
    let server = RedisServer::start().await;
    let pool = open(&server.config()).await.unwrap();
    let mut news = pool.news();
    while !matches!(next(&mut news).await, News::Current(_)) {}
    server.command::<()>(&["PUBLISH", "portcullis:changes", "hello"]).await;
    server.command::<()>(&["PUBLISH", "elsewhere", "unheard"]).await;
    let published = Instant::now();
    let mut heard = false;
    loop {
        match next(&mut news).await {
            News::Message(text) => heard = &*text == "hello",
            News::Current(asked) if asked > published => break,
            News::Current(_) => {}
            News::Reconnected => panic!("nothing was lost"),
        }
    }
    assert!(heard);
}

#[tokio::test]
async fn a_new_connection_is_told_before_anything_it_vouches_for() {
    let mut server = RedisServer::start().await;
    let pool = open(&server.config()).await.unwrap();
    let mut news = pool.news();
    while !matches!(next(&mut news).await, News::Current(_)) {}
    server.kill();
    let killed = Instant::now();
    server.restart().await;
    loop {
        match next(&mut news).await {
            News::Reconnected => break,
            News::Current(asked) => assert!(asked < killed),
            News::Message(_) => {}
        }
    }
    assert!(matches!(next(&mut news).await, News::Current(asked) if asked > killed));
}
