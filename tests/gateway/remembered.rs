//! "Keep me signed in": who may ask for it, where the choice is kept on the way, and how long such a session lasts.

use std::time::Duration;

use http::StatusCode;

use crate::support::{ADA, Answer, Browser, PASSWORD, TestGateway, now, soon, test_gateway::Builder};

const DAY: Duration = Duration::from_hours(24);

async fn offering(builder: Builder) -> (TestGateway, Browser) {
    let (gateway, browser) = builder.set("sessions.remember_me", "30d").start().await;
    gateway.add_user(ADA).await;
    (gateway, browser)
}

fn stores() -> [Builder; 2] {
    [TestGateway::builder(), TestGateway::builder().redis()]
}

/// Gives the password and ticks the box.
async fn asking(browser: &Browser, page: &Answer) -> Answer {
    browser.submit(page, &[("email", ADA), ("password", PASSWORD), ("remember", "1")]).await
}

/// The session cookie of the answer that finishes a login.
fn session_cookie(answer: &Answer) -> String {
    let cookies = answer.set_cookies();
    let cookie = cookies.iter().find(|cookie| cookie.starts_with("__Host-portcullis="));
    cookie.unwrap_or_else(|| panic!("no session: {} {}", answer.status, answer.text())).clone()
}

async fn is_in(browser: &Browser) -> bool {
    browser.whoami().await.is_some()
}

#[tokio::test]
async fn who_asks_to_be_kept_signed_in_is_in_for_thirty_days_without_a_request() {
    for builder in stores() {
        let (gateway, browser) = offering(builder).await;
        let page = browser.visit("/sims").await;
        let page = asking(&browser, &page).await;
        let phone = browser.scan(&page, ADA);
        let code = phone.fresh_code();
        let done = browser.fill(&page, &[("code", &code), ("device_name", "Phone")]).await;
        let cookie = session_cookie(&done);
        assert!(cookie.ends_with("; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=2592000"), "{cookie}");
        gateway.clock.advance(29 * DAY + DAY / 2);
        let (twin, _) = gateway.twin().await;
        let elsewhere = browser.copy().moved_to(twin.surroundings());
        assert!(is_in(&browser).await && is_in(&elsewhere).await);
        let account = browser.get("/.portcullis/account").await;
        assert!(account.text().contains("kept signed in until"), "{}", account.text());
        gateway.clock.advance(DAY / 2);
        assert!(!is_in(&browser).await && !is_in(&elsewhere).await);
    }
}

#[tokio::test]
async fn who_does_not_ask_is_out_after_an_hour_and_with_the_browser() {
    for builder in stores() {
        let (gateway, browser) = offering(builder).await;
        let page = browser.visit("/").await;
        let page = browser.sign_in(&page, ADA).await;
        let code = browser.scan(&page, ADA).fresh_code();
        let done = browser.fill(&page, &[("code", &code), ("device_name", "Phone")]).await;
        assert!(!session_cookie(&done).contains("Max-Age"));
        assert!(is_in(&browser).await);
        gateway.clock.advance(Duration::from_hours(1));
        assert!(!is_in(&browser).await);
    }
}

#[tokio::test]
async fn where_it_is_not_offered_asking_for_it_changes_nothing() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let login = browser.get("/.portcullis/login").await;
    assert!(!login.has_form("remember"));
    let csrf = login.field("csrf");
    let fields = [("email", ADA), ("password", PASSWORD), ("remember", "1"), ("csrf", &csrf)];
    let next = browser.post_form("/.portcullis/login", &fields).await;
    let page = browser.follow(next).await;
    let code = browser.scan(&page, ADA).fresh_code();
    let done = browser.fill(&page, &[("code", &code), ("device_name", "Phone")]).await;
    assert!(!session_cookie(&done).contains("Max-Age"));
    gateway.clock.advance(Duration::from_hours(1));
    assert!(!is_in(&browser).await);
}

#[tokio::test]
async fn the_choice_is_made_beside_the_password_and_nowhere_else() {
    let (gateway, browser) = offering(TestGateway::builder()).await;
    browser.log_in_to("/", ADA).await;
    gateway.clock.advance(Duration::from_mins(5));
    let other = gateway.browser();
    let page = other.visit("/").await;
    let page = other.sign_in(&page, ADA).await;
    let code = gateway.phone(ADA).fresh_code();
    let csrf = page.field("csrf");
    let fields = [("code", &*code), ("csrf", &*csrf), ("remember", "1")];
    let done = other.post_form("/.portcullis/code?remember=1", &fields).await;
    assert!(!session_cookie(&done).contains("Max-Age"));
    gateway.clock.advance(Duration::from_hours(1));
    assert!(!is_in(&other).await);
}

