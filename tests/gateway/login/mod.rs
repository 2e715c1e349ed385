//! The login as users go through it, and what is left of it: the session, what a script may know of it, its end.

mod forms;
mod guessing;
mod steps;
mod strangers;
mod tabs;
mod unfinished;

use std::time::Duration;

use http::{Request, StatusCode};
use portcullis::clock::Clock as _;

use crate::support::{ADA, Answer, BOB, PASSWORD, TestGateway, body, logged_in, now, upstream::Recorded};

#[tokio::test]
async fn the_first_login_goes_from_the_page_asked_for_over_qr_code_and_recovery_codes_back_to_it() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;

    let asked = browser.get("/sims?page=2&sort=-date").await;
    assert_eq!(asked.status, StatusCode::FOUND);
    assert_eq!(asked.location(), "/.portcullis/login?rd=/sims%3Fpage%3D2%26sort%3D-date");
    let page = browser.follow(asked).await;
    assert_eq!((page.status, page.heading().as_str()), (StatusCode::OK, "Sign in"));
    assert!(page.text().contains("mailto:support@example.com"), "every page says where to find help");

    let page = browser.sign_in(&page, ADA).await;
    assert_eq!(page.heading(), "Set up your authenticator app");
    assert!(page.text().contains("<svg") && page.text().contains("otpauth:&#x2f;&#x2f;totp"));
    let key = page.text_of("key");
    let phone = browser.scan(&page, ADA);
    let wrong = phone.code_at(gateway.clock.now().plus(Duration::from_hours(1)));
    let page = browser.submit(&page, &[("code", &wrong), ("device_name", "Ada's phone")]).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(page.text_of("code-problem").split('.').next(), Some("That code did not work"));
    assert_eq!(page.text_of("key"), key, "nobody scans twice");
    assert_eq!(page.field("device_name"), "Ada's phone");
    assert_eq!(browser.level().await, "none", "nothing is enrolled before a right code has been saved");

    let page = browser.submit(&page, &[("code", &phone.fresh_code()), ("device_name", "Ada's phone")]).await;
    assert_eq!(page.heading(), "Save your recovery codes");
    let codes = recovery_codes(&page);
    assert_eq!(codes.len(), 10);
    assert_eq!(
        recovery_codes(&browser.get("/.portcullis/recovery-codes").await),
        codes,
        "a reload loses nothing"
    );
    let page = browser.submit(&page, &[]).await;
    assert_eq!(page.text(), "the portal: GET /sims?page=2&sort=-date\n");
    let again = browser.get("/.portcullis/recovery-codes").await;
    assert_eq!((again.status, again.location().as_str()), (StatusCode::SEE_OTHER, "/"), "shown once");

    // The next login, in another browser, takes a code and ends at its own page.
    let elsewhere = gateway.browser().http2();
    let page = elsewhere.visit("/alarms").await;
    let page = elsewhere.sign_in(&page, ADA).await;
    assert_eq!(page.heading(), "Enter your code");
    let page = elsewhere.submit(&page, &[("code", &phone.fresh_code())]).await;
    assert_eq!(page.text(), "the portal: GET /alarms\n");
    let asked: Vec<String> = gateway.upstream.requests().iter().map(Recorded::first_line).collect();
    assert_eq!(
        asked,
        ["GET /sims?page=2&sort=-date HTTP/1.1", "GET /alarms HTTP/1.1"],
        "nothing else went through"
    );
}

/// The codes on the page that shows them.
fn recovery_codes(page: &Answer) -> Vec<String> {
    page.text_of("codes").split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn codes_are_read_as_people_type_them() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    drop(browser);
    let phone = gateway.phone(ADA);
    for spaced in
        [|code: &str| format!(" {} {}\t", &code[..3], &code[3..]), |code: &str| format!("{code}\u{a0}")]
    {
        let browser = gateway.browser();
        browser.submit_password(ADA, PASSWORD).await;
        assert!(browser.submit_code(&spaced(&phone.fresh_code())).await.starts_session());
    }
}

