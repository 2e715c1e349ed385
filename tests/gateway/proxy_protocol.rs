//! Behind a balancer that passes TCP through and tells the client in a PROXY protocol header.

use std::time::{Duration, Instant};

use http::{Request, StatusCode};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::support::{
    ADA, Browser, PATIENCE, TestGateway, body, empty, front::Front, log, soon, test_gateway::Builder,
    wire::Wire, within,
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of the second version.
fn second(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    [SIGNATURE, &[command, family], &u16::try_from(rest.len()).unwrap().to_be_bytes(), rest].concat()
}

/// The second version's header for a client with an IPv4 address.
fn second_of(client: [u8; 4]) -> Vec<u8> {
    second(0x21, 0x11, &[&client[..], &[198, 51, 100, 1, 0xC8, 0x22, 1, 0xBB]].concat())
}

fn first_of(client: &str) -> String {
    let family = if client.contains(':') { "TCP6" } else { "TCP4" };
    let own = if client.contains(':') { "2001:db8::1" } else { "198.51.100.1" };
    format!("PROXY {family} {client} {own} 51234 443\r\n")
}

fn told_by(peers: &str) -> Builder {
    TestGateway::builder().set("server.proxy_protocol", peers)
}

/// The client's address as the portal and the access log have it.
async fn client(gateway: &TestGateway, browser: &Browser) -> String {
    gateway.upstream.forget();
    let forged =
        Request::get("/").header("x-forwarded-for", "192.0.2.66").header("forwarded", "for=192.0.2.66");
    assert_eq!(browser.send(forged.body(empty()).unwrap()).await.status, StatusCode::OK);
    let request = gateway.upstream.only_request();
    let address = request.value("x-forwarded-for").unwrap();
    let node = if address.contains(':') { format!("\"[{address}]\"") } else { address.clone() };
    assert!(request.value("forwarded").unwrap().starts_with(&format!("for={node};")), "{request:?}");
    soon(PATIENCE, "the request's line", async || {
        gateway.access_log().lines().last().unwrap().contains(&format!(" client.ip={address} "))
    })
    .await;
    address
}

#[tokio::test]
async fn the_address_that_the_header_tells_is_the_clients_for_everything() {
    let (gateway, browser) = told_by("127.0.0.1").start().await;
    gateway.add_user(ADA).await;
    let browser = browser.announced(first_of("203.0.113.9"));
    browser.log_in(ADA).await;
    let account = browser.get("/.portcullis/account").await.text();
    assert!(account.contains("203.0.113.9") && !account.contains("127.0.0.1"), "{account}");
    let unix = [0_u8; 216];
    for (preamble, address) in [
        (first_of("203.0.113.9").into_bytes(), "203.0.113.9"),
        (first_of("2001:db8::9").into_bytes(), "2001:db8::9"),
        (first_of("::ffff:203.0.113.9").into_bytes(), "203.0.113.9"),
        (second_of([203, 0, 113, 9]), "203.0.113.9"),
        // The balancer's own, or told about nobody: the balancer is the client.
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (second(0x20, 0, &[]), "127.0.0.1"),
        (second(0x21, 0, &[]), "127.0.0.1"),
        (second(0x21, 0x31, &unix), "127.0.0.1"),
    ] {
        let browser = browser.copy().announced(preamble);
        assert_eq!(client(&gateway, &browser).await, address);
        assert_eq!(client(&gateway, &browser.http2()).await, address);
    }
}

/// Whether the gateway hangs up on what these bytes begin, without an answer.
async fn is_refused(gateway: &TestGateway, from: &Browser, bytes: &[u8]) -> bool {
    let before = refusals(gateway).await;
    let mut wire = Wire::new(from.tcp().await.unwrap());
    let _ = wire.write(bytes).await;
    let answer = within(PATIENCE, wire.read_to_end()).await;
    answer.unwrap_or_default().is_empty() && refusals(gateway).await == before + 1
}

async fn refusals(gateway: &TestGateway) -> u32 {
    let name = "portcullis_connections_refused_total{reason=\"proxy_protocol\"} ";
    let metrics = gateway.admin("/metrics").await;
    metrics.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |count| count.trim().parse().unwrap())
}

/// How a TLS connection begins.
const HELLO: &[u8] = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";

