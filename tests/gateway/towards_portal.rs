//! How requests and answers look on the side of the portal: as it would see them if nobody were in front of it.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    Browser, Exchange, HOST, PATIENCE, TestGateway, Upstream, body, certificate, empty, log, logged_in,
    origin::{Origin, readable_folder},
    soon,
    upstream::ordinary,
    wire::Wire,
};

fn http2(gateway: &TestGateway, browser: &Browser) -> Browser {
    let other = gateway.browser().http2();
    for cookie in browser.cookies().split("; ") {
        let (name, value) = cookie.split_once('=').unwrap();
        other.set_cookie(name, value);
    }
    other
}

/// The names in the only request there was, in their order.
fn names(portal: &Upstream) -> Vec<String> {
    portal.only_request().head.fields().into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn names_are_spelled_as_the_client_spelled_them_and_ours_as_usual() {
    let builder = TestGateway::builder().set("identity.headers.user", "x-Portal-LOGIN");
    let (gateway, browser) = logged_in(builder).await;
    let request = format!(
        "POST /x HTTP/1.1\r\nhOST: {HOST}\r\ncookie: {}\r\nsec-ch-ua: x\r\nX-cUstom: 1\r\nx-custom:\t2 \r\nX-eMpty:\r\n\
         SOAPAction: \"\"\r\ncontent-TYPE: text/plain\r\ncontent-length: 2\r\n\r\nhi",
        browser.cookies()
    );
    assert_eq!(browser.raw(request).await.answer().await.status, StatusCode::OK);
    let spelled = names(&gateway.upstream);
    for name in [
        "Host",
        "sec-ch-ua",
        "X-cUstom",
        "x-custom",
        "X-eMpty",
        "SOAPAction",
        "content-TYPE",
        "Content-Length",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "Forwarded",
        "X-Request-Id",
        "x-Portal-LOGIN",
        "Remote-Email",
        "Remote-Name",
        "Remote-Groups",
        "X-Portcullis-Jwt-Assertion",
    ] {
        assert!(spelled.iter().any(|seen| seen == name), "{name}: {spelled:?}");
    }
    assert!(!spelled.iter().any(|name| name.eq_ignore_ascii_case("via")), "{spelled:?}");
}

#[tokio::test]
async fn names_of_http_2_get_the_usual_spelling() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let browser = http2(&gateway, &browser);
    let streamed = StreamBody::new(futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(b"hi")))]));
    let request = Request::post("/x")
        .header("x-requested-with", "XMLHttpRequest")
        .header("sec-ch-ua", "x")
        .header("soapaction", "x")
        .header("content-type", "text/plain")
        .header("authorization", "Bearer x")
        .body(streamed.boxed_unsync())
        .unwrap();
    assert_eq!(browser.send(request).await.status, StatusCode::OK);
    let spelled = names(&gateway.upstream);
    for name in [
        "Host",
        "Cookie",
        "X-Requested-With",
        "Sec-CH-UA",
        "SOAPAction",
        "Content-Type",
        "Authorization",
        "Transfer-Encoding",
    ] {
        // Our own cookie alone does not go on.
        assert!(name == "Cookie" || spelled.iter().any(|seen| seen == name), "{name}: {spelled:?}");
    }
}

#[tokio::test]
async fn a_length_is_spelled_in_one_way() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let ask = async |length: &str, content: &str| {
        gateway.upstream.forget();
        let request = format!(
            "POST /x HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\nContent-Length: {length}\r\n\r\n{content}",
            browser.cookies()
        );
        let status = browser.raw(request).await.answer().await.status.as_u16();
        (status, gateway.upstream.requests().first().and_then(|seen| seen.value("content-length")))
    };
    let content = "x".repeat(250);
    for length in ["250", "0250", "000000000000000000000000250"] {
        assert_eq!(ask(length, &content).await, (200, Some("250".into())), "{length}");
    }
    assert_eq!(ask("00", "").await, (200, Some("0".into())));
    for length in ["9223372036854775808", "18446744073709551615", "0x10", "1e3", "2,2"] {
        assert_eq!(ask(length, "").await, (400, None), "{length}");
    }
    let second = http2(&gateway, &browser);
    gateway.upstream.forget();
    let request = Request::post("/x").header("content-length", "0002").body(body("hi")).unwrap();
    assert_eq!(second.send(request).await.status, StatusCode::OK);
    assert_eq!(gateway.upstream.only_request().value("content-length").as_deref(), Some("2"));
}

