//! What a portal can do wrong: the client is told the truth, no request is sent twice that must not be, and a cut answer
//! is never made to look whole.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use crate::support::{
    Answer, Browser, Exchange, HOST, PATIENCE, TestGateway, Upstream, body, empty, test_gateway::Builder,
    upstream::ordinary, within,
};

async fn logged_in_without_portal(builder: Builder) -> (TestGateway, Browser, Browser) {
    let (gateway, browser) = builder.start().await;
    gateway.add_user("ada@example.com").await;
    let login = gateway.browser();
    // The portal may be down: the page that the login ends at is not part of it.
    let answer = login.submit_password("ada@example.com", crate::support::PASSWORD).await;
    login.enrol("ada@example.com", &answer.location()).await;
    browser.set_cookie("__Host-portcullis", &login.session());
    let second = gateway.browser().http2();
    second.set_cookie("__Host-portcullis", &login.session());
    gateway.upstream.forget();
    (gateway, browser, second)
}

/// An address at which nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn assert_problem(answer: &Answer, status: u16) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    answer.assert_secure();
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.json()["status"], status);
}

#[tokio::test]
async fn a_portal_that_is_down_is_a_page_for_people_and_a_problem_for_scripts() {
    let (gateway, browser, second) =
        logged_in_without_portal(TestGateway::builder().upstream_url(&nobody())).await;
    for browser in [&browser, &second] {
        let begun = Instant::now();
        let page = browser.get("/").await;
        assert_eq!(
            (page.status, page.header("content-type").as_str()),
            (StatusCode::BAD_GATEWAY, "text/html; charset=utf-8")
        );
        page.assert_secure();
        assert!(page.text().contains("mailto:support@example.com"), "{}", page.text());
        assert_problem(&browser.fetch("/").await, 502);
        assert!(begun.elapsed() < Duration::from_secs(1));
        // Nothing of the inside gets out.
        assert!(!page.text().contains("127.0.0.1"));
        assert!(!page.headers.contains_key("set-cookie"), "the session is not to blame");
    }
    assert!(gateway.admin("/metrics").await.contains("connect"));
}

#[tokio::test]
async fn one_server_of_two_that_is_down_costs_nobody_anything() {
    let portal = Upstream::start();
    let builder = TestGateway::builder().upstream_url(&nobody()).upstream(&portal);
    let (_gateway, browser, _) = logged_in_without_portal(builder).await;
    for number in 0..20 {
        let request = Request::post(format!("/{number}")).body(body("x")).unwrap();
        assert_eq!(browser.send(request).await.status, StatusCode::OK);
    }
    assert_eq!(portal.requests().len(), 20);
}

#[tokio::test]
async fn two_servers_share_the_work() {
    let (one, two) = (Upstream::start(), Upstream::start());
    let (_gateway, browser, _) =
        logged_in_without_portal(TestGateway::builder().upstream(&one).upstream(&two)).await;
    for _ in 0..20 {
        assert_eq!(browser.fetch("/").await.status, StatusCode::OK);
    }
    assert_eq!((one.requests().len(), two.requests().len()), (10, 10));
}

#[tokio::test]
async fn a_portal_that_does_not_answer_in_time_is_a_504_and_is_asked_once() {
    let portal = Upstream::scripted(async |mut exchange: Exchange| {
        if exchange.target() == "/" {
            return ordinary(exchange).await;
        }
        exchange.read_content().await.ok()?;
        // Until the gateway hangs up.
        let _ = exchange.wire.fill().await;
        None
    });
    let builder = TestGateway::builder().upstream(&portal).set("portal.response_timeout", "300ms");
    let (gateway, browser, second) = logged_in_without_portal(builder).await;
    // Pooled connections must not make it two.
    browser.fetch("/").await;
    for browser in [&browser, &second] {
        for method in [Method::GET, Method::POST] {
            gateway.upstream.forget();
            let begun = Instant::now();
            let request = Request::builder().method(&method).uri("/slow");
            let sent = if method == Method::GET { empty() } else { body("x") };
            assert_problem(&browser.send(request.body(sent).unwrap()).await, 504);
            assert!(
                begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(3)
            );
            assert_eq!(gateway.upstream.requests().len(), 1, "{method}");
        }
    }
}

