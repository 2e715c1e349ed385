//! Paths that do not count as use: what asks there by itself is served, and keeps nobody signed in.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request, StatusCode};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    Browser, Exchange, PATIENCE, TestGateway, Upstream, empty, logged_in, soon,
    test_gateway::Builder,
    upstream::ordinary,
    websocket::{self, Socket},
    within,
};

const HALF: Duration = Duration::from_mins(30);

/// A portal that echoes what comes over a WebSocket, and answers everything else.
fn portal() -> Upstream {
    Upstream::scripted(async |exchange: Exchange| {
        if exchange.target().ends_with("/socket") {
            websocket::echo(exchange).await;
            return None;
        }
        ordinary(exchange).await
    })
}

async fn with_passive_paths(builder: Builder) -> (TestGateway, Browser) {
    let builder =
        builder.upstream(&portal()).set("sessions.passive_paths", "/api/poll, /comms/*, /.portcullis/whoami");
    logged_in(builder).await
}

fn stores() -> [Builder; 2] {
    [TestGateway::builder(), TestGateway::builder().redis()]
}

/// The answer's status for a request that a script makes.
async fn ask(browser: &Browser, method: Method, path: &str) -> StatusCode {
    let request = Request::builder().method(method).uri(path).header("accept", "application/json");
    browser.send(request.body(empty()).unwrap()).await.status
}

async fn echoes(socket: &mut Socket) -> bool {
    let message = Message::text("still here?");
    socket.send(message.clone()).await.is_ok()
        && matches!(within(PATIENCE, socket.next()).await, Some(Ok(answer)) if answer == message)
}

