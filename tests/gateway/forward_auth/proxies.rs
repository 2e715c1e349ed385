//! Real proxies with the files of `config/examples`, the gateway beside them and a portal behind them that writes down every byte:
//! what comes through is what would have come through the gateway itself.

use std::process::Command;

use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, StatusCode};
use tokio_tungstenite::tungstenite::Message;

use super::builder;
use crate::{
    origins::{disguises, spellings},
    support::{
        ADA, Browser, Exchange, HOST, TestGateway, Upstream, body,
        process::{Outcome, PROGRAM, run_command},
        proxies::{AskingProxy, NAMES},
        soon,
        test_gateway::Builder,
        upstream::{Recorded, ordinary},
        websocket,
    },
};

const RULES: &str = r#"[{path = "/public/*", level = "bypass"}, {path = "/closed/*", level = "deny"},
    {path = "/admin/*", max_age = "15m"}]"#;
const TOLD: [&str; 4] = ["remote-user", "remote-email", "remote-name", "remote-groups"];

/// A portal with a WebSocket that says everything again.
fn portal() -> Upstream {
    Upstream::scripted(async |exchange: Exchange| {
        if exchange.target().ends_with("/live") {
            websocket::echo(exchange).await;
            return None;
        }
        ordinary(exchange).await
    })
}

fn guarded() -> Builder {
    builder().upstream(&portal()).set("access.rules", RULES)
}

/// The same for each proxy, with a gateway, and the browsers of a stranger and of a user.
async fn with_each(check: impl AsyncFn(&TestGateway, &AskingProxy, Browser, Browser)) {
    for name in NAMES {
        let (gateway, _) = guarded().start().await;
        let proxy = AskingProxy::start(name, &gateway).await;
        gateway.add_user(ADA).await;
        let user = proxy.browser();
        user.log_in(ADA).await;
        gateway.upstream.forget();
        check(&gateway, &proxy, proxy.browser(), user).await;
    }
}

#[track_caller]
fn is_ada(request: &Recorded, name: &str) {
    assert_eq!(
        TOLD.map(|name| request.value(name)),
        [ADA, ADA, "Ada Lovelace", "ops"].map(|value| Some(value.to_owned())),
        "{name}"
    );
    assert_eq!(request.value("x-portcullis-jwt-assertion").unwrap().split('.').count(), 3, "{name}");
    let text = format!("{request:?}").to_lowercase();
    assert!(!text.contains("__host-portcullis"), "{name} keeps our cookies: {text}");
    let host = request.value("host").unwrap();
    assert_eq!((host.as_str(), request.value("x-forwarded-host").as_deref()), (HOST, Some(HOST)), "{name}");
    assert_eq!(request.value("x-forwarded-for").as_deref(), Some("127.0.0.1"), "{name}");
}

#[tokio::test]
async fn a_stranger_gets_the_login_and_a_user_the_portal_which_is_told_who_it_is() {
    with_each(async |gateway, proxy, stranger, user| {
        let name = proxy.name;
        let page = stranger.get("/sims?q=a").await;
        assert_eq!(
            (page.status, page.location()),
            (StatusCode::FOUND, format!("https://{HOST}/.portcullis/login?rd=/sims%3Fq%3Da")),
            "{name}: {}",
            proxy.log()
        );
        let script = stranger.fetch("/api").await;
        assert_eq!(script.status, StatusCode::UNAUTHORIZED, "{name}");
        assert_eq!(script.json()["login_url"], format!("https://{HOST}/.portcullis/login"), "{name}");
        let posted = stranger.post_form("/sims", &[("a", "b")]).await;
        assert_eq!(
            (posted.status, posted.location()),
            (StatusCode::SEE_OTHER, format!("https://{HOST}/.portcullis/login")),
            "{name}"
        );
        assert!(gateway.upstream.requests().is_empty(), "{name}");

        user.set_cookie("theirs", "1");
        let answer = user.get("/sims?q=a").await;
        assert_eq!(answer.text(), "the portal: GET /sims?q=a\n", "{name}");
        let request = gateway.upstream.only_request();
        is_ada(&request, name);
        assert_eq!(request.value("cookie").as_deref(), Some("theirs=1"), "{name}");

        gateway.upstream.forget();
        let (stranger, user) = (stranger.http2(), user.http2());
        assert_eq!(stranger.get("/sims").await.status, StatusCode::FOUND, "{name}");
        assert_eq!(user.get("/sims?q=a").await.text(), "the portal: GET /sims?q=a\n", "{name}");
        is_ada(&gateway.upstream.only_request(), name);
    })
    .await;
}

