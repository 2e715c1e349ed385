//! More than one device: added from the account page by somebody who has just logged in, and good for every later login.

use std::time::Duration;

use http::StatusCode;
use portcullis::{administration::Administration, clock::Clock as _};

use crate::support::{ADA, Answer, Browser, PASSWORD, TestGateway, logged_in, phone::Phone, soon};

const ENROL: &str = "/.portcullis/enrol";
const ACCOUNT: &str = "/.portcullis/account";

async fn names(administration: &Administration) -> Vec<String> {
    let devices = administration.user_details(ADA).await.unwrap().devices;
    let mut names: Vec<String> = devices.into_iter().map(|device| device.name).collect();
    names.sort();
    names
}

/// Goes where the account page leads whoever wants another device.
async fn add_device(browser: &Browser) -> Answer {
    let account = browser.get(ACCOUNT).await;
    assert!(account.text().contains("href=\"/.portcullis/enrol\">Add a device</a>"), "{}", account.text());
    browser.visit(ENROL).await
}

#[tokio::test]
async fn a_second_device_is_added_from_the_account_page_and_either_lets_the_user_in() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let first = gateway.phone(ADA);
    let page = add_device(&browser).await;
    assert_eq!(page.heading(), "Set up your authenticator app");
    assert!(!page.has_form("skip"), "there is nothing to put off");
    assert_eq!(browser.get(ENROL).await.text_of("key"), page.text_of("key"), "nobody scans twice");
    let second = browser.scan(&page, ADA);

    // What is wrong with code or name is said, and costs nothing.
    let page = browser.submit(&page, &[("code", &first.fresh_code()), ("device_name", "Tablet")]).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY, "the first device's code shows no second one");
    for (name, words) in [("Phone", "already have a device"), ("  ", "give this device a name")] {
        let page = browser.submit(&page, &[("code", &second.fresh_code()), ("device_name", name)]).await;
        assert!(page.text_of("name-problem").contains(words), "{}", page.text());
        assert_eq!(page.text_of("key").replace(' ', ""), second.key());
    }
    assert_eq!(names(gateway.administration()).await, ["Phone"]);

    let before = browser.session();
    let page = browser.submit(&page, &[("code", &second.fresh_code()), ("device_name", "Tablet")]).await;
    assert_eq!(page.heading(), "Your account", "no new recovery codes: the old ones still work");
    assert!(page.text().contains("Phone</p>") && page.text().contains("Tablet</p>"));
    assert_ne!(browser.session(), before);
    let stale = gateway.browser();
    stale.set_cookie("__Host-portcullis", &before);
    assert_eq!(stale.level().await, "none", "a change of factors changes the session");

    for phone in [&first, &second, &first] {
        // A code uses its time up on all devices, so that the other one has to wait for its next.
        gateway.clock.advance(Duration::from_secs(30));
        let browser = gateway.browser();
        browser.submit_password(ADA, PASSWORD).await;
        assert!(browser.submit_code(&phone.fresh_code()).await.starts_session());
    }
}

#[tokio::test]
async fn somebody_who_logged_in_a_while_ago_proves_it_once_more_and_comes_back_to_the_enrolment() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    gateway.clock.advance(Duration::from_mins(10));
    assert_eq!(add_device(&browser).await.heading(), "Set up your authenticator app", "just fresh enough");
    browser.remove_cookie("__Host-portcullis-login");

    gateway.clock.advance(Duration::from_millis(1));
    let answer = browser.get(ENROL).await;
    assert_eq!(answer.location(), "/.portcullis/login?rd=/.portcullis/enrol&again=1");
    let page = browser.follow(answer).await;
    assert_eq!(page.heading(), "Sign in");
    assert!(page.text().contains("please sign in once more"), "{}", page.text());
    assert_eq!(page.field("email"), ADA);
    let old = browser.session();

    // A wrong password asks again, for the same purpose.
    let page = browser.submit(&page, &[("email", ADA), ("password", "not my password at all")]).await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    let page = browser.sign_in(&page, ADA).await;
    assert_eq!(page.heading(), "Enter your code");
    let page = browser.submit(&page, &[("code", &gateway.phone(ADA).fresh_code())]).await;
    assert_eq!(page.heading(), "Set up your authenticator app");
    assert_ne!(browser.session(), old);
    let page = browser.bind(&page, ADA, "Tablet").await;
    assert_eq!(page.heading(), "Your account");
    assert_eq!(names(gateway.administration()).await, ["Phone", "Tablet"]);
}

