//! What the access log says of a WebSocket.

use futures_util::{SinkExt as _, StreamExt as _};
use http::StatusCode;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    Exchange, PATIENCE, TestGateway, Upstream, logged_in, soon, upstream::ordinary, websocket, within,
};

#[tokio::test]
async fn the_access_log_has_a_line_of_a_socket_when_it_is_over() {
    let portal = Upstream::scripted(async |exchange: Exchange| match exchange.target().as_str() {
        "/echo" => {
            websocket::echo(exchange).await;
            None
        }
        _ => ordinary(exchange).await,
    });
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let second = browser.copy().http2();
    let browsers = [browser, second];
    for (browser, start) in browsers.iter().zip([
        "method=GET host=iot.example.com path=/echo query=false protocol=HTTP/1.1 upgrade=websocket status=101",
        "method=CONNECT host=iot.example.com path=/echo query=false protocol=HTTP/2 upgrade=websocket status=200",
    ]) {
        let mut socket = browser.socket("/echo").await;
        socket.send(Message::binary(vec![7; 10_000])).await.unwrap();
        within(PATIENCE, socket.next()).await.unwrap().unwrap();
        assert!(!gateway.access_log().contains(start), "it goes on");
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = within(PATIENCE, socket.next()).await {}
        drop(socket);
        soon(PATIENCE, "a line", async || {
            // Both ends of the socket are on this thread.
            tokio::task::yield_now().await;
            gateway.access_log().contains(start)
        })
        .await;
        let log = gateway.access_log();
        let line = log.lines().rfind(|line| line.contains(start)).unwrap();
        let number = |name: &str| {
            let value = line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_else(|| panic!("{name}: {line}")).parse::<u64>().unwrap()
        };
        assert!((10_000..11_000).contains(&number("bytes_in")), "{line}");
        assert!((10_000..11_000).contains(&number("bytes_out")), "{line}");
        assert!(number("duration_us") >= number("upstream_duration_us"), "{line}");
        for field in [" decision=allow ", " user.name=ada@example.com ", " session.id=", " upstream=http://127.0.0.1:"] {
            assert!(line.contains(field), "{field}: {line}");
        }
    }
    // One that the portal does not take is found by the same word.
    let refused =
        browsers[0].raw(websocket::handshake("/", &browsers[0].cookies(), &[])).await.answer().await;
    assert_eq!(refused.status, StatusCode::OK);
    let log = gateway.access_log();
    assert!(log.lines().last().unwrap().contains(" upgrade=websocket status=200 "), "{log}");
}
