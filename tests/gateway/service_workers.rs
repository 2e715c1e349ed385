//! Scripts of the portal's that a browser would run between its pages and the gateway: kept away from our pages, and gone with
//! the session.

use http::{Method, Request, StatusCode};

use crate::support::{
    Answer, Browser, Exchange, TestGateway, Upstream, empty, logged_in, test_gateway::Builder,
    upstream::ordinary,
};

const SCRIPT: &str = "addEventListener('fetch', (event) => event.respondWith(new Response('mine')));";

/// A portal whose every script is that of a service worker. It says what `X-Say` asks for.
fn portal() -> Upstream {
    Upstream::scripted(async |mut exchange: Exchange| {
        if exchange.head.values("accept").iter().any(|kinds| kinds == "text/html") || exchange.target() == "/"
        {
            return ordinary(exchange).await;
        }
        exchange.read_content().await.ok()?;
        let said =
            exchange.head.values("x-say").pop().map(|field| format!("{field}\r\n")).unwrap_or_default();
        let status = exchange.head.values("x-status").pop().unwrap_or_else(|| "200 OK".to_owned());
        let length = if status.starts_with("304") { 0 } else { SCRIPT.len() };
        let script = SCRIPT.get(..length).unwrap_or_default();
        exchange
            .write(format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/javascript\r\nETag: \"1\"\r\nLast-Modified: yesterday\r\n\
                 {said}Content-Length: {length}\r\n\r\n{script}"
            ))
            .await?;
        Some(exchange)
    })
}

fn builder() -> Builder {
    TestGateway::builder().upstream(&portal())
}

/// Asks for a script as a browser does that registers, or updates, a worker.
async fn asked(browser: &Browser, path: &str, fields: &[(&str, &str)]) -> Answer {
    let mut request =
        Request::get(path).header("service-worker", "script").header("sec-fetch-mode", "same-origin");
    request = request.header("sec-fetch-dest", "serviceworker").header("accept", "*/*");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    browser.send(request.body(empty()).unwrap()).await
}

#[tokio::test]
async fn a_worker_that_could_answer_in_place_of_our_pages_is_refused() {
    let (gateway, browser) = logged_in(builder()).await;
    for browser in [browser.copy(), browser.copy().http2()] {
        for path in [
            "/sw.js",
            "/",
            "/sw.js?v=2",
            "/service-worker.js",
            "/%73w.js",
            "/app%2Fsw.js",
            "/.well-known/sw.js",
        ] {
            gateway.upstream.forget();
            let answer = asked(&browser, path, &[]).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
            answer.assert_secure();
            assert!(gateway.upstream.requests().is_empty(), "{path}");
        }
        // These are in charge of nothing of ours.
        for path in ["/app/sw.js", "/static/js/sw.js", "/.portcullis-app/sw.js", "/app;v=1/sw.js"] {
            let answer = asked(&browser, path, &[]).await;
            assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, SCRIPT), "{path}");
        }
        // The same script for a page.
        assert_eq!(browser.get("/sw.js").await.text(), SCRIPT);
    }
    assert!(gateway.access_log().contains("decision=deny"));
}

#[tokio::test]
async fn no_worker_gets_a_wider_scope_that_holds_our_pages() {
    let (gateway, browser) = logged_in(builder()).await;
    for allowed in ["/", "/.", "..", "/.portcullis/", "https://iot.example.com/"] {
        let said = format!("Service-Worker-Allowed: {allowed}");
        let answer = asked(&browser, "/app/sw.js", &[("x-say", &said)]).await;
        assert!(!answer.headers.contains_key("service-worker-allowed"), "{allowed}");
    }
    let answer = asked(&browser, "/static/js/sw.js", &[("x-say", "Service-Worker-Allowed: /app/")]).await;
    assert_eq!(answer.header("service-worker-allowed"), "/app/");
    // Of a script that the browser has kept, it would take the scope that was allowed back then.
    gateway.upstream.forget();
    asked(&browser, "/app/sw.js", &[("if-none-match", "\"1\""), ("if-modified-since", "yesterday")]).await;
    let request = gateway.upstream.only_request();
    assert_eq!((request.value("if-none-match"), request.value("if-modified-since")), (None, None));
}

