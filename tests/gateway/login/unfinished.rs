//! Logins that are left lying: whose QR code is shown again, and to whom not; whose form a form is; what is not written.

use std::time::Duration;

use http::StatusCode;
use sqlx::Row as _;

use super::{ADA, BOB};
use crate::support::{Browser, PASSWORD, TestGateway, now};

const LOGIN: &str = "__Host-portcullis-login";
const ENROL: &str = "/.portcullis/enrol";

async fn key(browser: &Browser, email: &str) -> String {
    let page = browser.visit("/.portcullis/login").await;
    browser.sign_in(&page, email).await.text_of("key")
}

#[tokio::test]
async fn whoever_has_scanned_need_not_scan_again_after_the_login_took_too_long() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let page = browser.visit("/sims").await;
    let enrol = browser.sign_in(&page, ADA).await;
    assert!(!enrol.text().contains("same QR code as before"));
    let phone = browser.scan(&enrol, ADA);
    gateway.clock.advance(Duration::from_mins(35));
    let late = browser.submit(&enrol, &[("code", &phone.fresh_code()), ("device_name", "Phone")]).await;
    assert!(late.text().contains("Signing in took too long"), "{}", late.text());
    let page = browser.sign_in(&late, ADA).await;
    assert_eq!(page.text_of("key"), enrol.text_of("key"));
    assert!(page.text().contains("This is the same QR code as before"), "{}", page.text());
    let page = browser.submit(&page, &[("code", &phone.fresh_code()), ("device_name", "Phone")]).await;
    assert_eq!(page.heading(), "Save your recovery codes");
    assert_eq!(browser.submit(&page, &[]).await.text(), "the portal: GET /sims\n");
}

#[tokio::test]
async fn a_cookie_that_somebody_made_up_gives_nobody_a_qr_code_they_know() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let thief = gateway.browser();
    for planted in ["A".repeat(43), format!("{}w", "x".repeat(42))] {
        for browser in [&browser, &thief] {
            browser.set_cookie(LOGIN, &planted);
        }
        assert_ne!(key(&thief, ADA).await, key(&browser, ADA).await, "{planted}");
    }
}

#[tokio::test]
async fn a_cookie_of_ours_that_was_planted_gives_the_qr_code_to_nobody_on_another_network() {
    let builder = TestGateway::builder().set("server.trusted_proxies", "[\"127.0.0.1\"]");
    let (gateway, thief) = builder.start().await;
    gateway.add_user(ADA).await;
    let seen = key(&thief, ADA).await;
    let planted = thief.cookie(LOGIN).unwrap();
    let browser = gateway.browser();
    browser.set_cookie(LOGIN, &planted);
    let page = browser.get("/.portcullis/login").await;
    let csrf = page.field("csrf");
    let mut request = browser
        .form_request("/.portcullis/login", &[("email", ADA), ("password", PASSWORD), ("csrf", &csrf)]);
    request.headers_mut().insert("x-forwarded-for", "198.51.100.7".parse().unwrap());
    assert_eq!(browser.send(request).await.location(), ENROL);
    let page = browser.get(ENROL).await;
    assert_ne!(page.text_of("key"), seen);
    assert!(page.text().contains("This is a new QR code"), "{}", page.text());
}

#[tokio::test]
async fn the_qr_code_changes_with_every_device_and_password() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let first = key(&browser, ADA).await;
    let cookie = browser.cookie(LOGIN).unwrap();
    assert_eq!(key(&browser, ADA).await, first, "nothing was bound");
    let administration = gateway.administration();
    administration.set_password(ADA, PASSWORD.into()).await.unwrap();
    browser.set_cookie(LOGIN, &cookie);
    let second = key(&browser, ADA).await;
    assert_ne!(second, first);
    let cookie = browser.cookie(LOGIN).unwrap();
    let page = browser.visit(ENROL).await;
    browser.bind(&page, ADA, "Phone").await;
    administration.remove_device(ADA, "Phone").await.unwrap();
    for cookie in [&cookie, &browser.cookie(LOGIN).unwrap_or_default()] {
        let browser = gateway.browser();
        browser.set_cookie(LOGIN, cookie);
        let third = key(&browser, ADA).await;
        assert!(third != second && third != first);
    }
}

