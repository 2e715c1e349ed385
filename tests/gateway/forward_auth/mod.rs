//! What other proxies ask on their port, by hand: the promises of `docs/forward-auth.md`, whatever the proxy is.

mod attacks;
mod proxies;

use http::{Method, StatusCode};
use tokio::net::TcpStream;

use crate::support::{
    ADA, Answer, Browser, HOST, RawConnection, TestGateway, logged_in, soon, test_gateway::Builder,
    wire::Wire,
};

pub(super) const DIALECTS: [&str; 4] = ["nginx", "nginx/answer", "traefik", "envoy"];
/// What a browser says of a page that its user has asked for.
const PAGE: &str = "Sec-Fetch-Mode: navigate\r\nAccept: text/html\r\n";
/// The client of every question.
const CLIENT: &str = "X-Forwarded-For: 198.51.100.7\r\n";
const TOLD: [&str; 4] = ["remote-user", "remote-email", "remote-name", "remote-groups"];

pub(super) fn builder() -> Builder {
    let builder = TestGateway::builder().set("server.forward_auth_listen", "127.0.0.1:0");
    builder.set("server.trusted_proxies", "127.0.0.1")
}

/// A connection to the port for proxies.
pub(super) async fn connect(gateway: &TestGateway) -> RawConnection {
    RawConnection { wire: Wire::new(TcpStream::connect(gateway.proxies_address()).await.unwrap()) }
}

/// Sends bytes to the port for proxies. What is answered is nothing, where nothing is.
pub(super) async fn send(gateway: &TestGateway, request: &str) -> Answer {
    let mut connection = connect(gateway).await;
    let bytes: Vec<u8> =
        request.chars().map(|character| u8::try_from(u32::from(character)).unwrap()).collect();
    connection.send(bytes).await;
    connection.answer().await
}

/// A request as a proxy asks about it. `line` is method and target; `fields` are the client's.
pub(super) fn question(dialect: &str, line: &str, fields: &str) -> String {
    about(dialect, line, HOST, &format!("{CLIENT}{fields}"))
}

pub(super) fn about(dialect: &str, line: &str, host: &str, fields: &str) -> String {
    let (method, target) = line.split_once(' ').unwrap();
    match dialect {
        "nginx" | "nginx/answer" => format!(
            "GET /auth/{dialect} HTTP/1.0\r\nHost: 127.0.0.1\r\nX-Portcullis-Method: {method}\r\n\
             X-Portcullis-URL: https://{host}{target}\r\n{fields}\r\n"
        ),
        "traefik" => format!(
            "GET /auth/traefik HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-Method: {method}\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: {host}\r\nX-Forwarded-Uri: {target}\r\n{fields}\r\n"
        ),
        _ => format!(
            "{method} /auth/envoy{target} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Proto: https\r\nContent-Length: 0\r\n{fields}\r\n"
        ),
    }
}

async fn ask(gateway: &TestGateway, dialect: &str, line: &str, fields: &str) -> Answer {
    let mut connection = connect(gateway).await;
    connection.send(question(dialect, line, fields)).await;
    let method: Method =
        if dialect == "envoy" { line.split(' ').next().unwrap().parse().unwrap() } else { Method::GET };
    connection.answer_to(&method).await.unwrap()
}

fn cookies(browser: &Browser) -> String {
    format!("Cookie: theirs=1; {}; more=2\r\n", browser.cookies())
}

