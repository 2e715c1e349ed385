//! Two gateways on one PostgreSQL, sessions included: whatever one of them does holds at the other.

use std::time::Duration;

use http::StatusCode;

use crate::support::{
    ADA, Browser, TestGateway,
    postgres::{PostgresServer, new_database},
    process::run,
    soon,
};

/// What is promised of a revocation, and of an answer while the store hangs.
const BOUND: Duration = Duration::from_secs(1);

async fn two_gateways(server: &PostgresServer) -> (TestGateway, TestGateway) {
    let url = new_database(server);
    let (one, _) = TestGateway::builder().set("storage.database", &url).start().await;
    let (other, _) = one.twin().await;
    one.add_user(ADA).await;
    (one, other)
}

/// The same browser, sent to the other gateway by whatever stands before the two.
fn at(browser: &Browser, gateway: &TestGateway) -> Browser {
    browser.copy().moved_to(gateway.surroundings())
}

#[tokio::test]
async fn a_login_begun_at_one_gateway_goes_on_at_the_other() {
    let server = PostgresServer::start(&[]);
    let (one, other) = two_gateways(&server).await;
    // The first device, step by step at alternating gateways.
    let browser = one.browser();
    let page = browser.visit("/sims").await;
    let browser = at(&browser, &other);
    let enrol = browser.sign_in(&page, ADA).await;
    let browser = at(&browser, &one);
    let codes = browser.bind(&enrol, ADA, "Phone").await;
    assert_eq!(codes.heading(), "Save your recovery codes");
    let browser = at(&browser, &other);
    assert_eq!(browser.submit(&codes, &[]).await.text(), "the portal: GET /sims\n");
    assert_eq!(at(&browser, &one).level().await, "two_factor");

    // Later, with a code; and once more with the same one.
    let (later, thief) = (one.browser(), other.browser());
    let page = later.visit("/sims").await;
    let form = later.sign_in(&page, ADA).await;
    let later = at(&later, &other);
    let code = one.phone(ADA).fresh_code();
    assert_eq!(later.submit(&form, &[("code", &code)]).await.text(), "the portal: GET /sims\n");
    for gateway in [&one, &other] {
        let thief = at(&thief, gateway);
        let page = thief.visit("/sims").await;
        let form = thief.sign_in(&page, ADA).await;
        let refused = thief.submit(&form, &[("code", &code)]).await;
        assert_eq!(refused.heading(), "Enter your code");
        assert_eq!(thief.level().await, "none");
    }
}

#[tokio::test]
async fn a_session_revoked_at_one_gateway_is_gone_at_the_other_within_a_second() {
    let server = PostgresServer::start(&[]);
    let (one, other) = two_gateways(&server).await;
    let browser = one.browser();
    browser.log_in(ADA).await;
    let there = at(&browser, &other);
    assert_eq!(there.get("/").await.status, StatusCode::OK);
    let account = browser.get("/.portcullis/account").await;
    assert_eq!(browser.submit(&account, &[]).await.heading(), "You are signed out");
    soon(BOUND, "the session is gone at the other gateway", async || there.level().await == "none").await;
    // Nor does anybody get in whom an operator has disabled.
    let browser = one.browser();
    browser.log_in(ADA).await;
    let there = at(&browser, &other);
    assert_eq!(there.get("/").await.status, StatusCode::OK);
    one.administration().set_disabled(ADA, true).await.unwrap();
    soon(BOUND, "the user is out at the other gateway", async || there.level().await == "none").await;
}

