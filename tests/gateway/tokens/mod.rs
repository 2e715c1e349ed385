//! Machines at the door: what a token opens, what it does not, and that it ends. The promises of `docs/tokens.md`.

mod ending;
mod own;
mod postgres;

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{Request, StatusCode, header};
use portcullis::{administration::For, tokens::Scope};

use crate::support::{
    Answer, Browser, HOST, TestGateway, body, empty, logged_in, soon,
    test_gateway::Builder,
    upstream::{Recorded, keeping_open},
};

const ADA: &str = "ada@example.com";
/// Within which a revocation holds everywhere.
const BOUND: Duration = Duration::from_secs(1);
const OWN: &str = "x-portcullis-token";

fn builder() -> Builder {
    TestGateway::builder().upstream(&keeping_open())
}

async fn service(gateway: &TestGateway, name: &str, scope: Scope) -> String {
    let made = gateway.administration().create_token(name, For::Service("ci"), scope, None).await;
    made.unwrap().0
}

fn paths(paths: &[&str]) -> Scope {
    Scope { paths: texts(paths), ..Scope::default() }
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// Asks with these fields, as a program does.
async fn ask(browser: &Browser, path: &str, fields: &[(&str, &str)]) -> Answer {
    let request =
        fields.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    browser.send(request.body(empty()).unwrap()).await
}

async fn bearer(browser: &Browser, path: &str, token: &str) -> Answer {
    ask(browser, path, &[("authorization", &format!("Bearer {token}"))]).await
}

/// The reason for which a token is refused; empty when it is not.
fn refusal(answer: &Answer) -> String {
    if answer.status == StatusCode::OK {
        return String::new();
    }
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem = answer.json();
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.starts_with("This token")), "{problem}");
    let kind = problem["type"].as_str().unwrap().to_owned();
    kind.strip_prefix("urn:portcullis:token:").unwrap().to_owned()
}

fn challenges(answer: &Answer) -> Vec<String> {
    let lines = answer.headers.get_all(header::WWW_AUTHENTICATE).iter();
    lines.map(|line| line.to_str().unwrap().split(' ').next().unwrap().to_owned()).collect()
}

#[track_caller]
fn knows_of_no_token(recorded: &Recorded, token: &str) {
    let head = String::from_utf8_lossy(&recorded.head.0).to_lowercase();
    assert!(!head.contains(&token.to_lowercase()) && !head.contains("pcl_") && !head.contains(OWN), "{head}");
}

#[tokio::test]
async fn a_service_is_known_to_the_portal_by_its_name_and_its_token_stays_here() {
    let (gateway, browser) = builder().start().await;
    let scope = Scope { groups: texts(&["deploy", "read"]), ..Scope::default() };
    let token = service(&gateway, "ci-token", scope).await;
    for browser in [browser.copy(), browser.http2()] {
        for (own, authorization) in [
            (None, Some(format!("Bearer {token}"))),
            (None, Some(format!("bearer  {token}"))),
            (None, Some(basic("anything", &token))),
            (None, Some(basic("", &token))),
            (Some(token.clone()), None),
        ] {
            gateway.upstream.forget();
            let mut fields = vec![("remote-user", "root"), ("x-portcullis-jwt-assertion", "forged")];
            fields.extend(own.as_deref().map(|own| (OWN, own)));
            fields.extend(authorization.as_deref().map(|value| ("authorization", value)));
            let answer = ask(&browser, "/api/sims", &fields).await;
            assert_eq!(answer.status, StatusCode::OK, "{fields:?}: {}", answer.text());
            assert!(!answer.headers.contains_key(header::SET_COOKIE));
            let recorded = gateway.upstream.only_request();
            knows_of_no_token(&recorded, &token);
            assert_eq!(recorded.value("authorization"), None);
            assert_eq!(recorded.value("remote-user").as_deref(), Some("service:ci"));
            assert_eq!(recorded.value("remote-groups").as_deref(), Some("deploy,read"));
            let assertion = recorded.value("x-portcullis-jwt-assertion").unwrap();
            let claims = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).unwrap());
            let claims: serde_json::Value = serde_json::from_slice(&claims.unwrap()).unwrap();
            assert_eq!(
                (&claims["sub"], &claims["amr"]),
                (&"service:ci".into(), &serde_json::json!(["token"]))
            );
        }
    }
    let log = gateway.access_log();
    assert!(log.contains("token.name=ci-token") && log.contains("user.name=service:ci"), "{log}");
    assert!(!log.contains(&token) && !log.contains("pcl_") && !log.contains("session.id"), "{log}");
}