#[tokio::test]
async fn a_stranger_is_sent_to_the_login_and_a_script_told_so() {
    let (gateway, _) = builder().start().await;
    for (dialect, page) in [("nginx", 401), ("nginx/answer", 302), ("traefik", 302), ("envoy", 302)] {
        for line in ["GET /sims?q=a", "HEAD /sims?q=a"] {
            let answer = ask(&gateway, dialect, line, PAGE).await;
            assert_eq!(answer.status, page, "{dialect}: {answer:?}");
            assert_eq!(answer.location(), format!("https://{HOST}/.portcullis/login?rd=/sims%3Fq%3Da"));
        }
        let posted = ask(&gateway, dialect, "POST /sims", PAGE).await;
        assert_eq!(posted.status, if page == 302 { 303 } else { 401 }, "{dialect}");
        assert_eq!(posted.location(), format!("https://{HOST}/.portcullis/login"));
        let script = ask(&gateway, dialect, "GET /api", "Accept: application/json\r\n").await;
        assert_eq!((script.status, script.location()), (StatusCode::UNAUTHORIZED, String::new()));
        assert!(
            script.headers["www-authenticate"].to_str().unwrap().contains("/.portcullis/login"),
            "{script:?}"
        );
        assert_eq!(script.json()["login_url"], format!("https://{HOST}/.portcullis/login"));
        for answer in [posted, script] {
            assert!(TOLD.iter().all(|name| !answer.headers.contains_key(*name)), "{answer:?}");
        }
    }
    let log = gateway.access_log();
    let line = log.lines().next().unwrap();
    for told in ["GET", "path=/sims", "client.ip=198.51.100.7", HOST] {
        assert!(line.contains(told), "the log tells of the request that is asked about: {line}");
    }
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn a_user_passes_with_all_that_the_portal_is_told_and_no_cookie_of_ours() {
    let (gateway, browser) = logged_in(builder()).await;
    for dialect in ["nginx", "traefik", "envoy"] {
        for line in ["GET /sims?q=a", "POST /sims", "DELETE /sims/1", "HEAD /", "PROPFIND /dav", "OPTIONS /x"]
        {
            let answer = ask(&gateway, dialect, line, &cookies(&browser)).await;
            assert_eq!(answer.status, StatusCode::OK, "{dialect} {line}: {answer:?}");
            let told = TOLD.map(|name| answer.header(name));
            assert_eq!(told, [ADA, ADA, "Ada Lovelace", "ops"], "{dialect} {line}");
            assert_eq!(answer.header("x-portcullis-jwt-assertion").split('.').count(), 3);
            assert_eq!(answer.header("cookie"), "theirs=1; more=2");
            assert!(answer.headers.contains_key("x-portcullis-token"));
        }
    }
    // Where the answer is to be shown, there is none to show.
    let answer = ask(&gateway, "nginx/answer", "GET /", &cookies(&browser)).await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1".into()));
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn rules_decide_as_they_do_of_what_comes_directly() {
    let rules = r#"[{path = "/public/*", level = "bypass"}, {path = "/closed/*", level = "deny"},
        {path = "/admin/*", max_age = "15m"}, {path = "/office", networks = "198.51.100.0/24", level = "bypass"}]"#;
    let (gateway, browser) = logged_in(builder().set("access.rules", rules)).await;
    let stranger = "Cookie: theirs=1\r\nAuthorization: Basic dTpw\r\n";
    for dialect in ["nginx", "traefik", "envoy"] {
        for line in ["GET /public/a", "POST /public/a?x=1", "GET /office"] {
            let answer = ask(&gateway, dialect, line, stranger).await;
            assert_eq!(answer.status, StatusCode::OK, "{dialect} {line}");
            for name in TOLD.iter().chain(&["x-portcullis-jwt-assertion", "x-portcullis-token"]) {
                assert_eq!(answer.headers[*name], "", "{name} is set, and says nobody");
            }
            // What is the portal's own stays.
            assert_eq!(
                (answer.header("cookie"), answer.header("authorization")),
                ("theirs=1".into(), "Basic dTpw".into())
            );
        }
        assert_eq!(
            ask(&gateway, dialect, "GET /public/a", &cookies(&browser)).await.header("remote-user"),
            ADA
        );
        for fields in [stranger, &cookies(&browser)] {
            assert_eq!(ask(&gateway, dialect, "GET /closed/a", fields).await.status, StatusCode::FORBIDDEN);
        }
        assert_eq!(ask(&gateway, dialect, "GET /admin/a", &cookies(&browser)).await.status, StatusCode::OK);
    }
    gateway.clock.advance(std::time::Duration::from_mins(16));
    for (dialect, status) in [("nginx", 401), ("nginx/answer", 302), ("traefik", 302), ("envoy", 302)] {
        let answer = ask(&gateway, dialect, "GET /admin/a", &(cookies(&browser) + PAGE)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.location()),
            (status, format!("https://{HOST}/.portcullis/login?rd=/admin/a&again=1"))
        );
    }
}

#[tokio::test]
async fn a_session_that_has_ended_is_refused_at_the_next_question() {
    let (gateway, browser) = logged_in(builder()).await;
    let fields = cookies(&browser);
    assert_eq!(ask(&gateway, "nginx", "GET /", &fields).await.status, StatusCode::OK);
    gateway.administration().set_disabled(ADA, true).await.unwrap();
    let refused = async || ask(&gateway, "nginx", "GET /", &fields).await.status == StatusCode::UNAUTHORIZED;
    soon(std::time::Duration::from_secs(1), "the session is over", refused).await;
}

