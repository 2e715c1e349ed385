//! The login as a machine of states: whatever is sent in whichever state, only the steps that are drawn lead on. And
//! what happens to a login in progress, or to a session, when its user changes.

use std::time::Duration;

use http::{Method, Request};
use portcullis::{clock::Clock as _, users::UserId};

use super::{ADA, BOB};
use crate::support::{Answer, Browser, HOST, PASSWORD, TestGateway, body, empty, now, phone::Phone, soon};

const PAGES: [&str; 8] =
    ["login", "code", "recovery", "enrol", "recovery-codes", "account", "logout", "whoami"];
const SESSION: &str = "__Host-portcullis";
const LOGIN: &str = "__Host-portcullis-login";

/// Where a browser stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Nowhere,
    AtThePassword,
    AtTheCode,
    AtTheFirstDevice,
    InWithOne,
    InWithTwo,
    AddingADevice,
}

/// Everything that a user could have left behind by getting on.
async fn progress(gateway: &TestGateway) -> Vec<(String, usize, u32, usize)> {
    let mut progress = Vec::new();
    for user in gateway.administration().users().await.unwrap() {
        let details = gateway.administration().user_details(&user.email).await.unwrap();
        progress.push((user.email, details.devices.len(), details.recovery_left, details.sessions.len()));
    }
    progress
}

async fn raw_post(browser: &Browser, path: &str, form: &str) {
    let request = Request::post(path)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("sec-fetch-site", "same-origin")
        .header("origin", format!("https://{HOST}"));
    browser.send(request.body(body(form.to_owned())).unwrap()).await;
}

/// Tries everything that is no drawn step from where `browser` stands.
async fn try_everything(gateway: &TestGateway, browser: &Browser, state: State, csrf: &str, wrong: &Phone) {
    let before = (progress(gateway).await, browser.level().await, browser.cookie(SESSION));
    let code = wrong.code_at(gateway.clock.now());
    let forms = [
        String::new(),
        format!("csrf={csrf}"),
        format!("csrf={csrf}&code=&recovery_code=&email=&password=&device_name="),
        format!("csrf={csrf}&code=&device_name=Phone"),
        format!("csrf={csrf}&code=000000&recovery_code=0000-0000-0000-0000&device_name=Phone"),
        format!("csrf={csrf}&code={code}&recovery_code={code}&device_name=Phone"),
        format!("csrf={csrf}&skip=0&code={code}&device_name="),
        format!("csrf={csrf}&email={BOB}&password=&step=done&level=two_factor&amr=otp"),
    ];
    for page in PAGES {
        // Signing out is a drawn step, wherever somebody is in.
        if page == "logout" && before.1 != "none" {
            continue;
        }
        let path = format!("/.portcullis/{page}");
        for form in &forms {
            // Confirming the recovery codes is one too.
            if page == "recovery-codes" && !form.is_empty() {
                continue;
            }
            let kept = browser.copy();
            raw_post(&kept, &path, form).await;
            assert_eq!(kept.cookie(SESSION), before.2, "{state:?}: POST {path} {form}");
        }
        for query in ["", "?skip=1", "?again=1", "?code=000000", "?expired=1&rd=/x"] {
            for method in [Method::GET, Method::HEAD] {
                let kept = browser.copy();
                let request = Request::builder().method(method).uri(format!("{path}{query}"));
                kept.send(request.body(empty()).unwrap()).await;
                assert_eq!(kept.cookie(SESSION), before.2, "{state:?}: GET {path}{query}");
            }
        }
    }
    let after = (progress(gateway).await, browser.level().await, browser.cookie(SESSION));
    assert_eq!(after, before, "{state:?}");
}

