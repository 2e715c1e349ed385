//! Guessing: how often a password, a code or a recovery code may be tried, and that trying at once gains nothing.

use std::time::Duration;

use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use http::StatusCode;
use portcullis::clock::Clock as _;

use super::{ADA, logged_in};
use crate::support::{Answer, Browser, PASSWORD, TestGateway};

const WRONG: &str = "not the right password";

/// Waits as long as the answer says, which must say so.
fn wait(gateway: &TestGateway, answer: &Answer) {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    let seconds: u64 = answer.header("retry-after").parse().expect("a 429 says how long");
    assert!((1..=3600).contains(&seconds), "{seconds}");
    answer.assert_secure();
    gateway.clock.advance(Duration::from_secs(seconds));
}

#[tokio::test]
async fn too_many_wrong_passwords_have_to_wait_and_the_wait_ends() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    drop(browser);
    let browser = gateway.browser();
    for _ in 0..5 {
        assert_eq!(browser.submit_password(ADA, WRONG).await.status, StatusCode::UNAUTHORIZED);
    }
    for password in [WRONG, PASSWORD] {
        let answer = browser.submit_password(ADA, password).await;
        assert_eq!(
            (answer.status, answer.header("retry-after").as_str()),
            (StatusCode::TOO_MANY_REQUESTS, "300")
        );
        assert!(answer.text_of("login-problem").contains("wait 5 minutes"), "{}", answer.text());
        assert_eq!(answer.field("email"), ADA);
    }
    // It is about this account alone, and says nothing of whether there is one.
    for _ in 0..5 {
        assert_eq!(
            browser.submit_password("nobody@example.com", WRONG).await.status,
            StatusCode::UNAUTHORIZED
        );
    }
    let answer = browser.submit_password("nobody@example.com", WRONG).await;
    assert_eq!(answer.header("retry-after"), "300");
    wait(&gateway, &answer);
    assert_eq!(browser.submit_password(ADA, PASSWORD).await.location(), "/.portcullis/code");
}

#[tokio::test]
async fn thirty_spellings_of_one_account_share_one_budget() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    drop(browser);
    let browser = gateway.browser();
    let wide: String = ADA.chars().map(|c| char::from_u32(u32::from(c) + 0xfee0).unwrap()).collect();
    let mut spellings =
        vec![wide.clone(), wide.to_uppercase(), "𝒶𝒹𝒶@example.com".into(), "ⓐⓓⓐ@example.com".into()];
    for at in (0..ADA.len()).filter(|&at| ADA.as_bytes()[at].is_ascii_lowercase()) {
        spellings.push(format!("{}{}{}", &ADA[..at], ADA[at..=at].to_uppercase(), &ADA[at + 1..]));
    }
    for space in [" ", "\t", "\r\n", "\u{a0}", "\u{3000}", "\u{2003}"] {
        spellings.push(format!("{space}{ADA}"));
        spellings.push(format!("{ADA}{space}"));
    }
    spellings.push(ADA.to_uppercase());
    assert_eq!(spellings.len(), 30);
    for (tried, spelling) in spellings.iter().enumerate() {
        let answer = browser.submit_password(spelling, WRONG).await;
        let expected = if tried < 5 { 401 } else { 429 };
        assert_eq!(answer.status.as_u16(), expected, "try {tried}: {spelling:?}");
    }
    // All of them are Ada, and need her phone.
    gateway.clock.advance(Duration::from_mins(5));
    for spelling in spellings.iter().step_by(7) {
        assert_eq!(
            browser.submit_password(spelling, PASSWORD).await.location(),
            "/.portcullis/code",
            "{spelling:?}"
        );
    }
}

#[tokio::test]
async fn a_network_that_tries_many_accounts_has_to_wait_too() {
    let (gateway, browser) =
        TestGateway::builder().set("login.throttle.network_max_retries", "6").start().await;
    gateway.add_user(ADA).await;
    for number in 0..6 {
        browser.submit_password(&format!("user{number}@example.com"), WRONG).await;
    }
    let answer = browser.submit_password(ADA, PASSWORD).await;
    wait(&gateway, &answer);
    assert_eq!(browser.submit_password(ADA, PASSWORD).await.status, StatusCode::SEE_OTHER);
}

/// Browsers of one person, each of which has given the password and stands at the code.
async fn at_the_code(gateway: &TestGateway) -> (Browser, Answer) {
    let browser = gateway.browser();
    let page = browser.visit("/").await;
    let page = browser.sign_in(&page, ADA).await;
    assert_eq!(page.heading(), "Enter your code", "{}", page.text());
    (browser, page)
}