#[tokio::test]
async fn a_recovery_code_stands_in_for_the_phone_and_works_once() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let page = browser.visit("/").await;
    let page = browser.sign_in(&page, ADA).await;
    let page = browser.bind(&page, ADA, "Phone").await;
    let code = recovery_codes(&page).remove(3);
    browser.submit(&page, &[]).await;

    let elsewhere = gateway.browser();
    let page = elsewhere.visit("/lost").await;
    elsewhere.sign_in(&page, ADA).await;
    let page = elsewhere.visit("/.portcullis/recovery?rd=/lost").await;
    assert_eq!(page.heading(), "Use a recovery code");
    let untidy = format!(" {} ", code.to_uppercase().replace('-', " "));
    let page = elsewhere.submit(&page, &[("recovery_code", &untidy)]).await;
    assert_eq!(page.heading(), "You used a recovery code");
    let text = page.text();
    assert!(text.contains("You have 9 recovery codes left."), "{text}");
    assert!(text.contains("href=\"/.portcullis/enrol\">Add your new phone now</a>"), "{text}");
    assert!(text.contains("href=\"&#x2f;lost\">Go to IoT Connectivity</a>"), "{text}");
    assert_eq!(elsewhere.get("/lost").await.text(), "the portal: GET /lost\n");
    let who = elsewhere.whoami().await.unwrap();
    assert_eq!(who["amr"], serde_json::json!(["pwd", "rec"]));
    assert!(elsewhere.get("/.portcullis/account").await.text().contains("9 recovery codes are left"));

    let thief = gateway.browser();
    let page = thief.visit("/").await;
    thief.sign_in(&page, ADA).await;
    let page = thief.visit("/.portcullis/recovery").await;
    let page = thief.submit(&page, &[("recovery_code", &code)]).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert!(page.text_of("recovery-problem").contains("did not work"));
    assert_eq!(thief.level().await, "none");
}

#[tokio::test]
async fn a_password_stays_good_until_somebody_changes_it() {
    let (gateway, _) = logged_in(TestGateway::builder()).await;
    for _ in 0..3 {
        gateway.clock.advance(Duration::from_hours(24 * 400));
        let browser = gateway.browser();
        assert_eq!(browser.submit_password(ADA, PASSWORD).await.location(), "/.portcullis/code");
        assert!(browser.submit_code(&gateway.phone(ADA).fresh_code()).await.starts_session());
    }
}

#[tokio::test]
async fn a_script_learns_who_is_signed_in_and_how_well_proved() {
    let (gateway, browser) =
        TestGateway::builder().mandatory_from(now().plus(Duration::from_hours(48))).start().await;
    gateway.add_user(ADA).await;
    let stranger = browser.fetch("/.portcullis/whoami").await;
    assert_eq!(stranger.status, StatusCode::UNAUTHORIZED);
    assert_eq!(stranger.header("content-type"), "application/problem+json");
    assert!(
        stranger
            .header("www-authenticate")
            .contains("login_url=\"https://iot.example.com/.portcullis/login\"")
    );
    assert_eq!(stranger.json()["login_url"], "https://iot.example.com/.portcullis/login");

    let page = browser.visit("/").await;
    let page = browser.sign_in(&page, ADA).await;
    browser.submit(&page, &[("skip", "1")]).await;
    let expires_at = gateway.clock.now().plus(Duration::from_hours(12)).to_string();
    assert_eq!(
        browser.whoami().await.unwrap(),
        serde_json::json!({
            "email": ADA, "groups": ["ops"], "level": "one_factor", "expires_at": expires_at, "amr": ["pwd"],
        })
    );
    let full = gateway.browser();
    full.log_in_to("/", ADA).await;
    let who = full.whoami().await.unwrap();
    assert_eq!((&who["level"], &who["amr"]), (&"two_factor".into(), &serde_json::json!(["pwd", "otp"])));
    assert!(
        !full.fetch("/.portcullis/whoami").await.text().contains(&full.session()),
        "the cookie is in no body"
    );
}

