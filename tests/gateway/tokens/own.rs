//! Tokens that users make for themselves: who may, what they open, and that they end.

use std::time::Duration;

use http::{Request, StatusCode};
use portcullis::{administration::For, tokens::Scope};

use super::{ADA, BOUND, bearer, builder, refusal};
use crate::support::{Answer, Browser, TestGateway, empty, logged_in, soon, test_gateway::Builder};

const ACCOUNT: &str = "/.portcullis/account";
const NEW: &str = "/.portcullis/tokens";
const BOB: &str = "bob@example.com";
const DAY: u64 = 24 * 60 * 60;

fn allowed() -> Builder {
    builder().set("tokens.self_service", "true")
}

/// Sends the form with these values, as it was shown just now.
async fn ask_for(browser: &Browser, name: &str, paths: &str, lifetime: &str) -> Answer {
    let page = browser.get(NEW).await;
    assert_eq!((page.status, page.heading().as_str()), (StatusCode::OK, "Create an access token"));
    let csrf = page.field("csrf");
    let fields = [("csrf", &*csrf), ("name", name), ("paths", paths), ("lifetime", lifetime)];
    browser.post_form(NEW, &fields).await
}

async fn make(browser: &Browser, name: &str, paths: &str) -> String {
    let made = ask_for(browser, name, paths, &(7 * DAY).to_string()).await;
    assert_eq!(
        (made.status, made.heading().as_str()),
        (StatusCode::OK, "Copy your token"),
        "{}",
        made.text()
    );
    let token = made.text_of("token");
    assert!(token.starts_with("pcl_"), "{token}");
    token
}

async fn made(gateway: &TestGateway) -> usize {
    gateway.administration().all_tokens().await.unwrap().len()
}

/// Presses the button beside the token of this name.
async fn revoke(browser: &Browser, id: &str) -> Answer {
    let csrf = browser.get(ACCOUNT).await.field("csrf");
    browser.post_form(ACCOUNT, &[("csrf", &csrf), ("revoke", id)]).await
}

#[tokio::test]
async fn nobody_makes_tokens_where_that_is_not_allowed() {
    let (gateway, browser) = logged_in(builder()).await;
    let account = browser.get(ACCOUNT).await;
    assert!(!account.text().contains("Access tokens"), "{}", account.text());
    assert_eq!(browser.get(NEW).await.status, StatusCode::NOT_FOUND);
    let csrf = account.field("csrf");
    let fields = [("csrf", &*csrf), ("name", "t"), ("paths", ""), ("lifetime", "604800")];
    assert_eq!(browser.post_form(NEW, &fields).await.status, StatusCode::NOT_FOUND);
    assert_eq!(made(&gateway).await, 0);
}

#[tokio::test]
async fn a_user_makes_a_token_sees_it_used_and_revokes_it() {
    let (gateway, browser) = logged_in(allowed()).await;
    assert!(browser.get(ACCOUNT).await.text().contains("href=\"/.portcullis/tokens\">Create a token</a>"));
    let token = make(&browser, "Backup  script", "/api/*\r\n\r\n /health \r\n").await;
    let program = gateway.browser();
    assert_eq!(refusal(&bearer(&program, "/api/sims", &token).await), "");
    let recorded = gateway.upstream.only_request();
    assert_eq!(recorded.value("remote-user").as_deref(), Some(ADA));
    assert_eq!(refusal(&bearer(&program, "/health", &token).await), "");
    assert_eq!(refusal(&bearer(&program, "/", &token).await), "out_of_scope");
    // It is shown once; loading that page again makes no other one.
    let account = browser.get(ACCOUNT).await.text();
    assert!(account.contains("Backup-script") && account.contains("only for"), "{account}");
    assert!(!account.contains(&token[14..]), "the secret is gone");
    let again = ask_for(&browser, "Backup script", "", "604800").await;
    assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(again.text().contains("already have a token with that name"), "{}", again.text());
    assert_eq!(made(&gateway).await, 1);
    // Somebody else may call theirs the same, and hears of nobody's.
    gateway.add_user(BOB).await;
    let bob = gateway.browser();
    bob.log_in(BOB).await;
    let bobs = make(&bob, "Backup script", "").await;
    assert!(!bob.get(ACCOUNT).await.text().contains(&token[4..14]));
    revoke(&bob, &token[4..14]).await;
    assert_eq!(refusal(&bearer(&program, "/api/sims", &token).await), "");

    let after = revoke(&browser, &token[4..14]).await;
    assert_eq!((after.status, after.location()), (StatusCode::SEE_OTHER, ACCOUNT.to_owned()));
    assert!(!browser.get(ACCOUNT).await.text().contains("Backup-script"));
    let is_over = async || refusal(&bearer(&program, "/api/sims", &token).await) == "revoked";
    soon(BOUND, "it is over", is_over).await;
    assert_eq!(refusal(&bearer(&program, "/", &bobs).await), "");
    // The name is free again.
    make(&browser, "Backup script", "").await;
    let names: Vec<_> = gateway
        .administration()
        .all_tokens()
        .await
        .unwrap()
        .into_iter()
        .map(|(record, _)| record.name)
        .collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("Backup-script/")).count(), 3, "{names:?}");
}