#[tokio::test]
async fn the_password_alone_is_not_enough_once_more() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    gateway.clock.advance(Duration::from_mins(11));
    let page = add_device(&browser).await;
    browser.sign_in(&page, ADA).await;
    // The login that was begun anew is not finished, and the session is as old as it was.
    let answer = browser.get(ENROL).await;
    assert_eq!(answer.location(), "/.portcullis/code");
    browser.remove_cookie("__Host-portcullis-login");
    assert!(browser.get(ENROL).await.location().ends_with("&again=1"));
}

#[tokio::test]
async fn adding_devices_makes_no_session_younger() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let expires_at = browser.whoami().await.unwrap()["expires_at"].clone();
    for name in ["Tablet", "Watch"] {
        gateway.clock.advance(Duration::from_mins(4));
        let page = add_device(&browser).await;
        browser.bind(&page, ADA, name).await;
        assert_eq!(browser.whoami().await.unwrap()["expires_at"], expires_at);
    }
    gateway.clock.advance(Duration::from_mins(4));
    assert_eq!(add_device(&browser).await.heading(), "Sign in", "the password was given ten minutes ago");
    assert_eq!(names(gateway.administration()).await, ["Phone", "Tablet", "Watch"]);
}

#[tokio::test]
async fn a_session_that_is_ended_takes_the_enrolment_begun_from_it_along() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let page = add_device(&browser).await;
    let phone: Phone = browser.scan(&page, ADA);
    let session = gateway.administration().sessions(Some(ADA)).await.unwrap().remove(0);
    gateway.administration().revoke_session(&session.id.to_hex()).await.unwrap();
    soon(Duration::from_secs(1), "the session is over", async || browser.level().await == "none").await;

    for code in [phone.fresh_code(), phone.code_at(gateway.clock.now())] {
        let answer = browser.fill(&page, &[("code", &code), ("device_name", "Thief's phone")]).await;
        assert!(!answer.starts_session());
        assert_eq!(answer.location(), "/.portcullis/login?expired=1");
    }
    assert_eq!(browser.visit(ENROL).await.heading(), "Sign in");
    assert_eq!(names(gateway.administration()).await, ["Phone"]);
}

#[tokio::test]
async fn pressing_save_twice_adds_one_device() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let page = add_device(&browser).await;
    let code = browser.scan(&page, ADA).fresh_code();
    let fields = [("code", code.as_str()), ("device_name", "Tablet")];
    let answers = <[_; 2]>::from(tokio::join!(browser.fill(&page, &fields), browser.fill(&page, &fields)));
    assert_eq!(answers.iter().filter(|answer| answer.starts_session()).count(), 1, "{answers:?}");
    assert_eq!(names(gateway.administration()).await, ["Phone", "Tablet"]);
    assert_eq!(browser.get(ACCOUNT).await.heading(), "Your account");
    assert_eq!(gateway.administration().sessions(Some(ADA)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn removing_a_device_ends_the_sessions_and_its_codes() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let first = gateway.phone(ADA);
    let page = add_device(&browser).await;
    browser.bind(&page, ADA, "Tablet").await;
    gateway.administration().remove_device(ADA, "Phone").await.unwrap();
    soon(Duration::from_secs(1), "the session is over", async || browser.level().await == "none").await;

    let browser = gateway.browser();
    browser.submit_password(ADA, PASSWORD).await;
    let refused = browser.submit_code(&first.fresh_code()).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(browser.submit_code(&gateway.phone(ADA).fresh_code()).await.starts_session());
}
