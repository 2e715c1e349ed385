//! Background work that ends by itself: it is named, and the gateway does not limp on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use http::Request;
use http_body_util::BodyExt as _;
use portcullis::clock::{Clock, ManualClock, Timestamp};
use tokio::time::Instant;

use crate::support::{PATIENCE, TestGateway, empty, logged_in, upstream::streaming, within};

/// What requests in progress have left.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// A clock that fails whoever reads it beside the requests.
#[derive(Debug)]
struct Failing {
    inner: Arc<ManualClock>,
    fails: Arc<AtomicBool>,
}

impl Clock for Failing {
    fn now(&self) -> Timestamp {
        let serves = thread::current().name().is_some_and(|name| name.starts_with("worker"));
        assert!(serves || !self.fails.swap(false, Ordering::SeqCst), "on purpose");
        self.inner.now()
    }

    fn elapsed(&self) -> Duration {
        self.inner.elapsed()
    }
}

#[tokio::test]
async fn background_work_that_panics_is_named_and_ends_the_gateway_with_an_error() {
    let portal = streaming();
    let fails = Arc::new(AtomicBool::new(false));
    let broken = Arc::clone(&fails);
    let builder = TestGateway::builder()
        .upstream(&portal)
        .seeing_time(move |inner| Arc::new(Failing { inner, fails: Arc::clone(&broken) }))
        .set("server.timeouts.drain", "30s");
    let (gateway, browser) = logged_in(builder).await;
    let ready = gateway.admin("/ready").await;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("\"lost\":[]"), "{ready}");
    // Keeps the gateway from ending before anybody has asked it why it does.
    let mut events = browser.open(Request::get("/events").body(empty()).unwrap()).await.into_body();
    within(PATIENCE, events.frame()).await.unwrap().unwrap();
    fails.store(true, Ordering::SeqCst);
    // The operator is answered by the same clock: nobody asks before the fault has happened.
    within(PATIENCE, async {
        while fails.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let ready = gateway.admin("/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    let began = Instant::now();
    let error = gateway.ended().await.unwrap_err().to_string();
    let name = error.strip_prefix("background work ended unexpectedly: ").expect("the error says so");
    assert!(ready.contains(&format!("\"lost\":[\"{name}\"]")), "{name}: {ready}");
    assert!(began.elapsed() < 3 * LAST_REQUESTS, "{:?}", began.elapsed());
}
