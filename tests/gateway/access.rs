//! What the rules of access let through, for each level, session and kind of client: the promises of `docs/access.md`.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use portcullis::clock::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    ADA, Answer, BOB, Browser, PATIENCE, TestGateway, body, empty, now, soon,
    test_gateway::Builder,
    upstream::{Recorded, keeping_open},
    within,
};

const MINUTE: Duration = Duration::from_mins(1);
/// Within which a change of rights holds everywhere.
const BOUND: Duration = Duration::from_secs(1);
/// What the portal is told of a user, in any way.
const IDENTITY: [&str; 5] =
    ["remote-user", "remote-email", "remote-name", "remote-groups", "x-portcullis-jwt-assertion"];

const RULES: &str = r#"[
    {path = "/public/*", level = "bypass"},
    {path = "/anonymous/*", level = "bypass", anonymous = true},
    {path = "/one/*", level = "one_factor"},
    {path = "/fresh/*", max_age = "5m"},
    {path = "/closed/*", level = "deny"},
    {path = "/staff/*", groups = "staff"},
    {path = "/staff/*", level = "deny"},
    {path = "/mixed/*", groups = "staff", max_age = "5m"},
    {path = "/mixed/*", level = "bypass"},
]"#;

fn with_rules(rules: &str) -> Builder {
    TestGateway::builder().upstream(&keeping_open()).set("access.rules", rules)
}

async fn signed_in(gateway: &TestGateway, email: &str) -> Browser {
    gateway.add_user(email).await;
    let browser = gateway.browser();
    browser.log_in(email).await;
    gateway.upstream.forget();
    browser
}

fn grpc(path: &str) -> Request<crate::support::Body> {
    Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(empty())
        .unwrap()
}

fn brief(answer: &Answer) -> String {
    match answer.status.as_u16() {
        200 => "in".to_owned(),
        302 | 303 if answer.location().contains("again=1") => "again".to_owned(),
        302 | 303 => answer.location().split(['?', '/']).nth(2).unwrap_or_default().to_owned(),
        status => status.to_string(),
    }
}

/// What becomes of a page, of what a script asks for, of a WebSocket, and of a call of gRPC; a portal without HTTP/2 takes no call,
/// so that one that passes is told by the status 14.
async fn cells(browser: &Browser, folder: &str) -> [String; 4] {
    let page = brief(&browser.get(&format!("/{folder}/page")).await);
    let script = browser.fetch(&format!("/{folder}/data")).await;
    let socket = match browser.try_tunnel(&format!("/{folder}/live"), &[]).await {
        Ok(_) => "in".to_owned(),
        Err(answer) => answer.status.as_u16().to_string(),
    };
    let call = browser.send(grpc(&format!("/{folder}/Call"))).await;
    [page, brief(&script), socket, call.header("grpc-status")]
}

