//! What is between the client's bytes and the portal's: everything of the message gets across, everything of the one
//! connection stays behind.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

use crate::support::{
    Browser, Exchange, HOST, TestGateway, Upstream, body, empty, logged_in, upstream::ordinary,
};

/// The same session over HTTP/2.
fn http2(gateway: &TestGateway, browser: &Browser) -> Browser {
    let other = gateway.browser().http2();
    other.set_cookie("__Host-portcullis", &browser.session());
    other
}

/// A portal that answers everything but its start page with these bytes.
fn saying(answer: &'static str) -> Upstream {
    Upstream::scripted(async move |mut exchange: Exchange| {
        if exchange.target() == "/" {
            return ordinary(exchange).await;
        }
        exchange.read_content().await.ok()?;
        exchange.write(answer).await?;
        Some(exchange)
    })
}

#[tokio::test]
async fn the_portal_is_told_where_a_request_came_from() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    for browser in [&browser, &http2(&gateway, &browser)] {
        gateway.upstream.forget();
        let request = Request::get("/sims?q=1").header("via", "1.0 someone").header("accept-language", "de");
        assert_eq!(browser.send(request.body(empty()).unwrap()).await.status, StatusCode::OK);
        let request = gateway.upstream.only_request();
        let value = |name| request.value(name).unwrap_or_else(|| panic!("no {name}: {:?}", request.head));
        assert_eq!(request.first_line(), "GET /sims?q=1 HTTP/1.1");
        assert_eq!(value("host"), HOST);
        assert_eq!(value("x-forwarded-for"), "127.0.0.1");
        assert_eq!(value("x-forwarded-proto"), "https");
        assert_eq!(value("x-forwarded-host"), HOST);
        let forwarded = format!("for=127.0.0.1;host=\"{HOST}\";proto=https;by=_portcullis-");
        assert_eq!(value("forwarded").len(), forwarded.len() + 8);
        assert!(value("forwarded").starts_with(&forwarded));
        assert_eq!(value("accept-language"), "de");
        assert_eq!(value("x-request-id").len(), 16);
        // As the portal would get it without us: a `Via` of ours would have it compress nothing.
        assert_eq!(value("via"), "1.0 someone");
        assert_eq!(request.value("connection"), None);
        assert!(gateway.access_log().contains(&value("x-request-id")));
    }
}

#[tokio::test]
async fn behind_a_proxy_of_ours_the_client_is_who_it_says() {
    let builder = TestGateway::builder().set("server.trusted_proxies", "[\"127.0.0.1\"]");
    let (gateway, browser) = logged_in(builder).await;
    let request = Request::get("/it").header("x-forwarded-for", "203.0.113.1, 198.51.100.7");
    browser.send(request.body(empty()).unwrap()).await;
    let request = gateway.upstream.only_request();
    assert_eq!(request.value("x-forwarded-for").as_deref(), Some("198.51.100.7"));
    assert!(request.value("forwarded").unwrap().starts_with("for=198.51.100.7;"));
    assert!(gateway.access_log().contains("client.ip=198.51.100.7"));
}

#[tokio::test]
async fn what_is_about_one_connection_stays_behind() {
    let portal = saying(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nAlt-Svc: h3=\":8443\"\r\nStrict-Transport-Security: max-age=0\r\n\
         Server: nginx\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nok",
    );
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let request = format!(
        "GET /it HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nTE: gzip\r\n\
         HTTP2-Settings: x\r\nAuthorization: Bearer theirs\r\n\r\n",
        browser.cookies()
    );
    let answer = browser.raw(request).await.answer().await;
    for name in ["connection", "x-hop", "keep-alive", "proxy-authenticate", "upgrade", "alt-svc"] {
        assert!(!answer.headers.contains_key(name), "{name}: {answer:?}");
    }
    assert_eq!(answer.header("strict-transport-security"), "max-age=31536000");
    assert_eq!((answer.header("server"), answer.header("x-kept")), ("nginx".into(), "1".into()));
    assert_eq!(answer.header("via"), "1.1 portcullis");
    let request = gateway.upstream.only_request();
    for name in [
        "connection",
        "x-hop",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "http2-settings",
    ] {
        assert_eq!(request.value(name), None, "{name}");
    }
    assert_eq!(request.value("authorization").as_deref(), Some("Bearer theirs"), "the portal's own business");
}