#[tokio::test]
async fn what_polls_is_served_as_ever_and_keeps_no_session() {
    for builder in stores() {
        let (gateway, browser) = with_passive_paths(builder).await;
        let http2 = browser.copy().http2();
        gateway.clock.advance(HALF);
        for (method, path) in [
            (Method::GET, "/api/poll"),
            (Method::GET, "/api/poll?since=1"),
            (Method::POST, "/comms/events"),
            (Method::GET, "/comms/"),
            (Method::GET, "/.portcullis/whoami"),
        ] {
            assert_eq!(ask(&browser, method.clone(), path).await, StatusCode::OK, "{path}");
            assert_eq!(ask(&http2, method, path).await, StatusCode::OK, "{path}");
        }
        gateway.clock.advance(HALF);
        assert_eq!(ask(&browser, Method::GET, "/api/poll").await, StatusCode::UNAUTHORIZED);
        assert_eq!(ask(&http2, Method::GET, "/sims").await, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn what_only_resembles_a_passive_path_is_a_use_or_is_refused() {
    let (gateway, browser) = with_passive_paths(TestGateway::builder()).await;
    for path in ["/api/poll/", "/api/polls", "/API/poll", "/api%2Fpoll", "/%61pi/poll", "/comms", "//comms/a"]
    {
        gateway.clock.advance(HALF);
        assert_eq!(ask(&browser, Method::GET, path).await, StatusCode::OK, "{path}");
        assert_eq!(gateway.upstream.requests().last().unwrap().first_line(), format!("GET {path} HTTP/1.1"));
    }
    // Nothing leads out of what is named.
    for path in ["/comms/../sims", "/comms/%2e%2e/sims", "/comms/..%2fsims", "/comms/.%252e/sims"] {
        let fields =
            format!("GET {path} HTTP/1.1\r\nHost: iot.example.com\r\nCookie: {}\r\n\r\n", browser.cookies());
        assert_eq!(browser.raw(fields).await.answer().await.status, StatusCode::BAD_REQUEST, "{path}");
    }
}

#[tokio::test]
async fn a_busy_socket_on_a_passive_path_ends_when_nobody_uses_the_session() {
    for builder in stores() {
        let (gateway, browser) = with_passive_paths(builder).await;
        let http2 = browser.copy().http2();
        let mut sockets = [browser.socket("/comms/socket").await, http2.socket("/comms/socket").await];
        gateway.clock.advance(HALF);
        for socket in &mut sockets {
            assert!(echoes(socket).await);
        }
        gateway.clock.advance(HALF);
        for socket in &mut sockets {
            soon(Duration::from_secs(5), "the socket is closed", async || !echoes(socket).await).await;
        }
        assert!(browser.whoami().await.is_none());
    }
}

#[tokio::test]
async fn a_busy_socket_elsewhere_keeps_its_session_and_a_silent_one_does_not() {
    for builder in stores() {
        let (gateway, browser) = with_passive_paths(builder).await;
        for browser in [browser.copy(), browser.copy().http2()] {
            let mut busy = browser.socket("/socket").await;
            for _ in 0..4 {
                gateway.clock.advance(HALF);
                assert!(echoes(&mut busy).await);
                assert!(browser.whoami().await.is_some());
            }
        }
        let mut silent = browser.socket("/socket").await;
        gateway.clock.advance(2 * HALF);
        assert!(browser.whoami().await.is_none());
        soon(Duration::from_secs(5), "the socket is closed", async || !echoes(&mut silent).await).await;
    }
}

#[tokio::test]
async fn the_pongs_of_a_browser_keep_no_session_that_nobody_uses() {
    for builder in stores() {
        let (gateway, browser) = with_passive_paths(builder).await;
        let mut sockets =
            [browser.copy().socket("/socket").await, browser.copy().http2().socket("/socket").await];
        gateway.clock.advance(HALF);
        for socket in &mut sockets {
            for control in [Message::Pong("x".into()), Message::Ping("y".into()), Message::Pong("".into())] {
                socket.send(control).await.unwrap();
            }
            // The answer to the ping has gone both ways, so all of it has been seen.
            assert!(matches!(within(PATIENCE, socket.next()).await, Some(Ok(Message::Pong(_)))));
        }
        gateway.clock.advance(HALF);
        for socket in &mut sockets {
            soon(Duration::from_secs(5), "the socket is closed", async || !echoes(socket).await).await;
        }
        assert!(browser.whoami().await.is_none());
    }
}

/// What a browser says of a request; see `Sec-Fetch-*`.
async fn says(browser: &Browser, method: Method, fields: &[(&str, &str)]) -> StatusCode {
    let mut request = Request::builder().method(method).uri("/sims").header("accept", "text/html");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    browser.send(request.body(empty()).unwrap()).await.status
}

#[tokio::test]
async fn where_people_count_what_a_page_does_by_itself_keeps_no_session() {
    let (navigates, user) = (("sec-fetch-mode", "navigate"), ("sec-fetch-user", "?1"));
    let script = ("sec-fetch-mode", "cors");
    for (method, fields, keeps) in [
        (Method::GET, &[navigates, user][..], true),
        (Method::POST, &[script], true),
        (Method::DELETE, &[script], true),
        (Method::GET, &[navigates], false),
        (Method::GET, &[script], false),
        (Method::GET, &[navigates, user, ("sec-purpose", "prefetch")], false),
        (Method::POST, &[("sec-fetch-mode", "no-cors")], false),
        (Method::HEAD, &[script], false),
    ] {
        let builder = TestGateway::builder().set("sessions.activity", "people");
        let (gateway, browser) = logged_in(builder).await;
        gateway.clock.advance(HALF);
        assert_eq!(says(&browser, method.clone(), fields).await, StatusCode::OK);
        gateway.clock.advance(HALF);
        assert_eq!(browser.whoami().await.is_some(), keeps, "{method} {fields:?}");
    }
}

#[tokio::test]
async fn where_people_count_a_socket_that_is_busy_by_itself_keeps_no_session() {
    let builder = TestGateway::builder().upstream(&portal()).set("sessions.activity", "people");
    let (gateway, browser) = logged_in(builder).await;
    let mut socket = browser.socket("/socket").await;
    gateway.clock.advance(HALF);
    assert!(echoes(&mut socket).await);
    gateway.clock.advance(HALF);
    soon(Duration::from_secs(5), "the socket is closed", async || !echoes(&mut socket).await).await;
}
