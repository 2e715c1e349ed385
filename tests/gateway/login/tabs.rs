//! What people do to a login: go back, reload, open many tabs, press twice, leave for lunch. All of it ends at the page
//! that was asked for, and nobody scans twice.

use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;

use super::{ADA, BOB, logged_in};
use crate::support::TestGateway;

#[tokio::test]
async fn going_back_after_the_login_leads_forward_again() {
    let (gateway, _) = logged_in(TestGateway::builder()).await;
    let browser = gateway.browser();
    let login = browser.visit("/sims").await;
    let code = browser.sign_in(&login, ADA).await;
    let right = gateway.phone(ADA).fresh_code();
    assert_eq!(browser.submit(&code, &[("code", &right)]).await.text(), "the portal: GET /sims\n");
    let session = browser.session();
    // Reloads of the pages passed, and their forms sent once more.
    for path in ["login", "code", "recovery", "enrol", "recovery-codes"] {
        let page = browser.visit(&format!("/.portcullis/{path}?rd=/sims")).await;
        assert_eq!(page.text(), "the portal: GET /sims\n", "{path}");
    }
    assert_eq!(browser.submit(&code, &[("code", &right)]).await.text(), "the portal: GET /sims\n");
    assert_eq!(browser.sign_in(&login, ADA).await.text(), "the portal: GET /sims\n");
    assert_eq!(browser.session(), session);
}

#[tokio::test]
async fn going_back_during_the_login_starts_it_over_with_the_same_qr_code() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let login = browser.visit("/sims").await;
    let enrol = browser.sign_in(&login, ADA).await;
    let key = enrol.text_of("key");
    for _ in 0..2 {
        assert_eq!(browser.get("/.portcullis/enrol?rd=/sims").await.text_of("key"), key, "a reload");
    }
    // Back to the login page as the browser has kept it, and as it is when loaded anew.
    assert_eq!(browser.sign_in(&login, ADA).await.text_of("key"), key);
    let fresh = browser.visit("/.portcullis/login?rd=/sims").await;
    let enrol = browser.sign_in(&fresh, ADA).await;
    assert_eq!(enrol.text_of("key"), key);
    let page = browser.get("/.portcullis/code?rd=/sims").await;
    assert_eq!(page.location(), "/.portcullis/enrol?rd=/sims", "the address of another step");

    let elsewhere = gateway.browser();
    let page = elsewhere.visit("/").await;
    let other = elsewhere.sign_in(&page, ADA).await;
    assert_ne!(other.text_of("key"), key, "another browser may be somebody else's");

    // The other browser was faster: what is missing here now is a code of that device.
    elsewhere.bind(&other, ADA, "Phone").await;
    let page = browser.submit(&enrol, &[("code", "123456"), ("device_name", "Phone")]).await;
    assert_eq!(page.heading(), "Enter your code");
    let page = browser.submit(&page, &[("code", &gateway.phone(ADA).fresh_code())]).await;
    assert_eq!(page.heading(), "Save your recovery codes", "nobody has confirmed them yet");
    assert_eq!(browser.submit(&page, &[]).await.text(), "the portal: GET /sims\n");
}

#[tokio::test]
async fn two_tabs_may_take_turns_through_one_login() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let left = browser.visit("/left").await;
    let right = browser.visit("/right").await;
    let left = browser.sign_in(&left, ADA).await;
    let right = browser.sign_in(&right, ADA).await;
    assert_eq!(left.text_of("key"), right.text_of("key"));
    let left = browser.bind(&left, ADA, "Phone").await;
    assert_eq!(left.heading(), "Save your recovery codes");
    let right = browser.submit(&right, &[("code", "000000"), ("device_name", "Phone")]).await;
    assert_eq!(right.text(), "the portal: GET /right\n");
    assert_eq!(browser.submit(&left, &[]).await.text(), "the portal: GET /left\n");
    let devices = gateway.administration().user_details(ADA).await.unwrap().devices;
    assert_eq!(devices.len(), 1);
}

#[tokio::test]
async fn ten_tabs_at_once_all_end_at_their_own_pages() {
    let (gateway, _) = logged_in(TestGateway::builder()).await;
    let browser = gateway.browser();
    // A browser starts again: all its tabs ask at once, and each is shown a login page.
    let targets: Vec<String> = (0..10).map(|tab| format!("/tab/{tab}")).collect();
    let pages = join_all(targets.iter().map(|target| browser.visit(target))).await;
    assert!(pages.iter().all(|page| page.heading() == "Sign in"));
    // In four of them somebody types the password before anything else happens; in one of those, the code.
    let waiting = join_all(pages[..4].iter().map(|page| browser.sign_in(page, ADA))).await;
    assert!(waiting.iter().all(|page| page.heading() == "Enter your code"), "{waiting:?}");
    let code = gateway.phone(ADA).fresh_code();
    let page = browser.submit(&waiting[2], &[("code", &code)]).await;
    assert_eq!(page.text(), "the portal: GET /tab/2\n");
    let session = browser.session();
    for (tab, page) in pages.iter().enumerate().skip(4) {
        let text = browser.sign_in(page, ADA).await.text();
        assert_eq!(
            text,
            format!("the portal: GET {}\n", targets[tab]),
            "the password is right there already"
        );
    }
    for tab in [0, 1, 3] {
        let text = browser.submit(&waiting[tab], &[("code", &code)]).await.text();
        assert_eq!(text, format!("the portal: GET {}\n", targets[tab]));
        assert_eq!(browser.visit(&targets[tab]).await.status, StatusCode::OK);
    }
    assert_eq!(browser.session(), session, "one login for all of them");
}

