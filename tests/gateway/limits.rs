//! What one client, or all of them together, may take of the gateway.

use tokio::{io::AsyncReadExt as _, net::TcpStream};

use crate::support::{PATIENCE, TestGateway, soon, wire::Wire, within};

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
