//! Who a request is from, the portal hears from us alone: whatever a client says about it is gone on every way to the
//! portal, and our own cookies never get there.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;

use crate::support::{
    Browser, Exchange, HOST, TestGateway, Upstream, empty,
    forged::{Forgery, owned},
    logged_in,
    upstream::{Recorded, ordinary},
};

/// What some portal somewhere would believe.
const NAMES: &[&str] = &[
    "Remote-User",
    "Remote-Email",
    "Remote-Name",
    "Remote-Groups",
    "X-Remote-User",
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-Preferred-Username",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Auth-Request-Groups",
    "X-Auth-Request-Preferred-Username",
    "X-Portcullis-Jwt-Assertion",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "X-Forwarded-Server",
    "X-Original-URL",
    "X-Original-URI",
    "X-Original-Method",
    "X-Rewrite-URL",
    "X-Real-IP",
    "X-Client-IP",
    "True-Client-IP",
    "X-Request-Id",
    "Proxy",
    "Client-IP",
    "X-Forwarded",
    "Forwarded-For",
    "CF-Connecting-IP",
    "X-Original-Forwarded-For",
    "X-ProxyUser-Ip",
    "Fastly-Client-IP",
    "X-Envoy-External-Address",
    "X-Envoy-Original-Path",
    "X-Forwarded-Client-Cert",
    "X-SSL-Client-S-DN",
    "SSL-Client-Verify",
    "X-WEBAUTH-USER",
    "X-WEBAUTH-ROLE",
    "X-authentik-username",
    "X-authentik-meta-jwks",
    "X-Auth-User",
    "X-Auth-Username",
    "X-Auth-User-Email",
    "X-Remote-Sub",
    "X-Goog-Authenticated-User-Email",
    "X-Goog-IAP-JWT-Assertion",
    "Cf-Access-Jwt-Assertion",
    "Cf-Access-Authenticated-User-Email",
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "X-Accel-Redirect",
    "X-Accel-Mapping",
    "X-Sendfile-Type",
    "X-Middleware-Subrequest",
    "X-Amzn-Oidc-Data",
    "X-MS-CLIENT-PRINCIPAL-NAME",
    "X-Consumer-Username",
    "X-ProxiedEntitiesChain",
    "Tailscale-User-Login",
    "OIDC-CLAIM-sub",
    "Shib-Session-ID",
    "iv-user",
    "$WSRU",
    "X-User",
    "X-User-Id",
    "X-UserId",
    "X-User-Name",
    "X-User-Email",
    "X-User-Groups",
    "X-User-Roles",
    "X-User-Permissions",
    "X-Username",
    "X-Email",
    "X-Login",
    "X-Account",
    "X-Account-Id",
    "X-Group",
    "X-Groups",
    "X-Role",
    "X-Roles",
    "X-Permissions",
    "X-Scopes",
    "X-Is-Admin",
    "X-Impersonate-User",
    "Impersonate-User",
];

/// The four facts, and what the test's user is.
const IDENTITY: [(&str, &str); 4] = [
    ("remote-user", "ada@example.com"),
    ("remote-email", "ada@example.com"),
    ("remote-name", "Ada Lovelace"),
    ("remote-groups", "ops"),
];

/// Every name in other letters, and with each character that a name may hold in place of the hyphens.
fn spellings() -> Vec<String> {
    let mut spellings = Vec::new();
    for name in NAMES {
        spellings.extend([(*name).to_owned(), name.to_uppercase(), name.to_lowercase()]);
        for separator in "!#$%&'*+.^`|~".chars() {
            spellings.push(name.replace('-', &separator.to_string()));
        }
    }
    spellings.retain(|name| name.parse::<HeaderName>().is_ok());
    spellings
}

/// As CGI, WSGI, PHP and Rack read a name.
fn normal(name: &str) -> String {
    name.chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' })
        .collect()
}