#[tokio::test]
async fn a_listed_peer_that_sends_none_or_a_wrong_one_is_refused() {
    let listener = log::listen();
    let (gateway, browser) = told_by("127.0.0.1").start().await;
    let hello = [HELLO, &[0; 64]].concat();
    let after = |header: &[u8]| [header, HELLO, &[0; 64]].concat();
    for bytes in [
        hello.clone(),
        b"GET / HTTP/1.1\r\nHost: iot.example.com\r\n\r\n".to_vec(),
        b"PROXYxTCP4 203.0.113.9 198.51.100.1 1 2\r\n".to_vec(),
        after(b"PROXY TCP4 203.0.113.9 198.51.100.1 +1 2\r\n"),
        after(b"PROXY TCP4 203.0.113.9 198.51.100.1 1 2 3\r\n"),
        after(b"PROXY TCP4 0.0.0.0 198.51.100.1 1 2\r\n"),
        after(format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)).as_bytes()),
        after(&second(0x21, 0x12, &[1; 12])),
        after(&second(0x21, 0x11, &[1; 11])),
        after(&second(0x21, 0, &[0; 8192])),
        after(&second(0x21, 0x11, &[&[1_u8; 12][..], &[3, 0, 4, 1, 2, 3, 4]].concat())),
        // A second one, which a client behind the balancer has written.
        after(&[first_of("203.0.113.9").as_bytes(), first_of("10.0.0.1").as_bytes()].concat()),
        after(&[&second_of([203, 0, 113, 9])[..], &second_of([10, 0, 0, 1])].concat()),
    ] {
        assert!(is_refused(&gateway, &browser, &bytes).await, "{}", bytes.escape_ascii());
    }
    assert!(browser.try_tls(&["http/1.1"]).await.is_err());
    let text = listener.text();
    let line = text.lines().find(|line| line.contains("there is no PROXY protocol header"));
    assert!(line.is_some_and(|line| line.contains("peer=127.0.0.1")), "{text}");
}