#[tokio::test]
async fn an_upload_may_take_longer_than_the_portal_may_take_to_answer() {
    let builder = TestGateway::builder().set("portal.response_timeout", "400ms");
    let (gateway, browser, second) = logged_in_without_portal(builder).await;
    for browser in [&browser, &second] {
        gateway.upstream.forget();
        let begun = Instant::now();
        let ticks = stream::unfold(
            (tokio::time::interval(Duration::from_millis(100)), 0),
            async |(mut ticks, sent)| {
                ticks.tick().await;
                (sent < 10).then(|| (Ok(Frame::data(Bytes::from_static(b"slow "))), (ticks, sent + 1)))
            },
        );
        let request = Request::post("/upload").body(StreamBody::new(ticks).boxed_unsync()).unwrap();
        assert_eq!(browser.send(request).await.status, StatusCode::OK);
        assert!(begun.elapsed() > Duration::from_millis(800));
        assert_eq!(gateway.upstream.only_request().content.body, b"slow ".repeat(10));
    }
}

/// Each answers with the beginning of something and hangs up.
#[tokio::test]
async fn a_cut_answer_never_looks_whole() {
    let portal = Upstream::scripted(async |mut exchange: Exchange| {
        let answer = match exchange.target().as_str() {
            "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
            "/chunks" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
            "/within-chunk" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\npart",
            "/no-trailer" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\n",
            "/bad-chunk" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n",
            _ => return ordinary(exchange).await,
        };
        exchange.write(answer).await?;
        None
    });
    let (gateway, browser, second) = logged_in_without_portal(TestGateway::builder().upstream(&portal)).await;
    for path in ["/length", "/chunks", "/within-chunk", "/no-trailer", "/bad-chunk"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n\r\n", browser.cookies());
        let mut connection = browser.raw(request).await;
        let head = connection.head().await.unwrap();
        let content = within(PATIENCE, connection.wire.read_content(&head, false)).await;
        assert!(content.is_err(), "{path}: {content:?}");
        connection.rest().await;

        let answer = second.open(Request::get(path).body(empty()).unwrap()).await;
        let body = within(PATIENCE, answer.into_body().collect()).await;
        let error = body.expect_err(path);
        let reset = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<h2::Error>());
        assert!(reset.is_some_and(h2::Error::is_reset), "{path}: {error:?}");
        // The streams beside it go on.
        assert_eq!(second.fetch("/").await.status, StatusCode::OK);
    }
    assert!(gateway.upstream.requests().len() >= 15);
}

/// The head itself is missing or incomplete: that is a 502, at once.
#[tokio::test]
async fn an_answer_without_a_head_is_a_502() {
    let portal = Upstream::scripted(async |mut exchange: Exchange| {
        exchange.write(if exchange.target() == "/half" { "HTTP/1.1 200 OK\r\nX: y" } else { "" }).await?;
        None
    });
    let (gateway, browser, _) = logged_in_without_portal(TestGateway::builder().upstream(&portal)).await;
    for (path, method) in [("/half", Method::GET), ("/none", Method::GET), ("/none", Method::POST)] {
        gateway.upstream.forget();
        let request = Request::builder().method(method).uri(path).body(empty()).unwrap();
        assert_problem(&browser.send(request).await, 502);
        assert_eq!(gateway.upstream.requests().len(), 1);
    }
}

/// Closes each connection at its second request, as a server does whose patience with an idle connection just ended.
fn closes_at_the_second_request() -> Upstream {
    let seen = std::cell::RefCell::new(std::collections::HashSet::new());
    Upstream::scripted(async move |exchange: Exchange| {
        let is_first = seen.borrow_mut().insert(exchange.connection());
        if is_first { ordinary(exchange).await } else { None }
    })
}

#[tokio::test]
async fn a_pooled_connection_that_just_died_costs_a_read_nothing() {
    let portal = closes_at_the_second_request();
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        // After the first loss a gateway trusts no connection for a while.
        let (gateway, browser, _) = logged_in_without_portal(TestGateway::builder().upstream(&portal)).await;
        gateway.upstream.forget();
        assert_eq!(browser.fetch("/first").await.status, StatusCode::OK);
        let request = Request::builder().method(&method).uri("/second").body(empty()).unwrap();
        assert_eq!(browser.send(request).await.status, StatusCode::OK, "{method}");
        let seen = gateway.upstream.requests();
        assert!(seen.len() >= 3, "the second was asked again: {seen:?}");
    }
}

