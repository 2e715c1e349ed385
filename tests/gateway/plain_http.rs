//! The port for plain HTTP: pages are led to HTTPS, and nobody else is helped.

use std::time::Instant;

use tokio::net::TcpStream;

use crate::support::{
    HOST, PATIENCE, TestGateway, front::Front, log, logged_in, soon, test_gateway::Builder, wire::Wire,
    within,
};

fn plain() -> Builder {
    TestGateway::builder().set("server.redirect_listen", "127.0.0.1:0")
}

/// The whole answer to these bytes, after which the gateway has closed.
async fn said(gateway: &TestGateway, bytes: impl AsRef<[u8]>) -> String {
    let mut wire = Wire::new(TcpStream::connect(gateway.plain()).await.unwrap());
    wire.write(bytes.as_ref()).await.unwrap();
    String::from_utf8(within(PATIENCE, wire.read_to_end()).await.unwrap_or_default()).unwrap()
}

const PAGE: &str = "Accept: text/html,*/*;q=0.8\r\n";

/// What a browser gets that asks for a page, with this target and these fields.
async fn page(gateway: &TestGateway, target: &str, fields: &str) -> String {
    said(gateway, format!("GET {target} HTTP/1.1\r\n{PAGE}{fields}\r\n")).await
}

fn leads_to(answer: &str) -> Option<&str> {
    let answer = answer.strip_prefix("HTTP/1.1 301 ")?;
    answer.lines().find_map(|line| line.strip_prefix("location: "))
}

#[tokio::test]
async fn a_page_is_led_to_the_same_page_of_the_configured_host() {
    let (gateway, _) = plain().start().await;
    let origin = format!("https://{HOST}");
    for host in
        [HOST, "IOT.example.com", "iot.example.com:80", "iot.example.com:8080", "10.0.0.5", "evil.example"]
    {
        for target in
            ["/", "/a/b?x=1&y=%2F", "//evil.example/", "/?rd=//evil.example", "/.portcullis/login?rd=/a"]
        {
            let answer = page(&gateway, target, &format!("Host: {host}\r\n")).await;
            assert_eq!(leads_to(&answer), Some(&*format!("{origin}{target}")), "{host} {target}: {answer}");
            let lower = answer.to_ascii_lowercase();
            assert!(
                !lower.contains("set-cookie") && !lower.contains("strict-transport-security"),
                "{answer}"
            );
            assert!(lower.contains("cache-control: no-store\r\n") && lower.contains("connection: close\r\n"));
        }
    }
    for request in [
        format!("HEAD /x HTTP/1.1\r\nHost: {HOST}\r\n{PAGE}\r\n"),
        format!("GET http://{HOST}/x HTTP/1.1\r\nHost: {HOST}\r\n{PAGE}\r\n"),
        format!("GET /x HTTP/1.0\r\n{PAGE}\r\n"),
        format!(
            "GET /x HTTP/1.1\r\nHost: {HOST}\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n\r\n"
        ),
        // Cookies of the portal's are a browser's to send.
        format!("GET /x HTTP/1.1\r\nHost: {HOST}\r\n{PAGE}Cookie: theme=dark\r\n\r\n"),
    ] {
        let answer = said(&gateway, &request).await;
        assert_eq!(leads_to(&answer), Some(&*format!("{origin}/x")), "{request}{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
    assert_eq!(gateway.upstream.bytes(), 0, "the portal hears of none of it");
}

#[tokio::test]
async fn nothing_but_a_page_is_helped_and_what_showed_its_secrets_is_told_so() {
    let (gateway, browser) = logged_in(plain()).await;
    let post = "Content-Length: 21\r\n\r\npassword=correct+hors";
    let cookie = format!("Cookie: a=b; {}\r\n\r\n", browser.cookies());
    for (request, told) in [
        (format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{PAGE}{post}"), "only leads browsers"),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{PAGE}{post}"), "only leads browsers"),
        (format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\n{post}"), "only leads browsers"),
        (format!("DELETE / HTTP/1.1\r\nHost: {HOST}\r\n{PAGE}\r\n"), "only leads browsers"),
        (
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nAccept: application/json\r\n\r\n"),
            "only leads browsers",
        ),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), "only leads browsers"),
        (
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{PAGE}X-Requested-With: XMLHttpRequest\r\n\r\n"),
            "only leads browsers",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
            "only leads browsers",
        ),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{PAGE}Authorization: Basic YTpi\r\n\r\n"), "Replace it"),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{PAGE}X-Portcullis-Token: pcl_x\r\n\r\n"), "Replace it"),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{PAGE}{cookie}"), "Replace it"),
    ] {
        let answer = said(&gateway, &request).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{request}: {answer}");
        assert!(
            answer.contains(told) && answer.contains(&format!("https://{HOST}.\n")),
            "{request}: {answer}"
        );
        assert!(leads_to(&answer).is_none() && !answer.contains("set-cookie"), "{answer}");
    }
    assert_eq!(gateway.upstream.bytes(), 0);
    // The session that was shown lives on: whoever has seen it could end it otherwise.
    assert_eq!(browser.get("/").await.status, 200);
}