#[tokio::test]
async fn passwords_given_in_ten_tabs_show_one_qr_code_and_one_enrolment_serves_all() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    gateway.add_user(BOB).await;
    let targets: Vec<String> = (0..10).map(|tab| format!("/tab/{tab}")).collect();
    let pages = join_all(targets.iter().map(|target| browser.visit(target))).await;
    // Each tab sends what the browser holds at this moment, and only then do the answers change it.
    let tabs: Vec<_> = pages.iter().map(|_| browser.copy()).collect();
    let mut shown = Vec::new();
    for (tab, page) in tabs.iter().zip(&pages) {
        shown.push(tab.sign_in(page, ADA).await);
    }
    let key = shown[0].text_of("key");
    assert!(shown.iter().all(|page| page.text_of("key") == key));
    let bob = browser.copy().sign_in(&pages[0], BOB).await;
    assert_ne!(bob.text_of("key"), key, "somebody else in the same browser");
    tabs[3].bind(&shown[7], ADA, "Phone").await;
    for (tab, page) in tabs.iter().zip(&shown).skip(4) {
        let page = tab.submit(page, &[("code", "000000"), ("device_name", "Phone")]).await;
        assert_eq!(page.heading(), "Enter your code", "bound meanwhile");
    }
}

#[tokio::test]
async fn pressing_save_twice_binds_one_device_and_both_answers_lead_on() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let page = browser.visit("/sims").await;
    let enrol = browser.sign_in(&page, ADA).await;
    let phone = browser.scan(&enrol, ADA);
    let code = phone.fresh_code();
    let fields = [("code", code.as_str()), ("device_name", "Phone")];
    let press = || browser.fill(&enrol, &fields);
    let answers = <[_; 3]>::from(tokio::join!(press(), press(), press()));
    assert_eq!(answers.iter().filter(|answer| answer.starts_session()).count(), 1, "{answers:?}");
    for answer in answers {
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
        let page = browser.follow(answer).await;
        assert!(
            page.heading() == "Save your recovery codes" || page.text() == "the portal: GET /sims\n",
            "{}",
            page.text()
        );
    }
    let details = gateway.administration().user_details(ADA).await.unwrap();
    assert_eq!((details.devices.len(), details.recovery_left, details.sessions.len()), (1, 10, 1));
}

#[tokio::test]
async fn a_login_that_took_too_long_starts_over_with_a_word_of_why() {
    let (gateway, _) = logged_in(TestGateway::builder()).await;
    gateway.add_user("new@example.com").await;
    let fields: [(&str, &[(&str, &str)]); 2] =
        [("new@example.com", &[("code", "000000"), ("device_name", "Phone")]), (ADA, &[("code", "000000")])];
    for (email, fields) in fields {
        let browser = gateway.browser();
        let page = browser.visit("/sims").await;
        let page = browser.sign_in(&page, email).await;
        gateway.clock.advance(Duration::from_mins(30) - Duration::from_millis(1));
        let still = browser.fill(&page, fields).await;
        assert!(!still.status.is_redirection(), "{}", still.text());
        gateway.clock.advance(Duration::from_millis(1));
        let late = browser.fill(&page, fields).await;
        assert_eq!(late.location(), "/.portcullis/login?rd=/sims&expired=1");
        let late = browser.follow(late).await;
        assert!(late.text().contains("Signing in took too long"), "{}", late.text());
        // The page that explains it is a login page like any other.
        let page = browser.sign_in(&late, email).await;
        assert!(page.has_form("code"), "{}", page.text());
    }
    // Without anything in progress there is nothing that could have taken too long.
    let answer = gateway.browser().get("/.portcullis/code?rd=/sims").await;
    assert_eq!(
        (answer.status, answer.location().as_str()),
        (StatusCode::SEE_OTHER, "/.portcullis/login?rd=/sims")
    );
}

#[tokio::test]
async fn not_you_leads_to_a_login_as_somebody_else() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    gateway.add_user(BOB).await;
    let page = browser.visit("/").await;
    let adas = browser.sign_in(&page, ADA).await;
    let page = browser.visit("/.portcullis/login").await;
    let bobs = browser.sign_in(&page, BOB).await;
    assert!(bobs.text().contains(BOB) && !bobs.text().contains(ADA));
    assert_ne!(bobs.text_of("key"), adas.text_of("key"));
    browser.bind(&bobs, BOB, "Phone").await;
    assert_eq!(browser.whoami().await.unwrap()["email"], BOB);
    // Ada's page is still open in a tab. Its form gives Ada's phone to nobody, and leads nowhere as Bob.
    let answer = browser.fill(&adas, &[("code", "000000"), ("device_name", "Phone")]).await;
    assert_eq!(
        (answer.status, answer.heading().as_str()),
        (StatusCode::FORBIDDEN, "This page is out of date")
    );
    assert!(answer.text().contains(BOB) && !answer.starts_session(), "{}", answer.text());
    assert!(gateway.administration().user_details(ADA).await.unwrap().devices.is_empty());
}
