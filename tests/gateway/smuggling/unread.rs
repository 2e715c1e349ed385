//! Portals that leave something unread, or say something unasked: what is left on their connection is nobody's.

use http::{Method, Request, StatusCode};

use super::scene;
use crate::support::{
    Exchange, HOST, PATIENCE, TestGateway, Upstream, body, empty, log, python::Python, soon,
    upstream::ordinary,
};

/// What would run in another user's name.
const FORGED: &str = "GET /slow HTTP/1.1\r\nHost: x\r\nRemote-User: root@example.com\r\n\r\n";

#[tokio::test]
async fn a_body_that_a_real_server_does_not_read_is_never_its_next_request() {
    let mut portal = Python::start("unread.py", &[]);
    let url = format!("http://127.0.0.1:{}", portal.line().await);
    let (gateway, eve) = TestGateway::builder().upstream_url(&url).start().await;
    gateway.add_user("eve@example.com").await;
    gateway.add_user("ada@example.com").await;
    eve.log_in("eve@example.com").await;
    let ada = gateway.browser();
    ada.log_in("ada@example.com").await;
    let eve2 = gateway.browser().http2();
    for cookie in eve.cookies().split("; ") {
        let (name, value) = cookie.split_once('=').unwrap();
        eve2.set_cookie(name, value);
    }
    let chunked = format!("{:x}\r\n{FORGED}\r\n0\r\n\r\n", FORGED.len());
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PROPFIND", "QUERY", "LOCK"] {
        for (framing, sent) in [
            (format!("Content-Length: {}", FORGED.len()), FORGED),
            ("Transfer-Encoding: chunked".to_owned(), &*chunked),
        ] {
            let request = format!(
                "{method} /x HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n{framing}\r\n\r\n{sent}",
                eve.cookies()
            );
            let mut attack = eve.raw(request).await;
            let _ = attack.head().await;
            let answer = ada.fetch("/mine").await;
            assert_eq!(answer.text(), "GET /mine ada@example.com\n", "{method} {framing}");
        }
        let request = Request::builder().method(method).uri("/x").body(body(FORGED)).unwrap();
        let _ = eve2.try_open(request).await;
        assert_eq!(ada.fetch("/mine").await.text(), "GET /mine ada@example.com\n", "{method}");
    }
    ada.fetch("/end").await;
    loop {
        let line = portal.line().await;
        assert!(!line.contains("root@example.com") && !line.contains("/slow"), "{line}");
        if line.contains("/end") {
            break;
        }
    }
}

/// Whatever a reader expects no body behind goes out alone, and says so.
#[tokio::test]
async fn a_request_with_an_unusual_body_has_its_connection_for_itself() {
    let mut scene = scene(&Upstream::start()).await;
    for (method, closes) in [
        ("GET", true),
        ("HEAD", true),
        ("DELETE", true),
        ("OPTIONS", true),
        ("PROPFIND", true),
        ("QUERY", true),
        ("SEARCH", true),
        ("BREW", true),
        ("POST", false),
        ("PUT", false),
        ("PATCH", false),
    ] {
        for framing in ["Content-Length: 1\r\n\r\na", "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"]
        {
            scene.gateway.upstream.forget();
            scene.attack(&format!("{method} /x HTTP/1.1\r\n{{H}}{framing}")).await;
            let seen = scene.gateway.upstream.requests();
            assert_eq!(seen.len(), 2, "{seen:?}");
            assert_eq!(seen[0].value("connection").as_deref(), closes.then_some("close"), "{method}");
            assert_eq!(seen[0].connection != seen[1].connection, closes, "{method} {framing}");
        }
        for none in ["\r\n", "Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"] {
            let is_empty_body = none.starts_with('T') && !closes;
            scene.gateway.upstream.forget();
            scene.attack(&format!("{method} /x HTTP/1.1\r\n{{H}}{none}")).await;
            let seen = scene.gateway.upstream.requests();
            assert_eq!(seen[0].value("connection"), None, "{method} {none:?}");
            assert_eq!(seen[0].connection, seen[1].connection, "{method} {none:?}");
            assert_eq!(seen[0].value("transfer-encoding").is_some(), is_empty_body, "{method} {none:?}");
        }
    }
}