#[tokio::test]
async fn an_empty_path_is_the_root_and_raw_letters_pass_in_path_and_query() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    for (target, seen) in [
        (format!("https://{HOST}?x"), Some("/?x")),
        (format!("https://{HOST}?x=/y"), Some("/?x=/y")),
        (format!("https://{HOST}"), Some("/")),
        ("/caf\u{e9}?n=caf\u{e9}".to_owned(), Some("/caf\u{e9}?n=caf\u{e9}")),
        ("/?n=\u{65e5}\u{672c}".to_owned(), Some("/?n=\u{65e5}\u{672c}")),
        ("?x".to_owned(), None),
        ("/p#frag".to_owned(), None),
        ("/?a=\u{7f}".to_owned(), None),
    ] {
        gateway.upstream.forget();
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n\r\n", browser.cookies());
        let answer = browser.raw(request).await.answer().await;
        let expected = if seen.is_some() { 200 } else { 400 };
        assert_eq!(answer.status.as_u16(), expected, "{target}");
        let requests = gateway.upstream.requests();
        let line = requests.first().map(crate::support::upstream::Recorded::first_line);
        assert_eq!(line, seen.map(|seen| format!("GET {seen} HTTP/1.1")), "{target}");
    }
    // No text at all: neither in the one nor in the other.
    for target in [&b"/caf\xe9"[..], b"/?n=caf\xe9"] {
        gateway.upstream.forget();
        let mut request = b"GET ".to_vec();
        request.extend(target);
        request.extend(format!(" HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n\r\n", browser.cookies()).bytes());
        assert_eq!(browser.raw(request).await.answer().await.status, StatusCode::BAD_REQUEST);
        assert_eq!(gateway.upstream.bytes(), 0);
    }
}

#[tokio::test]
async fn nginx_compresses_as_it_does_without_us() {
    let root = readable_folder();
    std::fs::write(root.path().join("page.txt"), "a line like all others\n".repeat(2000)).unwrap();
    let origin = Origin::start("nginx", root.path()).await;
    let direct = {
        let mut wire = Wire::new(tokio::net::TcpStream::connect(origin.address).await.unwrap());
        wire.write(b"GET /page.txt HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n").await.unwrap();
        let head = wire.read_head().await.unwrap().unwrap();
        assert_eq!(head.values("content-encoding"), ["gzip"]);
        wire.read_content(&head, false).await.unwrap().body
    };
    let builder = TestGateway::builder().upstream_url(&format!("http://{}", origin.address));
    let (gateway, browser) = logged_in(builder).await;
    for browser in [&browser, &http2(&gateway, &browser)] {
        let request = Request::get("/page.txt").header("accept-encoding", "gzip").body(empty()).unwrap();
        let answer = browser.send(request).await;
        assert_eq!(answer.header("content-encoding"), "gzip");
        assert_eq!(answer.body, direct);
        assert!(answer.body.len() < 1000);
    }
}

