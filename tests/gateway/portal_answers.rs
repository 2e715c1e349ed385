//! What the portal's answers may say to a browser: of caches, of plain HTTP, of its own inside, of what is to be forgotten.

use http::{Request, StatusCode};

use crate::support::{
    Answer, Browser, Exchange, HOST, TestGateway, Upstream, empty, logged_in, soon, test_gateway::Builder,
    upstream::ordinary, within,
};

/// A portal that answers everything but its start page with the fields that the test asks for by `X-Say`, one after the other
/// between bars. `UP` is its own address.
fn parrot() -> Upstream {
    Upstream::scripted(async |mut exchange: Exchange| {
        let Some(said) = exchange.head.values("x-say").pop() else { return ordinary(exchange).await };
        let status = exchange.head.values("x-status").pop().unwrap_or_else(|| "200 OK".to_owned());
        exchange.read_content().await.ok()?;
        let fields = said.split('|').filter(|field| !field.is_empty()).map(|field| format!("{field}\r\n"));
        let fields: String = fields.collect();
        exchange.write(format!("HTTP/1.1 {status}\r\n{fields}Content-Length: 0\r\n\r\n")).await?;
        Some(exchange)
    })
}

fn builder() -> Builder {
    TestGateway::builder().upstream(&parrot())
}

/// What a browser gets when the portal says this at `path`.
async fn told(browser: &Browser, path: &str, said: &str) -> Answer {
    told_with(browser, path, "200 OK", said).await
}

async fn told_with(browser: &Browser, path: &str, status: &str, said: &str) -> Answer {
    let request = Request::get(path).header("x-say", said).header("x-status", status);
    browser.send(request.body(empty()).unwrap()).await
}