#[tokio::test]
async fn it_opens_nothing_that_its_user_could_not_open() {
    let rules = r#"[
        {path = "/staff/*", groups = "staff"},
        {path = "/staff/*", level = "deny"},
        {path = "/fresh/*", clients = "browser", max_age = "5m"},
        {path = "/fresh/*", clients = "token"},
        {path = "/hooks/*", clients = "token"},
        {path = "/hooks/*", level = "deny"},
        {path = "/ops/*", clients = "token", level = "one_factor"},
        {path = "/ops/*", groups = "drivers"},
        {path = "/ops/*", level = "deny"},
        {path = "/public/*", level = "bypass"},
    ]"#;
    let (gateway, browser) = logged_in(allowed().set("access.rules", rules)).await;
    let administration = gateway.administration();
    let own = make(&browser, "own", "").await;
    let given = administration.create_token("given", For::User(ADA), Scope::default(), None).await.unwrap().0;
    let program = gateway.browser();
    let status = async |path: &str, token: &str| bearer(&program, path, token).await.status.as_u16();
    for (path, by_own, by_given) in [
        ("/", 200, 200),
        ("/staff/a", 403, 403),
        ("/fresh/a", 403, 200),
        ("/hooks/a", 403, 200),
        ("/ops/a", 403, 200),
        ("/public/a", 200, 200),
    ] {
        assert_eq!((status(path, &own).await, status(path, &given).await), (by_own, by_given), "{path}");
    }
    administration.set_groups(ADA, super::texts(&["staff", "drivers"])).await.unwrap();
    soon(BOUND, "it follows the user's groups", async || status("/staff/a", &own).await == 200).await;
    assert_eq!(status("/ops/a", &own).await, 200);
    // Our own pages are for people.
    assert_ne!(status(ACCOUNT, &own).await, 200);
    assert_ne!(status(NEW, &own).await, 200);

    administration.set_disabled(ADA, true).await.unwrap();
    soon(BOUND, "it is closed", async || refusal(&bearer(&program, "/", &own).await) == "revoked").await;
    administration.remove_user(ADA).await.unwrap();
    soon(BOUND, "it is gone", async || refusal(&bearer(&program, "/", &own).await) == "unknown").await;
}

