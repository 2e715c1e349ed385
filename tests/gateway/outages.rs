//! What becomes of the way to Redis: slow, cut, half-open, refusing. Nobody gets in, nobody is logged out, and the answer
//! comes at once.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use crate::support::{
    ADA, Browser, PATIENCE, TestGateway, Upstream,
    chaos::{Chaos, Way},
    empty,
    redis::RedisServer,
    soon,
    upstream::streaming,
    within,
};

const SECOND: Duration = Duration::from_secs(1);

struct World {
    gateway: TestGateway,
    browser: Browser,
    chaos: Chaos,
    redis: RedisServer,
}

impl World {
    async fn new(grace: &str) -> Self {
        Self::before(&Upstream::start(), grace).await
    }

    async fn before(portal: &Upstream, grace: &str) -> Self {
        let redis = RedisServer::start().await;
        let url = secrecy::ExposeSecret::expose_secret(&redis.config().url).to_owned();
        let chaos = Chaos::before(url.rsplit(':').next().unwrap().parse().unwrap()).await;
        let (gateway, browser) = TestGateway::builder()
            .set("sessions.store", &format!("redis://127.0.0.1:{}", chaos.port()))
            .set("sessions.outage_grace", grace)
            .upstream(portal)
            .start()
            .await;
        gateway.add_user(ADA).await;
        browser.log_in(ADA).await;
        Self { gateway, browser, chaos, redis }
    }

    async fn status(&self) -> StatusCode {
        self.browser.get("/sims").await.status
    }
}

#[tokio::test]
async fn whatever_becomes_of_the_way_to_redis_the_answer_is_503_and_it_is_back_in_a_second() {
    let world = World::new("0s").await;
    for way in [Way::Slow(Duration::from_millis(400)), Way::Cut, Way::HalfOpen, Way::Refusing] {
        world.chaos.set(way);
        soon(3 * SECOND, "the gateway notices", async || {
            world.status().await == StatusCode::SERVICE_UNAVAILABLE
        })
        .await;
        let asked = world.gateway.upstream.requests().len();
        for _ in 0..10 {
            let answer = world.browser.get("/sims").await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{way:?}");
            assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|wait| (1..=60).contains(&wait)));
            assert_eq!(answer.set_cookies().len(), 0);
            assert!(answer.text().contains("stay signed in and nothing has been lost"), "{}", answer.text());
        }
        let login = world.gateway.browser().submit_password(ADA, crate::support::PASSWORD).await;
        assert_eq!(login.status, StatusCode::SERVICE_UNAVAILABLE, "nobody guesses uncounted");
        assert_eq!(world.gateway.upstream.requests().len(), asked, "nothing went to the portal");
        assert!(world.gateway.admin("/ready").await.contains("\"sessions\":\"unavailable\""));
        assert!(world.gateway.admin("/metrics").await.contains("portcullis_store_up{store=\"sessions\"} 0"));

        world.chaos.set(Way::Open);
        soon(SECOND + SECOND / 2, "it is back", async || world.status().await == StatusCode::OK).await;
    }
}

#[tokio::test]
async fn a_way_that_is_slow_but_in_time_is_nobodys_trouble() {
    let world = World::new("0s").await;
    world.chaos.set(Way::Slow(Duration::from_millis(60)));
    for _ in 0..20 {
        assert_eq!(world.status().await, StatusCode::OK);
    }
    let newcomer = world.gateway.browser();
    newcomer.log_in_to("/sims", ADA).await;
    assert_eq!(newcomer.get("/sims").await.status, StatusCode::OK);
}

