//! A gateway whose machine has another time than PostgreSQL: whatever users, portals and operators see of it goes by
//! PostgreSQL's, minutes off or hours, either way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use portcullis::clock::{Clock, SharedClock, SystemClock, Timestamp};
use serde_json::Value;

use crate::{
    clock_jumps::enrolled,
    support::{
        ADA, Browser, PASSWORD, PATIENCE, TestGateway, now,
        phone::Phone,
        postgres::{PostgresServer, new_database},
        soon,
        test_gateway::Builder,
    },
};

/// How much later something may be looked at than it was made.
const SLACK: i64 = 20;

/// The clock of a machine that is so many milliseconds off.
#[derive(Clone, Debug, Default)]
struct Skewed(Arc<AtomicI64>);

impl Skewed {
    fn set(&self, seconds: i64) {
        self.0.store(1000 * seconds, Ordering::Relaxed);
    }
}

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(SystemClock.now().unix_millis() + self.0.load(Ordering::Relaxed))
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }
}

/// A gateway on a machine with this clock.
async fn gateway(builder: Builder, clock: &Skewed) -> (TestGateway, Browser) {
    let clock = Arc::new(SharedClock::on(clock.clone()));
    builder.seeing_time(move |_| Arc::clone(&clock) as Arc<dyn Clock>).start().await
}

fn is_now(seconds: i64) -> bool {
    (seconds - now().unix_seconds()).abs() < SLACK
}

/// What the portal's assertion says, in seconds: from when on, and until when.
async fn assertion(gateway: &TestGateway, browser: &Browser) -> (i64, i64) {
    gateway.upstream.forget();
    assert_eq!(browser.get("/sims").await.text(), "the portal: GET /sims\n");
    let token = gateway.upstream.only_request().value("x-portcullis-jwt-assertion").unwrap();
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap())
}

/// When the browser's session ends, as whoami says.
async fn end(browser: &Browser) -> i64 {
    let whoami = browser.whoami().await.expect("somebody is signed in");
    let end: jiff::Timestamp = whoami["expires_at"].as_str().unwrap().parse().unwrap();
    end.as_second()
}

/// What `/ready` and the metric say of the clock.
async fn says_how_far(gateway: &TestGateway, seconds: i64) -> bool {
    let ready = gateway.admin("/ready").await;
    let ready: Value = serde_json::from_str(&ready[ready.find('{').unwrap()..]).unwrap();
    assert_eq!(ready["ready"], true, "{ready}");
    let clocks = ready["clocks"].as_str().unwrap();
    let way = if seconds > 0 { "ahead of" } else { "behind" };
    let Some(said) = clocks.strip_suffix(&format!(" s {way} the database's")) else { return false };
    let said: i64 = said.parse().unwrap();
    assert!((said - seconds.abs()).abs() <= 1, "{clocks}");
    let metrics = gateway.admin("/metrics").await;
    let name = "portcullis_clock_difference_seconds{store=\"database\"} ";
    let behind: f64 = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "an hour or so")]
    let expected = -(seconds as f64);
    assert!((behind - expected).abs() < 2.0, "{behind}");
    true
}

/// Signs in with a code of now, and finds the session as long as any, and signed for now. Gives the code.
async fn signs_in(gateway: &TestGateway, browser: &Browser, phone: &Phone) -> String {
    browser.submit_password(ADA, PASSWORD).await;
    let code = phone.code_at(now());
    let answer = browser.submit_code(&code).await;
    assert!(answer.starts_session(), "{}", answer.text());
    assert!(is_now(end(browser).await - 12 * 3600));
    let (issued, expires) = assertion(gateway, browser).await;
    assert!(is_now(issued), "{issued}");
    assert_eq!(expires - issued, 300);
    code
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_gateways_clock_shows_its_users_and_its_portal_have_the_stores_time() {
    let server = PostgresServer::start(&[]);
    for seconds in [-3600, -150, 150, 3600] {
        let builder = TestGateway::builder().set("storage.database", &new_database(&server));
        let (right, ada) = gateway(builder, &Skewed::default()).await;
        right.add_user(ADA).await;
        let phone = enrolled(&ada).await;
        let clock = Skewed::default();
        clock.set(seconds);
        let (skewed, newcomer) = gateway(right.its_builder(), &clock).await;
        assert!(says_how_far(&skewed, seconds).await, "{}", skewed.admin("/ready").await);

        // What the other one has made is neither of the future nor over.
        let there = ada.copy().moved_to(skewed.surroundings());
        assert_eq!(there.level().await, "two_factor", "{seconds}");
        assert!(is_now(assertion(&skewed, &there).await.0), "{seconds}");
        assert_eq!(end(&there).await, end(&ada).await, "{seconds}");

        // A phone's code counts, once, and what it makes is good at the other one.
        let code = signs_in(&skewed, &newcomer, &phone).await;
        assert_eq!(newcomer.copy().moved_to(right.surroundings()).level().await, "two_factor");
        let thief = right.browser();
        thief.submit_password(ADA, PASSWORD).await;
        assert!(!thief.submit_code(&code).await.starts_session(), "{seconds}: the code was used");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_while_its_gateway_runs_changes_nothing_and_is_said_at_once() {
    let server = PostgresServer::start(&[]);
    for seconds in [-3600, 3600] {
        let clock = Skewed::default();
        let builder = TestGateway::builder().set("storage.database", &new_database(&server));
        let (gateway, ada) = gateway(builder, &clock).await;
        gateway.add_user(ADA).await;
        let phone = enrolled(&ada).await;
        let before = end(&ada).await;
        clock.set(seconds);
        assert_eq!((ada.level().await.as_str(), end(&ada).await), ("two_factor", before), "{seconds}");
        let newcomer = gateway.browser();
        let thief = gateway.browser();
        signs_in(&gateway, &newcomer, &phone).await;
        soon(PATIENCE, "it is noticed", async || says_how_far(&gateway, seconds).await).await;
        assert_eq!((ada.level().await.as_str(), end(&ada).await), ("two_factor", before), "{seconds}");
        assert!(is_now(assertion(&gateway, &newcomer).await.0));
        thief.submit_password(ADA, PASSWORD).await;
        let code = phone.code_at(now().minus(Duration::from_secs(seconds.unsigned_abs())));
        assert!(!thief.submit_code(&code).await.starts_session(), "{seconds}");
    }
}
