//! Switches of protocol: only for a session, only from a page of ours, only when the portal agrees,
//! and only as long as the session lasts.

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use http::StatusCode;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    Answer, Browser, Exchange, HOST, PATIENCE, RawConnection, TestGateway, Upstream, logged_in,
    upstream::ordinary,
    websocket::{self, Socket, handshake},
    within,
};

/// A portal with an echo at `/echo`; what it is asked elsewhere it answers as `script` says.
fn portal(script: impl AsyncFn(Exchange) -> Option<Exchange> + Send + 'static) -> Upstream {
    Upstream::scripted(async move |exchange: Exchange| {
        if exchange.target() == "/" {
            return ordinary(exchange).await;
        }
        if exchange.target() != "/echo" {
            return script(exchange).await;
        }
        websocket::echo(exchange).await;
        None
    })
}

async fn open(browser: &Browser) -> Socket {
    browser.socket("/echo").await
}

#[tokio::test]
async fn without_a_session_there_is_no_socket() {
    let portal = portal(ordinary);
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    for cookies in ["", "__Host-portcullis=x", "other=1"] {
        let mut connection = browser.raw(handshake("/echo", cookies, &[])).await;
        let answer = connection.answer().await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        answer.assert_secure();
        assert_eq!(answer.header("connection"), "close");
        assert!(connection.rest().await.is_empty());
    }
    assert_eq!(gateway.upstream.bytes(), 0);
}

#[tokio::test]
async fn a_page_of_another_site_gets_no_socket() {
    let portal = portal(ordinary);
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    for origin in [
        "",
        "null",
        "https://evil.example.com",
        "http://iot.example.com",
        "https://iot.example.com.evil.example.com",
        "https://eviliot.example.com",
        "https://iot.example.com:8443",
        "https://iot.example.com/",
        "https://iot.example.com https://evil.example.com",
    ] {
        let request = handshake("/echo", &browser.cookies(), &[("Origin", origin)]);
        let mut connection = browser.raw(request).await;
        let answer = connection.answer().await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin:?}");
        answer.assert_secure();
        assert!(connection.rest().await.is_empty());
    }
    assert_eq!(gateway.upstream.bytes(), 0);
}

#[tokio::test]
async fn a_portal_that_refuses_is_quoted_and_the_connection_ends() {
    let portal = portal(async |mut exchange: Exchange| {
        exchange
            .write("HTTP/1.1 426 Upgrade Required\r\nUpgrade: other\r\nContent-Length: 3\r\n\r\nno\n")
            .await?;
        Some(exchange)
    });
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let behind = format!("GET /behind HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n\r\n", browser.cookies());
    let mut connection = browser.raw(handshake("/refused", &browser.cookies(), &[]) + &behind).await;
    let answer = connection.answer().await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (426, "no\n"));
    assert_eq!(answer.header("connection"), "close");
    assert!(connection.rest().await.is_empty(), "nothing behind a refused switch is a request");
    gateway.upstream.only_request();
}

