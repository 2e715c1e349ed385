//! How soon a gateway answers whose store does not.

use std::time::{Duration, Instant};

use crate::support::{
    ADA, Browser, TestGateway,
    chaos::{Chaos, Way},
    postgres::{PostgresServer, new_database},
    redis::RedisServer,
    soon,
};

const SECOND: Duration = Duration::from_secs(1);
/// For an answer once the way to a store is known to be down.
const AT_ONCE: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread")]
async fn without_its_store_a_gateway_answers_503_at_once() {
    let redis = RedisServer::start().await;
    let url = secrecy::ExposeSecret::expose_secret(&redis.config().url).to_owned();
    let chaos = Chaos::before(url.rsplit(':').next().unwrap().parse().unwrap()).await;
    let through = format!("redis://127.0.0.1:{}", chaos.port());
    let (gateway, browser) = TestGateway::builder().set("sessions.store", &through).start().await;
    let ways = [Way::Slow(Duration::from_millis(400)), Way::Cut, Way::HalfOpen, Way::Refusing];
    answers_at_once(&gateway, &browser, &chaos, &ways).await;

    let server = PostgresServer::start(&[]);
    let chaos = Chaos::before(server.port()).await;
    let through = new_database(&server).replace(&server.port().to_string(), &chaos.port().to_string());
    let (gateway, browser) = TestGateway::builder().set("storage.database", &through).start().await;
    answers_at_once(&gateway, &browser, &chaos, &[Way::Refusing, Way::Cut, Way::HalfOpen]).await;
}

async fn answers_at_once(gateway: &TestGateway, browser: &Browser, chaos: &Chaos, ways: &[Way]) {
    gateway.add_user(ADA).await;
    browser.log_in(ADA).await;
    for &way in ways {
        chaos.set(way);
        let status = async || browser.get("/sims").await.status.as_u16();
        soon(4 * SECOND, "the gateway notices", async || status().await == 503).await;
        let mut fastest = SECOND;
        for _ in 0..10 {
            let start = Instant::now();
            assert_eq!(status().await, 503, "{way:?}");
            fastest = fastest.min(start.elapsed());
        }
        // A busy machine is slow now and then, and never fast by chance.
        assert!(fastest < AT_ONCE, "{way:?}: {fastest:?}");
        chaos.set(Way::Open);
        soon(2 * SECOND, "it is back", async || status().await == 200).await;
    }
}