#[tokio::test]
async fn a_store_that_is_away_lets_nobody_pass() {
    let (gateway, browser) = logged_in(builder().redis()).await;
    let gateway = gateway.restart().await;
    gateway.redis.as_ref().unwrap().kill().await;
    for dialect in DIALECTS {
        let answer = ask(&gateway, dialect, "GET /", &cookies(&browser)).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{dialect}: {answer:?}");
        assert!(!answer.headers.contains_key("set-cookie"));
    }
}

#[tokio::test]
async fn a_token_passes_and_goes_no_further() {
    use portcullis::{administration::For, tokens::Scope};
    let (gateway, _) = builder().start().await;
    let scope = Scope { paths: vec!["/api/*".to_owned()], ..Scope::default() };
    let token = gateway.administration().create_token("ci", For::Service("ci"), scope, None).await.unwrap().0;
    for dialect in ["nginx", "traefik", "envoy"] {
        let shown = |fields: &str| fields.replace("TOKEN", &token);
        let bearer = ask(&gateway, dialect, "GET /api/x", &shown("Authorization: Bearer TOKEN\r\n")).await;
        assert_eq!((bearer.status, bearer.header("remote-user")), (StatusCode::OK, "service:ci".into()));
        assert_eq!(bearer.headers["authorization"], "", "{dialect}");
        let own = "X-Portcullis-Token: TOKEN\r\nAuthorization: Basic dTpw\r\n";
        let own = ask(&gateway, dialect, "POST /api/x", &shown(own)).await;
        assert_eq!((own.status, own.header("authorization")), (StatusCode::OK, "Basic dTpw".into()));
        assert_eq!(own.headers["x-portcullis-token"], "");
        let elsewhere = ask(&gateway, dialect, "GET /other", &shown("Authorization: Bearer TOKEN\r\n")).await;
        assert_eq!(elsewhere.status, StatusCode::UNAUTHORIZED);
        assert!(elsewhere.text().contains("path"), "{dialect}: {}", elsewhere.text());
    }
}

#[tokio::test]
async fn our_own_pages_are_served_to_proxies_and_nothing_else_is() {
    let (gateway, _) = builder().start().await;
    let page = |path: &str, fields: &str| format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n");
    let reported = format!("X-Forwarded-Proto: https\r\n{CLIENT}");
    let login = send(&gateway, &page("/.portcullis/login", &reported)).await;
    assert_eq!(login.status, StatusCode::OK);
    login.assert_secure();
    assert_eq!(
        send(&gateway, &page("/.well-known/portcullis/jwks.json", &reported)).await.status,
        StatusCode::OK
    );
    let whoami = send(&gateway, &page("/.portcullis/whoami", &reported)).await;
    assert_eq!(whoami.status, StatusCode::UNAUTHORIZED);
    for (path, fields, status) in [
        // A password must not be typed into a page that came in the clear, and a thief's tries count as his network's.
        ("/.portcullis/login", CLIENT, 400),
        ("/.portcullis/login", "X-Forwarded-Proto: https\r\n", 400),
        ("/.portcullis/login", "X-Forwarded-Proto: http\r\nX-Forwarded-For: 198.51.100.7\r\n", 400),
        ("/", &reported, 404),
        ("/sims", &reported, 404),
        ("/auth/nginx/", &reported, 404),
        ("/auth/nginx?x=1", &reported, 403),
        ("/auth/envoy", &reported, 404),
        ("/auth/authentik", &reported, 404),
    ] {
        let answer = send(&gateway, &page(path, fields)).await;
        assert_eq!(answer.status, status, "{path} {fields}: {answer:?}");
    }
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn nobody_but_a_trusted_proxy_may_ask_and_on_no_other_port() {
    let builder = TestGateway::builder().set("server.forward_auth_listen", "127.0.0.1:0");
    let builder = builder.set("server.trusted_proxies", "10.0.0.1").set("access.default", "bypass");
    let (gateway, browser) = builder.start().await;
    let answer = send(&gateway, &question("traefik", "GET /", "")).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.text().contains("server.trusted_proxies"), "{}", answer.text());
    // To everybody else it is a path of the portal's.
    let answer = browser
        .raw(about("traefik", "GET /", HOST, "").replace("Host: 127.0.0.1", &format!("Host: {HOST}")))
        .await
        .answer()
        .await;
    assert_eq!(answer.text(), "the portal: GET /auth/traefik\n");
}