#[tokio::test]
async fn rules_hold_behind_every_proxy() {
    with_each(async |gateway, proxy, stranger, user| {
        let name = proxy.name;
        assert_eq!(stranger.get("/public/a").await.text(), "the portal: GET /public/a\n", "{name}");
        let request = gateway.upstream.only_request();
        for told in TOLD.iter().chain(&["x-portcullis-jwt-assertion", "cookie"]) {
            assert_eq!(request.value(told).unwrap_or_default(), "", "{name} says nobody in {told}");
        }
        gateway.upstream.forget();
        for browser in [&stranger, &user] {
            assert_eq!(browser.get("/closed/a").await.status, StatusCode::FORBIDDEN, "{name}");
            assert_eq!(browser.fetch("/closed/a").await.status, StatusCode::FORBIDDEN, "{name}");
        }
        assert!(gateway.upstream.requests().is_empty(), "{name}");
        assert_eq!(user.get("/admin/a").await.status, StatusCode::OK, "{name}");
        gateway.clock.advance(std::time::Duration::from_mins(16));
        let asked = user.get("/admin/a").await;
        assert_eq!(
            asked.location(),
            format!("https://{HOST}/.portcullis/login?rd=/admin/a&again=1"),
            "{name}"
        );
        assert_eq!(user.get("/other").await.status, StatusCode::OK, "{name}");
    })
    .await;
}