#[tokio::test]
async fn each_level_gives_each_session_and_client_its_due() {
    let date = Timestamp::from_unix_seconds(now().unix_seconds() + 3600);
    let (gateway, stranger) = with_rules(RULES).mandatory_from(date).start().await;
    gateway.add_user(ADA).await;
    let one = gateway.browser();
    let page = one.visit("/").await;
    let page = one.sign_in(&page, ADA).await;
    one.submit(&page, &[("skip", "1")]).await;
    assert_eq!(one.level().await, "one_factor");
    let two = signed_in(&gateway, BOB).await;

    let (inside, sign_in) = (["in", "in", "in", "14"], ["login", "401", "401", "16"]);
    let (device, again, closed) =
        (["enrol", "401", "401", "16"], ["again", "401", "401", "16"], ["403", "403", "403", "7"]);
    for browser in [&stranger, &one, &two] {
        assert_eq!(cells(browser, "public").await, inside);
        assert_eq!(cells(browser, "anonymous").await, inside);
        assert_eq!(cells(browser, "closed").await, closed);
    }
    for (folder, stranger_s, one_s, two_s) in [
        ("one", sign_in, inside, inside),
        ("fresh", sign_in, device, inside),
        ("other", sign_in, inside, inside),
        ("staff", sign_in, closed, closed),
        ("mixed", inside, inside, inside),
    ] {
        assert_eq!(cells(&stranger, folder).await, stranger_s, "{folder}");
        assert_eq!(cells(&one, folder).await, one_s, "{folder}");
        assert_eq!(cells(&two, folder).await, two_s, "{folder}");
    }
    gateway.clock.advance(5 * MINUTE);
    assert_eq!(cells(&two, "fresh").await, inside, "just fresh enough");
    gateway.clock.advance(Duration::from_millis(1));
    assert_eq!(cells(&two, "fresh").await, again);
    assert_eq!(cells(&two, "other").await, inside);

    // After the date one factor is enough where a rule says so, and nowhere else.
    gateway.clock.set(date.minus(MINUTE));
    for email in [ADA, BOB] {
        gateway.administration().set_groups(email, vec!["staff".into()]).await.unwrap();
    }
    let late = gateway.browser();
    let page = late.visit("/").await;
    let page = late.sign_in(&page, ADA).await;
    late.submit(&page, &[("skip", "1")]).await;
    gateway.clock.set(date);
    for (folder, expected) in
        [("one", inside), ("other", device), ("staff", device), ("fresh", device), ("closed", closed)]
    {
        assert_eq!(cells(&late, folder).await, expected, "{folder}");
    }
    assert_eq!(cells(&late, "public").await, inside);
    assert!(
        gateway.upstream.requests().last().unwrap().value("remote-user").is_none(),
        "half proved is nobody"
    );
}

#[tokio::test]
async fn what_is_open_for_one_factor_goes_on_after_the_date_where_that_is_enough() {
    let date = Timestamp::from_unix_seconds(now().unix_seconds() + 3600);
    let (gateway, browser) = with_rules(RULES).mandatory_from(date).start().await;
    gateway.add_user(ADA).await;
    gateway.clock.set(date.minus(MINUTE));
    let page = browser.visit("/").await;
    let page = browser.sign_in(&page, ADA).await;
    browser.submit(&page, &[("skip", "1")]).await;
    let (mut stays, mut ends) = (browser.tunnel("/one/live").await, browser.tunnel("/other/live").await);
    gateway.clock.set(date);
    let mut rest = Vec::new();
    let _ = within(PATIENCE, ends.read_to_end(&mut rest)).await;
    stays.write_all(b"still here").await.unwrap();
    let mut echoed = [0; 10];
    within(PATIENCE, stays.read_exact(&mut echoed)).await.unwrap();
    assert_eq!(browser.get("/one/page").await.status, StatusCode::OK);
    // It ends with the session all the same.
    gateway.administration().set_disabled(ADA, true).await.unwrap();
    let _ = within(PATIENCE, stays.read_to_end(&mut rest)).await;
}

/// What the portal was told of the user in the last request, and whether a cookie of ours came along.
fn told(request: &Recorded) -> (Option<String>, Option<String>) {
    for name in IDENTITY {
        let values = request.head.values(name);
        assert!(values.len() <= 1, "{name}: {values:?}");
    }
    let cookies = request.value("cookie");
    assert!(!cookies.as_ref().is_some_and(|cookies| cookies.contains("__Host-portcullis")), "{cookies:?}");
    let assertion = request.value("x-portcullis-jwt-assertion");
    assert_eq!(assertion.is_some(), request.value("remote-user").is_some());
    (request.value("remote-user"), cookies)
}