#[track_caller]
fn assert_ours_alone(request: &Recorded) {
    let head = format!("{:?}", request.head);
    let assertion = request.value("x-portcullis-jwt-assertion").unwrap_or_default();
    // What is in base64 may well contain it.
    assert!(!head.replace(&assertion, "").contains("eve"), "{head}");
    assert_eq!(assertion.split('.').count(), 3, "{head}");
    let trailers = String::from_utf8_lossy(&request.content.trailers).into_owned();
    assert!(!trailers.contains("eve"), "{trailers}");
    for (name, value) in IDENTITY.into_iter().chain([("x-portcullis-jwt-assertion", &*assertion)]) {
        assert_eq!(request.value(name).as_deref(), Some(value), "{head}");
        // Nor another one that a portal would read as the same.
        let same =
            request.head.fields().into_iter().filter(|(other, _)| normal(other) == normal(name)).count();
        assert_eq!(same, 1, "{head}");
    }
}

async fn with_user() -> (TestGateway, Browser) {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    gateway.upstream.forget();
    (gateway, browser)
}

/// Requests with up to fifty spellings each.
fn batches() -> Vec<String> {
    spellings().chunks(50).map(lines).collect()
}

/// One field a name, all with the same lie.
fn lines(names: &[String]) -> String {
    names.iter().flat_map(|name| [name, ": eve\r\n"]).collect()
}

#[tokio::test]
async fn every_spelling_of_an_identity_or_forwarding_field_is_removed() {
    let (gateway, browser) = with_user().await;
    let cookies = browser.cookies();
    for start in ["GET /", "DELETE /x", "POST /y"] {
        for fields in batches() {
            gateway.upstream.forget();
            let request = format!("{start} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookies}\r\n{fields}\r\n");
            let answer = browser.raw(request).await.answer().await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            assert_ours_alone(&gateway.upstream.only_request());
        }
    }
}

#[tokio::test]
async fn every_spelling_is_removed_on_http_2() {
    let (gateway, browser) = with_user().await;
    for fields in batches() {
        gateway.upstream.forget();
        let cookies = browser.cookies();
        let mut forgery = Forgery::of(&[
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", HOST),
            (":path", "/"),
            ("cookie", &cookies),
        ]);
        let lines = fields.lines().filter_map(|line| line.split_once(": "));
        forgery.fields.extend(lines.map(|(name, value)| (name.to_lowercase(), value.to_owned())));
        assert_eq!(browser.forge(&forgery).await.unwrap().status, StatusCode::OK);
        assert_ours_alone(&gateway.upstream.only_request());
    }
}

#[tokio::test]
async fn every_spelling_is_removed_from_an_upgrade() {
    let portal = Upstream::scripted(async |mut exchange: Exchange| {
        if exchange.head.values("upgrade").is_empty() {
            return ordinary(exchange).await;
        }
        exchange
            .write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: probe\r\n\r\n")
            .await?;
        None
    });
    let (gateway, browser) = TestGateway::builder().upstream(&portal).start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    for fields in batches() {
        gateway.upstream.forget();
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\nOrigin: https://{HOST}\r\nConnection: upgrade\r\n\
             Upgrade: probe\r\n{fields}\r\n",
            browser.cookies()
        );
        let head = browser.raw(request).await.head().await.unwrap();
        assert_eq!(head.first_line(), "HTTP/1.1 101 Switching Protocols");
        assert_ours_alone(&gateway.upstream.only_request());
    }
}

#[tokio::test]
async fn an_identity_in_a_trailer_never_reaches_the_portal() {
    let (gateway, browser) = with_user().await;
    for names in spellings().chunks(50) {
        let announced = names.join(", ");
        let trailers = lines(names);
        gateway.upstream.forget();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
             Trailer: {announced}, X-Checksum\r\n\r\n5\r\nhello\r\n0\r\n{trailers}X-Checksum: 5d41\r\n\r\n",
            browser.cookies()
        );
        let answer = browser.raw(request).await.answer().await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        let request = gateway.upstream.only_request();
        assert_ours_alone(&request);
        assert_eq!(request.content.body, b"hello");
        let kept = String::from_utf8_lossy(&request.content.trailers).to_lowercase();
        assert_eq!(kept, "x-checksum: 5d41\r\n");
    }
}