#[tokio::test]
async fn while_the_server_hangs_nobody_is_let_in_and_nobody_is_logged_out() {
    let server = PostgresServer::start(&[]);
    let (one, _other) = two_gateways(&server).await;
    let (browser, stranger) = (one.browser(), one.browser());
    browser.log_in(ADA).await;
    let page = stranger.visit("/sims").await;
    server.freeze();
    let start = std::time::Instant::now();
    let refused = stranger.fill(&page, &[("email", ADA), ("password", crate::support::PASSWORD)]).await;
    assert!(start.elapsed() < 3 * BOUND, "{:?}", start.elapsed());
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!refused.starts_session());
    // The cache is believed for a second at most.
    soon(2 * BOUND, "sessions cannot be told any more", async || {
        let answer = browser.get("/").await;
        assert!(answer.set_cookies().is_empty());
        answer.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    server.thaw();
    soon(5 * BOUND, "it goes on by itself", async || browser.get("/").await.status == StatusCode::OK).await;
}

#[tokio::test]
async fn a_sealing_key_is_changed_under_two_gateways_and_nobody_notices() {
    let server = PostgresServer::start(&[]);
    let url = new_database(&server);
    let (one, _) = TestGateway::builder().set("storage.database", &url).start().await;
    let (other, _) = one.twin().await;
    one.add_user(ADA).await;
    let browser = one.browser();
    browser.log_in(ADA).await;
    // Somebody is in the middle of a login all the while.
    let half = one.browser();
    let page = half.visit("/sims").await;
    let form = half.sign_in(&page, ADA).await;
    let file = one.folder().join("portcullis.toml");
    let written = std::fs::read_to_string(&file).unwrap().replace("sqlite:portcullis.db", &url);
    std::fs::write(&file, written).unwrap();
    let file = file.to_str().unwrap();
    let sealing_key = async |arguments: &[&str]| {
        run(&[&["sealing-key"], arguments, &["--json", "--config", file]].concat(), "").await
    };
    let before = sealing_key(&["list"]).await.json();
    let old = before[0]["key"].as_str().unwrap().to_owned();
    assert_eq!((before.as_array().unwrap().len(), before[0]["state"].as_str()), (1, Some("sealing")));
    let sealed = before[0]["records"].as_u64().unwrap();
    assert!(sealed >= 4, "{before}");

    let new = sealing_key(&["rotate", "--prepare"]).await.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(sealing_key(&["rotate", "--activate"]).await.json()["key"], new.as_str());
    for gateway in [&one, &other] {
        soon(5 * BOUND, "a running gateway seals with the new key", async || {
            gateway.browser().log_in(ADA).await;
            let listed = sealing_key(&["list"]).await.json();
            listed[0]["key"] == new.as_str() && listed[0]["records"].as_u64() > Some(0)
        })
        .await;
    }
    let refused = sealing_key(&["remove", &old]).await;
    assert!(refused.code == 1 && refused.err.contains("sealing-key reseal"), "{refused:?}");
    let resealed = sealing_key(&["reseal"]).await.json();
    assert!(resealed["resealed"].as_u64() >= Some(sealed) && resealed["left"] == 0, "{resealed}");
    assert_eq!(sealing_key(&["reseal"]).await.json()["resealed"], 0);
    assert_eq!(sealing_key(&["remove", &old, "--yes"]).await.code, 0);
    assert_eq!(sealing_key(&["remove", &new, "--yes"]).await.code, 1, "it seals");

    let restarted = one.restart().await;
    assert_eq!(at(&browser, &restarted).level().await, "two_factor");
    assert_eq!(at(&browser, &other).level().await, "two_factor");
    let half = at(&half, &restarted);
    let code = restarted.phone(ADA).fresh_code();
    assert_eq!(half.submit(&form, &[("code", &code)]).await.text(), "the portal: GET /sims\n");
}

#[tokio::test]
async fn an_embedded_store_moves_into_postgres_and_its_users_notice_nothing() {
    let server = PostgresServer::start(&[]);
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    browser.log_in(ADA).await;
    let phone = gateway.phone(ADA);
    let half = gateway.browser();
    let page = half.visit("/sims").await;
    let form = half.sign_in(&page, ADA).await;
    let used = phone.fresh_code();
    let second = gateway.browser();
    second.log_in_to("/sims", ADA).await;
    let builder = gateway.its_builder();
    let (url, file) = (new_database(&server), gateway.folder().join("portcullis.toml"));
    let file = file.to_str().unwrap();
    let fresh = format!("sqlite:{}", gateway.folder().join("fresh.db").display());

    let status = run(&["store", "status", "--json", "--config", file], "").await.json();
    assert_eq!(
        (&status["pending_migrations"], status["store"].as_str().unwrap().contains("sqlite:")),
        (&0.into(), true)
    );
    let rows = |tables: &serde_json::Value| -> Vec<String> {
        tables.as_array().unwrap().iter().map(|fact| format!("{}", fact["rows"])).collect()
    };
    let copied = run(&["store", "copy", "--yes", "--to", &url, "--json", "--config", file], "").await;
    assert_eq!(copied.code, 0, "{copied:?}");
    assert_eq!(rows(&copied.json()["tables"]), rows(&status["tables"]));
    // A second time there is something there already.
    let again = run(&["store", "copy", "--yes", "--to", &url, "--config", file], "").await;
    assert!(again.code == 1 && again.err.contains("the target is not empty"), "{again:?}");
    let back = run(&["store", "copy", "--yes", "--to", &fresh, "--config", file], "").await;
    assert!(back.code == 0 && back.err.contains("users: 1 of 1"), "{back:?}");
    let unchanged = run(&["store", "status", "--json", "--config", file], "").await.json();
    assert_eq!(unchanged, status);

    let folder = gateway.folder().to_owned();
    gateway.drain();
    let (moved, _) = builder.set("storage.database", &url).start().await;
    assert_eq!(moved.folder(), folder);
    // A session, and a login in progress, go on.
    assert_eq!(at(&browser, &moved).level().await, "two_factor");
    let half = at(&half, &moved);
    assert_eq!(
        half.submit(&form, &[("code", &used)]).await.heading(),
        "Enter your code",
        "it was used before"
    );
    let new = moved.browser();
    assert_eq!(new.log_in_to("/sims", ADA).await.text(), "the portal: GET /sims\n");
}