#[tokio::test]
async fn with_a_grace_whoever_is_known_goes_on_and_whoever_is_ended_does_not() {
    let world = World::new("60s").await;
    let unknown = world.gateway.browser();
    unknown.log_in_to("/sims", ADA).await;
    // What the logins changed has been heard of, and the session is known once more.
    for _ in 0..40 {
        assert_eq!(world.status().await, StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.chaos.set(Way::Refusing);
    soon(3 * SECOND, "Redis is gone", async || {
        world.gateway.admin("/ready").await.contains("\"sessions\":\"grace\"")
    })
    .await;
    assert!(world.gateway.admin("/ready").await.contains("\"ready\":true"));
    assert!(world.gateway.admin("/metrics").await.contains("portcullis_outage_grace 1"));
    assert_eq!(world.status().await, StatusCode::OK);
    let login = world.gateway.browser().submit_password(ADA, crate::support::PASSWORD).await;
    assert_eq!(login.status, StatusCode::SERVICE_UNAVAILABLE);

    world.gateway.administration().set_disabled(ADA, true).await.unwrap();
    soon(SECOND, "out with the user", async || world.status().await == StatusCode::SERVICE_UNAVAILABLE).await;
    world.gateway.administration().set_disabled(ADA, false).await.unwrap();
    world.chaos.set(Way::Open);
    soon(2 * SECOND, "told that it is over", async || world.status().await == StatusCode::FOUND).await;
    assert_eq!(unknown.get("/sims").await.status, StatusCode::FOUND);
}

#[tokio::test]
async fn who_is_put_out_while_redis_is_away_loses_what_is_open_within_a_second() {
    let portal = streaming();
    for disable in [false, true] {
        let world = World::before(&portal, "0s").await;
        let request = Request::get("/events").body(empty()).unwrap();
        let mut events = world.browser.open(request).await.into_body();
        within(PATIENCE, events.frame()).await.unwrap().unwrap();
        world.chaos.set(Way::Refusing);
        soon(3 * SECOND, "the gateway notices", async || {
            world.status().await == StatusCode::SERVICE_UNAVAILABLE
        })
        .await;

        let administration = world.gateway.administration();
        let began = Instant::now();
        if disable {
            administration.set_disabled(ADA, true).await.unwrap();
        } else {
            administration.revoke_user(ADA).await.unwrap();
        }
        assert!(within(PATIENCE, events.frame()).await.unwrap().is_err(), "cut off");
        assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn at_its_memory_limit_redis_keeps_users_in_and_ready_says_why_nobody_gets_in() {
    let world = World::new("0s").await;
    let says = async |word: &str| {
        let ready = world.gateway.admin("/ready").await;
        ready.contains(&format!("\"logins\":\"{word}")) && ready.contains("\"ready\":true")
    };
    soon(PATIENCE, "all is well", async || says("ok").await).await;
    world.redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    soon(PATIENCE, "it is said", async || {
        let ready = world.gateway.admin("/ready").await;
        ready.contains("Redis is full") && ready.contains("\"ready\":true")
    })
    .await;
    assert!(world.gateway.admin("/metrics").await.contains("portcullis_logins_up 0"));
    let login = world.gateway.browser().submit_password(ADA, crate::support::PASSWORD).await;
    assert_eq!(login.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.status().await, StatusCode::OK);
    world.redis.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    soon(PATIENCE, "all is well again", async || says("ok").await).await;
    world.gateway.browser().log_in_to("/sims", ADA).await;
}

#[tokio::test]
async fn every_line_about_redis_says_which_one_it_is() {
    let log = crate::support::log::listen();
    let world = World::new("0s").await;
    let redis = format!("redis://127.0.0.1:{}/0", world.chaos.port());
    world.redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    soon(PATIENCE, "it is full", async || world.gateway.admin("/ready").await.contains("Redis is full"))
        .await;
    assert!(world.gateway.admin("/ready").await.contains(&redis));
    world.redis.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    world.chaos.set(Way::Refusing);
    let line = |what: &str| {
        let text = log.text();
        text.lines().find(|line| line.contains(what) && line.contains(&redis)).map(str::to_owned)
    };
    // One that was open may have been cut before anybody is refused.
    let away = || {
        let text = log.text();
        let says = |line: &&str| {
            line.contains("Redis cannot be used, and will be tried again")
                && line.contains("onnection refused")
                && line.contains(&redis)
        };
        text.lines().find(says).map(str::to_owned)
    };
    soon(PATIENCE, "everybody has noticed", async || {
        world.status().await;
        away().is_some() && line("a store did not answer").is_some() && line("nobody can log in").is_some()
    })
    .await;
    world.chaos.set(Way::Open);
    soon(PATIENCE, "it is back", async || world.status().await == StatusCode::OK).await;
    soon(PATIENCE, "it is said", async || line("connected to Redis").is_some()).await;
    let away = away().unwrap();
    assert_eq!(away.matches("onnection refused").count(), 1, "{away}");
    assert_eq!(away.matches(&redis).count(), 1, "{away}");
}