/// Each of these leaves the connection in a state that two readers may see differently.
#[tokio::test]
async fn after_anything_unusual_a_connection_is_not_used_again() {
    let portal = Upstream::scripted(async |mut exchange: Exchange| {
        let target = exchange.target();
        if !target.starts_with("/odd/") {
            return ordinary(exchange).await;
        }
        let answer = match target.as_str() {
            // Before anything of the body has been read.
            "/odd/early" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "/odd/early-chunked" => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
            }
            "/odd/refused" => "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n",
            "/odd/upgrade" => "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nnothing",
            "/odd/close" => "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            "/odd/old" => "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "/odd/longer" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more",
            "/odd/head" => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
            "/odd/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nbody",
            "/odd/204" => "HTTP/1.1 204 No Content\r\n\r\nbody",
            "/odd/interim" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 100 Continue\r\n\r\n",
            "/odd/line" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n",
            "/odd/chunks" => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n0\r\n\r\n"
            }
            _ => {
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
            }
        };
        exchange.write(answer).await?;
        if target.starts_with("/odd/early") || target == "/odd/refused" {
            exchange.read_content().await.ok()?;
        }
        Some(exchange)
    });
    let scene = &mut scene(&portal).await;
    let upgrade = format!(
        "Origin: https://{HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    let late = "Content-Length: 2\r\n\r\n";
    for (method, target, rest) in [
        ("POST", "/odd/early", late),
        ("POST", "/odd/early-chunked", late),
        ("POST", "/odd/refused", "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"),
        ("GET", "/odd/upgrade", &upgrade),
        ("GET", "/odd/close", "\r\n"),
        ("GET", "/odd/old", "\r\n"),
        ("GET", "/odd/longer", "\r\n"),
        ("HEAD", "/odd/head", "\r\n"),
        ("GET", "/odd/304", "\r\n"),
        ("GET", "/odd/204", "\r\n"),
        ("GET", "/odd/interim", "\r\n"),
        ("GET", "/odd/line", "\r\n"),
        ("GET", "/odd/chunks", "\r\n"),
        ("GET", "/odd/two", "\r\n"),
    ] {
        scene.gateway.upstream.forget();
        let mut connection = scene.send(&format!("{method} {target} HTTP/1.1\r\n{{H}}{rest}")).await;
        let answer = connection.answer_to(&method.parse().unwrap()).await;
        assert!(answer.is_some(), "{target}");
        if method == "POST" {
            // The body comes when the answer is there, so that nothing of it had been sent.
            connection.send("hi").await;
        }
        drop(connection);
        scene.innocent.assert_unharmed(target).await;
        let seen = scene.gateway.upstream.requests();
        assert_ne!(seen[0].connection, seen[1].connection, "{target}");
    }
}

#[tokio::test]
async fn what_comes_unasked_is_told_and_ends_the_sharing_for_a_while() {
    let (say, heard) = tokio::sync::mpsc::unbounded_channel::<&'static str>();
    let heard = tokio::sync::Mutex::new(heard);
    let (has_said, mut said) = tokio::sync::mpsc::unbounded_channel();
    let portal = Upstream::scripted(async move |exchange: Exchange| {
        let target = exchange.target();
        let mut exchange = ordinary(exchange).await?;
        if target == "/talks" {
            let more = heard.lock().await.recv().await?;
            exchange.write(more).await?;
            has_said.send(()).ok()?;
        }
        Some(exchange)
    });
    let log = log::listen();
    let port = portal.address().port().to_string();
    let told = || {
        let text = log.text();
        text.lines().any(|line| line.contains("bytes that nobody asked for") && line.contains(&port))
    };
    for (more, is_told) in [
        ("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", true),
    ] {
        let (gateway, browser) = crate::support::logged_in(TestGateway::builder().upstream(&portal)).await;
        assert_eq!(browser.fetch("/talks").await.status, StatusCode::OK);
        say.send(more).unwrap();
        said.recv().await.unwrap();
        if is_told {
            // The gateway looks at what is idle once a second.
            soon(PATIENCE, "the operator is told", async || told()).await;
        }
        gateway.upstream.forget();
        for _ in 0..4 {
            let answer = browser.fetch("/next").await;
            assert_eq!(answer.text(), "the portal: GET /next\n");
        }
        let seen = gateway.upstream.requests();
        let mut connections: Vec<usize> = seen.iter().map(|request| request.connection).collect();
        connections.dedup();
        if is_told {
            assert_eq!(connections.len(), 4, "one each: {connections:?}");
        } else {
            assert!(!told(), "{}", log.text());
        }
    }
}

#[tokio::test]
async fn an_empty_body_of_http_2_is_none() {
    let scene = scene(&Upstream::start()).await;
    for (method, length) in [("GET", None), ("GET", Some("0")), ("HEAD", None), ("DELETE", None)] {
        scene.gateway.upstream.forget();
        let (sender, connection) = h2::client::handshake(scene.attacker.tls(&["h2"]).await).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{HOST}/x"))
            .header("cookie", scene.attacker.cookies());
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let mut sender = sender.ready().await.unwrap();
        let (answer, mut upload) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        upload.send_data(bytes::Bytes::new(), false).unwrap();
        upload.send_data(bytes::Bytes::new(), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), StatusCode::OK, "{method}");
        let seen = scene.gateway.upstream.only_request();
        assert_eq!(seen.value("transfer-encoding"), None, "{method}");
        assert_eq!(seen.value("connection"), None, "{method}");
        assert_eq!(seen.value("content-length").as_deref(), length, "{method}");
        connection.abort();
    }
}

/// A request whose body turned out to be empty can be sent again, as any other of its kind.
#[tokio::test]
async fn a_get_with_an_empty_body_stays_repeatable() {
    let portal = Upstream::scripted(async |exchange: Exchange| {
        // Whatever comes second on a connection is not answered.
        let seen = exchange.seen_on_connection();
        if seen > 1 && exchange.target() == "/again" { None } else { ordinary(exchange).await }
    });
    let (_gateway, browser) = crate::support::logged_in(TestGateway::builder().upstream(&portal)).await;
    browser.fetch("/first").await;
    let request = format!(
        "GET /again HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        browser.cookies()
    );
    assert_eq!(browser.raw(request).await.answer().await.status, StatusCode::OK);
    let request = Request::builder().method(Method::POST).uri("/again").body(empty()).unwrap();
    assert_eq!(
        browser.send(request).await.status,
        StatusCode::OK,
        "a new connection for what cannot be repeated"
    );
}
