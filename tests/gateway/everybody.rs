//! Everybody out: one command ends every session, every login in progress and every saved form, on every gateway, whatever
//! has become of Redis and whatever the command's clock shows.

use std::{sync::Arc, time::Duration};

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use portcullis::clock::{Clock, ManualClock, Timestamp};

use crate::support::{
    ADA, Browser, HOST, PATIENCE, TestGateway, body, empty,
    process::{Outcome, run},
    soon,
    test_gateway::Builder,
    upstream::streaming,
    within,
};

const BOUND: Duration = Duration::from_secs(1);

/// Two gateways, and what users have at them when the operator ends it all.
struct World {
    gateways: [TestGateway; 2],
    signed_in: [Browser; 2],
    /// In the middle of a login, with its form.
    half: (Browser, crate::support::Answer),
}

impl World {
    async fn new(builder: Builder) -> Self {
        let portal = streaming();
        let (one, browser) = builder.upstream(&portal).start().await;
        let (other, _) = one.twin().await;
        one.add_user(ADA).await;
        browser.log_in(ADA).await;
        let there = browser.copy().moved_to(other.surroundings());
        let half = one.browser();
        let page = half.visit("/sims").await;
        let form = half.sign_in(&page, ADA).await;
        Self { gateways: [one, other], signed_in: [browser, there], half: (half, form) }
    }

    async fn revoke_all(&self) -> Outcome {
        let file = self.gateways[0].folder().join("portcullis.toml");
        run(&["session", "revoke", "--all", "--yes", "--json", "--config", file.to_str().unwrap()], "").await
    }

    async fn opens_a_stream_at_each(&self) -> Vec<hyper::body::Incoming> {
        let mut streams = Vec::new();
        for browser in &self.signed_in {
            let request = Request::get("/events").body(empty()).unwrap();
            let mut events = browser.open(request).await.into_body();
            within(PATIENCE, events.frame()).await.unwrap().unwrap();
            streams.push(events);
        }
        streams
    }

    /// Nobody is in at either gateway, and the login in progress is over.
    async fn is_empty(&self, streams: Vec<hyper::body::Incoming>) {
        for mut stream in streams {
            let end = within(BOUND, stream.frame()).await;
            assert!(end.is_none_or(|frame| frame.is_err()), "what is open is cut off");
        }
        for browser in &self.signed_in {
            soon(BOUND, "the session is over", async || browser.level().await == "none").await;
            assert_eq!(browser.get("/sims").await.status, StatusCode::FOUND);
        }
        let (half, form) = &self.half;
        let code = self.gateways[0].phone(ADA).fresh_code();
        let answer = half.submit(form, &[("code", &code)]).await;
        assert_ne!(answer.text(), "the portal: GET /sims\n");
        assert!(!answer.starts_session());
        // Whoever logs in after that is in.
        let next = self.gateways[1].browser();
        assert_eq!(next.log_in_to("/sims", ADA).await.text(), "the portal: GET /sims\n");
    }
}

#[tokio::test]
async fn everybody_is_out_with_their_logins_and_streams_wherever_sessions_are_kept() {
    for redis in [false, true] {
        let builder = TestGateway::builder();
        let world = World::new(if redis { builder.redis() } else { builder }).await;
        let streams = world.opens_a_stream_at_each().await;
        let done = world.revoke_all().await;
        assert_eq!((done.code, &done.json()["ended"]), (0, &1.into()), "{done:?}");
        world.is_empty(streams).await;
    }
}

#[tokio::test]
async fn a_redis_that_is_silent_or_empty_or_shared_keeps_nobody_in() {
    for trouble in ["silent", "empty", "shared", "dead"] {
        let world = World::new(TestGateway::builder().redis()).await;
        let redis = world.gateways[0].redis.clone().unwrap();
        let streams = world.opens_a_stream_at_each().await;
        match trouble {
            "silent" => redis.freeze().await,
            "empty" => redis.command::<()>(&["FLUSHDB"]).await,
            "dead" => redis.kill().await,
            _ => redis.command::<()>(&["SET", &format!("portcullis:s:{}", "ab".repeat(32)), "x"]).await,
        }
        let done = world.revoke_all().await;
        assert_eq!(done.code, 0, "{trouble}: {done:?}");
        let ended = &done.json()["ended"];
        match trouble {
            "silent" | "dead" => assert!(ended.is_null(), "{done:?}"),
            "empty" => assert_eq!(ended, 0),
            _ => {
                assert_eq!(ended, 1);
                assert!(done.err.contains(&format!("portcullis:s:{}", "ab".repeat(32))), "{done:?}");
            }
        }
        for mut stream in streams {
            let end = within(BOUND, stream.frame()).await;
            assert!(end.is_none_or(|frame| frame.is_err()), "{trouble}: what is open is cut off");
        }
        match trouble {
            "silent" => redis.thaw().await,
            "dead" => redis.restart().await,
            _ => {}
        }
        soon(PATIENCE, "Redis answers", async || {
            world.gateways[0].admin("/ready").await.contains("\"sessions\":\"ok\"")
        })
        .await;
        soon(PATIENCE, "Redis answers", async || {
            world.gateways[1].admin("/ready").await.contains("\"sessions\":\"ok\"")
        })
        .await;
        world.is_empty(Vec::new()).await;
    }
}

/// A clock that is wrong by an hour.
#[derive(Debug)]
struct Wrong(Arc<ManualClock>, i64);

impl Clock for Wrong {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.0.now().unix_millis() + self.1 * 3_600_000)
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[tokio::test]
async fn a_command_whose_clock_is_an_hour_off_ends_everybody_all_the_same() {
    for hours in [-1, 1] {
        let world = World::new(TestGateway::builder().redis()).await;
        let stores =
            world.gateways[0].stores_at(Arc::new(Wrong(world.gateways[0].clock.clone(), hours))).await;
        assert_eq!(stores.administration.revoke_all().await.unwrap(), Some(1));
        world.is_empty(Vec::new()).await;
        // One of them alone, by the digits of its id, and one user's.
        let [one, _] = &world.signed_in;
        for by_user in [false, true] {
            one.log_in(ADA).await;
            if by_user {
                stores.administration.revoke_user(ADA).await.unwrap();
            } else {
                let id = world.gateways[0].administration().sessions(Some(ADA)).await.unwrap().remove(0).id;
                stores.administration.revoke_session(&id.to_hex()[..12]).await.unwrap();
            }
            soon(BOUND, "the session is over", async || one.level().await == "none").await;
        }
    }
}

#[tokio::test]
async fn a_form_that_was_kept_is_gone() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    browser.log_in(ADA).await;
    gateway.clock.advance(Duration::from_hours(1));
    let form = Request::post("/sims/new")
        .header("sec-fetch-mode", "navigate")
        .header("sec-fetch-site", "same-origin")
        .header("origin", format!("https://{HOST}"))
        .header("accept", "text/html")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body("name=SIM"))
        .unwrap();
    let kept = browser.send(form).await;
    assert!(kept.location().contains("/.portcullis/kept/"), "{}", kept.location());
    gateway.administration().revoke_all().await.unwrap();
    let login = browser.follow(kept).await;
    let code = browser.sign_in(&login, ADA).await;
    let next = browser.submit(&code, &[("code", &gateway.phone(ADA).fresh_code())]).await;
    assert_ne!(next.heading(), "Your form was kept");
}