#[tokio::test]
async fn a_worker_that_has_lost_its_session_takes_itself_away() {
    for policy in ["refuse", "allow"] {
        let (gateway, browser) = logged_in(builder().set("portal.service_worker", policy)).await;
        browser.remove_cookie("__Host-portcullis");
        for browser in [browser.copy(), browser.copy().http2()] {
            for path in ["/sw.js", "/app/sw.js"] {
                gateway.upstream.forget();
                let answer = asked(&browser, path, &[]).await;
                assert_eq!(answer.status, StatusCode::OK, "{path}");
                answer.assert_secure();
                assert!(answer.text().contains("registration.unregister()"), "{}", answer.text());
                assert_eq!(answer.header("content-type"), "text/javascript; charset=utf-8");
                // Or it could not take the place of one whose scope was widened.
                assert_eq!(answer.header("service-worker-allowed"), "/");
                assert!(gateway.upstream.requests().is_empty());
            }
            let post =
                Request::builder().method(Method::POST).uri("/sw.js").header("service-worker", "script");
            let answer = browser.send(post.body(empty()).unwrap()).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            let page =
                browser.send(Request::get("/sw.js").header("accept", "*/*").body(empty()).unwrap()).await;
            assert_eq!(page.status, StatusCode::UNAUTHORIZED);
        }
    }
}

#[tokio::test]
async fn a_store_that_is_silent_takes_no_worker_away() {
    let (gateway, browser) = logged_in(builder().redis()).await;
    let stranger = gateway.browser();
    stranger.set_cookie("__Host-portcullis", &"A".repeat(43));
    gateway.redis.as_ref().unwrap().kill().await;
    let answer = asked(&stranger, "/sw.js", &[]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
    drop(browser);
}

#[tokio::test]
async fn where_workers_are_allowed_they_do_not_get_to_see_our_pages() {
    let (gateway, browser) = logged_in(builder().set("portal.service_worker", "allow")).await;
    for browser in [browser.copy(), browser.copy().http2()] {
        gateway.upstream.forget();
        let fields = [
            ("x-say", "Service-Worker-Allowed: /"),
            ("accept-encoding", "gzip, br"),
            ("if-none-match", "\"1\""),
            ("range", "bytes=5-"),
        ];
        let answer = asked(&browser, "/app/sw.js", &fields).await;
        let text = answer.text();
        let guard = text.strip_suffix(SCRIPT).unwrap_or_else(|| panic!("{text}"));
        assert!(guard.contains("stopImmediatePropagation") && guard.contains("/.portcullis/"), "{guard}");
        assert_eq!(answer.header("content-length"), text.len().to_string());
        assert_eq!((answer.header("etag"), answer.header("last-modified")), (String::new(), String::new()));
        assert_eq!(answer.header("service-worker-allowed"), "/");
        let request = gateway.upstream.only_request();
        for name in ["accept-encoding", "if-none-match", "range"] {
            assert_eq!(request.value(name), None, "{name}");
        }
        // A module that a worker imports runs before it.
        let module = Request::get("/lib.js").header("sec-fetch-dest", "serviceworker");
        let module = browser.send(module.body(empty()).unwrap()).await;
        assert!(module.text().ends_with(SCRIPT) && module.text().len() > SCRIPT.len());
        assert_eq!(browser.get("/app/sw.js").await.text(), SCRIPT, "a page gets what the portal has");
        // What cannot be guarded does not go out.
        for (name, value) in [
            ("x-say", "Content-Encoding: gzip"),
            ("x-status", "206 Partial Content"),
            ("x-status", "304 Not Modified"),
        ] {
            let answer = asked(&browser, "/app/sw.js", &[(name, value)]).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{value}");
            assert!(!answer.text().contains(SCRIPT) && !answer.headers.contains_key("content-encoding"));
        }
        let missing = asked(&browser, "/sw.js", &[("x-status", "404 Not Found")]).await;
        assert_eq!((missing.status, missing.text().as_str()), (StatusCode::NOT_FOUND, SCRIPT));
    }
}