#[tokio::test]
async fn an_answer_may_have_many_fields_and_beyond_the_limit_the_log_names_them() {
    let portal = Upstream::scripted(async |mut exchange: Exchange| {
        let cookies = |count: usize| -> String {
            (0..count)
                .map(|number| ["Set-Cookie: c", &number.to_string(), "=1; Path=/\r\n"].concat())
                .collect()
        };
        let fields = match exchange.target().as_str() {
            "/some" => cookies(120),
            "/many" => cookies(900),
            "/large" => format!("X-Large: {}\r\n", "x".repeat(100_000)),
            "/too-many" => format!("{}X-Beyond: 1\r\n", cookies(999)),
            "/too-large" => format!("X-Too-Large: {}\r\n", "x".repeat(140_000)),
            _ => return ordinary(exchange).await,
        };
        exchange.write(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n")).await?;
        Some(exchange)
    });
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let log = log::listen();
    for path in ["/many", "/large"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n\r\n", browser.cookies());
        let mut raw = browser.raw(request).await;
        let head = raw.head().await.unwrap();
        assert!(head.first_line().contains("200"), "{path}");
        assert_eq!(head.values("set-cookie").len(), if path == "/many" { 900 } else { 0 });
    }
    assert_eq!(http2(&gateway, &browser).fetch("/some").await.status, StatusCode::OK);
    for (path, told) in [
        ("/too-many", "more than 1000 fields: `Content-Length`"),
        ("/too-large", "longer than 131072 bytes: `X-Too-Large`"),
    ] {
        let request = Request::get(path).body(empty()).unwrap();
        assert_eq!(browser.send(request).await.status, StatusCode::BAD_GATEWAY, "{path}");
        assert!(log.text().contains(told), "{path}: {}", log.text());
    }
}

#[tokio::test]
async fn a_length_that_says_nothing_does_not_reach_the_client() {
    let portal = Upstream::scripted(async |mut exchange: Exchange| {
        let answer = match exchange.target().as_str() {
            "/204" => "HTTP/1.1 204 No Content\r\nContent-Length: 10\r\n\r\n",
            "/103" => {
                "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\
                 Content-Length: 2\r\n\r\nok"
            }
            "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
            _ => return ordinary(exchange).await,
        };
        exchange.write(answer).await?;
        Some(exchange)
    });
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    for browser in [&browser, &http2(&gateway, &browser)] {
        for method in [Method::GET, Method::HEAD] {
            for (path, status) in [("/204", 204), ("/304", 304), ("/103", 200)] {
                if path == "/103" && method == Method::HEAD {
                    continue;
                }
                let request = Request::builder().method(&method).uri(path).body(empty()).unwrap();
                let answer = browser.send(request).await;
                assert_eq!(answer.status.as_u16(), status, "{method} {path}");
                assert!(status != 204 || !answer.headers.contains_key("content-length"), "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_cut_and_told() {
    let (certificate, key) = certificate("localhost");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &certificate).unwrap();
    let tls = crate::support::upstream::acceptor(&certificate, &key);
    tokio::spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        while let Ok((socket, _)) = listener.accept().await {
            let mut stream = tls.accept(socket).await.unwrap();
            let mut request = [0; 8192];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let asks_for = |path: &str| String::from_utf8_lossy(&request[..read]).contains(path);
            let head = if asks_for("/length") { "Content-Length: 100\r\n" } else { "" };
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\nhalf").as_bytes()).await;
            let _ = stream.flush().await;
            if !asks_for("/length") && !asks_for("/open") {
                let _ = stream.shutdown().await;
            }
            // Otherwise the socket is closed under TLS, which is not told.
        }
    });
    let builder = TestGateway::builder()
        .upstream_url(&format!("https://localhost:{port}"))
        .set("portal.ca", &ca.display().to_string());
    let (gateway, browser) = builder.start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    let log = log::listen();
    let ask = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n\r\n", browser.cookies());
        String::from_utf8(browser.raw(request).await.rest().await).unwrap()
    };
    let proper = tokio::time::timeout(PATIENCE, async {
        let mut raw = browser
            .raw(format!("GET /proper HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n\r\n", browser.cookies()))
            .await;
        raw.answer().await
    });
    assert_eq!(proper.await.unwrap().text(), "half");
    assert!(!log.text().contains("without the close_notify"), "{}", log.text());
    for (path, why) in [("/length", "close_notify"), ("/open", "without the close_notify of TLS")] {
        let answer = ask(path).await;
        assert!(answer.contains("half") && !answer.ends_with("0\r\n\r\n"), "{path}: {answer}");
        soon(PATIENCE, why, async || {
            let text = log.text();
            text.lines().any(|line| line.contains("answer broke off") && line.contains(why))
        })
        .await;
    }
}
