//! Connections: which protocol is spoken, what shares one, in which order, and how they end when the gateway does.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use http::{Request, StatusCode, Version};
use tokio::{net::TcpStream, sync::mpsc};

use crate::support::{
    Browser, Exchange, HOST, PATIENCE, TestGateway, Upstream, empty, logged_in, upstream::ordinary,
    wire::Wire, within,
};

/// A portal whose `/slow` waits until it is let go.
fn slow() -> (Upstream, mpsc::Sender<()>) {
    let (release, held) = mpsc::channel(1);
    let held = tokio::sync::Mutex::new(held);
    let portal = Upstream::scripted(async move |exchange: Exchange| {
        if exchange.target() == "/slow" {
            held.lock().await.recv().await;
        }
        ordinary(exchange).await
    });
    (portal, release)
}

fn get(path: &str, browser: &Browser) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n\r\n", browser.cookies())
}

#[tokio::test]
async fn the_client_s_offer_decides_the_protocol() {
    let (_gateway, browser) = TestGateway::start().await;
    for (offer, chosen) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["h2"], Some("h2")),
        (&["spdy/3", "http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let stream = browser.tls(offer).await;
        let agreed =
            stream.get_ref().1.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        assert_eq!(agreed.as_deref(), chosen, "{offer:?}");
        if agreed.as_deref() != Some("h2") {
            let mut wire = Wire::new(stream);
            wire.write(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await.unwrap();
            assert!(wire.read_head().await.unwrap().unwrap().first_line().contains("401"));
        }
    }
    // RFC 7301 §3.2: nothing in common is no connection.
    for offer in [&["http/1.0"][..], &["h3"], &["x"]] {
        let refused = browser.try_tls(offer).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidData, "{refused}");
        assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    }
}

#[tokio::test]
async fn one_connection_serves_many_requests_and_so_does_one_to_the_portal() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let before = gateway.upstream.connections();
    let mut connection = browser.raw_connection().await;
    for number in 0..20 {
        connection.send(get(&format!("/{number}"), &browser)).await;
        assert_eq!(connection.answer().await.text(), format!("the portal: GET /{number}\n"));
    }
    assert_eq!(gateway.upstream.connections(), before);
}

