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
use portcullis::clock::{Clock, SystemClock, Timestamp};
use serde_json::Value;

use crate::{
    clock_jumps::enrolled,
    support::{
        Browser, PASSWORD, TestGateway, now,
        postgres::{PostgresServer, new_database},
        test_gateway::Builder,
    },
};

const ADA: &str = "ada@example.com";
/// How much later something may be looked at than it was made.
const SLACK: i64 = 20;

/// The clock of a machine that is so many milliseconds off, and follows the store's as the product's own does.
#[derive(Debug)]
struct Skewed {
    off: i64,
    ahead: AtomicI64,
}

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(SystemClock.now().unix_millis() + self.off + self.ahead())
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }

    fn agree(&self, ahead: i64) {
        self.ahead.store(ahead, Ordering::Relaxed);
    }

    fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }
}

/// A gateway on a machine whose clock is so many seconds off.
async fn gateway(builder: Builder, seconds: i64) -> (TestGateway, Browser) {
    let off = 1000 * seconds;
    builder.seeing_time(move |_| Arc::new(Skewed { off, ahead: AtomicI64::new(0) })).start().await
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

async fn says_how_far(gateway: &TestGateway, seconds: i64) {
    let ready = gateway.admin("/ready").await;
    let ready: Value = serde_json::from_str(&ready[ready.find('{').unwrap()..]).unwrap();
    assert_eq!(ready["ready"], true, "{ready}");
    let clocks = ready["clocks"].as_str().unwrap();
    let way = if seconds > 0 { "ahead of" } else { "behind" };
    assert!(clocks.ends_with(&format!(" s {way} the database's")), "{clocks}");
    let said: i64 = clocks.split(' ').next().unwrap().parse().unwrap();
    assert!((said - seconds.abs()).abs() <= 1, "{clocks}");
    let metrics = gateway.admin("/metrics").await;
    let name = "portcullis_clock_difference_seconds{store=\"database\"} ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let behind: f64 = line.parse().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "an hour or so")]
    let expected = -(seconds as f64);
    assert!((behind - expected).abs() < 2.0, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_gateways_clock_shows_its_users_and_its_portal_have_the_stores_time() {
    let server = PostgresServer::start(&[]);
    for seconds in [-3600, -150, 150, 3600] {
        let url = new_database(&server);
        let (right, ada) = gateway(TestGateway::builder().set("storage.database", &url), 0).await;
        right.add_user(ADA).await;
        let phone = enrolled(&ada).await;
        let (skewed, _) = gateway(right.its_builder(), seconds).await;
        says_how_far(&skewed, seconds).await;

        // What the other one has made is neither of the future nor over.
        let there = ada.copy().moved_to(skewed.surroundings());
        assert_eq!(there.level().await, "two_factor", "{seconds}");
        let (issued, expires) = assertion(&skewed, &there).await;
        assert!(is_now(issued), "{seconds}: {issued}");
        assert_eq!(expires - issued, 300, "{seconds}");
        assert_eq!(end(&there).await, end(&ada).await, "{seconds}");

        // A phone's code counts, once, and the session that it makes is as long as any.
        let newcomer = Browser::new(Arc::clone(skewed.surroundings()), ada.protocol());
        newcomer.submit_password(ADA, PASSWORD).await;
        let code = phone.code_at(now());
        let answer = newcomer.submit_code(&code).await;
        assert!(answer.starts_session(), "{seconds}: {}", answer.text());
        assert!(is_now(end(&newcomer).await - 12 * 3600), "{seconds}");
        assert_eq!(newcomer.copy().moved_to(right.surroundings()).level().await, "two_factor");
        let thief = right.browser();
        thief.submit_password(ADA, PASSWORD).await;
        assert!(!thief.submit_code(&code).await.starts_session(), "{seconds}: the code was used");
    }
}
