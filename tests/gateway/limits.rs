//! What one client, or all of them together, may take of the gateway.

use tokio::{io::AsyncReadExt as _, net::TcpStream};

use crate::support::{
    HOST, PATIENCE, TestGateway,
    forged::{Forgery, frame},
    soon,
    wire::Wire,
    within,
};

/// Whether the gateway closes a connection before anything has been said on it.
async fn is_closed(socket: &mut TcpStream) -> bool {
    !matches!(within(PATIENCE, socket.read(&mut [0])).await, Ok(1..))
}

#[tokio::test]
async fn a_client_network_with_too_many_connections_gets_no_more_and_others_do() {
    let builder = TestGateway::builder().set("server.max_connections_per_network", "3");
    let (gateway, browser) = builder.start().await;
    let held = [browser.tls(&["h2"]).await, browser.tls(&["h2"]).await, browser.tls(&["h2"]).await];
    let mut one_more = TcpStream::connect(gateway.address()).await.unwrap();
    assert!(is_closed(&mut one_more).await);
    let refused = "portcullis_connections_refused_total{reason=\"network\"} 1";
    assert!(gateway.admin("/metrics").await.contains(refused));

    let neighbour = tokio::net::TcpSocket::new_v4().unwrap();
    neighbour.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut neighbour = Wire::new(neighbour.connect(gateway.address()).await.unwrap());
    neighbour.write(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let answer = within(PATIENCE, neighbour.read_to_end()).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "somebody else is still told that this port speaks TLS");

    drop(held);
    soon(PATIENCE, "the places are free again", async || {
        let mut wire = Wire::new(TcpStream::connect(gateway.address()).await.unwrap());
        let _ = wire.write(b"GET / HTTP/1.1\r\n\r\n").await;
        within(PATIENCE, wire.read_to_end()).await.is_ok_and(|answer| !answer.is_empty())
    })
    .await;
}

#[tokio::test]
async fn a_trusted_proxy_may_have_as_many_connections_as_it_needs() {
    let builder = TestGateway::builder().set("server.max_connections_per_network", "1");
    let (_gateway, browser) = builder.set("server.trusted_proxies", "127.0.0.1").start().await;
    let _held = [browser.tls(&["h2"]).await, browser.tls(&["h2"]).await];
    assert_eq!(browser.get("/").await.status, 302);
}

/// Takes eight of ten connections, each of which is waited for longer than the test lasts.
async fn strain(gateway: &TestGateway) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(TcpStream::connect(gateway.address()).await.unwrap());
    }
    soon(PATIENCE, "the strain is noticed", async || {
        gateway.admin("/ready").await.contains("\"load\":\"strained\"")
    })
    .await;
    held
}

#[tokio::test]
async fn under_strain_strangers_are_turned_away_and_who_has_a_session_is_served() {
    let builder = TestGateway::builder().set("server.max_connections", "10");
    let (gateway, browser) = builder.set("server.timeouts.handshake", "60s").start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    gateway.upstream.forget();
    let held = strain(&gateway).await;

    assert!(gateway.admin("/ready").await.starts_with("HTTP/1.1 200 "), "strain is not unreadiness");
    assert!(gateway.admin("/metrics").await.contains("portcullis_load_level 1\n"));
    for path in ["/", "/.portcullis/login", "/.portcullis/assets/none"] {
        let answer = gateway.browser().get(path).await;
        assert_eq!((answer.status.as_u16(), answer.header("connection").as_str()), (503, "close"), "{path}");
        assert_ne!(answer.header("retry-after"), "");
        answer.assert_secure();
    }
    let unknown = gateway.browser();
    unknown.set_cookie("__Host-portcullis", &"A".repeat(43));
    assert_eq!(unknown.get("/").await.status, 503, "a token that opens nothing is nobody's");
    assert_eq!(gateway.upstream.bytes(), 0);
    assert_eq!(browser.get("/").await.status, 200);
    assert_eq!(browser.get("/.portcullis/account").await.status, 200);

    drop(held);
    soon(PATIENCE, "the strain is over", async || {
        gateway.admin("/ready").await.contains("\"load\":\"normal\"")
    })
    .await;
    assert_eq!(gateway.browser().get("/").await.status, 302);
}

#[tokio::test]
async fn under_strain_a_stranger_loses_the_connection_on_http_2_too() {
    let builder = TestGateway::builder().set("server.max_connections", "10");
    let (gateway, browser) = builder.set("server.timeouts.handshake", "60s").start().await;
    let _held = strain(&gateway).await;
    let mut wire = Wire::new(browser.tls(&["h2"]).await);
    let fields = [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/")];
    let head = Forgery::of(&fields).frames_on(1);
    wire.write(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(4, 0, 0, &[]), &head].concat())
        .await
        .unwrap();
    // It ends with or without a farewell; only a connection that stays makes the test fail.
    let _ = within(PATIENCE, wire.read_to_end()).await;
    assert!(gateway.access_log().contains("status=503"), "{}", gateway.access_log());
}

#[tokio::test]
async fn under_strain_an_idle_connection_is_closed_and_one_at_work_is_not() {
    let builder = TestGateway::builder().set("server.max_connections", "10");
    let (gateway, browser) = builder.set("server.timeouts.handshake", "60s").start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    let cookies = browser.cookies();
    let mut at_work = browser
        .raw(format!(
            "POST /upload HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookies}\r\nContent-Length: 5\r\n\r\n"
        ))
        .await;
    let mut idle = browser.raw(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    idle.answer().await;
    let _held = strain(&gateway).await;
    within(PATIENCE, idle.rest()).await;
    at_work.send("hello").await;
    assert_eq!(at_work.answer().await.status, 200);
}

#[tokio::test]
async fn a_full_gateway_takes_no_connection() {
    let (gateway, browser) = TestGateway::builder().set("server.max_memory", "1MiB").start().await;
    soon(PATIENCE, "it is noticed", async || gateway.admin("/ready").await.contains("\"load\":\"full\""))
        .await;
    let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
    assert!(is_closed(&mut socket).await);
    let refused = "portcullis_connections_refused_total{reason=\"overload\"}";
    assert!(gateway.admin("/metrics").await.contains(refused));
    assert!(gateway.admin("/ready").await.starts_with("HTTP/1.1 200 "));
    drop(browser);
}
