//! A gateway of a test's own in one line, and who stands around it: a browser, a recording portal, a Redis.
//!
//! Nothing is shared between tests, and nothing is left over: ports are the kernel's choice, files are in a temporary
//! folder, and whatever was started has ended when its handle is dropped.

pub(crate) mod alone;
pub(crate) mod browser;
pub(crate) mod chaos;
pub(crate) mod forged;
pub(crate) mod forms;
pub(crate) mod front;
pub(crate) mod log;
pub(crate) mod origin;
pub(crate) mod phone;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxies;
pub(crate) mod python;
pub(crate) mod redis;
pub(crate) mod smtp;
pub(crate) mod test_gateway;
pub(crate) mod upstream;
pub(crate) mod verifier;
pub(crate) mod websocket;
pub(crate) mod wire;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use portcullis::clock::{Clock as _, SystemClock, Timestamp};

pub(crate) use browser::{Answer, Browser, RawConnection};
pub(crate) use test_gateway::{HOST, OTHER_HOST, PASSWORD, TestGateway};
pub(crate) use upstream::{Exchange, Upstream};

/// Users by the names they log in with. Eve is the one who means harm.
pub(crate) const ADA: &str = "ada@example.com";
pub(crate) const BOB: &str = "bob@example.com";
pub(crate) const EVE: &str = "eve@example.com";

/// Our own pages, below `/.portcullis/`.
pub(crate) const OWN_PAGES: [&str; 11] = [
    "login",
    "code",
    "recovery",
    "enrol",
    "recovery-codes",
    "account",
    "logout",
    "whoami",
    "session",
    "stay",
    "signed-in",
];

/// A gateway, and the browser of a user who has just got in; the portal has seen nothing yet.
pub(crate) async fn logged_in(builder: test_gateway::Builder) -> (TestGateway, Browser) {
    let (gateway, browser) = builder.start().await;
    gateway.add_user(ADA).await;
    browser.log_in(ADA).await;
    gateway.upstream.forget();
    (gateway, browser)
}

/// The same user in two browsers, over HTTP/1.1 and HTTP/2.
pub(crate) async fn logged_in_over_both(builder: test_gateway::Builder) -> (TestGateway, [Browser; 2]) {
    let (gateway, browser) = logged_in(builder).await;
    let second = gateway.browser().http2();
    second.set_cookie("__Host-portcullis", &browser.session());
    (gateway, [browser, second])
}

/// As [`logged_in`], and the browser of a second user.
pub(crate) async fn two_logged_in(builder: test_gateway::Builder) -> (TestGateway, Browser, Browser) {
    let (gateway, ada) = logged_in(builder).await;
    gateway.add_user(EVE).await;
    let eve = gateway.browser();
    eve.log_in(EVE).await;
    (gateway, ada, eve)
}

/// How long anything may take that a test waits for. Only a fault ever waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of a request that a test makes.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body that is there at once.
pub(crate) fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Waits for an event, and fails the test when it does not come.
#[track_caller]
pub(crate) fn within<T>(limit: Duration, event: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let happened = tokio::time::timeout(limit, event).await;
        happened.unwrap_or_else(|_| panic!("{place}: nothing happened within {limit:?}"))
    }
}

/// Asks again and again until `state` holds. The test fails when it does not for a question asked after `limit`.
pub(crate) async fn soon(limit: Duration, what: &str, mut state: impl AsyncFnMut() -> bool) {
    let start = tokio::time::Instant::now();
    loop {
        let asked = start.elapsed();
        if state().await {
            return;
        }
        assert!(asked < limit, "within {limit:?}: {what}");
    }
}

/// The time at which gateways start.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// The authority-less certificate of a server of a test's own, as PEM: certificate and key.
pub(crate) fn certificate(name: &str) -> (String, String) {
    certificate_for(&[name])
}

/// The same for several names.
pub(crate) fn certificate_for(names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}