#[tokio::test]
async fn what_could_have_an_effect_is_never_sent_twice() {
    let portal = closes_at_the_second_request();
    for (method, with_body) in [
        (Method::POST, true),
        (Method::POST, false),
        (Method::PUT, true),
        (Method::DELETE, false),
        (Method::PATCH, true),
        (Method::GET, true),
    ] {
        // After the first loss a gateway trusts no connection for a while.
        let (gateway, browser, _) = logged_in_without_portal(TestGateway::builder().upstream(&portal)).await;
        // Whatever is in the pool has been used once.
        browser.fetch("/first").await;
        browser.fetch("/first").await;
        let target = format!("/{method}-{with_body}");
        let request = Request::builder().method(&method).uri(&target);
        let answer = browser.send(request.body(if with_body { body("x") } else { empty() }).unwrap()).await;
        let count =
            gateway.upstream.requests().iter().filter(|seen| seen.first_line().contains(&target)).count();
        assert_eq!(count, 1, "{method} {target}: {answer:?}");
        assert!(matches!(answer.status.as_u16(), 200 | 502));
    }
}

#[tokio::test]
async fn a_connection_that_the_portal_closed_while_idle_is_not_used() {
    let (closed, mut is_closed) = mpsc::unbounded_channel();
    let portal = Upstream::scripted(async move |exchange: Exchange| {
        drop(ordinary(exchange).await);
        closed.send(()).unwrap();
        None
    });
    let (gateway, browser, _) = logged_in_without_portal(TestGateway::builder().upstream(&portal)).await;
    for number in 0..20 {
        gateway.upstream.forget();
        if number > 0 {
            within(PATIENCE, is_closed.recv()).await.unwrap();
        }
        // A round trip behind the end: the gateway has heard of it.
        browser.fetch("/.portcullis/whoami").await;
        let request = Request::post(format!("/{number}")).body(body("x")).unwrap();
        assert_eq!(browser.send(request).await.status, StatusCode::OK, "{number}");
        gateway.upstream.only_request();
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_upload_has_ended_is_passed_on_at_once() {
    let (release, held) = mpsc::channel::<()>(1);
    let held = tokio::sync::Mutex::new(held);
    let portal = Upstream::scripted(async move |mut exchange: Exchange| {
        exchange.write("HTTP/1.1 409 Conflict\r\nContent-Length: 5\r\n\r\nearly").await?;
        held.lock().await.recv().await;
        exchange.read_content().await.ok()?;
        Some(exchange)
    });
    let (gateway, browser, second) = logged_in_without_portal(TestGateway::builder().upstream(&portal)).await;
    for browser in [&browser, &second] {
        gateway.upstream.forget();
        let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"half")))]);
        let never_ends = StreamBody::new(stream::StreamExt::chain(first, stream::pending())).boxed_unsync();
        let answer = browser.send(Request::post("/upload").body(never_ends).unwrap()).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::CONFLICT, "early"));
        release.send(()).await.unwrap();
    }
}

#[tokio::test]
async fn a_portal_over_tls_is_believed_only_with_its_name_and_authority() {
    let portal = Upstream::encrypted("localhost");
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, portal.certificate().unwrap()).unwrap();
    let other = folder.path().join("other.pem");
    std::fs::write(&other, crate::support::certificate("localhost").0).unwrap();
    let url = |host: &str| format!("https://{host}:{}", portal.address().port());
    for (host, authority, status) in
        [("localhost", &authority, 200), ("127.0.0.1", &authority, 502), ("localhost", &other, 502)]
    {
        let builder =
            TestGateway::builder().upstream_url(&url(host)).set("portal.ca", authority.to_str().unwrap());
        let (_gateway, browser, _) = logged_in_without_portal(builder).await;
        portal.forget();
        let answer = browser.fetch("/").await;
        assert_eq!(answer.status.as_u16(), status, "{host}: {}", answer.text());
        assert_eq!(portal.requests().len(), usize::from(status == 200));
    }
    // Without an authority of its own, the system's do not vouch for it.
    let (_gateway, browser, _) =
        logged_in_without_portal(TestGateway::builder().upstream_url(&url("localhost"))).await;
    assert_problem(&browser.fetch("/").await, 502);
}