#[tokio::test]
async fn it_takes_both_factors_proved_lately_and_the_users_own_browser() {
    let (gateway, browser) = logged_in(allowed()).await;
    let stranger = gateway.browser();
    assert!(stranger.get(NEW).await.location().starts_with("/.portcullis/login"));
    let page = browser.get(NEW).await;
    let csrf = page.field("csrf");
    let form =
        |csrf: &str| browser.form_request(NEW, &[("csrf", csrf), ("name", "t"), ("lifetime", "604800")]);
    // A script in one of the portal's pages.
    let mut by_script = form(&csrf);
    by_script.headers_mut().insert("sec-fetch-mode", "cors".parse().unwrap());
    by_script.headers_mut().insert("sec-fetch-dest", "empty".parse().unwrap());
    assert_eq!(browser.send(by_script).await.status, StatusCode::FORBIDDEN);
    let reads = Request::get(NEW).header("sec-fetch-mode", "cors").body(empty()).unwrap();
    assert_eq!(browser.send(reads).await.status, StatusCode::FORBIDDEN);
    for bad in ["", "x", &stranger.visit("/").await.field("csrf")] {
        let answer = browser.post_form(NEW, &[("csrf", bad), ("name", "t"), ("lifetime", "604800")]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{bad:?}");
    }
    // Later, the code has to be given again: the page is not shown, and an old one is not taken.
    gateway.clock.advance(Duration::from_mins(11));
    let later = browser.get(NEW).await;
    assert!(later.location().contains("again=1") && later.location().contains("tokens"), "{later:?}");
    let csrf = browser.get(ACCOUNT).await.field("csrf");
    let late = browser.send(form(&csrf)).await;
    assert!(late.location().contains("again=1"), "{late:?}");
    assert_eq!(made(&gateway).await, 0);
}

#[tokio::test]
async fn a_session_of_one_factor_makes_no_tokens() {
    let (gateway, browser) =
        allowed().set("second_factor.mandatory_from", "2100-01-01T00:00:00Z").start().await;
    gateway.add_user(ADA).await;
    let page = browser.submit_password(ADA, crate::support::PASSWORD).await;
    let page = browser.follow(page).await;
    browser.fill(&page, &[("skip", "1")]).await;
    assert_eq!(browser.level().await, "one_factor");
    let account = browser.get(ACCOUNT).await;
    assert!(!account.text().contains("Create a token"), "{}", account.text());
    assert_eq!(browser.get(NEW).await.status, StatusCode::FORBIDDEN);
    let csrf = account.field("csrf");
    let fields = [("csrf", &*csrf), ("name", "t"), ("paths", ""), ("lifetime", "604800")];
    assert_eq!(browser.post_form(NEW, &fields).await.status, StatusCode::FORBIDDEN);
    assert_eq!(made(&gateway).await, 0);
}

#[tokio::test]
async fn names_paths_and_lifetimes_have_bounds_and_so_has_the_number() {
    let (gateway, browser) = logged_in(allowed().set("tokens.max_lifetime", "30d")).await;
    let day = DAY.to_string();
    let month = (30 * DAY).to_string();
    let many = "/a\n".repeat(21);
    for (name, paths, lifetime, says) in [
        ("", "", &*month, "letters, digits"),
        ("a/b", "", &month, "letters, digits"),
        ("--all", "", &month, "letters, digits"),
        ("<b>", "", &month, "letters, digits"),
        ("t", "api", &month, "one path per line"),
        ("t", "/a/../b", &month, "one path per line"),
        ("t", "/a*b", &month, "one path per line"),
        ("t", &many, &month, "at most 20"),
        ("t", "", "", "when the token expires"),
        ("t", "", &day, "when the token expires"),
        ("t", "", "7776000", "when the token expires"),
        ("t", "", "-1", "when the token expires"),
        ("t", "", "99999999999999999999", "when the token expires"),
    ] {
        let answer = ask_for(&browser, name, paths, lifetime).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{name} {paths} {lifetime}");
        assert!(answer.text().contains(says) && answer.text().contains("<title>Error"), "{}", answer.text());
    }
    assert_eq!(made(&gateway).await, 0);
    for number in 0..20 {
        make(&browser, &format!("t{number}"), "").await;
    }
    let answer = ask_for(&browser, "one-more", "", &month).await;
    assert!(answer.text().contains("limit of 20 tokens"), "{}", answer.text());
    assert_eq!(made(&gateway).await, 20);
    // What an operator has made is seen, and stays.
    let administration = gateway.administration();
    let (_, given) =
        administration.create_token("given", For::User(ADA), Scope::default(), None).await.unwrap();
    let account = browser.get(ACCOUNT).await.text();
    assert!(account.contains("Set up for you") && account.contains("never expires"), "{account}");
    revoke(&browser, &given.id).await;
    assert_eq!(administration.tokens_named("given").await.unwrap()[0].0.revoked_at, None);
    // One that has run out is removed like any other.
    gateway.clock.advance(Duration::from_hours(8 * 24));
    browser.log_in(ADA).await;
    assert!(browser.get(ACCOUNT).await.text().contains(">Expired<"));
}
