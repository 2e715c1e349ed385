//! What people are told when there is no page: a text for each reason, on a page that needs nothing else.

use http::{Request, StatusCode};
use tokio::net::TcpStream;

use crate::support::{
    Answer, Browser, Exchange, PATIENCE, TestGateway, Upstream, empty, logged_in, soon, two_logged_in,
    upstream::ordinary,
};

const ADA: &str = "ada@example.com";

#[track_caller]
fn says(answer: &Answer, status: u16, heading: &str) {
    assert_eq!((answer.status.as_u16(), answer.heading().as_str()), (status, heading), "{}", answer.text());
    let text = answer.text();
    assert!(text.contains("<style>"), "{heading}");
    for needs in ["<script", "rel=\"stylesheet\"", "<img", "url(", "@import"] {
        assert!(!text.contains(needs), "{heading}: {needs}");
    }
    assert!(answer.set_cookies().is_empty(), "{heading}");
    assert_eq!(status == 503, answer.headers.contains_key("retry-after"), "{heading}");
}

/// A portal that answers what it is asked for: late, not at all, or not to the end.
fn portal() -> Upstream {
    Upstream::scripted(async |mut exchange: Exchange| match exchange.target().as_str() {
        "/none" => None,
        "/never" => {
            exchange.wire.fill().await.ok()?;
            None
        }
        "/download" => {
            exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome").await?;
            exchange.wire.fill().await.ok()?;
            None
        }
        _ => ordinary(exchange).await,
    })
}

fn at_host(host: &str) -> Request<crate::support::Body> {
    let request = Request::get("/").header("host", host).header("sec-fetch-mode", "navigate");
    request.body(empty()).unwrap()
}

#[tokio::test]
async fn whatever_the_portal_does_its_page_says_so() {
    let builder = TestGateway::builder().upstream(&portal()).set("portal.response_timeout", "300ms");
    let builder = builder.set("portal.max_connections", "1").set("portal.max_connections_per_user", "9");
    let (gateway, ada, eve) = two_logged_in(builder.set("portal.max_waiting", "0")).await;
    says(&ada.get("/none").await, 502, "The portal is not answering");
    says(&ada.get("/never").await, 504, "The portal is too slow");
    says(&ada.send(at_host("127.0.0.1")).await, 421, "This address doesn't work here");
    says(&ada.get("/.portcullis/none").await, 404, "Page not found");
    let download = ada.open(Request::get("/download").body(empty()).unwrap()).await;
    assert_eq!(download.status(), StatusCode::OK);
    says(&eve.get("/").await, 503, "IoT Connectivity is very busy");
    drop((download, gateway));
}

#[tokio::test]
async fn a_store_that_is_silent_has_another_page_for_who_is_in_and_for_who_wants_in() {
    let (gateway, browser) = logged_in(TestGateway::builder().redis()).await;
    let stranger = gateway.browser();
    let login = stranger.get("/.portcullis/login").await;
    gateway.redis.as_ref().unwrap().kill().await;
    let unknown = gateway.browser();
    unknown.set_cookie("__Host-portcullis", &"A".repeat(43));
    says(&unknown.get("/").await, 503, "Please try again in a minute");
    soon(PATIENCE, "its silence is noticed", async || browser.get("/").await.status != StatusCode::OK).await;
    says(&browser.get("/").await, 503, "Please try again in a minute");
    assert!(browser.get("/").await.text().contains("you&#x27;ll stay signed in"));
    let fields = [("email", ADA), ("password", crate::support::PASSWORD)];
    says(&stranger.fill(&login, &fields).await, 503, "You can't sign in right now");
}

#[tokio::test]
async fn under_strain_strangers_are_told_that_it_is_busy() {
    let builder = TestGateway::builder().set("server.max_connections", "10");
    let (gateway, _): (_, Browser) = builder.set("server.timeouts.handshake", "60s").start().await;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(TcpStream::connect(gateway.address()).await.unwrap());
    }
    soon(PATIENCE, "the strain is noticed", async || {
        gateway.admin("/ready").await.contains("\"load\":\"strained\"")
    })
    .await;
    says(&gateway.browser().get("/").await, 503, "We're very busy right now");
}