#[tokio::test]
async fn uploads_arrive_whole_in_every_framing() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let content: Vec<u8> = (0..300_000_u32).map(|number| number.to_be_bytes()[3]).collect();
    for browser in [&browser, &http2(&gateway, &browser)] {
        for framed in [true, false] {
            gateway.upstream.forget();
            let whole = if framed {
                body(content.clone())
            } else {
                let pieces: Vec<_> = content
                    .chunks(7777)
                    .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))))
                    .collect();
                StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync()
            };
            let answer = browser.send(Request::post("/upload").body(whole).unwrap()).await;
            assert_eq!(answer.text(), "the portal: POST /upload\n");
            let request = gateway.upstream.only_request();
            assert!(request.content.body == content, "{} bytes arrived", request.content.body.len());
            let length = framed.then(|| content.len().to_string());
            assert_eq!(request.value("content-length"), length);
        }
    }
    // An empty body is a body with an end.
    for framing in ["Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"] {
        let request = format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n{framing}", browser.cookies());
        assert_eq!(browser.raw(request).await.answer().await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on_only_with_a_session() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let ask = "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let request = format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n{ask}", browser.cookies());
    let mut connection = browser.raw(request).await;
    assert_eq!(connection.answer_to(&Method::POST).await.unwrap().status, StatusCode::CONTINUE);
    connection.send("hello").await;
    assert_eq!(connection.answer().await.text(), "the portal: POST /upload\n");
    let request = gateway.upstream.only_request();
    assert_eq!((request.content.body.as_slice(), request.value("expect")), (b"hello".as_slice(), None));

    for path in ["/upload", "/.portcullis/none"] {
        let request = format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\n{ask}");
        let mut connection = browser.raw(request).await;
        let answer = connection.answer().await;
        assert!(matches!(answer.status.as_u16(), 401 | 404), "the final answer at once: {answer:?}");
        // The body was not asked for; whether one follows cannot be known.
        connection.rest().await;
    }
    assert_eq!(gateway.upstream.requests().len(), 1);
}