#[tokio::test]
async fn an_identity_in_a_trailer_of_http_2_never_reaches_the_portal() {
    let (gateway, browser) = with_user().await;
    let other = gateway.browser().http2();
    other.set_cookie("__Host-portcullis", &browser.session());
    let mut trailers = HeaderMap::new();
    for name in ["remote-user", "x-portcullis-jwt-assertion", "x-forwarded-for", "cookie", "x-checksum"] {
        trailers.insert(name, HeaderValue::from_static(if name == "x-checksum" { "5d41" } else { "eve" }));
    }
    let frames = [Ok(Frame::data(Bytes::from_static(b"hello"))), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
    let request = Request::post("/")
        .header("trailer", "remote-user, x-portcullis-jwt-assertion, x-forwarded-for, cookie, x-checksum");
    assert_eq!(other.send(request.body(body).unwrap()).await.status, StatusCode::OK);
    let request = gateway.upstream.only_request();
    assert_ours_alone(&request);
    assert_eq!(String::from_utf8_lossy(&request.content.trailers).to_lowercase(), "x-checksum: 5d41\r\n");
}

#[tokio::test]
async fn naming_our_fields_in_connection_takes_nothing_away() {
    let (gateway, browser) = with_user().await;
    let list = "Remote-User, Remote-Groups, X-Portcullis-Jwt-Assertion, X-Forwarded-For, X-Forwarded-Proto, Forwarded, Host, Cookie, X-Request-Id";
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}; theme=dark\r\nConnection: close, {list}, X-Mine\r\n\
         Remote-User: eve\r\nX-Mine: 1\r\n\r\n",
        browser.cookies()
    );
    assert_eq!(browser.raw(request).await.answer().await.status, StatusCode::OK);
    let request = gateway.upstream.only_request();
    assert_ours_alone(&request);
    assert_eq!(request.value("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(request.value("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(request.value("host").as_deref(), Some(HOST));
    assert_eq!(request.value("cookie").as_deref(), Some("theme=dark"));
    assert!(request.value("forwarded").is_some_and(|forwarded| forwarded.contains(";by=_portcullis-")));
    assert_eq!(request.value("x-mine"), None, "what the client lists of its own goes");
}

/// Cookies that are no session, by name, with the clock turned where that is the point.
#[tokio::test]
async fn without_a_good_session_no_spelling_of_an_identity_gets_anywhere() {
    let (gateway, browser) = with_user().await;
    let good = browser.session();
    let expired = {
        let other = gateway.browser();
        other.log_in("ada@example.com").await;
        gateway.clock.advance(Duration::from_secs(3601));
        browser.remove_cookie("__Host-portcullis");
        browser.log_in("ada@example.com").await;
        other.session()
    };
    let live = browser.session();
    gateway.upstream.forget();
    let matrix: Vec<(&str, Vec<u8>)> = vec![
        ("none", Vec::new()),
        ("empty", b"Cookie: __Host-portcullis=\r\n".to_vec()),
        ("bad", format!("Cookie: __Host-portcullis={}\r\n", "A".repeat(43)).into_bytes()),
        ("expired", format!("Cookie: __Host-portcullis={expired}\r\n").into_bytes()),
        ("idle too long", format!("Cookie: __Host-portcullis={good}\r\n").into_bytes()),
        ("cut short", format!("Cookie: __Host-portcullis={}\r\n", &live[1..]).into_bytes()),
        ("quoted", format!("Cookie: __Host-portcullis=\"{live}\"\r\n").into_bytes()),
        ("other name", format!("Cookie: __Host-Portcullis={live}\r\n").into_bytes()),
        ("login's", format!("Cookie: __Host-portcullis-login={live}\r\n").into_bytes()),
        ("two", format!("Cookie: __Host-portcullis={live}; __Host-portcullis={live}\r\n").into_bytes()),
        (
            "two lines",
            format!("Cookie: __Host-portcullis={live}\r\nCookie: __Host-portcullis=x\r\n").into_bytes(),
        ),
        ("garbage", [b"Cookie: __Host-portcullis=\xff\xfe\x80; \xc0\xaf\r\n".to_vec()].concat()),
    ];
    for (name, cookie) in &matrix {
        for fields in [
            "",
            "Remote-User: ada@example.com\r\n",
            "X-Forwarded-User: ada@example.com\r\nForwarded: for=127.0.0.1\r\n",
        ] {
            for start in ["GET /", "POST /", "GET /public/../", "GET /.portcullis/whoami"] {
                let request = [
                    format!("{start} HTTP/1.1\r\nHost: {HOST}\r\n{fields}").into_bytes(),
                    cookie.clone(),
                    b"\r\n".to_vec(),
                ];
                let answer = browser.raw(request.concat()).await.answer().await;
                assert!(matches!(answer.status.as_u16(), 400 | 401), "{name}, {start}, {fields}: {answer:?}");
                assert!(
                    !answer.headers.contains_key("set-cookie"),
                    "{name}: a cookie is neither given nor taken"
                );
                answer.assert_secure();
            }
        }
    }
    assert_eq!(gateway.upstream.bytes(), 0, "{:?}", gateway.upstream.requests());
    // The session beside them is as good as before.
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn whoami_and_the_access_log_believe_no_field() {
    let (gateway, browser) = with_user().await;
    let request = format!(
        "GET /.portcullis/whoami HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\nRemote-User: eve\r\n\
         X-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\nX-Request-Id: eve\r\n\r\n",
        browser.cookies()
    );
    let answer = browser.raw(request).await.answer().await;
    assert_eq!(answer.json()["email"], "ada@example.com");
    let log = gateway.access_log();
    assert!(!log.contains("203.0.113.9") && !log.contains("eve"), "{log}");
    assert!(log.lines().all(|line| line.contains("client.ip=127.0.0.1")), "{log}");
}

#[tokio::test]
async fn fields_that_speak_of_another_path_or_method_change_no_decision() {
    let (gateway, browser) = TestGateway::start().await;
    for path in ["/.portcullis/login", "/.portcullis/assets/none", "/.well-known/acme-challenge/x", "/"] {
        let request = format!(
            "GET /sims HTTP/1.1\r\nHost: {HOST}\r\nX-Original-URL: {path}\r\nX-Rewrite-URL: {path}\r\n\
             X-Forwarded-Uri: {path}\r\nX-Forwarded-Path: {path}\r\nX-Original-Method: OPTIONS\r\n\
             X-HTTP-Method-Override: OPTIONS\r\nX-Forwarded-For: 127.0.0.1\r\nX-Middleware-Subrequest: x\r\n\r\n"
        );
        let answer = browser.raw(request).await.answer().await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.json()["login_url"].as_str().unwrap().ends_with("/.portcullis/login"));
    }
    assert_eq!(gateway.upstream.bytes(), 0);
}

#[tokio::test]
async fn our_cookies_are_cut_out_of_what_the_portal_gets() {
    let (gateway, browser) = with_user().await;
    let session = browser.session();
    let cases = [
        (format!("Cookie: __Host-portcullis={session}\r\n"), None),
        (format!("Cookie: a=b; __Host-portcullis={session}; c=d\r\n"), Some("a=b; c=d")),
        (format!("Cookie: a=b\r\nCookie: __Host-portcullis={session}\r\nCookie: c=d\r\n"), Some("a=b; c=d")),
        (
            format!(
                "Cookie: __host-PORTCULLIS=x; __Host-portcullis={session};__HOST-portcullis-login=y;a=b\r\n"
            ),
            Some("a=b"),
        ),
        (
            format!("Cookie: a=\"__Host-portcullis=1\"; __Host-portcullis={session}\r\n"),
            Some("a=\"__Host-portcullis=1\""),
        ),
    ];
    for (cookie, left) in &cases {
        gateway.upstream.forget();
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{cookie}\r\n");
        assert_eq!(browser.raw(request).await.answer().await.status, StatusCode::OK, "{cookie}");
        let request = gateway.upstream.only_request();
        assert_eq!(request.value("cookie").as_deref(), *left, "{cookie}");
        assert!(!format!("{:?}", request.head).contains(&session));
    }
    // HTTP/2 sends a cookie in crumbs.
    gateway.upstream.forget();
    let mut forgery =
        Forgery::of(&[(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/")]);
    let ours = format!("__Host-portcullis={session}");
    forgery.fields.extend(owned(&[("cookie", "a=b"), ("cookie", &ours), ("cookie", "c=d")]));
    assert_eq!(browser.forge(&forgery).await.unwrap().status, StatusCode::OK);
    assert_eq!(gateway.upstream.only_request().value("cookie").as_deref(), Some("a=b; c=d"));
}

#[tokio::test]
async fn the_portal_cannot_set_or_take_our_cookies() {
    let portal = Upstream::scripted(async |mut exchange: Exchange| {
        exchange.read_content().await.ok()?;
        exchange
            .write(
                "HTTP/1.1 200 OK\r\nSet-Cookie: theirs=1; Path=/\r\n\
                 Set-Cookie: __Host-portcullis=planted; Path=/; Secure\r\n\
                 set-cookie: __HOST-Portcullis=planted; Path=/; Secure\r\n\
                 Set-Cookie:   __Host-portcullis-login = planted\r\n\
                 Set-Cookie: =__Host-portcullis=planted\r\n\
                 Set-Cookie: __Host-portcullis=; Max-Age=0\r\n\
                 Set-Cookie: also=2\r\nContent-Length: 0\r\n\r\n",
            )
            .await?;
        Some(exchange)
    });
    let (gateway, browser) = TestGateway::builder().upstream(&portal).start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    let before = browser.session();
    for browser in [browser, gateway.browser().http2()] {
        browser.set_cookie("__Host-portcullis", &before);
        let answer = browser.get("/").await;
        let set: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
        assert_eq!(set, ["theirs=1; Path=/", "also=2"]);
        assert_eq!(browser.session(), before);
    }
}

#[tokio::test]
async fn a_name_that_the_operator_lets_through_arrives_as_it_was_sent_and_no_other_does() {
    let (gateway, browser) = logged_in(
        TestGateway::builder().set("portal.pass_headers", "[\"X-HTTP-Method-Override\", \"cf-ipcountry\"]"),
    )
    .await;
    let other = gateway.browser().http2();
    other.set_cookie("__Host-portcullis", &browser.session());
    for other in [browser, other] {
        gateway.upstream.forget();
        let request = Request::post("/")
            .header("x-http-method-override", "PUT")
            .header("x.http.method.override", "eve")
            .header("x-http-method", "eve")
            .header("cf-ipcountry", "FR")
            .header("cf-connecting-ip", "eve");
        assert_eq!(other.send(request.body(empty()).unwrap()).await.status, StatusCode::OK);
        let request = gateway.upstream.only_request();
        assert_ours_alone(&request);
        assert_eq!(request.value("x-http-method-override").as_deref(), Some("PUT"));
        assert_eq!(request.value("cf-ipcountry").as_deref(), Some("FR"));
    }
}

#[tokio::test]
async fn a_name_that_is_configured_for_the_identity_is_guarded_like_the_others() {
    let (gateway, browser) =
        TestGateway::builder().set("identity.headers.user", "X-Portal-Login").start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    gateway.upstream.forget();
    let request = Request::get("/")
        .header("x-portal-login", "eve")
        .header("x.portal.login", "eve")
        .header("remote-user", "eve")
        .body(Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync());
    assert_eq!(browser.send(request.unwrap()).await.status, StatusCode::OK);
    let request = gateway.upstream.only_request();
    assert_eq!(request.value("x-portal-login").as_deref(), Some("ada@example.com"));
    assert!(!format!("{:?}", request.head).contains("eve"), "{request:?}");
    assert_eq!(browser.send(Request::get("/").body(empty()).unwrap()).await.status, StatusCode::OK);
}