#[tokio::test]
async fn a_peer_that_is_not_listed_is_refused_with_a_header_and_served_without() {
    for builder in [
        TestGateway::builder(),
        told_by("127.0.0.2"),
        told_by("10.0.0.0/8").set("server.trusted_proxies", "127.0.0.1"),
    ] {
        let (gateway, browser) = builder.start().await;
        let line = [first_of("203.0.113.9").as_bytes(), HELLO].concat();
        assert!(is_refused(&gateway, &browser, &line).await);
        assert!(is_refused(&gateway, &browser, &[&second_of([203, 0, 113, 9])[..], HELLO].concat()).await);
        assert!(browser.copy().announced(first_of("203.0.113.9")).try_tls(&["h2"]).await.is_err());
        assert_eq!(browser.get("/").await.status, StatusCode::FOUND);
        // Nothing else that begins with this letter is taken for one.
        let mut post = Wire::new(TcpStream::connect(gateway.address()).await.unwrap());
        post.write(b"PUT / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(within(PATIENCE, post.read_to_end()).await.unwrap().starts_with(b"HTTP/1.1 400 "));
    }
}

#[tokio::test]
async fn a_header_may_come_in_pieces_and_has_no_more_time_than_the_handshake() {
    let (gateway, browser) = told_by("127.0.0.1").set("server.timeouts.handshake", "2s").start().await;
    for header in [first_of("203.0.113.9").into_bytes(), second_of([203, 0, 113, 9])] {
        // Each piece is there before the next one is sent: the one that hangs up is waited for.
        for cut in [1, 5, 12, 15, header.len() - 1] {
            let mut socket = browser.tcp().await.unwrap();
            socket.write_all(&header[..cut]).await.unwrap();
            tokio::task::yield_now().await;
            socket.write_all(&header[cut..]).await.unwrap();
            let mut wire = Wire::new(socket);
            wire.write(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            assert!(
                within(PATIENCE, wire.read_to_end()).await.unwrap().starts_with(b"HTTP/1.1 400 "),
                "{cut}"
            );
        }
        let begun = Instant::now();
        let mut wire = Wire::new(browser.tcp().await.unwrap());
        wire.write(&header[..header.len() - 1]).await.unwrap();
        assert!(within(PATIENCE, wire.read_to_end()).await.unwrap_or_default().is_empty());
        assert!(begun.elapsed() >= Duration::from_secs(1));
    }
    assert_eq!(refusals(&gateway).await, 2);
    // A probe that only connects is no fault.
    let mut wire = Wire::new(browser.tcp().await.unwrap());
    wire.finish().await.unwrap();
    assert!(within(PATIENCE, wire.read_to_end()).await.unwrap_or_default().is_empty());
    assert_eq!(refusals(&gateway).await, 2);
}

#[tokio::test]
async fn connections_are_counted_for_the_network_that_is_told() {
    let builder = told_by("127.0.0.1").set("server.max_connections_per_network", "1");
    let (gateway, browser) = builder.start().await;
    let from = |preamble: Vec<u8>| browser.copy().announced(preamble);
    let held = from(second_of([203, 0, 113, 9])).tls(&["h2"]).await;
    assert!(from(first_of("203.0.113.9").into()).try_tls(&["h2"]).await.is_err(), "it is the same network");
    let _others = [
        from(second_of([203, 0, 113, 10])).tls(&["h2"]).await,
        from(first_of("2001:db8::9").into()).tls(&["h2"]).await,
        // The balancer's own have no limit.
        from(b"PROXY UNKNOWN\r\n".to_vec()).tls(&["h2"]).await,
        from(second(0x20, 0, &[])).tls(&["h2"]).await,
    ];
    assert!(from(first_of("2001:db8::a").into()).try_tls(&["h2"]).await.is_err(), "it is the same /64");
    let refused = "portcullis_connections_refused_total{reason=\"network\"} 2";
    assert!(gateway.admin("/metrics").await.contains(refused));
    drop(held);
    soon(PATIENCE, "the place is free again", async || {
        from(second_of([203, 0, 113, 9])).try_tls(&["h2"]).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_proxy_that_the_header_tells_is_believed_if_it_is_trusted() {
    let builder = told_by("127.0.0.1").set("server.trusted_proxies", "10.0.0.0/8");
    let (gateway, browser) = logged_in_announced(builder, first_of("203.0.113.9")).await;
    for (client_told, address) in [("203.0.113.9", "203.0.113.9"), ("10.0.0.7", "192.0.2.66")] {
        assert_eq!(client(&gateway, &browser.copy().announced(first_of(client_told))).await, address);
    }
}

async fn logged_in_announced(builder: Builder, preamble: String) -> (TestGateway, Browser) {
    let (gateway, browser) = builder.start().await;
    gateway.add_user(ADA).await;
    let browser = browser.announced(preamble);
    browser.log_in(ADA).await;
    (gateway, browser)
}

#[tokio::test]
async fn guesses_count_against_the_network_that_is_told() {
    let builder = told_by("127.0.0.1").set("login.throttle.network_max_retries", "6");
    let (_gateway, browser) = builder.start().await;
    let guess = async |client: &str| {
        let browser = browser.copy().announced(first_of(client));
        let mut last = StatusCode::OK;
        for guess in 0..7 {
            last = browser.submit_password(&format!("nobody{guess}@example.com"), "wrong").await.status;
        }
        last
    };
    assert_eq!(guess("203.0.113.9").await, StatusCode::TOO_MANY_REQUESTS);
    let neighbour = browser.copy().announced(first_of("203.0.113.10"));
    let answer = neighbour.submit_password("nobody@example.com", "wrong").await;
    assert_ne!(answer.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn real_balancers_tell_the_client() {
    let (gateway, browser) = logged_in_announced(told_by("127.0.0.1"), first_of("203.0.113.9")).await;
    let address = gateway.address().to_string();
    let checks = "check check-send-proxy inter 50ms fall 1 rise 1";
    let fronts = [
        Front::haproxy(&address, "send-proxy").await,
        Front::haproxy(&address, "send-proxy-v2").await,
        Front::haproxy(
            &address,
            &format!("send-proxy-v2 proxy-v2-options crc32c,unique-id,authority {checks}"),
        )
        .await,
        Front::nginx(&address).await,
    ];
    let before = refusals(&gateway).await;
    for front in &fronts {
        for number in 3..6 {
            let from = format!("127.0.0.{number}");
            let browser = browser.copy().announced("").through(&from, front.address);
            assert_eq!(client(&gateway, &browser).await, from);
            let posted = Request::post("/form").body(body("x=1")).unwrap();
            assert_eq!(browser.send(posted).await.status, StatusCode::OK);
            assert_eq!(client(&gateway, &browser.http2()).await, from);
        }
    }
    assert_eq!(refusals(&gateway).await, before, "nothing of theirs is refused, health checks included");

    // A balancer that was not told to send it, and one that sends it where it is not listed.
    let silent = Front::haproxy(&address, "").await;
    assert!(
        browser.copy().announced("").through("127.0.0.3", silent.address).try_tls(&["h2"]).await.is_err()
    );
    let (unlisted, browser) = TestGateway::start().await;
    let telling = Front::haproxy(&unlisted.address().to_string(), "send-proxy-v2").await;
    assert!(browser.through("127.0.0.3", telling.address).try_tls(&["h2"]).await.is_err());
}