#[tokio::test]
async fn what_is_the_portals_own_in_authorization_stays_as_it_came() {
    let (gateway, browser) = builder().start().await;
    let token = service(&gateway, "t", Scope::default()).await;
    for own in ["Bearer portal.jwt.x", "Basic YWRhOnNlY3JldA==", "Digest username=\"ada\""] {
        gateway.upstream.forget();
        let answer = ask(&browser, "/", &[(OWN, &token), ("authorization", own)]).await;
        assert_eq!(answer.status, StatusCode::OK, "{own}");
        let recorded = gateway.upstream.only_request();
        assert_eq!(recorded.value("authorization").as_deref(), Some(own));
        knows_of_no_token(&recorded, &token);
    }
    // Without a token it opens nothing.
    gateway.upstream.forget();
    let answer = ask(&browser, "/", &[("authorization", "Bearer portal.jwt.x")]).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gateway.upstream.requests().len(), 0);
}

#[tokio::test]
async fn a_token_in_the_wrong_place_or_more_than_one_opens_nothing() {
    let (gateway, browser) = builder().start().await;
    let token = service(&gateway, "one", Scope::default()).await;
    let other = service(&gateway, "two", Scope::default()).await;
    let bearer = format!("Bearer {token}");
    let (in_name, beside) = (basic(&token, ""), basic("git", &other));
    let odd = [
        format!("Token {token}"),
        format!("Bearer {token},"),
        format!("{bearer} x"),
        basic("a", &format!("{token}\n")),
    ];
    let mut tried = vec![
        vec![("authorization", &*bearer), ("authorization", &*bearer)],
        vec![("authorization", &*bearer), ("authorization", "Bearer portal.jwt")],
        vec![("authorization", &*bearer), ("authorization", &*beside)],
        vec![("authorization", &*bearer), (OWN, &*token)],
        vec![("authorization", &*beside), (OWN, &*token)],
        vec![(OWN, &*token), (OWN, &*token)],
        vec![(OWN, &*bearer)],
        vec![(OWN, "")],
        vec![("authorization", &*in_name)],
        vec![("authorization", &*token)],
    ];
    tried.extend(odd.iter().map(|odd| vec![("authorization", &**odd)]));
    for browser in [browser.copy(), browser.copy().http2()] {
        for fields in &tried {
            let answer = ask(&browser, "/", fields).await;
            // Two fields of a name that takes one may have been refused before.
            let is_refused = answer.status == StatusCode::BAD_REQUEST || refusal(&answer) == "unknown";
            assert!(is_refused, "{fields:?}: {}", answer.text());
        }
    }
    // Nowhere else does one count.
    for path in [format!("/?access_token={token}"), format!("/?token={token}"), format!("/{token}")] {
        assert_eq!(ask(&browser, &path, &[]).await.status, StatusCode::UNAUTHORIZED);
    }
    for field in ["x-auth-token", "private-token", "proxy-authorization", "x_portcullis_token", "cookie"] {
        let value = if field == "cookie" { format!("__Host-portcullis={token}") } else { bearer.clone() };
        let answer = ask(&browser, "/", &[(field, &value)]).await;
        assert_ne!(answer.status, StatusCode::OK, "{field}");
    }
    assert_eq!(gateway.upstream.requests().len(), 0);
}