#[tokio::test]
async fn a_client_that_says_close_is_closed() {
    let (_gateway, browser) = logged_in(TestGateway::builder()).await;
    for path in ["/", "/.portcullis/whoami"] {
        let request = get(path, &browser).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        let mut connection = browser.raw(request + &get("/behind", &browser)).await;
        assert_eq!(connection.answer().await.header("connection"), "close");
        assert!(connection.rest().await.is_empty());
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let (portal, release) = slow();
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let paths = ["/slow", "/.portcullis/whoami", "/fast", "/.portcullis/none", "/last"];
    let requests: String = paths.iter().map(|path| get(path, &browser)).collect();
    let mut connection = browser.raw(requests).await;
    gateway.upstream.arrived(1).await;
    release.send(()).await.unwrap();
    assert_eq!(connection.answer().await.text(), "the portal: GET /slow\n");
    assert_eq!(connection.answer().await.json()["email"], "ada@example.com");
    assert_eq!(connection.answer().await.text(), "the portal: GET /fast\n");
    assert_eq!(connection.answer().await.status, StatusCode::NOT_FOUND);
    assert_eq!(connection.answer().await.text(), "the portal: GET /last\n");
}

#[tokio::test]
async fn hundreds_of_requests_at_once_are_all_answered() {
    let (_gateway, browser) = TestGateway::start().await;
    let request = format!("GET /x HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut connection = browser.raw(request.repeat(500)).await;
    for _ in 0..500 {
        assert_eq!(connection.answer().await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_keeps_its_connection_when_it_asks_for_it() {
    let (_gateway, browser) = logged_in(TestGateway::builder()).await;
    let ask = |fields: &str| get("/x", &browser).replace("1.1\r\n", &format!("1.0\r\n{fields}"));
    let mut connection = browser.raw(ask("Connection: keep-alive\r\n")).await;
    let answer = connection.answer().await;
    assert_eq!((answer.version, answer.header("connection").as_str()), (Version::HTTP_10, "keep-alive"));
    connection.send(ask("")).await;
    assert_eq!(connection.answer().await.header("connection"), "close");
    assert!(connection.rest().await.is_empty());
}

#[tokio::test]
async fn a_slow_stream_of_http_2_holds_up_no_other() {
    let (portal, release) = slow();
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let second = gateway.browser().http2();
    second.set_cookie("__Host-portcullis", &browser.session());
    let waiting = second.send(Request::get("/slow").body(empty()).unwrap());
    let others = async {
        gateway.upstream.arrived(1).await;
        for number in 0..10 {
            assert_eq!(second.fetch(&format!("/{number}")).await.status, StatusCode::OK);
        }
        release.send(()).await.unwrap();
    };
    let (slow, ()) = tokio::join!(waiting, others);
    assert_eq!(slow.text(), "the portal: GET /slow\n");
}

#[tokio::test]
async fn a_connection_of_http_2_has_sixty_four_streams() {
    let (_gateway, browser) = TestGateway::start().await;
    let (sender, connection) = h2::client::handshake(browser.tls(&["h2"]).await).await.unwrap();
    tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let request = Request::get(format!("https://{HOST}/")).body(()).unwrap();
    let (answer, _) = sender.send_request(request, true).unwrap();
    assert_eq!(within(PATIENCE, answer).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(sender.current_max_send_streams(), 64);
}

#[tokio::test]
async fn beyond_the_limit_clients_wait_their_turn() {
    let (_gateway, browser) = TestGateway::builder().set("server.max_connections", "2").start().await;
    let first = browser.raw_connection().await;
    let _second = browser.raw_connection().await;
    let third = browser.tls(&["http/1.1"]);
    tokio::pin!(third);
    let early = tokio::time::timeout(Duration::from_millis(300), third.as_mut()).await;
    assert!(early.is_err(), "the third is not served beside the two");
    drop(first);
    third.await;
}

#[tokio::test]
async fn a_drain_lets_what_is_in_progress_finish_and_takes_nothing_new() {
    let (portal, release) = slow();
    let builder = TestGateway::builder().upstream(&portal).set("server.timeouts.drain", "60s");
    let (gateway, browser) = logged_in(builder).await;
    let second = gateway.browser().http2();
    second.set_cookie("__Host-portcullis", &browser.session());
    let mut idle = browser.raw(get("/", &browser)).await;
    idle.answer().await;
    let silent = browser.raw_connection().await;
    gateway.upstream.forget();
    let mut slow = browser.raw(get("/slow", &browser)).await;
    let on_http_2 = second.send(Request::get("/slow").body(empty()).unwrap());
    let draining = async {
        gateway.upstream.arrived(2).await;
        gateway.drain();
        assert!(idle.rest().await.is_empty());
        let refused = async {
            while TcpStream::connect(gateway.address()).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        within(PATIENCE, refused).await;
        assert!(!gateway.has_ended());
        release.send(()).await.unwrap();
        release.send(()).await.unwrap();
        let answer = slow.answer().await;
        assert_eq!(answer.text(), "the portal: GET /slow\n");
        assert_eq!(answer.header("connection"), "close");
        assert!(slow.rest().await.is_empty());
    };
    let (answer, ()) = tokio::join!(on_http_2, draining);
    assert_eq!(answer.text(), "the portal: GET /slow\n");
    drop(silent);
    let begun = Instant::now();
    gateway.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_drain_cuts_what_does_not_finish_in_its_time() {
    let (portal, _never) = slow();
    let builder = TestGateway::builder().upstream(&portal).set("server.timeouts.drain", "300ms");
    let (gateway, browser) = logged_in(builder).await;
    let mut slow = browser.raw(get("/slow", &browser)).await;
    gateway.upstream.arrived(1).await;
    let begun = Instant::now();
    gateway.stop().await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(5), "it took {took:?}");
    assert!(slow.rest().await.is_empty());
}

#[tokio::test]
async fn during_a_drain_the_gateway_says_that_it_is_not_ready() {
    let (portal, release) = slow();
    let builder = TestGateway::builder().upstream(&portal).set("server.timeouts.drain", "60s");
    let (gateway, browser) = logged_in(builder).await;
    assert!(gateway.admin("/ready").await.starts_with("HTTP/1.1 200 "));
    let mut slow = browser.raw(get("/slow", &browser)).await;
    gateway.upstream.arrived(1).await;
    gateway.drain();
    let ready = gateway.admin("/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("\"draining\":true"), "{ready}");
    assert!(gateway.admin("/live").await.starts_with("HTTP/1.1 200 "));
    release.send(()).await.unwrap();
    slow.answer().await;
}