#[tokio::test]
async fn a_public_path_hears_of_who_is_signed_in_and_never_from_the_client() {
    let (gateway, stranger) = with_rules(RULES).start().await;
    let ada = signed_in(&gateway, ADA).await;
    let forged = |method: &str, path: &str| {
        let mut request = Request::builder().method(method).uri(path);
        for name in IDENTITY.into_iter().chain(["Remote.User", "x-forwarded-user", "x-remote-user"]) {
            request = request.header(name, "admin");
        }
        request
    };
    for browser in [&stranger, &ada] {
        browser.set_cookie("theirs", "1");
    }
    for browser in [stranger.copy(), stranger.copy().http2(), ada.copy(), ada.copy().http2()] {
        let is_ada = browser.cookie("__Host-portcullis").is_some();
        for (path, knows) in [("/public/a", is_ada), ("/anonymous/a", false), ("/mixed/a", is_ada)] {
            for method in ["GET", "POST", "PUT", "OPTIONS"] {
                gateway.upstream.forget();
                let request =
                    forged(method, path).body(if method == "GET" { empty() } else { body("a=b") }).unwrap();
                assert_eq!(browser.send(request).await.status, StatusCode::OK, "{method} {path}");
                let request = gateway.upstream.only_request();
                let user = knows.then(|| ADA.to_owned());
                assert_eq!(told(&request), (user, Some("theirs=1".into())), "{method} {path}");
                for value in ["remote.user", "x-forwarded-user", "x-remote-user"] {
                    assert!(request.head.values(value).is_empty(), "{value}");
                }
            }
        }
    }
    let log = gateway.access_log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("path=/public/")).collect();
    assert!(lines.len() == 16 && lines.iter().all(|line| line.contains("decision=bypass")), "{log}");
    let counted = "portcullis_requests_total{decision=\"bypass\",status_class=\"2xx\"} 48";
    assert!(gateway.admin("/metrics").await.contains(counted));
}

#[tokio::test]
async fn forms_uploads_and_streams_of_strangers_pass_in_public() {
    let (gateway, stranger) = with_rules(RULES).start().await;
    for browser in [stranger.copy(), stranger.copy().http2()] {
        let answer = browser.post_form("/public/hook", &[("name", "SIM 1")]).await;
        assert_eq!(answer.text(), "the portal: POST /public/hook\n");
        let upload = Request::put("/public/file").body(body(vec![7; 1 << 20])).unwrap();
        assert_eq!(browser.send(upload).await.status, StatusCode::OK);
        let mut events =
            browser.open(Request::get("/public/events").body(empty()).unwrap()).await.into_body();
        assert!(events.frame().await.unwrap().is_ok());
        let mut socket = browser.tunnel("/public/live").await;
        socket.write_all(b"hello").await.unwrap();
        let mut echoed = [0; 5];
        within(PATIENCE, socket.read_exact(&mut echoed)).await.unwrap();
    }
    let sizes: Vec<usize> = gateway.upstream.requests().iter().map(|one| one.content.body.len()).collect();
    assert!(sizes.contains(&(1 << 20)), "{sizes:?}");
}

#[tokio::test]
async fn a_page_of_another_site_opens_a_public_socket_as_nobody_and_no_other() {
    let (gateway, stranger) = with_rules(RULES).start().await;
    let ada = signed_in(&gateway, ADA).await;
    let from = |origin: &'static str| [("Origin", origin), ("origin", origin)];
    for (browser, origin, user) in [
        (&ada, "https://evil.example", None),
        (&ada, "", None),
        (&stranger, "https://evil.example", None),
        (&stranger, "", None),
        (&ada, "https://iot.example.com", Some(ADA)),
    ] {
        for browser in [browser.copy(), browser.copy().http2()] {
            gateway.upstream.forget();
            let fields = from(origin);
            let fields = if browser.protocol() == stranger.protocol() { &fields[..1] } else { &fields[1..] };
            assert!(browser.try_tunnel("/public/live", fields).await.is_ok(), "{origin}");
            let request = gateway.upstream.arrived(1).await.pop().unwrap();
            assert_eq!(request.value("remote-user").as_deref(), user, "{origin}");
            let closed = browser.try_tunnel("/one/live", fields).await.map(drop);
            assert_eq!(closed.is_ok(), user.is_some(), "{origin}");
        }
    }
}