#[tokio::test]
async fn a_wrong_token_is_told_why_and_a_session_does_not_make_up_for_it() {
    let (gateway, browser) = logged_in(builder()).await;
    let administration = gateway.administration();
    let scoped = service(&gateway, "scoped", paths(&["/api/*"])).await;
    let revoked = service(&gateway, "revoked", Scope::default()).await;
    let now = portcullis::clock::Clock::now(&*gateway.clock);
    let end = Some(now.plus(Duration::from_mins(1)));
    let short =
        administration.create_token("short", For::Service("ci"), Scope::default(), end).await.unwrap().0;
    let stranger = gateway.browser();
    for browser in [&stranger, &browser] {
        assert_eq!(refusal(&bearer(browser, "/api/x", &scoped).await), "");
        assert_eq!(refusal(&bearer(browser, "/", &scoped).await), "out_of_scope");
        assert_eq!(refusal(&bearer(browser, "/", &short).await), "");
        assert_eq!(refusal(&bearer(browser, "/", &revoked).await), "");
    }
    administration.revoke_token("revoked").await.unwrap();
    soon(BOUND, "the token is revoked", async || {
        !refusal(&bearer(&stranger, "/", &revoked).await).is_empty()
    })
    .await;
    gateway.clock.advance(Duration::from_mins(1));
    gateway.upstream.forget();
    let (unknown, _) = portcullis::tokens::TokenText::generate(&portcullis::random::OsRandom);
    let mistyped = scoped.replace(&scoped[20..24], "0000");
    for browser in [&stranger, &browser] {
        for (token, why) in
            [(&revoked, "revoked"), (&short, "expired"), (&unknown, "unknown"), (&mistyped, "unknown")]
        {
            let answer = bearer(browser, "/", token).await;
            assert_eq!(refusal(&answer), why);
            assert!(answer.header("www-authenticate").contains("error=\"invalid_token\""), "{answer:?}");
            assert!(!answer.headers.contains_key(header::SET_COOKIE));
            let page = ask(
                browser,
                "/",
                &[
                    ("authorization", &basic("git", token)),
                    ("sec-fetch-mode", "navigate"),
                    ("accept", "text/html"),
                ],
            )
            .await;
            assert_eq!(refusal(&page), why);
            assert_eq!(challenges(&page), ["Bearer", "Basic"]);
        }
    }
    assert_eq!(gateway.upstream.requests().len(), 0);
    // The session itself is as it was.
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_request_is_from_a_session_or_from_a_token_and_never_from_both() {
    let (gateway, browser) = logged_in(builder()).await;
    let token = service(&gateway, "t", Scope::default()).await;
    browser.set_cookie("theirs", "1");
    assert_eq!(bearer(&browser, "/", &token).await.status, StatusCode::OK);
    let recorded = gateway.upstream.only_request();
    assert_eq!(recorded.value("remote-user").as_deref(), Some("service:ci"));
    assert_eq!(recorded.value("remote-email").unwrap_or_default(), "");
    assert_eq!(recorded.value("cookie").as_deref(), Some("theirs=1"));
    // A token opens none of our own pages, and the session there is the browser's.
    let whoami = bearer(&browser, "/.portcullis/whoami", &token).await;
    assert_eq!(whoami.json()["email"], ADA);
    let stranger = gateway.browser();
    assert_ne!(bearer(&stranger, "/.portcullis/whoami", &token).await.status, StatusCode::OK);
    assert_ne!(bearer(&stranger, "/.portcullis/account", &token).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_users_token_has_the_users_rights_of_the_moment_and_goes_with_the_user() {
    let rules = r#"[{path = "/staff/*", groups = "staff"}, {path = "/staff/*", level = "deny"}]"#;
    let (gateway, browser) = builder().set("access.rules", rules).start().await;
    gateway.add_user(ADA).await;
    let administration = gateway.administration();
    let token = administration.create_token("ada", For::User(ADA), Scope::default(), None).await.unwrap().0;
    let limited = Scope { groups: texts(&["ops", "root"]), ..Scope::default() };
    let limited = administration.create_token("limited", For::User(ADA), limited, None).await.unwrap().0;
    assert_eq!(bearer(&browser, "/", &token).await.status, StatusCode::OK);
    let recorded = gateway.upstream.only_request();
    assert_eq!(recorded.value("remote-user").as_deref(), Some(ADA));
    assert_eq!(recorded.value("remote-email").as_deref(), Some(ADA));
    assert_eq!(bearer(&browser, "/staff/a", &token).await.status, StatusCode::FORBIDDEN);
    administration.set_groups(ADA, texts(&["ops", "staff"])).await.unwrap();
    let in_staff = async || bearer(&browser, "/staff/a", &token).await.status == StatusCode::OK;
    soon(BOUND, "the token follows the user's groups", in_staff).await;
    gateway.upstream.forget();
    assert_eq!(bearer(&browser, "/staff/a", &limited).await.status, StatusCode::FORBIDDEN);
    assert_eq!(bearer(&browser, "/", &limited).await.status, StatusCode::OK);
    assert_eq!(gateway.upstream.only_request().value("remote-groups").as_deref(), Some("ops"));

    administration.set_disabled(ADA, true).await.unwrap();
    soon(BOUND, "it is closed", async || refusal(&bearer(&browser, "/", &token).await) == "revoked").await;
    administration.set_disabled(ADA, false).await.unwrap();
    assert_eq!(refusal(&bearer(&browser, "/", &token).await), "");
    administration.remove_user(ADA).await.unwrap();
    soon(BOUND, "it is gone", async || refusal(&bearer(&browser, "/", &token).await) == "unknown").await;
}

#[tokio::test]
async fn no_user_passes_for_a_service() {
    let (gateway, _) = builder().start().await;
    for email in ["service:ci", "SERVICE:ci", "ｓervice：ci"] {
        let new = portcullis::users::NewUser { email: email.to_owned(), ..Default::default() };
        assert!(gateway.administration().add_user(new, None).await.is_err(), "{email}");
    }
    gateway.add_user(ADA).await;
    assert!(gateway.administration().set_email(ADA, "service:ci").await.is_err());
}

#[tokio::test]
async fn rules_tell_machines_from_browsers() {
    let rules = r#"[
        {path = "/public/*", level = "bypass"},
        {path = "/anonymous/*", level = "bypass", anonymous = true},
        {path = "/one/*", level = "one_factor"},
        {path = "/fresh/*", max_age = "5m"},
        {path = "/closed/*", level = "deny"},
        {path = "/people/*", clients = "browser"},
        {path = "/hooks/*", clients = "token", methods = "POST"},
        {path = "/hooks/*", level = "deny"},
        {path = "/both/*", clients = "browser", max_age = "5m"},
        {path = "/both/*", clients = "token"},
        {path = "/ci/*", users = "service:ci"},
        {path = "/ci/*", level = "deny"},
    ]"#;
    let (gateway, browser) = builder().set("access.rules", rules).start().await;
    let token = service(&gateway, "t", Scope::default()).await;
    let wrong = format!("{token}0");
    let status = async |path: &str, token: &str| bearer(&browser, path, token).await.status.as_u16();
    for (path, good, bad) in [
        ("/public/a", 200, 200),
        ("/anonymous/a", 200, 200),
        ("/one/a", 200, 401),
        ("/fresh/a", 403, 401),
        ("/closed/a", 403, 403),
        ("/people/a", 403, 403),
        ("/both/a", 200, 401),
        ("/ci/a", 200, 401),
        ("/hooks/a", 403, 403),
        ("/else", 200, 401),
    ] {
        assert_eq!((status(path, &token).await, status(path, &wrong).await), (good, bad), "{path}");
    }
    let post = |path: &str| {
        Request::post(path).header("authorization", format!("Bearer {token}")).body(body("{}")).unwrap()
    };
    assert_eq!(browser.send(post("/hooks/a")).await.status, StatusCode::OK);
    gateway.upstream.forget();
    // Where nobody has to be known a good one names its holder, unless nobody is to be named, and a bad one names nobody.
    status("/public/a", &token).await;
    status("/public/a", &wrong).await;
    status("/anonymous/a", &token).await;
    let told: Vec<_> =
        gateway.upstream.requests().iter().map(|request| request.value("remote-user")).collect();
    assert_eq!(told, [Some("service:ci".to_owned()), None, None]);
    gateway.upstream.requests().iter().for_each(|request| knows_of_no_token(request, &token));
}

#[tokio::test]
async fn programs_are_asked_for_a_password_and_browsers_never() {
    let rules = r#"[{path = "/fresh/*", max_age = "5m"}, {path = "/people/*", clients = "browser"}]"#;
    let (gateway, browser) = builder().set("access.rules", rules).start().await;
    let asked = async |path: &str, fields: &[(&str, &str)]| {
        let answer = ask(&browser, path, fields).await;
        challenges(&answer).contains(&"Basic".to_owned())
    };
    assert!(asked("/repo.git/info/refs?service=git-upload-pack", &[("user-agent", "git/2.47")]).await);
    assert!(asked("/", &[]).await);
    assert!(asked("/", &[("accept", "*/*")]).await);
    for fields in [
        [("sec-fetch-mode", "cors"), ("accept", "*/*")],
        [("sec-fetch-site", "none"), ("accept", "*/*")],
        [("x-requested-with", "XMLHttpRequest"), ("accept", "application/json")],
        [("origin", "https://iot.example.com"), ("accept", "*/*")],
        [("referer", "https://iot.example.com/"), ("accept", "*/*")],
        [("accept", "text/html"), ("user-agent", "Mozilla/5.0")],
    ] {
        assert!(!asked("/", &fields).await, "{fields:?}");
    }
    assert!(!asked("/fresh/a", &[]).await);
    assert!(!asked("/people/a", &[]).await);
    // A password that a browser has learnt does not let other sites act with it.
    let token = service(&gateway, "t", Scope::default()).await;
    let password = basic("", &token);
    gateway.upstream.forget();
    for elsewhere in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")] {
        let answer = ask(&browser, "/", &[("authorization", &password), elsewhere]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{elsewhere:?}");
    }
    let socket = [("authorization", &*password), ("Origin", "https://evil.example")];
    assert_eq!(browser.try_tunnel("/live", &socket).await.err().unwrap().status, StatusCode::FORBIDDEN);
    assert_eq!(gateway.upstream.requests().len(), 0);
}

#[tokio::test]
async fn a_token_is_for_its_paths_in_every_reading_its_methods_networks_and_site() {
    let (gateway, browser) = builder().set("server.trusted_proxies", "[\"127.0.0.0/8\"]").start().await;
    let scope = Scope {
        paths: texts(&["/api/*"]),
        methods: texts(&["GET"]),
        networks: vec!["192.0.2.0/24".parse().unwrap()],
        sites: texts(&[HOST]),
        ..Scope::default()
    };
    let token = service(&gateway, "t", scope).await;
    let elsewhere = Scope { sites: texts(&["other.example"]), ..Scope::default() };
    let elsewhere = service(&gateway, "elsewhere", elsewhere).await;
    let inside = browser.copy().from("192.0.2.7");
    assert_eq!(refusal(&bearer(&inside, "/api/sims?x=/admin", &token).await), "");
    gateway.upstream.forget();
    assert_eq!(refusal(&bearer(&inside, "/api/sims", &elsewhere).await), "out_of_scope");
    assert_eq!(
        refusal(&bearer(&browser.copy().from("198.51.100.7"), "/api/sims", &token).await),
        "out_of_scope"
    );
    for path in ["/", "/api", "/API/sims", "/apis/x", "/admin?/api/", "/api/..;/admin", "/api/%2e%2e%2fadmin"]
    {
        let answer = bearer(&inside, path, &token).await;
        assert!(answer.status == StatusCode::BAD_REQUEST || refusal(&answer) == "out_of_scope", "{path}");
    }
    for (method, field) in [("POST", ""), ("DELETE", ""), ("GET", "DELETE")] {
        let request = Request::builder().method(method).uri("/api/sims");
        let request = request.header("authorization", format!("Bearer {token}"));
        let request =
            if field.is_empty() { request } else { request.header("x-http-method-override", field) };
        let answer = inside.send(request.body(empty()).unwrap()).await;
        assert_eq!(refusal(&answer), "out_of_scope", "{method} {field}");
    }
    assert_eq!(gateway.upstream.requests().len(), 0);
}

fn few_guesses() -> Builder {
    builder().set("login.throttle.max_retries", "3").set("login.throttle.network_max_retries", "3")
}

#[tokio::test]
async fn guesses_are_counted_like_those_at_passwords_and_hold_up_nobody_who_has_a_good_token_or_password() {
    let rules = r#"[{path = "/public/*", level = "bypass"}]"#;
    let (gateway, browser) = few_guesses().set("access.rules", rules).start().await;
    gateway.add_user(ADA).await;
    let token = service(&gateway, "t", Scope::default()).await;
    let revoked = service(&gateway, "r", Scope::default()).await;
    gateway.administration().revoke_token("r").await.unwrap();
    assert_eq!(refusal(&bearer(&browser, "/", &token).await), "");
    // What is over is no guess.
    for _ in 0..8 {
        assert_eq!(refusal(&bearer(&browser, "/", &revoked).await), "revoked");
    }
    let mut statuses = Vec::new();
    for _ in 0..8 {
        let (guess, _) = portcullis::tokens::TokenText::generate(&portcullis::random::OsRandom);
        assert_eq!(bearer(&browser, "/public/a", &guess).await.status, StatusCode::OK, "they gain nothing");
    }
    for _ in 0..6 {
        let (guess, _) = portcullis::tokens::TokenText::generate(&portcullis::random::OsRandom);
        statuses.push(bearer(&browser, "/", &guess).await.status.as_u16());
    }
    assert_eq!(statuses, [401, 401, 401, 429, 429, 429]);
    let (guess, _) = portcullis::tokens::TokenText::generate(&portcullis::random::OsRandom);
    let held = bearer(&browser, "/", &guess).await;
    assert!(held.header("retry-after").parse::<u64>().unwrap() > 0, "{held:?}");
    assert_eq!(refusal(&bearer(&browser, "/", &token).await), "");
    // Nor one that this gateway has not seen yet.
    let fresh = service(&gateway, "fresh", Scope::default()).await;
    assert_eq!(refusal(&bearer(&browser, "/", &fresh).await), "");
    let ada = gateway.browser();
    ada.log_in(ADA).await;
    assert_eq!(ada.get("/sims").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_store_that_is_away_lets_nobody_in_and_stops_nobody_it_need_not_know() {
    let rules = r#"[{path = "/public/*", level = "bypass"}, {path = "/closed/*", level = "deny"}]"#;
    let (gateway, browser) = builder().set("access.rules", rules).start().await;
    let known = service(&gateway, "known", Scope::default()).await;
    let fresh = service(&gateway, "fresh", Scope::default()).await;
    let database = &gateway.stores().database;
    assert_eq!(refusal(&bearer(&browser, "/", &known).await), "");
    sqlx::query("ALTER TABLE tokens RENAME TO gone").execute(database).await.unwrap();
    let answer = bearer(&browser, "/", &fresh).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
    assert!(!answer.header("retry-after").is_empty());
    assert_eq!(bearer(&browser, "/public/a", &fresh).await.status, StatusCode::OK);
    assert_eq!(bearer(&browser, "/closed/a", &fresh).await.status, StatusCode::FORBIDDEN);
    // As long as changes are heard of, what is known needs no store.
    assert_eq!(refusal(&bearer(&browser, "/", &known).await), "");
    sqlx::query("ALTER TABLE gone RENAME TO tokens").execute(database).await.unwrap();
    assert_eq!(refusal(&bearer(&browser, "/", &fresh).await), "");
}

#[tokio::test]
async fn the_last_use_is_written_down_at_the_stop() {
    let (gateway, browser) = builder().start().await;
    let token = service(&gateway, "t", Scope::default()).await;
    let last_use = async |gateway: &TestGateway| {
        let named = gateway.administration().tokens_named("t").await.unwrap();
        named[0].0.last_used_at
    };
    assert_eq!(last_use(&gateway).await, None);
    let now = portcullis::clock::Clock::now(&*gateway.clock);
    bearer(&browser, "/", &token).await;
    let gateway = gateway.restart().await;
    assert!(last_use(&gateway).await.is_some_and(|at| at >= now));
}