#[tokio::test]
async fn what_has_two_readings_is_refused_as_it_is_over_https() {
    let (gateway, _) = plain().start().await;
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\n{PAGE}\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n{PAGE}\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: a@{HOST}\r\n{PAGE}\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}/x\r\n{PAGE}\r\n"), 400),
        (format!("GET http://evil.example/ HTTP/1.1\r\nHost: {HOST}\r\n{PAGE}\r\n"), 400),
        (format!("GET ftp://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n{PAGE}\r\n"), 400),
        (format!("OPTIONS * HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), 400),
        (format!("CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}:80\r\n\r\n"), 405),
        (format!("TRACE / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), 405),
        (format!("get / HTTP/1.1\r\nHost: {HOST}\r\n{PAGE}\r\n"), 501),
        (format!("GET /a/../b HTTP/1.1\r\nHost: {HOST}\r\n{PAGE}\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost : {HOST}\r\n{PAGE}\r\n"), 400),
        (format!("GET / HTTP/1.1\nHost: {HOST}\n\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX_Y: 1\r\n{PAGE}\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: {}\r\n\r\n", "y".repeat(20_000)), 431),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
            ),
            400,
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
    ] {
        let answer = said(&gateway, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.200}: {answer}");
    }
    // One request a connection: a second one behind it is not read.
    let two =
        format!("GET /a HTTP/1.1\r\nHost: {HOST}\r\n{PAGE}\r\nGET /b HTTP/1.1\r\nHost: {HOST}\r\n{PAGE}\r\n");
    assert_eq!(said(&gateway, &two).await.matches("HTTP/1.1 ").count(), 1);
    let mut tls = Wire::new(TcpStream::connect(gateway.plain()).await.unwrap());
    tls.write(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03").await.unwrap();
    assert!(within(PATIENCE, tls.read_to_end()).await.unwrap_or_default().is_empty());
}

#[tokio::test]
async fn each_request_is_in_the_log_with_its_client_and_counts() {
    let builder = plain().set("server.trusted_proxies", "127.0.0.1").set("server.health_path", "/healthz");
    let (gateway, _) = builder.start().await;
    page(&gateway, "/a?b", &format!("Host: {HOST}\r\nX-Forwarded-For: 198.51.100.7\r\n")).await;
    said(&gateway, format!("PUT /c HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    assert!(
        said(&gateway, "GET /healthz HTTP/1.1\r\nHost: 10.0.0.5\r\n\r\n").await.ends_with("\r\n\r\nok\n")
    );
    for words in [
        &["client.ip=198.51.100.7", "path=/a", "status=301", "decision=own"][..],
        &["client.ip=127.0.0.1", "path=/c", "status=403", "decision=deny"],
    ] {
        soon(PATIENCE, words[1], async || {
            gateway.access_log().lines().any(|line| words.iter().all(|word| line.contains(word)))
        })
        .await;
    }
    assert!(gateway.admin("/metrics").await.contains("decision=\"deny\""));
}

#[tokio::test]
async fn nobody_holds_the_port_and_a_flood_of_it_takes_nothing_from_https() {
    let builder = plain().set("server.max_connections", "16").set("server.max_connections_per_network", "6");
    let builder = builder.set("server.timeouts.first_byte", "1s").set("server.timeouts.head", "1s");
    let (gateway, browser) = builder.start().await;
    for start in ["", "GET / HTTP/1.1\r\nHost: "] {
        let begun = Instant::now();
        let mut wire = Wire::new(TcpStream::connect(gateway.plain()).await.unwrap());
        wire.write(start.as_bytes()).await.unwrap();
        assert!(within(PATIENCE, wire.read_to_end()).await.unwrap_or_default().is_empty());
        assert!(begun.elapsed().as_millis() >= 500, "{:?}", begun.elapsed());
    }
    // Twice as many as the port has places for: the others wait in the kernel's queue.
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(TcpStream::connect(gateway.plain()).await.unwrap());
    }
    assert_eq!(browser.get("/").await.status, 302);
    drop(held);
    assert!(leads_to(&page(&gateway, "/", &format!("Host: {HOST}\r\n")).await).is_some());
}

#[tokio::test]
async fn balancers_tell_the_client_here_too() {
    let listener = log::listen();
    let (gateway, _) = plain().set("server.proxy_protocol", "127.0.0.1").start().await;
    let line = "PROXY TCP4 203.0.113.9 198.51.100.1 51234 80\r\n";
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{PAGE}\r\n");
    assert!(leads_to(&said(&gateway, format!("{line}{request}")).await).is_some());
    assert_eq!(said(&gateway, &request).await, "", "without its header it is refused");
    assert!(listener.text().contains("there is no PROXY protocol header"));
    let front = Front::haproxy(&gateway.plain().to_string(), "send-proxy-v2").await;
    let mut wire = Wire::new(TcpStream::connect(front.address).await.unwrap());
    wire.write(request.as_bytes()).await.unwrap();
    let answer = String::from_utf8(within(PATIENCE, wire.read_to_end()).await.unwrap()).unwrap();
    assert!(leads_to(&answer).is_some(), "{answer}");
    soon(PATIENCE, "the client's line", async || gateway.access_log().contains("client.ip=203.0.113.9"))
        .await;
    let (unlisted, _) = plain().start().await;
    assert!(said(&unlisted, format!("{line}{request}")).await.starts_with("HTTP/1.1 400 "));
}