#[tokio::test]
async fn public_paths_are_there_while_the_store_is_not_and_nobody_is_let_in_elsewhere() {
    let (gateway, stranger) = with_rules(RULES).redis().start().await;
    let ada = signed_in(&gateway, ADA).await;
    let unknown = gateway.browser();
    unknown.set_cookie("__Host-portcullis", &"A".repeat(43));
    gateway.redis.as_ref().unwrap().kill().await;
    soon(PATIENCE, "it is noticed", async || {
        ada.fetch("/other/a").await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    gateway.upstream.forget();
    for browser in [&stranger, &ada, &unknown] {
        for folder in ["public", "anonymous", "mixed"] {
            assert_eq!(browser.fetch(&format!("/{folder}/a")).await.status, StatusCode::OK, "{folder}");
            assert_eq!(told(&gateway.upstream.requests().pop().unwrap()).0, None);
        }
        assert_eq!(browser.fetch("/closed/a").await.status, StatusCode::FORBIDDEN);
    }
    let passed = gateway.upstream.requests().len();
    for (browser, expected) in [(&stranger, 401), (&ada, 503), (&unknown, 503)] {
        for folder in ["one", "fresh", "staff", "other"] {
            let answer = browser.fetch(&format!("/{folder}/a")).await;
            assert_eq!(answer.status.as_u16(), expected, "{folder}");
            assert!(answer.headers.get("set-cookie").is_none());
        }
    }
    assert_eq!(gateway.upstream.requests().len(), passed);
}

#[tokio::test]
async fn a_group_is_let_in_and_out_as_soon_as_its_members_change() {
    let (gateway, stranger) = with_rules(RULES).start().await;
    let ada = signed_in(&gateway, ADA).await;
    assert_eq!(stranger.get("/staff/a").await.location(), "/.portcullis/login?rd=/staff/a");
    let refused = ada.get("/staff/a").await;
    assert_eq!(
        (refused.status, refused.heading()),
        (StatusCode::FORBIDDEN, "You don't have access".to_owned())
    );
    let script = ada.fetch("/staff/a").await;
    assert_eq!(script.header("content-type"), "application/problem+json");
    let groups = async |names: &[&str]| {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        gateway.administration().set_groups(ADA, names).await.unwrap();
    };
    groups(&["guests", "staff"]).await;
    soon(BOUND, "she is in", async || ada.fetch("/staff/a").await.status == StatusCode::OK).await;
    groups(&["guests"]).await;
    soon(BOUND, "she is out", async || ada.fetch("/staff/a").await.status == StatusCode::FORBIDDEN).await;
    let log = gateway.access_log();
    assert!(log.contains("user.name=ada@example.com") && log.contains("decision=deny"), "{log}");
}

#[tokio::test]
async fn a_fresh_code_is_asked_for_and_leads_back_to_the_page() {
    let (gateway, _) = with_rules(RULES).start().await;
    let ada = signed_in(&gateway, ADA).await;
    gateway.clock.advance(6 * MINUTE);
    let script = ada.fetch("/fresh/a").await;
    assert_eq!(script.status, StatusCode::UNAUTHORIZED);
    assert!(script.json()["detail"].as_str().unwrap().contains("fresh code"), "{}", script.text());
    assert!(
        script.json()["login_url"].as_str().unwrap().ends_with("/.portcullis/login?again=1"),
        "{}",
        script.text()
    );
    let before = ada.session();
    let page = ada.visit("/fresh/report?year=2026").await;
    assert_eq!(page.heading(), "Sign in");
    let page = ada.sign_in(&page, ADA).await;
    let code = gateway.phone(ADA).fresh_code();
    let page = ada.submit(&page, &[("code", &code)]).await;
    assert_eq!(page.text(), "the portal: GET /fresh/report?year=2026\n");
    assert_ne!(ada.session(), before, "a proof makes a session of its own");
    // Neither a password alone nor somebody else's code will do.
    gateway.clock.advance(6 * MINUTE);
    let page = ada.visit("/fresh/a").await;
    ada.sign_in(&page, ADA).await;
    assert_eq!(brief(&ada.get("/fresh/a").await), "again");
}

#[tokio::test]
async fn a_form_that_needs_a_fresh_code_is_kept_and_sent_afterwards() {
    let (gateway, _) = with_rules(RULES).start().await;
    let ada = signed_in(&gateway, ADA).await;
    gateway.clock.advance(6 * MINUTE);
    let answer = ada.post_form("/fresh/new", &[("name", "SIM 1")]).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert!(
        answer.location().contains("kept") && answer.location().ends_with("again=1"),
        "{}",
        answer.location()
    );
    assert!(gateway.upstream.requests().is_empty());
    let page = ada.follow(answer).await;
    assert!(page.text().contains("What you sent is safe"), "{}", page.text());
    let page = ada.sign_in(&page, ADA).await;
    let code = gateway.phone(ADA).fresh_code();
    let page = ada.submit(&page, &[("code", &code)]).await;
    assert_eq!(page.heading(), "Your form was kept");
    // Looked at for too long, it asks once more and is not lost.
    gateway.clock.advance(6 * MINUTE);
    let again = ada.fill(&page, &[]).await;
    assert!(
        again.location().contains("kept") && again.location().ends_with("again=1"),
        "{}",
        again.location()
    );
    let page = ada.follow(again).await;
    let page = ada.sign_in(&page, ADA).await;
    let page = ada.submit(&page, &[("code", &gateway.phone(ADA).fresh_code())]).await;
    let sent = ada.fill(&page, &[]).await;
    assert_eq!(sent.text(), "the portal: POST /fresh/new\n");
    // A form to a path that is closed is not kept for anybody.
    let closed = ada.post_form("/closed/new", &[("name", "SIM 1")]).await;
    assert_eq!(closed.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn under_strain_public_paths_have_a_share_of_their_own() {
    let builder = with_rules(RULES).set("server.max_connections", "100").set("server.workers", "1");
    let (gateway, _) = builder.set("server.timeouts.handshake", "60s").start().await;
    let ada = signed_in(&gateway, ADA).await;
    let mut held = Vec::new();
    for _ in 0..80 {
        held.push(tokio::net::TcpStream::connect(gateway.address()).await.unwrap());
    }
    soon(PATIENCE, "the strain is noticed", async || {
        gateway.admin("/ready").await.contains("\"load\":\"strained\"")
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..16 {
        let answer = gateway.browser().open(Request::get("/public/events").body(empty()).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        open.push(answer);
    }
    assert_eq!(gateway.browser().fetch("/public/a").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(gateway.browser().fetch("/other/a").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ada.fetch("/other/a").await.status, StatusCode::OK);
    assert_eq!(ada.fetch("/public/a").await.status, StatusCode::OK, "a user is no stranger there");
    drop(open);
    soon(PATIENCE, "there is room again", async || {
        gateway.browser().fetch("/public/a").await.status == StatusCode::OK
    })
    .await;
}

#[tokio::test]
async fn a_default_of_deny_or_bypass_leaves_our_own_pages_alone() {
    for default in ["deny", "bypass"] {
        let rules = r#"[{path = "/in/*"}]"#;
        let (gateway, stranger) = with_rules(rules).set("access.default", default).start().await;
        let ada = signed_in(&gateway, ADA).await;
        assert_eq!(ada.get("/in/a").await.status, StatusCode::OK);
        assert_eq!(stranger.get("/in/a").await.status, StatusCode::FOUND);
        let expected = if default == "deny" { StatusCode::FORBIDDEN } else { StatusCode::OK };
        for browser in [&stranger, &ada] {
            assert_eq!(browser.get("/a").await.status, expected);
            assert_ne!(browser.get("/.portcullis/login").await.status, StatusCode::FORBIDDEN);
        }
        assert_eq!(ada.get("/.portcullis/account").await.status, StatusCode::OK);
        assert_eq!(stranger.fetch("/.portcullis/whoami").await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn presets_open_what_they_name_to_strangers() {
    let builder = TestGateway::builder().set("access.presets", "robots,favicon,preflight");
    let (gateway, stranger) = builder.start().await;
    let ada = signed_in(&gateway, ADA).await;
    for browser in [&stranger, &ada] {
        assert_eq!(browser.get("/robots.txt").await.text(), "the portal: GET /robots.txt\n");
        assert_eq!(told(&gateway.upstream.requests().pop().unwrap()).0, None);
    }
    let asks = Request::builder()
        .method("OPTIONS")
        .uri("/api/sims")
        .header("origin", "https://other.example")
        .header("access-control-request-method", "PUT")
        .body(empty())
        .unwrap();
    assert_eq!(stranger.send(asks).await.status, StatusCode::OK);
    let bare = Request::builder().method("OPTIONS").uri("/api/sims").body(empty()).unwrap();
    assert_eq!(stranger.send(bare).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(stranger.get("/manifest.json").await.status, StatusCode::FOUND);
}