fn values(answer: &Answer, name: &str) -> Vec<String> {
    answer.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

/// The same browser over both protocols.
fn both(browser: &Browser) -> [Browser; 2] {
    [browser.copy(), browser.copy().http2()]
}

#[tokio::test]
async fn what_is_for_one_user_is_for_no_shared_cache() {
    let (_gateway, browser) = logged_in(builder()).await;
    for browser in both(&browser) {
        for (said, word) in [
            ("Content-Type: text/html", "private, no-cache"),
            (
                "Content-Type: text/html; charset=utf-8|ETag: \"1\"|Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT",
                "private, no-cache",
            ),
            ("Content-Type: application/json", "private, no-cache"),
            ("Content-Type: application/vnd.api+json", "private, no-cache"),
            ("Content-Type: text/css", "private"),
            ("", "private"),
            ("Content-Type: text/html|Expires: Thu, 01 Jan 2099 00:00:00 GMT", "private"),
            ("Content-Type: text/css|Pragma: no-cache", "private, no-cache"),
            ("Content-Type: text/html|Cache-Control: public, max-age=600", "private, max-age=600"),
            ("Cache-Control: max-age=31536000, immutable", "private, max-age=31536000, immutable"),
            (
                "Cache-Control: max-age=0, s-maxage=600, stale-while-revalidate=60",
                "private, max-age=0, stale-while-revalidate=60",
            ),
            ("cache-control: PUBLIC|CACHE-CONTROL: Max-Age=1", "private, Max-Age=1"),
            ("Cache-Control: no-store", "no-store"),
            ("Cache-Control: private, max-age=5", "private, max-age=5"),
        ] {
            let answer = told(&browser, "/page", said).await;
            assert_eq!(values(&answer, "cache-control"), [word], "{said}");
        }
        let said = "Cache-Control: private|CDN-Cache-Control: max-age=60|Cloudflare-CDN-Cache-Control: public|\
                    Surrogate-Control: max-age=60|X-Accel-Expires: 60|Vary: Cookie";
        let answer = told(&browser, "/page", said).await;
        for name in
            ["cdn-cache-control", "cloudflare-cdn-cache-control", "surrogate-control", "x-accel-expires"]
        {
            assert!(!answer.headers.contains_key(name), "{name}");
        }
        assert_eq!(answer.header("vary"), "Cookie");
        // A copy that is still good keeps what was said of it.
        let answer = told_with(&browser, "/page", "304 Not Modified", "ETag: \"1\"").await;
        assert!(!answer.headers.contains_key("cache-control"));
        let answer = told_with(&browser, "/page", "304 Not Modified", "Cache-Control: public").await;
        assert_eq!(answer.header("cache-control"), "private");
        let answer =
            told_with(&browser, "/page", "301 Moved", "Location: /next|Content-Type: text/html").await;
        assert_eq!(answer.header("cache-control"), "private, no-cache");
    }
}

#[tokio::test]
async fn paths_that_are_the_same_for_all_may_be_kept_as_the_portal_says() {
    let (_gateway, browser) =
        logged_in(builder().set("portal.cacheable_paths", "/static/*, /logo.svg")).await;
    let said = "Cache-Control: public, max-age=600|CDN-Cache-Control: max-age=60";
    for path in ["/static/app.js", "/logo.svg?v=2"] {
        let answer = told(&browser, path, said).await;
        assert_eq!(answer.header("cache-control"), "public, max-age=600");
        assert_eq!(answer.header("cdn-cache-control"), "max-age=60");
        assert!(!told(&browser, path, "Content-Type: text/html").await.headers.contains_key("cache-control"));
    }
    for path in ["/static", "/staticx/a", "/Static/app.js", "/a/static/app.js", "/logo.svg/x"] {
        let answer = told(&browser, path, said).await;
        assert_eq!(answer.header("cache-control"), "private, max-age=600", "{path}");
    }
}

#[tokio::test]
async fn the_portal_cannot_have_our_cookies_dropped_and_its_own_go() {
    let (_gateway, browser) = logged_in(builder()).await;
    for browser in both(&browser) {
        browser.set_cookie("sid", "x");
        for (said, left) in [
            ("Clear-Site-Data: \"cookies\"", ""),
            ("Clear-Site-Data: \"cache\", \"cookies\", \"storage\"", "\"cache\", \"storage\""),
            ("Clear-Site-Data: \"storage\"|Clear-Site-Data: \"cookies\"", "\"storage\""),
        ] {
            let answer = told(&browser, "/auth/out", said).await;
            assert_eq!(answer.header("clear-site-data"), left, "{said}");
            let cookies = values(&answer, "set-cookie");
            for cookie in [
                "sid=; Max-Age=0; Path=/; Secure".to_owned(),
                format!("sid=; Max-Age=0; Path=/; Domain={HOST}; Secure"),
                "sid=; Max-Age=0; Path=/auth/; Secure".to_owned(),
                "sid=; Max-Age=0; Path=/auth; Secure".to_owned(),
            ] {
                assert!(cookies.contains(&cookie), "{cookie}: {cookies:?}");
            }
            assert!(!cookies.iter().any(|cookie| cookie.contains("portcullis")), "{cookies:?}");
            browser.set_cookie("sid", "x");
        }
        for said in ["Clear-Site-Data: \"*\"", "clear-site-data: *", "Clear-Site-Data: \"cache\", \"*\""] {
            let answer = told(&browser, "/auth/out", said).await;
            let left = answer.header("clear-site-data");
            assert!(
                left.contains("\"storage\"") && !left.contains('*') && !left.contains("cookies"),
                "{left}"
            );
            browser.set_cookie("sid", "x");
        }
        let answer = told(&browser, "/auth/out", "Clear-Site-Data: \"cache\", \"storage\"").await;
        assert_eq!(answer.header("clear-site-data"), "\"cache\", \"storage\"");
        assert_eq!(values(&answer, "set-cookie").len(), 0);
        assert!(browser.whoami().await.is_some());
    }
}

#[tokio::test]
async fn where_the_session_ends_too_everything_may_go() {
    let (gateway, browser) = logged_in(builder().set("portal.logout_paths", "/auth/out")).await;
    let answer = told_with(&browser, "/auth/out", "403 Forbidden", "Clear-Site-Data: \"cookies\"").await;
    assert!(!answer.headers.contains_key("clear-site-data"), "nobody has logged out");
    let kept = gateway.browser();
    kept.set_cookie("__Host-portcullis", &browser.session());
    let answer = told(&browser, "/auth/out", "Clear-Site-Data: \"*\"").await;
    assert_eq!(values(&answer, "clear-site-data"), ["\"*\"", "\"cache\""]);
    soon(crate::support::PATIENCE, "the session has ended", async || kept.whoami().await.is_none()).await;
}

#[tokio::test]
async fn what_is_forgotten_at_a_sign_out_is_the_operators_choice() {
    for (setting, at_the_portals, at_ours) in [
        (None, "\"cache\"", "\"cache\""),
        (Some("[]"), "", ""),
        (Some("[\"storage\", \"cache\"]"), "\"cache\", \"storage\"", "\"cache\", \"storage\""),
    ] {
        let builder = builder().set("portal.logout_paths", "/auth/out");
        let builder = match setting {
            Some(setting) => builder.set("sessions.clear_on_sign_out", setting),
            None => builder,
        };
        let (_gateway, browser) = logged_in(builder).await;
        let page = browser.get("/.portcullis/account").await;
        let other = browser.copy();
        let answer = other.post_form("/.portcullis/logout", &[("csrf", &page.field("csrf"))]).await;
        assert_eq!(
            (answer.status, answer.header("clear-site-data")),
            (StatusCode::SEE_OTHER, at_ours.into())
        );
        browser.log_in("ada@example.com").await;
        let answer = told(&browser, "/auth/out", "X-A: 1").await;
        assert_eq!(answer.header("clear-site-data"), at_the_portals);
    }
}

#[tokio::test]
async fn what_names_the_portals_inside_leads_to_the_gateway() {
    let portal = parrot();
    let port = portal.address().port();
    let (_gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let public = format!("https://{HOST}");
    for browser in both(&browser) {
        for (said, becomes) in [
            (format!("Location: http://127.0.0.1:{port}/next?a=b#c"), format!("{public}/next?a=b#c")),
            (format!("Location: https://127.0.0.1:{port}/next"), format!("{public}/next")),
            (format!("Location: http://localhost:{port}/next"), format!("{public}/next")),
            (format!("Location: //127.0.0.1:{port}/next"), format!("{public}/next")),
            (format!("Location: http://{HOST}:8080/dir/"), format!("{public}/dir/")),
            (format!("Location: http://{HOST}/dir/"), format!("{public}/dir/")),
            (format!("Location: HTTPS://{}:8443/dir/", HOST.to_uppercase()), format!("{public}/dir/")),
            (format!("Content-Location: http://127.0.0.1:{port}/a"), format!("{public}/a")),
            (format!("Refresh: 0; url=http://127.0.0.1:{port}/a"), format!("0; url={public}/a")),
            (
                format!("Link: <http://127.0.0.1:{port}/api?page=2>; rel=\"next\""),
                format!("<{public}/api?page=2>; rel=\"next\""),
            ),
            (format!("HX-Redirect: http://127.0.0.1:{port}/a"), format!("{public}/a")),
            (format!("Turbolinks-Location: http://127.0.0.1:{port}/a"), format!("{public}/a")),
        ] {
            let answer = told_with(&browser, "/it", "302 Found", &said).await;
            let name = said.split(':').next().unwrap().to_ascii_lowercase();
            assert_eq!(answer.header(&name), becomes, "{said}");
        }
        for stays in [
            "/next".to_owned(),
            "next?to=http://127.0.0.1/".to_owned(),
            format!("{public}/next"),
            "https://login.example.com/authorize".to_owned(),
            "https://sub.iot.example.com:8443/".to_owned(),
            format!("http://127.0.0.1:{}/", port ^ 1),
            format!("http://127.0.0.1:{port}@evil.example/"),
            format!("http://127.0.0.1:{port}.evil.example/"),
            format!("https://evil.example/?http://127.0.0.1:{port}/"),
        ] {
            let answer = told_with(&browser, "/it", "302 Found", &format!("Location: {stays}")).await;
            assert_eq!(answer.location(), stays);
        }
        let said = "Set-Cookie: a=1; Domain=localhost; Path=/|Set-Cookie: b=2; Domain=127.0.0.1|\
                    Set-Cookie: c=3; Domain=example.com; HttpOnly|Set-Cookie: d=4; Domain=elsewhere.example|\
                    Set-Cookie: e=5";
        assert_eq!(
            values(&told(&browser, "/it", said).await, "set-cookie"),
            [
                "a=1; Path=/",
                "b=2",
                "c=3; Domain=example.com; HttpOnly",
                "d=4; Domain=elsewhere.example",
                "e=5"
            ]
        );
    }
}

#[tokio::test]
async fn an_operator_can_have_addresses_left_alone() {
    let portal = parrot();
    let port = portal.address().port();
    let builder = TestGateway::builder().upstream(&portal).set("portal.rewrite_redirects", "false");
    let (_gateway, browser) = logged_in(builder).await;
    let said = format!("Location: http://127.0.0.1:{port}/next|Set-Cookie: a=1; Domain=localhost");
    let answer = told_with(&browser, "/it", "302 Found", &said).await;
    assert_eq!(answer.location(), format!("http://127.0.0.1:{port}/next"));
    assert_eq!(answer.header("set-cookie"), "a=1; Domain=localhost");
}

#[tokio::test]
async fn plain_http_is_ruled_out_for_this_host_as_far_as_the_operator_says() {
    const THEIRS: &str = "max-age=60; includeSubDomains";
    for (setting, of_the_portals, of_ours) in [
        (None, "max-age=31536000", "max-age=31536000"),
        (
            Some("max-age=600; includeSubDomains; preload"),
            "max-age=600; includeSubDomains; preload",
            "max-age=600; includeSubDomains; preload",
        ),
        (Some("portal"), THEIRS, ""),
        (Some("off"), "", ""),
    ] {
        let builder = match setting {
            Some(setting) => builder().set("portal.hsts", setting),
            None => builder(),
        };
        let (_gateway, browser) = logged_in(builder).await;
        for browser in both(&browser) {
            let answer = told(&browser, "/it", &format!("Strict-Transport-Security: {THEIRS}")).await;
            assert_eq!(answer.header("strict-transport-security"), of_the_portals, "{setting:?}");
            let silent = told(&browser, "/it", "X-A: 1").await.header("strict-transport-security");
            assert_eq!(silent, of_ours, "{setting:?}");
            for path in ["/.portcullis/account", "/.portcullis/none", "/.portcullis/whoami"] {
                let answer = browser.get(path).await;
                assert_eq!(answer.header("strict-transport-security"), of_ours, "{setting:?} {path}");
            }
        }
    }
}

#[tokio::test]
async fn pages_that_name_their_own_parts_by_http_can_be_upgraded_beside_what_they_say() {
    let (_gateway, browser) = logged_in(builder()).await;
    let answer = told(&browser, "/it", "Content-Security-Policy: default-src 'self'").await;
    assert_eq!(values(&answer, "content-security-policy"), ["default-src 'self'"]);
    let (_gateway, browser) = logged_in(builder().set("portal.upgrade_insecure_requests", "true")).await;
    for browser in both(&browser) {
        let said =
            "Content-Security-Policy: default-src 'self'|Content-Security-Policy-Report-Only: img-src 'none'";
        let answer = told(&browser, "/it", said).await;
        assert_eq!(
            values(&answer, "content-security-policy"),
            ["default-src 'self'", "upgrade-insecure-requests"]
        );
        assert_eq!(answer.header("content-security-policy-report-only"), "img-src 'none'");
        let ours = browser.get("/.portcullis/account").await;
        assert_eq!(values(&ours, "content-security-policy").len(), 1);
    }
}

#[tokio::test]
async fn what_comes_ahead_of_an_answer_tells_a_browser_nothing_to_remember() {
    let portal = Upstream::scripted(async |mut exchange: Exchange| {
        if exchange.target() == "/" {
            return ordinary(exchange).await;
        }
        exchange.read_content().await.ok()?;
        exchange
            .write(
                "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nSet-Cookie: a=b\r\n\
                 Clear-Site-Data: \"cookies\"\r\nStrict-Transport-Security: max-age=0\r\nService-Worker-Allowed: /\r\n\
                 Cache-Control: public\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            )
            .await?;
        Some(exchange)
    });
    let (_gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let request = format!("GET /it HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n\r\n", browser.cookies());
    let mut connection = browser.raw(request).await;
    let hint = within(crate::support::PATIENCE, connection.answer()).await;
    assert_eq!(hint.status, StatusCode::EARLY_HINTS);
    let names: Vec<_> = hint.headers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["link"]);
    assert_eq!(connection.answer().await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_switch_of_protocols_is_told_by_the_same_rules() {
    let portal = Upstream::scripted(async |mut exchange: Exchange| {
        if exchange.target() != "/socket" {
            return ordinary(exchange).await;
        }
        exchange
            .write(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other/1\r\n\
                 Set-Cookie: a=b; Domain=localhost\r\nSet-Cookie: __Host-portcullis=x; Path=/; Secure\r\n\
                 Strict-Transport-Security: max-age=0\r\nClear-Site-Data: \"cookies\"\r\n\r\n",
            )
            .await?;
        None
    });
    let (_gateway, browser) = logged_in(TestGateway::builder().upstream(&portal)).await;
    let request = format!(
        "GET /socket HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\nOrigin: https://{HOST}\r\nConnection: Upgrade\r\n\
         Upgrade: other/1\r\n\r\n",
        browser.cookies()
    );
    let answer = browser.raw(request).await.answer().await;
    assert_eq!(answer.status, StatusCode::SWITCHING_PROTOCOLS, "{answer:?}");
    assert_eq!(answer.header("strict-transport-security"), "max-age=31536000");
    assert_eq!((answer.header("connection"), answer.header("upgrade")), ("upgrade".into(), "other/1".into()));
    assert_eq!(values(&answer, "set-cookie"), ["a=b"]);
    assert!(!answer.headers.contains_key("clear-site-data") && !answer.headers.contains_key("cache-control"));
}