#[tokio::test]
async fn a_form_of_somebody_elses_login_is_answered_with_a_page_that_says_so() {
    let date = now().plus(Duration::from_hours(48));
    let (gateway, browser) = TestGateway::builder().mandatory_from(date).start().await;
    gateway.add_user(ADA).await;
    gateway.add_user(BOB).await;
    let page = browser.visit("/left").await;
    let adas = browser.sign_in(&page, ADA).await;
    let page = browser.visit("/.portcullis/login").await;
    let bobs = browser.sign_in(&page, BOB).await;
    let wrong = [("code", "000000"), ("device_name", "Phone")];
    for fields in [&[("skip", "1")][..], &wrong, &[("cancel", "1")]] {
        let answer = browser.fill(&adas, fields).await;
        assert_eq!((answer.status, answer.starts_session()), (StatusCode::FORBIDDEN, false));
        assert_eq!(answer.heading(), "This page is out of date");
        assert!(answer.text().contains(BOB), "{}", answer.text());
    }
    assert_eq!(browser.level().await, "none");
    // Bob's own goes on, and then Ada's leads nowhere as Bob.
    browser.submit(&bobs, &[("skip", "1")]).await;
    assert_eq!(browser.whoami().await.unwrap()["email"], BOB);
    let answer = browser.fill(&adas, &[("skip", "1")]).await;
    assert_eq!(
        (answer.status, answer.heading().as_str()),
        (StatusCode::FORBIDDEN, "This page is out of date")
    );
}

#[tokio::test]
async fn cancelling_ends_the_login_and_not_you_begins_another() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let page = browser.visit("/sims").await;
    let page = browser.sign_in(&page, ADA).await;
    assert!(page.text().contains("Not you? Use another account"), "{}", page.text());
    let cookie = browser.cookie(LOGIN).unwrap();
    let left = browser.submit(&page, &[("cancel", "1")]).await;
    assert_eq!(left.heading(), "Sign in");
    browser.set_cookie(LOGIN, &cookie);
    assert_eq!(browser.visit(ENROL).await.heading(), "Sign in", "it is over");
}

#[tokio::test]
async fn looking_at_pages_writes_nothing_and_logins_do_not_pile_up() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    browser.log_in(ADA).await;
    let database = &gateway.stores().database;
    let written = async || {
        let row = sqlx::query("PRAGMA data_version").fetch_one(database).await.unwrap();
        let rows = database.rows().await.unwrap();
        (row.get::<i64, _>(0), format!("{rows:?}"))
    };
    let before = written().await.1;
    for _ in 0..20 {
        for path in ["login", "code", "recovery", "enrol", "recovery-codes", "account", "whoami", "logout"] {
            browser.get(&format!("/.portcullis/{path}")).await;
        }
    }
    assert_eq!(written().await.1, before);
    for _ in 0..30 {
        gateway.browser().submit_password(ADA, PASSWORD).await;
    }
    let pending: i64 =
        sqlx::query("SELECT COUNT(*) FROM pending_logins").fetch_one(database).await.unwrap().get(0);
    assert!(pending <= 20, "{pending}");
}

#[tokio::test]
async fn saved_recovery_codes_stay_good_until_others_are_asked_for_with_fresh_proof() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let page = browser.visit("/").await;
    let page = browser.sign_in(&page, ADA).await;
    let codes = browser.bind(&page, ADA, "Phone").await.text_of("codes");
    let stolen = gateway.browser();
    stolen.set_cookie("__Host-portcullis", &browser.session());
    gateway.clock.advance(Duration::from_mins(11));
    for path in ["/.portcullis/recovery-codes", "/.portcullis/recovery-codes?rd=/x"] {
        let answer = stolen.get(path).await;
        assert!(answer.location().ends_with("again=1"), "{answer:?}");
    }
    let csrf = stolen.get("/.portcullis/account").await.field("csrf");
    let answer = stolen.post_form("/.portcullis/recovery-codes", &[("csrf", &csrf), ("new", "1")]).await;
    assert!(answer.location().ends_with("again=1"), "{answer:?}");
    // Hours later, after another login, they are the same ones, and the user may ask for others.
    gateway.clock.advance(Duration::from_hours(2));
    let page = browser.visit("/").await;
    let page = browser.sign_in(&page, ADA).await;
    let page = browser.submit(&page, &[("code", &gateway.phone(ADA).fresh_code())]).await;
    assert_eq!(page.text_of("codes"), codes);
    let fresh = browser.submit(&page, &[("new", "1")]).await;
    assert_eq!(fresh.heading(), "Save your recovery codes");
    assert_ne!(fresh.text_of("codes"), codes);
    browser.submit(&fresh, &[]).await;
    let page = browser.visit("/.portcullis/recovery-codes?new=1").await;
    assert!(page.text().contains("Your 10 recovery codes stop working"), "{}", page.text());
}