#[tokio::test]
async fn answers_without_a_body_keep_their_fields() {
    for (method, answer, status) in [
        (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-Kept: 1\r\n\r\n", 200),
        (Method::HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Kept: 1\r\n\r\n", 200),
        (Method::GET, "HTTP/1.1 204 No Content\r\nX-Kept: 1\r\n\r\n", 204),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nX-Kept: 1\r\n\r\n", 304),
        (Method::GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Kept: 1\r\n\r\n", 200),
    ] {
        let portal = saying(answer);
        let (gateway, browser) = TestGateway::builder().upstream(&portal).start().await;
        gateway.add_user("ada@example.com").await;
        browser.log_in("ada@example.com").await;
        for browser in [&browser, &http2(&gateway, &browser)] {
            // Twice on one connection: nothing may be left in it.
            for _ in 0..2 {
                let request = Request::builder().method(&method).uri("/it").body(empty()).unwrap();
                let got = browser.send(request).await;
                assert_eq!((got.status.as_u16(), got.body.len()), (status, 0), "{answer:?}");
                assert_eq!(got.header("x-kept"), "1");
                if answer.contains("1234") {
                    assert_eq!(got.header("content-length"), "1234");
                }
            }
        }
    }
}

#[tokio::test]
async fn early_hints_reach_the_client_ahead_of_the_answer() {
    let (release, held) = tokio::sync::mpsc::channel::<()>(1);
    let held = tokio::sync::Mutex::new(held);
    let portal = Upstream::scripted(async move |mut exchange: Exchange| {
        if exchange.target() != "/page" {
            return ordinary(exchange).await;
        }
        exchange.write("HTTP/1.1 100 Continue\r\n\r\n").await?;
        exchange
            .write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: X\r\nX: y\r\n\r\n")
            .await?;
        held.lock().await.recv().await;
        exchange.write("HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\n").await?;
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage").await?;
        Some(exchange)
    });
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let request = |version| {
        format!("GET /page HTTP/{version}\r\nHost: {HOST}\r\nCookie: {}\r\n\r\n", browser.cookies())
    };
    let mut connection = browser.raw(request("1.1")).await;
    let hint = connection.answer().await;
    assert_eq!((hint.status.as_u16(), hint.header("link").as_str()), (103, "</a.css>; rel=preload"));
    assert!(!hint.headers.contains_key("x"));
    release.send(()).await.unwrap();
    assert_eq!(connection.answer().await.header("link"), "</b.css>; rel=preload");
    assert_eq!(connection.answer().await.text(), "page");

    // HTTP/1.0 knows no interim answers.
    release.send(()).await.unwrap();
    assert_eq!(browser.raw(request("1.0")).await.answer().await.text(), "page");
    release.send(()).await.unwrap();
    assert_eq!(http2(&gateway, &browser).get("/page").await.text(), "page");
}

#[tokio::test]
async fn trailers_pass_both_ways_but_for_forbidden_ones() {
    let portal = saying(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
         Trailer: X-Checksum, Set-Cookie, Content-Length, Strict-Transport-Security, Alt-Svc\r\n\r\n\
         2\r\nok\r\n0\r\nX-Checksum: 5d41\r\nSet-Cookie: __Host-portcullis=planted\r\nContent-Length: 7\r\n\
         Strict-Transport-Security: max-age=0\r\nAlt-Svc: h3=\":8443\"\r\n\r\n",
    );
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let request = format!(
        "POST /it HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\nTE: trailers\r\nTrailer: X-Mine\r\n\
         Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Mine: 1\r\n\r\n",
        browser.cookies()
    );
    let answer = browser.raw(request).await.answer().await;
    assert_eq!(answer.text(), "ok");
    let mut expected = HeaderMap::new();
    expected.insert("x-checksum", HeaderValue::from_static("5d41"));
    assert_eq!(answer.trailers.as_ref(), Some(&expected));
    let request = gateway.upstream.only_request();
    assert_eq!(String::from_utf8_lossy(&request.content.trailers).to_lowercase(), "x-mine: 1\r\n");
    assert_eq!(request.value("te").as_deref(), Some("trailers"));

    let request = Request::get("/it").header("te", "trailers").body(empty()).unwrap();
    let answer = http2(&gateway, &browser).send(request).await;
    assert_eq!(answer.trailers.as_ref(), Some(&expected));
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_an_answer_that_it_can_read() {
    let portal =
        saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nol\r\n1\r\nd\r\n0\r\n\r\n");
    let (_gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let request = format!("GET /it HTTP/1.0\r\nHost: {HOST}\r\nCookie: {}\r\n\r\n", browser.cookies());
    let answer = browser.raw(request).await.answer().await;
    assert_eq!((answer.text().as_str(), answer.header("transfer-encoding").as_str()), ("old", ""));
}

#[tokio::test]
async fn what_the_portal_says_of_its_content_is_not_touched() {
    let portal = saying(
        "HTTP/1.1 206 Partial Content\r\nContent-Encoding: gzip\r\nContent-Range: bytes 0-3/10\r\nETag: W/\"x\"\r\n\
         Cache-Control: private, max-age=60\r\nContent-Security-Policy: default-src *\r\nX-Frame-Options: SAMEORIGIN\r\n\
         Location: http://elsewhere.example.com/x\r\nContent-Length: 4\r\n\r\n\x1f\x0b\x08\x00",
    );
    let (_gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let answer = browser.get("/it").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (206, b"\x1f\x0b\x08\x00".as_slice()));
    for (name, value) in [
        ("content-encoding", "gzip"),
        ("content-range", "bytes 0-3/10"),
        ("etag", "W/\"x\""),
        ("cache-control", "private, max-age=60"),
        ("content-security-policy", "default-src *"),
        ("x-frame-options", "SAMEORIGIN"),
        ("location", "http://elsewhere.example.com/x"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
}