#[tokio::test]
async fn only_the_drawn_steps_lead_on() {
    let date = now().plus(Duration::from_hours(24));
    let (gateway, browser) = TestGateway::builder().mandatory_from(date).start().await;
    gateway.add_user(ADA).await;
    gateway.add_user(BOB).await;
    let wrong = Phone::new(gateway.clock.clone(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");

    try_everything(&gateway, &browser, State::Nowhere, "", &wrong).await;
    let page = browser.get("/.portcullis/login").await;
    try_everything(&gateway, &browser, State::AtThePassword, &page.field("csrf"), &wrong).await;

    let page = browser.sign_in(&page, ADA).await;
    let csrf = page.field("csrf");
    gateway.clock.advance(Duration::from_mins(6));
    try_everything(&gateway, &browser, State::AtTheFirstDevice, &csrf, &wrong).await;
    gateway.clock.advance(Duration::from_mins(6));
    browser.submit(&page, &[("skip", "1")]).await;
    assert_eq!(browser.level().await, "one_factor");
    let csrf = browser.get("/.portcullis/account").await.field("csrf");
    try_everything(&gateway, &browser, State::InWithOne, &csrf, &wrong).await;

    gateway.clock.advance(Duration::from_mins(6));
    let page = browser.visit("/.portcullis/enrol").await;
    let csrf = page.field("csrf");
    try_everything(&gateway, &browser, State::AtTheFirstDevice, &csrf, &wrong).await;
    gateway.clock.advance(Duration::from_mins(6));
    let page = browser.bind(&page, ADA, "Phone").await;
    browser.submit(&page, &[]).await;
    assert_eq!(browser.level().await, "two_factor");
    let csrf = browser.get("/.portcullis/account").await.field("csrf");
    try_everything(&gateway, &browser, State::InWithTwo, &csrf, &wrong).await;

    let adding = gateway.browser();
    adding.log_in_to("/", ADA).await;
    let page = adding.visit("/.portcullis/enrol").await;
    try_everything(&gateway, &adding, State::AddingADevice, &page.field("csrf"), &wrong).await;

    gateway.clock.advance(Duration::from_mins(6));
    let coding = gateway.browser();
    let page = coding.visit("/").await;
    let page = coding.sign_in(&page, ADA).await;
    try_everything(&gateway, &coding, State::AtTheCode, &page.field("csrf"), &wrong).await;
}

#[tokio::test]
async fn somebody_elses_login_in_progress_proves_nothing_about_oneself() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    gateway.add_user(BOB).await;
    browser.log_in(ADA).await;
    gateway.browser().log_in(BOB).await;
    let (adas, bobs) = (gateway.phone(ADA), gateway.phone(BOB));
    let (victim, thief) = (gateway.browser(), gateway.browser());
    let page = victim.visit("/").await;
    victim.sign_in(&page, ADA).await;
    let page = thief.visit("/").await;
    let bobs_page = thief.sign_in(&page, BOB).await;

    // Bob has got hold of Ada's login in progress, and has his own phone.
    let bobs_cookie = thief.cookie(LOGIN).unwrap();
    thief.set_cookie(LOGIN, &victim.cookie(LOGIN).unwrap());
    let page = thief.get("/.portcullis/code").await;
    let answer = thief.fill(&page, &[("code", &bobs.fresh_code())]).await;
    assert!(!answer.starts_session(), "{answer:?}");
    // Two of them at once are none.
    thief.set_cookie(LOGIN, &format!("{}; {LOGIN}={bobs_cookie}", victim.cookie(LOGIN).unwrap()));
    let answer = thief.fill(&bobs_page, &[("code", &bobs.fresh_code())]).await;
    assert!(!answer.starts_session(), "{answer:?}");
    thief.set_cookie(LOGIN, &bobs_cookie);
    let answer = thief.fill(&bobs_page, &[("code", &adas.fresh_code())]).await;
    assert!(!answer.starts_session(), "nor does Ada's phone open Bob's account: {answer:?}");

    // In Ada's own session, Bob's login in progress is Bob's.
    let session = browser.session();
    browser.set_cookie(LOGIN, &bobs_cookie);
    raw_post(&browser, "/.portcullis/enrol", "code=000000&device_name=x&skip=1").await;
    assert_eq!(browser.session(), session);
    assert_eq!(browser.whoami().await.unwrap()["email"], ADA);
    assert_eq!(gateway.administration().user_details(ADA).await.unwrap().devices.len(), 1);
}

#[tokio::test]
async fn a_user_disabled_at_any_step_gets_no_session() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let disable = async |disabled| gateway.administration().set_disabled(ADA, disabled).await.unwrap();

    // Before the password.
    let page = browser.visit("/").await;
    disable(true).await;
    let answer = browser.fill(&page, &[("email", ADA), ("password", PASSWORD)]).await;
    assert_eq!((answer.status.as_u16(), answer.starts_session()), (401, false));
    disable(false).await;

    // Between the password and the first device.
    let page = browser.sign_in(&page, ADA).await;
    let phone = browser.scan(&page, ADA);
    disable(true).await;
    let code = phone.fresh_code();
    let fields = [("code", code.as_str()), ("device_name", "Phone")];
    assert!(!browser.fill(&page, &fields).await.starts_session());
    assert_eq!(browser.visit("/.portcullis/enrol").await.heading(), "Sign in");
    disable(false).await;
    assert!(!browser.fill(&page, &fields).await.starts_session(), "that login does not come back to life");
    assert!(gateway.administration().user_details(ADA).await.unwrap().devices.is_empty());

    // When the login is finished.
    browser.log_in(ADA).await;
    disable(true).await;
    soon(Duration::from_secs(1), "out", async || browser.level().await == "none").await;
    assert_eq!(browser.visit("/.portcullis/recovery-codes").await.heading(), "Sign in");
    disable(false).await;
    assert_eq!(browser.level().await, "none", "the session does not come back to life");

    // Between the password and the code, of either kind.
    for (path, field) in [("code", "code"), ("recovery", "recovery_code")] {
        let browser = gateway.browser();
        let page = browser.visit("/").await;
        browser.sign_in(&page, ADA).await;
        let page = browser.get(&format!("/.portcullis/{path}")).await;
        disable(true).await;
        let answer = browser.fill(&page, &[(field, &gateway.phone(ADA).fresh_code())]).await;
        assert!(!answer.starts_session(), "{answer:?}");
        disable(false).await;
    }
    // While they add a device.
    let browser = gateway.browser();
    browser.log_in(ADA).await;
    let page = browser.visit("/.portcullis/enrol").await;
    disable(true).await;
    soon(Duration::from_secs(1), "out", async || browser.level().await == "none").await;
    let code = Phone::new(gateway.clock.clone(), &page.text_of("key")).fresh_code();
    assert!(!browser.fill(&page, &[("code", &code), ("device_name", "Tablet")]).await.starts_session());
    assert_eq!(gateway.administration().user_details(ADA).await.unwrap().devices.len(), 1);
}