/// A socket that is closed with something unread in it takes back the answer that the other side has not read yet.
#[tokio::test]
async fn a_client_that_sends_on_behind_an_offer_nobody_takes_is_heard_out() {
    let portal = portal(ordinary);
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let cookies = browser.cookies();
    let offer = handshake("/offer", &cookies, &[]);
    let post = offer.replace("GET ", "POST ");
    for (offer, status) in [
        (offer.clone(), 200),
        (offer.replace("websocket", "h2c"), 400),
        (offer.replace("Connection: Upgrade", "Connection: x"), 400),
        (offer.replace(HOST, "evil.example.com"), 421),
        (handshake("/offer", "", &[]), 401),
        (post.clone(), 400),
        (post.replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nhi"), 400),
    ] {
        let mut connection = browser.raw(offer.clone()).await;
        assert_eq!(connection.answer().await.status, status, "{offer}");
        assert!(connection.rest().await.is_empty());
        for _ in 0..50 {
            assert!(connection.is_heard("ahead").await, "{offer}");
        }
    }
    assert_eq!(gateway.upstream.requests().len(), 1);
}

async fn answer_to(answer: &'static str, request: impl Fn(&str) -> String) -> Answer {
    let portal = portal(async move |mut exchange: Exchange| {
        exchange.write(answer).await?;
        // What the portal sends in its own protocol must not be passed on either.
        exchange.write("raw bytes").await?;
        None
    });
    let (_gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let mut connection = browser.raw(request(&browser.cookies())).await;
    let answer = connection.answer().await;
    assert!(!String::from_utf8_lossy(&connection.rest().await).contains("raw bytes"));
    answer
}

#[tokio::test]
async fn a_switch_that_nobody_offered_is_a_502() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
    ] {
        let got = answer_to(answer, |cookies| handshake("/switch", cookies, &[])).await;
        assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{answer}");
        got.assert_secure();
    }
    let plain = |cookies: &str| {
        format!("GET /switch HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookies}\r\nConnection: close\r\n\r\n")
    };
    let unasked = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(answer_to(unasked, plain).await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn bytes_sent_ahead_wait_until_the_portal_has_agreed() {
    let (release, held) = mpsc::channel::<()>(1);
    let held = tokio::sync::Mutex::new(held);
    let (early, mut seen) = mpsc::unbounded_channel();
    let portal = portal(async move |mut exchange: Exchange| {
        held.lock().await.recv().await;
        // All that has come so far is in the kernel's hands or ours.
        let some = tokio::time::timeout(Duration::from_millis(100), exchange.wire.fill()).await;
        early.send(some.is_ok() || !exchange.wire.buffered().is_empty()).unwrap();
        exchange
            .write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: probe\r\n\r\n")
            .await?;
        let received = exchange.wire.read_exactly(5).await.ok()?;
        exchange.write(received).await?;
        None
    });
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let request = handshake("/probe", &browser.cookies(), &[("Upgrade", "probe")]) + "ahead";
    let mut connection = browser.raw(request).await;
    gateway.upstream.arrived(1).await;
    release.send(()).await.unwrap();
    assert_eq!(within(PATIENCE, seen.recv()).await, Some(false), "nothing but the head came before the 101");
    assert!(connection.head().await.unwrap().first_line().contains("101"));
    assert_eq!(connection.rest().await, b"ahead");
}

/// Switches to a protocol in which the portal says all that it has heard once the client has finished.
fn listener() -> Upstream {
    portal(async |mut exchange: Exchange| {
        exchange
            .write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: probe\r\n\r\n")
            .await?;
        let heard = exchange.wire.read_to_end().await.ok()?;
        exchange.write(format!("heard {}", heard.len())).await?;
        None
    })
}

async fn probe(browser: &Browser) -> RawConnection {
    let mut connection = browser.raw(handshake("/probe", &browser.cookies(), &[("Upgrade", "probe")])).await;
    let head = connection.head().await.unwrap();
    assert_eq!(head.first_line(), "HTTP/1.1 101 Switching Protocols");
    assert_eq!(head.values("upgrade"), ["probe"]);
    connection
}

#[tokio::test]
async fn a_side_that_has_finished_still_hears_the_other() {
    let portal = listener();
    let (_gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let mut connection = probe(&browser).await;
    connection.send(vec![1; 300_000]).await;
    connection.wire.finish().await.unwrap();
    assert_eq!(connection.rest().await, b"heard 300000");
}

#[tokio::test]
async fn a_tunnel_of_ten_thousand_idle_seconds_is_no_idle_connection() {
    let portal = portal(ordinary);
    let (gateway, browser) = TestGateway::builder()
        .upstream(&portal)
        .set("server.timeouts.idle", "300ms")
        .set("server.timeouts.stall", "300ms")
        .start()
        .await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    let mut socket = open(&browser).await;
    // An idle connection that was opened later is closed; the tunnel is not.
    let mut idle = browser.raw(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    idle.answer().await;
    idle.rest().await;
    socket.send(Message::text("still here")).await.unwrap();
    assert_eq!(within(PATIENCE, socket.next()).await.unwrap().unwrap(), Message::text("still here"));
}

#[tokio::test]
async fn a_revoked_session_takes_its_tunnels_along_within_a_second() {
    let portal = portal(ordinary);
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let other = gateway.browser();
    other.log_in("ada@example.com").await;
    let (mut ended, mut kept) = (open(&browser).await, open(&other).await);
    let sessions = gateway.administration().sessions(Some("ada@example.com")).await.unwrap();
    let oldest = sessions.iter().min_by_key(|session| session.created_at).unwrap();
    let begun = Instant::now();
    gateway.administration().revoke_session(&oldest.id.to_hex()).await.unwrap();
    while let Some(Ok(_)) = within(PATIENCE, ended.next()).await {}
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    kept.send(Message::text("mine goes on")).await.unwrap();
    assert_eq!(within(PATIENCE, kept.next()).await.unwrap().unwrap(), Message::text("mine goes on"));
}

#[tokio::test]
async fn signing_out_ends_tunnels_at_once() {
    let portal = portal(ordinary);
    let (_gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let mut socket = open(&browser).await;
    let page = browser.get("/.portcullis/account").await;
    let begun = Instant::now();
    browser.post_form("/.portcullis/logout", &[("csrf", &page.field("csrf"))]).await;
    while let Some(Ok(_)) = within(PATIENCE, socket.next()).await {}
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_disabled_user_loses_every_tunnel_within_a_second() {
    let portal = portal(ordinary);
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let mut sockets = [open(&browser).await, open(&browser).await];
    let begun = Instant::now();
    gateway.administration().set_disabled("ada@example.com", true).await.unwrap();
    for socket in &mut sockets {
        while let Some(Ok(_)) = within(PATIENCE, socket.next()).await {}
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_session_that_runs_out_takes_its_tunnels_along() {
    let portal = portal(ordinary);
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let mut socket = open(&browser).await;
    gateway.clock.advance(Duration::from_hours(12));
    while let Some(Ok(_)) = within(PATIENCE, socket.next()).await {}
}

#[tokio::test]
async fn a_tunnel_that_carries_something_keeps_its_session_alive() {
    let portal = portal(ordinary);
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let mut socket = open(&browser).await;
    for _ in 0..3 {
        gateway.clock.advance(Duration::from_mins(30));
        socket.send(Message::text("beat")).await.unwrap();
        let echo = within(PATIENCE, socket.next()).await.expect("the tunnel is open").expect("it carries");
        assert_eq!(echo, Message::text("beat"));
    }
    assert_eq!(browser.get("/").await.status, StatusCode::OK, "busy for an hour and a half");
}

#[tokio::test]
async fn what_the_portal_pushes_keeps_no_session_alive() {
    let portal = portal(async |mut exchange: Exchange| {
        exchange
            .write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: probe\r\n\r\n")
            .await?;
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while exchange.write("push").await.is_some() {
            ticks.tick().await;
        }
        None
    });
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let mut connection = probe(&browser).await;
    assert!(!within(PATIENCE, connection.wire.read_some()).await.unwrap().is_empty());
    gateway.clock.advance(Duration::from_mins(61));
    let end = async { while connection.wire.read_some().await.is_ok_and(|bytes| !bytes.is_empty()) {} };
    within(PATIENCE, end).await;
    assert_eq!(browser.get("/").await.status, StatusCode::FOUND);
}

#[tokio::test]
async fn the_drain_ends_tunnels() {
    let portal = portal(ordinary);
    let (gateway, browser) =
        TestGateway::builder().upstream(&portal).set("server.timeouts.drain", "60s").start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    let mut socket = open(&browser).await;
    let begun = Instant::now();
    gateway.drain();
    while let Some(Ok(_)) = within(PATIENCE, socket.next()).await {}
    drop(socket);
    drop(browser);
    gateway.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
}

#[tokio::test]
async fn http_1_0_cannot_switch() {
    let portal = portal(ordinary);
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let request = handshake("/plain", &browser.cookies(), &[]).replace("HTTP/1.1", "HTTP/1.0");
    let answer = browser.raw(request).await.answer().await;
    assert_eq!(answer.text(), "the portal: GET /plain\n");
    assert_eq!(gateway.upstream.only_request().value("upgrade"), None);
}