#[tokio::test]
async fn two_hundred_posts_of_one_code_at_once_make_one_session() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    drop(browser);
    gateway.administration().revoke_all().await.unwrap();
    // Two logins in progress, as somebody who looks over a shoulder would have one of their own.
    let (left, right) = (at_the_code(&gateway).await, at_the_code(&gateway).await);
    let code = gateway.phone(ADA).fresh_code();
    let fields = [("code", code.as_str())];
    let posts = (0..200).map(|number| {
        let (browser, page) = if number % 2 == 0 { &left } else { &right };
        browser.fill(page, &fields)
    });
    let answers = join_all(posts).await;
    assert_eq!(answers.iter().filter(|answer| answer.starts_session()).count(), 1);
    for answer in &answers {
        assert!(matches!(answer.status.as_u16(), 303 | 401 | 429), "{answer:?}");
    }
    assert_eq!(gateway.administration().sessions(None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn two_hundred_posts_of_one_recovery_code_at_once_make_one_session() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let page = browser.visit("/").await;
    let page = browser.sign_in(&page, ADA).await;
    let page = browser.bind(&page, ADA, "Phone").await;
    let code = page.text_of("codes").split_whitespace().next().unwrap().to_owned();
    browser.submit(&page, &[]).await;
    let (thief, _) = at_the_code(&gateway).await;
    let page = thief.get("/.portcullis/recovery").await;
    let fields = [("recovery_code", code.as_str())];
    let answers = join_all((0..200).map(|_| thief.fill(&page, &fields))).await;
    assert_eq!(answers.iter().filter(|answer| answer.starts_session()).count(), 1);
    let details = gateway.administration().user_details(ADA).await.unwrap();
    assert_eq!((details.recovery_left, details.sessions.len()), (9, 2));
}

/// Wrong codes, or recovery codes, from one network until a hundred have been refused.
async fn a_hundred_wrong(gateway: &TestGateway, recovery: bool) {
    let phone = gateway.phone(ADA);
    let (mut browser, mut page) = at_the_code(gateway).await;
    let mut wrong = 0;
    while wrong < 100 {
        let answer = if recovery {
            let fields = [("recovery_code", "0000-0000-0000-0000"), ("csrf", &page.field("csrf"))];
            browser.post_form("/.portcullis/recovery", &fields).await
        } else {
            let code = phone.code_at(gateway.clock.now().plus(Duration::from_hours(1)));
            browser.fill(&page, &[("code", &code)]).await
        };
        match answer.status.as_u16() {
            401 => wrong += 1,
            429 => wait(gateway, &answer),
            // The login in progress has taken too long.
            _ => (browser, page) = at_the_code(gateway).await,
        }
    }
}

#[tokio::test]
async fn a_hundred_wrong_codes_switch_the_devices_off_and_not_the_recovery_codes() {
    let (gateway, user) = logged_in(TestGateway::builder()).await;
    let phone = gateway.phone(ADA);
    a_hundred_wrong(&gateway, false).await;
    // The user's own browser is not made to wait, and is told why the phone no longer does.
    user.remove_cookie("__Host-portcullis");
    let page = user.visit("/").await;
    let page = user.sign_in(&page, ADA).await;
    let answer = user.fill(&page, &[("code", &phone.fresh_code())]).await;
    assert_eq!((answer.status, answer.starts_session()), (StatusCode::UNAUTHORIZED, false));
    assert!(answer.text_of("code-problem").contains("authenticator sign-in is blocked"), "{}", answer.text());
    assert!(answer.text_of("code-problem").contains("Contact support"));
    let details = gateway.administration().user_details(ADA).await.unwrap();
    assert_eq!(details.recovery_left, 10);

    // Until an operator removes the device: then there is a first device to bind.
    gateway.administration().remove_device(ADA, "Phone").await.unwrap();
    let browser = gateway.browser();
    let page = browser.visit("/").await;
    let page = browser.sign_in(&page, ADA).await;
    assert_eq!(browser.bind(&page, ADA, "New phone").await.heading(), "Save your recovery codes");
}

#[tokio::test]
async fn more_passwords_than_can_be_checked_are_told_to_come_back() {
    let (gateway, browser) = TestGateway::builder()
        .set("login.throttle.max_retries", "1000")
        .set("login.throttle.network_max_retries", "1000")
        .start()
        .await;
    gateway.add_user(ADA).await;
    let page = browser.get("/.portcullis/login").await;
    // Nobody of those names exists: it is for them that passwords are checked all the same.
    let names: Vec<_> = (0..120).map(|number| format!("nobody-{number}@example.com")).collect();
    let (browser, page) = (&browser, &page);
    let post = async |name: &str| browser.fill(page, &[("email", name), ("password", WRONG)]).await;
    let mut posts: FuturesUnordered<_> = names.iter().map(|name| post(name)).collect();
    let busy = loop {
        let answer = posts.next().await.expect("some of them find the queue full");
        match answer.status {
            StatusCode::UNAUTHORIZED => {}
            StatusCode::SERVICE_UNAVAILABLE => break answer,
            _ => panic!("{answer:?}"),
        }
    };
    assert_eq!(busy.header("retry-after"), "2");
    assert!(!busy.starts_session());
    busy.assert_secure();
    crate::error_pages::says(&busy, 503, "Many people are signing in");
    assert!(busy.text().contains("try again in a few seconds"), "{}", busy.text());
    // Nobody has guessed anything by asking in vain: once there is room, it goes on.
    let rest: Vec<Answer> = posts.collect().await;
    assert!(rest.iter().all(|answer| matches!(answer.status.as_u16(), 401 | 503)), "{rest:?}");
    assert_eq!(browser.submit_password(ADA, PASSWORD).await.location(), "/.portcullis/enrol");
}

#[tokio::test]
async fn what_could_not_be_checked_was_no_guess() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let database = &gateway.stores().database;
    let page = browser.get("/.portcullis/login").await;
    sqlx::query("ALTER TABLE users RENAME TO hidden").execute(database).await.unwrap();
    for _ in 0..8 {
        let answer = browser.fill(&page, &[("email", ADA), ("password", PASSWORD)]).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    sqlx::query("ALTER TABLE hidden RENAME TO users").execute(database).await.unwrap();
    assert_eq!(browser.sign_in(&page, ADA).await.heading(), "Set up your authenticator app");
}