#[tokio::test]
async fn signing_out_takes_the_sessions_own_form_and_leaves_nothing_behind() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let other = gateway.browser();
    other.log_in_to("/", ADA).await;
    let foreign = other.get("/.portcullis/account").await.form(&["csrf"]).value("csrf").unwrap().to_owned();
    for csrf in ["", "x", &foreign] {
        let answer = browser.post_form("/.portcullis/logout", &[("csrf", csrf)]).await;
        assert_eq!((answer.status, answer.set_cookies()), (StatusCode::FORBIDDEN, vec![]), "{csrf}");
        assert_eq!(answer.heading(), "You are still signed in");
    }
    assert_eq!(browser.get("/.portcullis/logout").await.location(), "/.portcullis/account");
    assert_eq!(browser.level().await, "two_factor");

    let session = browser.session();
    let page = browser.get("/.portcullis/account").await;
    let answer = browser.post_form("/.portcullis/logout", &[("csrf", &page.field("csrf"))]).await;
    assert_eq!((answer.status, answer.location().as_str()), (StatusCode::SEE_OTHER, "/.portcullis/logout"));
    assert_eq!(browser.get("/.portcullis/logout").await.heading(), "You are signed out");
    assert!(answer.header("clear-site-data").contains("\"cache\""));
    let cleared = answer.set_cookies();
    for name in ["__Host-portcullis=;", "__Host-portcullis-login=;"] {
        assert!(
            cleared.iter().any(|cookie| cookie.starts_with(name) && cookie.contains("Max-Age=0")),
            "{cleared:?}"
        );
    }
    assert_eq!(browser.cookie("__Host-portcullis"), None);
    browser.set_cookie("__Host-portcullis", &session);
    assert_eq!(browser.get("/").await.status, StatusCode::FOUND, "the session is dead, not just its cookie");
    assert_eq!(other.level().await, "two_factor", "and nobody else's");
    // Once more, with the page of before: there is nothing left to sign out of.
    let again = browser.post_form("/.portcullis/logout", &[("csrf", &page.field("csrf"))]).await;
    let again = browser.follow(again).await;
    assert_eq!((again.status, again.heading().as_str()), (StatusCode::OK, "You are signed out"));
}

#[tokio::test]
async fn the_account_page_shows_devices_codes_and_sessions() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let agent = "Browser of <b>Ada</b>";
    let request = Request::post("/.portcullis/login")
        .header("user-agent", agent)
        .header("content-type", "application/x-www-form-urlencoded");
    let elsewhere = gateway.browser();
    let csrf = elsewhere.get("/.portcullis/login").await.field("csrf");
    let form = format!("email={ADA}&password={}&csrf={csrf}", PASSWORD.replace(' ', "+"));
    elsewhere.send(request.body(body(form)).unwrap()).await;
    let page = elsewhere.get("/.portcullis/code").await;
    let form = page.form(&["code"]);
    let request = Request::post(&form.action)
        .header("user-agent", agent)
        .header("content-type", "application/x-www-form-urlencoded");
    let fields = format!("code={}&csrf={}", gateway.phone(ADA).fresh_code(), form.value("csrf").unwrap());
    assert!(elsewhere.send(request.body(body(fields)).unwrap()).await.starts_session());

    let page = browser.get("/.portcullis/account").await;
    let text = page.text();
    assert_eq!(page.heading(), "Your account");
    for part in [ADA, "Phone</p>", "10 recovery codes are left", "This session", "127.0.0.1", "Add a device"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("Browser of &lt;b&gt;Ada") && !text.contains("<b>Ada"), "{text}");
    assert_eq!(text.matches("This session").count(), 1);
    let stranger = gateway.browser().get("/.portcullis/account").await;
    assert_eq!(
        (stranger.status, stranger.location().as_str()),
        (StatusCode::FOUND, "/.portcullis/login?rd=/.portcullis/account")
    );
}

#[tokio::test]
async fn the_way_to_the_account_page_leads_through_the_login_back_to_it() {
    let (gateway, _) = logged_in(TestGateway::builder()).await;
    let browser = gateway.browser();
    let page = browser.log_in_to("/.portcullis/account", ADA).await;
    assert_eq!(page.heading(), "Your account");
}