#[tokio::test]
async fn the_choice_outlasts_wrong_passwords_wrong_codes_and_a_restart() {
    let (gateway, browser) = offering(TestGateway::builder()).await;
    let page = browser.visit("/").await;
    let wrong = [("email", ADA), ("password", "not the right password"), ("remember", "1")];
    let page = browser.submit(&page, &wrong).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert_eq!(page.form(&["remember"]).value("remember"), Some("1"), "still ticked: {}", page.text());
    let page = browser.sign_in(&page, ADA).await;
    let page = browser.submit(&page, &[("code", "000000"), ("device_name", "Phone")]).await;
    let gateway = gateway.restart().await;
    let browser = browser.moved_to(gateway.surroundings());
    let code = browser.scan(&page, ADA).fresh_code();
    let done = browser.fill(&page, &[("code", &code), ("device_name", "Phone")]).await;
    assert!(session_cookie(&done).contains("; Max-Age=2592000"));
    // An unticked box after that is another choice.
    let again = gateway.browser();
    let page = again.visit("/").await;
    let page = again.submit(&page, &wrong).await;
    let form = page.form(&["email"]);
    let fields: Vec<_> = form.filled(&[("password", PASSWORD)]);
    let fields: Vec<_> = fields.into_iter().filter(|(name, _)| *name != "remember").collect();
    again.post_form(&form.action, &fields).await;
    let done = again.submit_code(&gateway.phone(ADA).fresh_code()).await;
    assert!(!session_cookie(&done).contains("Max-Age"));
}

#[tokio::test]
async fn what_takes_the_place_of_a_remembered_session_is_remembered_to_the_same_end() {
    for builder in stores() {
        let date = now().plus(4 * DAY);
        let (gateway, browser) = offering(builder.mandatory_from(date)).await;
        let page = browser.visit("/").await;
        let page = asking(&browser, &page).await;
        browser.submit(&page, &[("skip", "1")]).await;
        assert_eq!(browser.level().await, "one_factor");
        gateway.clock.advance(5 * DAY);
        // The first device, which has become mandatory, takes the password once more; the box is ticked as it was.
        let page = browser.visit("/sims").await;
        assert_eq!(page.form(&["remember"]).value("remember"), Some("1"), "{}", page.text());
        let page = browser.sign_in(&page, ADA).await;
        let code = browser.scan(&page, ADA).fresh_code();
        let done = browser.fill(&page, &[("code", &code), ("device_name", "Phone")]).await;
        let cookie = session_cookie(&done);
        assert!(cookie.ends_with(&format!("; Max-Age={}", 30 * 24 * 3600)), "{cookie}");
        assert_eq!(browser.level().await, "two_factor");
        // A further device, after the password was given once more.
        gateway.clock.advance(Duration::from_mins(11));
        let page = browser.visit("/.portcullis/enrol").await;
        assert_eq!(page.form(&["remember"]).value("remember"), Some("1"), "{}", page.text());
        gateway.clock.advance(Duration::from_mins(1));
        let page = browser.sign_in(&page, ADA).await;
        let phone = gateway.phone(ADA);
        let page = browser.submit(&page, &[("code", &phone.fresh_code())]).await;
        assert_eq!(page.heading(), "Save your recovery codes");
        let page = browser.submit(&page, &[]).await;
        let code = browser.scan(&page, ADA).fresh_code();
        let done = browser.fill(&page, &[("code", &code), ("device_name", "Other phone")]).await;
        assert!(session_cookie(&done).contains("; Max-Age=25920"), "{}", session_cookie(&done));
        gateway.clock.advance(29 * DAY);
        assert!(is_in(&browser).await);
    }
}

#[tokio::test]
async fn an_operator_sees_who_is_kept_signed_in_and_ends_it_like_any_other() {
    for builder in stores() {
        let (gateway, browser) = offering(builder).await;
        let page = browser.visit("/").await;
        let page = asking(&browser, &page).await;
        browser.bind(&page, ADA, "Phone").await;
        gateway.clock.advance(10 * DAY);
        let sessions = gateway.administration().sessions(Some(ADA)).await.unwrap();
        assert!(sessions.len() == 1 && sessions[0].remembered);
        assert!(is_in(&browser).await);
        gateway.administration().revoke_session(&sessions[0].id.to_hex()).await.unwrap();
        soon(Duration::from_secs(1), "it is over", async || !is_in(&browser).await).await;
    }
}

#[tokio::test]
async fn a_form_is_kept_for_a_user_whose_remembered_session_has_run_out() {
    for builder in stores() {
        let (gateway, browser) = offering(builder).await;
        let page = browser.visit("/").await;
        let page = asking(&browser, &page).await;
        browser.bind(&page, ADA, "Phone").await;
        gateway.clock.advance(30 * DAY);
        let answer = browser.send(browser.form_request("/sims", &[("name", "SIM 1")])).await;
        assert!(answer.location().starts_with("/.portcullis/login?rd=/.portcullis/kept/"), "{answer:?}");
    }
}
