//! The harness itself: one login through the real pages, over both protocols and on both stores.

use http::StatusCode;

use crate::support::{TestGateway, now};

#[tokio::test]
async fn a_user_logs_in_and_reaches_the_portal() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user("ada@example.com").await;
    let page = browser.log_in("ada@example.com").await;
    assert_eq!(page.text(), "the portal: GET /\n");
    let request = gateway.upstream.only_request();
    assert_eq!(request.first_line(), "GET / HTTP/1.1");
    assert_eq!(request.value("remote-user").as_deref(), Some("ada@example.com"));
    assert!(gateway.access_log().contains("decision=allow"), "{}", gateway.access_log());

    // The second login takes a code, not an enrolment.
    let other = gateway.browser().http2();
    assert_eq!(other.log_in("ada@example.com").await.status, StatusCode::OK);
    gateway.stop().await;
}

#[tokio::test]
async fn a_session_in_redis_opens_the_portal_on_every_gateway() {
    let (gateway, browser) = TestGateway::builder().redis().mandatory_from(now()).start().await;
    let (twin, elsewhere) = gateway.twin().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    elsewhere.set_cookie("__Host-portcullis", &browser.session());
    assert_eq!(elsewhere.get("/there").await.text(), "the portal: GET /there\n");
    assert!(twin.admin("/ready").await.contains("\"ready\":true"));
    let mut raw = elsewhere.raw("GET /x HTTP/1.1\r\nHost: iot.example.com\r\n\r\n").await;
    assert_eq!(raw.answer().await.status, StatusCode::UNAUTHORIZED);
}