#[tokio::test]
async fn what_a_client_says_of_who_it_is_gets_through_no_proxy() {
    const SPELLINGS: [&str; 16] = [
        "Remote-User",
        "remote-user",
        "REMOTE_USER",
        "Remote_User",
        "Remote.User",
        "Remote-Groups",
        "remote_groups",
        "X-Portcullis-Jwt-Assertion",
        "x_portcullis_jwt_assertion",
        "X-Forwarded-User",
        "X-Auth-Request-User",
        "X-Authentik-Username",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-Forwarded-Prefix",
    ];
    with_each(async |gateway, proxy, stranger, user| {
        let name = proxy.name;
        for browser in [&stranger, &user] {
            for spelling in SPELLINGS {
                for fields in [
                    format!("{spelling}: eve\r\n"),
                    format!("{spelling}: eve\r\n{spelling}: eve2\r\n"),
                    format!("Connection: close, {spelling}\r\n{spelling}: eve\r\n"),
                    format!("{spelling}:\r\n{spelling}: eve\r\n"),
                ] {
                    let cookies = browser.cookies();
                    let request = format!(
                        "GET /public/a HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookies}\r\n{fields}\r\n"
                    );
                    gateway.upstream.forget();
                    let answer = browser.raw(request).await.answer().await;
                    for request in gateway.upstream.requests() {
                        let text = format!("{request:?}");
                        assert!(!text.contains("eve"), "{name}, {fields}: {answer:?} {text}");
                        let known = if cookies.is_empty() { "" } else { ADA };
                        // A proxy may take it for its own hop, and drop what it has set; it never lets the client's through.
                        let told = request.value("remote-user").unwrap_or_default();
                        assert!(
                            told == known || (told.is_empty() && fields.starts_with("Connection")),
                            "{name}, {fields}: {text}"
                        );
                    }
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_client_says_of_where_it_is_gets_through_no_proxy() {
    const FORGED: &str = "203.0.113.9";
    with_each(async |gateway, proxy, stranger, user| {
        let name = proxy.name;
        for browser in [&stranger, &user] {
            for fields in [
                format!("X-Forwarded-For: {FORGED}\r\n"),
                format!("X-Forwarded-For: {FORGED}\r\nx-forwarded-for: {FORGED}, {FORGED}\r\n"),
                format!("X-Real-IP: {FORGED}\r\n"),
                format!("X-Envoy-External-Address: {FORGED}\r\n"),
                format!("Connection: X-Forwarded-For\r\nX-Forwarded-For: {FORGED}\r\n"),
            ] {
                gateway.upstream.forget();
                let cookies = browser.cookies();
                let request =
                    format!("GET /public/a HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookies}\r\n{fields}\r\n");
                let answer = browser.raw(request).await.answer().await;
                for request in gateway.upstream.requests() {
                    let text = format!("{request:?}");
                    assert!(!text.contains(FORGED), "{name}, {fields}: {answer:?} {text}");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_identity_of_other_names_gets_through_every_proxy() {
    for name in NAMES {
        let builder = guarded().set("identity.headers.user", "X-Forwarded-User");
        let (gateway, _) = builder.set("identity.headers.email", "X-Auth-Request-Email").start().await;
        let renamed: &[_] = match name {
            "nginx" => &[
                ("upstream_http_remote_user", "upstream_http_x_forwarded_user"),
                ("header Remote-User", "header X-Forwarded-User"),
                ("upstream_http_remote_email", "upstream_http_x_auth_request_email"),
                ("header Remote-Email", "header X-Auth-Request-Email"),
            ],
            "traefik" | "caddy" => {
                &[("Remote-User", "X-Forwarded-User"), ("Remote-Email", "X-Auth-Request-Email")]
            }
            _ => &[("remote-user", "x-forwarded-user"), ("remote-email", "x-auth-request-email")],
        };
        let proxy = AskingProxy::start_with(name, &gateway, renamed).await;
        gateway.add_user(ADA).await;
        let user = proxy.browser();
        user.log_in(ADA).await;
        for path in ["/sims", "/public/a"] {
            gateway.upstream.forget();
            assert_eq!(user.get(path).await.status, StatusCode::OK, "{name}");
            let request = gateway.upstream.only_request();
            for told in ["x-forwarded-user", "x-auth-request-email"] {
                assert_eq!(request.value(told).as_deref(), Some(ADA), "{name}: {request:?}");
            }
            assert_eq!(request.value("x-forwarded-proto").as_deref(), Some("https"), "{name}: {request:?}");
        }
        gateway.upstream.forget();
        let forged = format!("GET /public/a HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-User: eve\r\n\r\n");
        proxy.browser().raw(forged).await.answer().await;
        let told = gateway.upstream.requests().iter().any(|request| format!("{request:?}").contains("eve"));
        assert!(!told, "{name}");
    }
}

#[tokio::test]
async fn bodies_and_websockets_get_through() {
    with_each(async |gateway, proxy, stranger, user| {
        let name = proxy.name;
        let large = "x".repeat(200_000);
        let request = Request::post("/upload").header("content-type", "text/plain").body(body(large.clone())).unwrap();
        assert_eq!(user.send(request).await.text(), "the portal: POST /upload\n", "{name}");
        let recorded = gateway.upstream.only_request();
        is_ada(&recorded, name);
        assert_eq!(recorded.content.body.len(), large.len(), "{name}");
        gateway.upstream.forget();
        let chunked = format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", user.cookies());
        assert_eq!(user.raw(chunked).await.answer().await.status, StatusCode::OK, "{name}");
        assert_eq!(gateway.upstream.only_request().content.body, b"hello", "{name}");

        let mut socket = user.socket("/live").await;
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"), "{name}");
        gateway.upstream.forget();
        let foreign = user.try_tunnel("/live", &[("Origin", "https://evil.example")]).await;
        assert_eq!(foreign.err().unwrap().status, StatusCode::FORBIDDEN, "{name}");
        let nobody = stranger.try_tunnel("/live", &[]).await;
        assert_eq!(nobody.err().unwrap().status, StatusCode::UNAUTHORIZED, "{name}");
        assert!(gateway.upstream.requests().is_empty(), "{name}");
        // The others offer none over HTTP/2.
        if name == "haproxy" {
            let (stranger, user) = (stranger.http2(), user.http2());
            assert_eq!(user.fetch("/").await.status, StatusCode::OK);
            gateway.upstream.forget();
            let socket = user.open(websocket::connect("/live", &[])).await;
            assert_eq!(socket.status(), StatusCode::OK, "{socket:?}");
            is_ada(&gateway.upstream.only_request(), name);
            gateway.upstream.forget();
            let foreign = user.try_tunnel("/live", &[("origin", "https://evil.example")]).await;
            assert_eq!(foreign.err().unwrap().status, StatusCode::FORBIDDEN, "{name}");
            let nobody = stranger.try_tunnel("/live", &[]).await;
            assert_eq!(nobody.err().unwrap().status, StatusCode::UNAUTHORIZED, "{name}");
            assert!(gateway.upstream.requests().is_empty(), "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn no_proxy_offers_the_portal_a_protocol_that_the_gateway_would_not() {
    const SETTINGS: &str = "HTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    with_each(async |gateway, proxy, stranger, user| {
        let name = proxy.name;
        let direct = gateway.browser();
        for browser in [&stranger, &user] {
            // Within any of the first ones, requests would reach the portal that nobody has been asked about.
            for (upgrade, fields) in [
                ("h2c", ""),
                ("h2c", SETTINGS),
                ("H2C", SETTINGS),
                ("h2c, websocket", SETTINGS),
                ("websocket, h2c", SETTINGS),
                ("websocket\r\nUpgrade: h2c", SETTINGS),
                ("h2c\r\nUpgrade: websocket", SETTINGS),
                ("HTTP/2.0", ""),
                ("http/1.1", ""),
                ("TLS/1.0", ""),
                ("tls/1.2, HTTP/1.1", ""),
                ("websocket", "Sec-WebSocket-Version: 8\r\n"),
                ("other", ""),
            ] {
                let request = format!(
                    "GET /public/a HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\n\
                     Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n{fields}\r\n",
                    browser.cookies()
                );
                gateway.upstream.forget();
                direct.raw(&request).await.answer().await;
                let is_offered = !gateway.upstream.requests().is_empty();
                assert_eq!(is_offered, upgrade == "other", "{upgrade}");
                gateway.upstream.forget();
                let answer = browser.raw(request).await.answer().await;
                for request in gateway.upstream.requests() {
                    // Whether that is well said is for the portal to see.
                    let offer = request.value("upgrade").filter(|offer| offer != "websocket");
                    assert!(
                        is_offered || offer.is_none(),
                        "{name}, {upgrade} {fields}: {answer:?} {request:?}"
                    );
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn no_spelling_of_a_path_opens_more_than_it_does_at_the_gateway() {
    for name in NAMES {
        let (gateway, direct) = guarded().start().await;
        let proxy = AskingProxy::start(name, &gateway).await;
        let stranger = proxy.browser();
        let mut paths = spellings();
        paths.extend(disguises("public").into_iter().map(|path| format!("{path}/a.txt")));
        paths.extend(
            [
                "/.portcullis/../secret",
                "/.portcullis/..%2fsecret",
                "/.portcullis//../secret",
                "/secret/..;/public/a",
            ]
            .map(str::to_owned),
        );
        let ask = async |browser: &Browser, path: &str| {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
            let bytes: Vec<u8> =
                request.chars().map(|character| u8::try_from(u32::from(character)).unwrap()).collect();
            browser.raw(bytes).await.head().await;
        };
        let mut passed = 0;
        for path in paths {
            gateway.upstream.forget();
            ask(&stranger, &path).await;
            for request in gateway.upstream.requests() {
                passed += 1;
                let target = request.first_line().split(' ').nth(1).unwrap().to_owned();
                gateway.upstream.forget();
                ask(&direct, &target).await;
                assert!(
                    !gateway.upstream.requests().is_empty(),
                    "{name} lets {path} through as {target}, the gateway does not"
                );
            }
        }
        assert!(passed > 5, "{name}: only {passed} paths passed");
    }
}

#[tokio::test]
async fn nobody_passes_once_a_session_is_over_or_the_gateway_away() {
    for name in NAMES {
        let (gateway, _) = guarded().start().await;
        let proxy = AskingProxy::start(name, &gateway).await;
        gateway.add_user(ADA).await;
        let user = proxy.browser();
        user.log_in(ADA).await;
        assert_eq!(user.fetch("/").await.status, StatusCode::OK, "{name}");
        let other = user.copy();
        let page = user.get("/.portcullis/account").await;
        let out = user.post_form("/.portcullis/logout", &[("csrf", &page.field("csrf"))]).await;
        assert_eq!(out.status, StatusCode::SEE_OTHER, "{name}: {}", out.text());
        soon(std::time::Duration::from_secs(1), "the session is over", async || {
            other.fetch("/").await.status == StatusCode::UNAUTHORIZED
        })
        .await;
        let upstream = gateway.upstream.clone();
        gateway.stop().await;
        upstream.forget();
        for path in ["/", "/public/a", "/.portcullis/login"] {
            let answer = other.get(path).await;
            assert!(
                answer.status.is_server_error() || answer.status == StatusCode::FORBIDDEN,
                "{name}: {answer:?}"
            );
        }
        assert!(upstream.requests().is_empty(), "{name}");
    }
}

/// What `check --reach` says of a proxy.
async fn reach(gateway: &TestGateway, proxy: &AskingProxy) -> Outcome {
    let mut command = Command::new(PROGRAM);
    command
        .args(["check", "--reach", "--json", "--at", &proxy.address().to_string(), "--config"])
        .arg(gateway.folder().join("portcullis.toml"))
        .env("PORTCULLIS_SERVER__FORWARD_AUTH_LISTEN", "127.0.0.1:9191")
        .env("PORTCULLIS_SERVER__TRUSTED_PROXIES", "127.0.0.1");
    run_command(command, "").await
}

#[tokio::test]
async fn the_command_finds_what_a_proxy_lets_through() {
    for name in NAMES {
        let (gateway, _) = guarded().start().await;
        let proxy = AskingProxy::start(name, &gateway).await;
        let outcome = reach(&gateway, &proxy).await;
        assert_eq!(outcome.code, 0, "{name}: {outcome:?}");
        assert!(outcome.json()["findings"].as_array().unwrap().len() > 12, "{name}: {outcome:?}");
        assert!(gateway.upstream.requests().is_empty(), "{name}");
    }
    let method = "proxy_set_header X-Portcullis-Method $request_method;";
    let blind = format!("{method} proxy_pass_request_headers off;");
    let url = "proxy_set_header X-Portcullis-Url $scheme://iot.example.com$request_uri;";
    for (name, mistakes, says) in [
        ("nginx", &[(method, blind.as_str())], "sees what clients send"),
        ("nginx", &[(url, "")], "X-Portcullis-Url of a client is believed"),
        ("envoy", &[("safe_regex: { regex: \".*\" }", "prefix: x-forwarded-")], "sees what clients send"),
    ] {
        let (gateway, _) = guarded().start().await;
        let proxy = AskingProxy::start_with(name, &gateway, mistakes).await;
        let outcome = reach(&gateway, &proxy).await;
        assert_eq!(outcome.code, 1, "{name}: {outcome:?}");
        let bad = outcome.out.split("\"ok\": false").any(|finding| finding.contains(says));
        assert!(bad, "{name}: {outcome:?}");
    }
}