#[tokio::test]
async fn a_user_removed_or_given_a_new_password_half_way_has_to_begin_again() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    browser.log_in(ADA).await;
    let browser = gateway.browser();
    let page = browser.visit("/").await;
    let page = browser.sign_in(&page, ADA).await;
    let new = "another horse, another battery";
    gateway.administration().set_password(ADA, new.to_owned().into()).await.unwrap();
    let answer = browser.fill(&page, &[("code", &gateway.phone(ADA).fresh_code())]).await;
    assert_eq!(
        (answer.starts_session(), answer.location().as_str()),
        (false, "/.portcullis/login?expired=1")
    );
    assert_eq!(browser.submit_password(ADA, PASSWORD).await.status.as_u16(), 401);
    assert_eq!(browser.submit_password(ADA, new).await.location(), "/.portcullis/code");
    gateway.administration().remove_user(ADA).await.unwrap();
    assert!(!browser.submit_password(ADA, new).await.starts_session());
    assert_eq!(browser.visit("/.portcullis/code").await.heading(), "Sign in");
}

#[tokio::test]
async fn cookies_planted_before_the_login_are_not_the_ones_after() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let (session, login) = ("A".repeat(43), "B".repeat(42) + "A");
    let plant = || {
        let browser = gateway.browser();
        browser.set_cookie(SESSION, &session);
        browser.set_cookie(LOGIN, &login);
        browser
    };
    let victim = plant();
    let page = victim.visit("/").await;
    let page = victim.sign_in(&page, ADA).await;
    let half_way = victim.cookie(LOGIN).unwrap();
    assert_ne!(half_way, login);
    let page = victim.bind(&page, ADA, "Phone").await;
    victim.submit(&page, &[]).await;
    assert_eq!(victim.level().await, "two_factor");
    for (name, planted) in [(SESSION, &session), (SESSION, &login), (SESSION, &half_way)] {
        browser.set_cookie(name, planted);
        assert_eq!(browser.level().await, "none");
    }
    browser.set_cookie(LOGIN, &half_way);
    assert_eq!(browser.visit("/.portcullis/code").await.heading(), "Sign in");
    // Every step has made a cookie that nobody knew before, and the last one has taken the pending one away.
    assert_eq!(victim.cookie(LOGIN), None);
    let elsewhere = plant();
    elsewhere.log_in_to("/", ADA).await;
    assert_ne!(elsewhere.session(), victim.session());
}

#[tokio::test]
async fn logging_in_as_somebody_else_takes_the_sessions_place() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    gateway.add_user(BOB).await;
    browser.log_in(ADA).await;
    let adas = browser.session();
    let page = browser.get("/.portcullis/login?again=1").await;
    let page = browser.sign_in(&page, BOB).await;
    assert_eq!(browser.whoami().await.unwrap()["email"], ADA, "until the login is finished");
    browser.bind(&page, BOB, "Phone").await;
    assert_eq!(browser.whoami().await.unwrap()["email"], BOB);
    assert!(gateway.administration().sessions(Some(ADA)).await.unwrap().is_empty());
    browser.set_cookie(SESSION, &adas);
    assert_eq!(browser.level().await, "none");
}

#[tokio::test]
async fn every_step_looks_at_the_user_again() {
    let (gateway, browser) = TestGateway::start().await;
    let ada = gateway.add_user(ADA).await.id;
    gateway.browser().log_in(ADA).await;
    let bob = gateway.add_user(BOB).await.id;
    let page = browser.visit("/").await;
    let page = browser.sign_in(&page, ADA).await;
    let code = gateway.phone(ADA).fresh_code();
    let enrolling = gateway.browser();
    let login = enrolling.visit("/").await;
    let enrol = enrolling.sign_in(&login, BOB).await;
    let bobs = enrolling.scan(&enrol, BOB).fresh_code();
    let steps: [(&Browser, &Answer, Vec<(&str, &str)>, &UserId); 2] = [
        (&browser, &page, vec![("code", &code)], &ada),
        (&enrolling, &enrol, vec![("code", &bobs), ("device_name", "Phone")], &bob),
    ];
    for (browser, page, fields, user) in steps {
        // Disabled in the store alone: the login in progress is still there.
        gateway.administration().users.set_disabled(user, true).await.unwrap();
        let answer = browser.fill(page, &fields).await;
        assert_eq!(
            (answer.location().as_str(), answer.starts_session()),
            ("/.portcullis/login?expired=1", false)
        );
        gateway.administration().users.set_disabled(user, false).await.unwrap();
        assert!(browser.fill(page, &fields).await.starts_session(), "and the code was not even looked at");
    }
}
