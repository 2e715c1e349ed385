//! Guessing by strangers from many networks, and what it must not do to the user: keep them out, or go untold.

use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use portcullis::clock::Clock as _;

use super::{ADA, BOB};
use crate::support::{Answer, Browser, PASSWORD, TestGateway, log, soon};

const WRONG: &str = "not the right password";
const HOME: &str = "198.51.100.7";

/// A gateway behind a proxy, and Ada's browser, in which she has logged in.
async fn ada_at_home() -> (TestGateway, Browser) {
    let (gateway, browser) = TestGateway::builder().set("server.trusted_proxies", "127.0.0.1").start().await;
    gateway.add_user(ADA).await;
    let browser = browser.from(HOME);
    browser.log_in(ADA).await;
    (gateway, browser)
}

async fn guess(gateway: &TestGateway, from: &str, password: &str) -> Answer {
    gateway.browser().from(from).submit_password(ADA, password).await
}

/// The session is over, the browser is the same.
fn signed_out(browser: &Browser) {
    browser.remove_cookie("__Host-portcullis");
}

/// What is noted behind the answer's back has been.
async fn noted(gateway: &TestGateway, passwords: i64, codes: i64) {
    let statement = "SELECT COALESCE(SUM(passwords), 0), COALESCE(SUM(codes), 0) FROM wrong_tries";
    let database = &gateway.stores().database;
    soon(Duration::from_secs(10), "the wrong tries are noted", async || {
        let row = sqlx::query(statement).fetch_one(database).await.unwrap();
        let sums: (i64, i64) = (sqlx::Row::get(&row, 0), sqlx::Row::get(&row, 1));
        sums == (passwords, codes)
    })
    .await;
}

#[tokio::test]
async fn guesses_at_one_account_from_many_networks_share_one_budget() {
    for network in [|n: u32| format!("203.0.113.{n}"), |n: u32| format!("2001:db8:7:{n:x}::1")] {
        let (gateway, ada) = ada_at_home().await;
        let answers =
            join_all((1..=60).map(|n| guess(&gateway, Box::leak(network(n).into_boxed_str()), WRONG))).await;
        let checked = answers.iter().filter(|answer| answer.status == StatusCode::UNAUTHORIZED).count();
        assert!(checked <= 5, "{checked} guesses were checked");
        let refused: Vec<_> =
            answers.iter().filter(|answer| answer.status != StatusCode::UNAUTHORIZED).collect();
        assert!(refused.iter().all(|answer| matches!(answer.status.as_u16(), 429 | 503)));
        assert!(refused.iter().all(|answer| !answer.header("retry-after").is_empty()));
        // Even the right one gets no stranger in just now, and nothing keeps Ada out where she is known.
        assert_eq!(guess(&gateway, "192.0.2.99", PASSWORD).await.status, StatusCode::TOO_MANY_REQUESTS);
        signed_out(&ada);
        assert_eq!(ada.submit_password(ADA, PASSWORD).await.location(), "/.portcullis/code");
    }
}

#[tokio::test]
async fn wrong_passwords_from_her_own_office_do_not_lock_her_browser() {
    let (gateway, ada) = ada_at_home().await;
    gateway.add_user(BOB).await;
    for _ in 0..5 {
        guess(&gateway, HOME, WRONG).await;
    }
    for number in 0..60 {
        let name = format!("nobody-{number}@example.com");
        gateway.browser().from(HOME).submit_password(&name, WRONG).await;
    }
    let stranger = gateway.browser().from(HOME);
    assert_eq!(stranger.submit_password(BOB, PASSWORD).await.status, StatusCode::TOO_MANY_REQUESTS);
    // With her session, without it, and somewhere else.
    let page = ada.get("/.portcullis/login?again=1").await;
    let answer = ada.fill(&page, &[("email", ADA), ("password", PASSWORD)]).await;
    assert_eq!(answer.location(), "/.portcullis/code");
    signed_out(&ada);
    assert_eq!(ada.submit_password(ADA, PASSWORD).await.location(), "/.portcullis/code");
    // Her browser is no way in for anybody else.
    assert_eq!(ada.submit_password(BOB, PASSWORD).await.status, StatusCode::TOO_MANY_REQUESTS);
    // And she may guess as often as anybody.
    for _ in 0..4 {
        assert_eq!(ada.submit_password(ADA, WRONG).await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_session_from_before_makes_a_browser_known_as_well() {
    let (gateway, ada) = ada_at_home().await;
    ada.remove_cookie("__Host-portcullis-known");
    for _ in 0..5 {
        guess(&gateway, HOME, WRONG).await;
    }
    let page = ada.get("/.portcullis/login?again=1").await;
    let answer = ada.fill(&page, &[("email", ADA), ("password", PASSWORD)]).await;
    assert_eq!(answer.location(), "/.portcullis/code");
}

#[tokio::test]
async fn nobody_gets_more_tries_with_a_cookie_that_we_did_not_make() {
    let (gateway, ada) = ada_at_home().await;
    let known = ada.cookie("__Host-portcullis-known").unwrap();
    for number in 0..5 {
        guess(&gateway, &format!("203.0.113.{number}"), WRONG).await;
    }
    for forged in ["", "x", "AAAA", &known[1..], &known.to_lowercase()] {
        let browser = gateway.browser().from("192.0.2.1");
        browser.set_cookie("__Host-portcullis-known", forged);
        assert_eq!(browser.submit_password(ADA, PASSWORD).await.status, StatusCode::TOO_MANY_REQUESTS);
    }
    // One that was stolen has one budget, wherever it is used.
    let thief = |number: u32| {
        let browser = gateway.browser().from(&format!("192.0.2.{number}"));
        browser.set_cookie("__Host-portcullis-known", &known);
        browser
    };
    for number in 0..5 {
        assert_eq!(thief(number).submit_password(ADA, WRONG).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(thief(7).submit_password(ADA, WRONG).await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_code_before_the_password_lets_her_try_in_a_new_browser_while_strangers_guess() {
    let (gateway, _) = ada_at_home().await;
    let phone = gateway.phone(ADA);
    for number in 0..5 {
        guess(&gateway, &format!("203.0.113.{number}"), WRONG).await;
    }
    let browser = gateway.browser().from("192.0.2.5");
    let refused = browser.submit_password(ADA, PASSWORD).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.text().contains("/.portcullis/code-first"), "{}", refused.text());
    let page = browser.get("/.portcullis/code-first?rd=/sims").await;
    assert_eq!(page.heading(), "Enter a code first");
    page.assert_secure();
    let wrong = phone.code_at(gateway.clock.now().plus(Duration::from_hours(1)));
    for (email, code) in [(ADA, wrong.as_str()), ("nobody@example.com", &wrong), (BOB, "x")] {
        let answer = browser.fill(&page, &[("email", email), ("code", code)]).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.text_of("code-problem").contains("do not match"), "{email}");
        assert_eq!(answer.field("email"), email);
        assert!(!answer.starts_session());
    }
    let code = phone.fresh_code();
    let answer = browser.fill(&page, &[("email", ADA), ("code", &code)]).await;
    assert_eq!(answer.location(), "/.portcullis/login?rd=/sims&code=1");
    let page = browser.follow(answer).await;
    assert!(page.text().contains("Now enter your password"), "{}", page.text());
    assert_eq!(browser.level().await, "none", "it opens nothing by itself");
    let page = browser.submit(&page, &[("email", ADA), ("password", PASSWORD)]).await;
    assert_eq!(page.heading(), "Enter your code");
    // The code was used up.
    let again = browser.fill(&page, &[("code", &code)]).await;
    assert!(again.text_of("code-problem").contains("used already"));
    let page = browser.submit(&page, &[("code", &phone.fresh_code())]).await;
    assert_eq!(page.heading(), "Someone tried to sign in as you");
    assert_eq!(browser.level().await, "two_factor");
    // The same code makes no other browser known, and what was made known is forgotten soon.
    let thief = gateway.browser().from("192.0.2.6");
    let page = thief.get("/.portcullis/code-first").await;
    let answer = thief.fill(&page, &[("email", ADA), ("code", &code)]).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn codes_before_the_password_wait_by_network_and_switch_nothing_off() {
    let (gateway, ada) = ada_at_home().await;
    for network in 0..22 {
        let browser = gateway.browser().from(&format!("203.0.113.{network}"));
        let page = browser.get("/.portcullis/code-first").await;
        for expected in [401, 401, 401, 401, 401, 429] {
            let answer = browser.fill(&page, &[("email", ADA), ("code", "000000")]).await;
            assert_eq!(answer.status.as_u16(), expected);
        }
    }
    signed_out(&ada);
    assert_eq!(
        ada.log_in(ADA).await.status,
        StatusCode::OK,
        "her phone still works, and there is nothing to tell"
    );
}

#[tokio::test]
async fn whoever_has_the_password_and_guesses_codes_does_not_keep_her_out_and_she_is_told() {
    let (gateway, ada) = ada_at_home().await;
    let phone = gateway.phone(ADA);
    let thief = gateway.browser().from("203.0.113.5");
    let page = thief.visit("/").await;
    let page = thief.sign_in(&page, ADA).await;
    let wrong = phone.code_at(gateway.clock.now().plus(Duration::from_hours(1)));
    let fields = [("code", wrong.as_str())];
    let answers = join_all((0..10).map(|_| thief.fill(&page, &fields))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == StatusCode::UNAUTHORIZED).count(), 5);
    assert_eq!(answers.iter().filter(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS).count(), 5);
    // A recovery code has a count of its own, and so has everybody somewhere else.
    let recovery = thief.get("/.portcullis/recovery").await;
    let answer = thief.fill(&recovery, &[("recovery_code", "0000-0000-0000-0000")]).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    guess(&gateway, "2001:db8:4:2::9", WRONG).await;
    noted(&gateway, 1, 6).await;

    for browser in [gateway.browser().from("192.0.2.77"), ada] {
        signed_out(&browser);
        let page = browser.get("/.portcullis/login?rd=/sims").await;
        let page = browser.submit(&page, &[("email", ADA), ("password", PASSWORD)]).await;
        assert_eq!(page.heading(), "Enter your code", "{}", page.text());
        let page = browser.submit(&page, &[("code", &phone.fresh_code())]).await;
        assert_eq!(page.heading(), "Someone tried to sign in as you");
        let text = page.text();
        for told in ["6 wrong codes", "203.0.113.5", "1 wrong password", "2001:db8:4:2::&#x2f;64"] {
            assert!(text.contains(&format!(">{told}<")), "{told}: {text}");
        }
        assert!(text.contains("someone knows your password"), "{text}");
        // It is the portal that she came for, told or not.
        assert_eq!(browser.get("/sims").await.status, StatusCode::OK);
        assert_eq!(
            browser.get("/.portcullis/wrong-tries").await.heading(),
            "Someone tried to sign in as you"
        );
    }
}

#[tokio::test]
async fn what_has_been_told_is_not_told_again_and_her_own_slips_need_no_word() {
    let (gateway, ada) = ada_at_home().await;
    guess(&gateway, "203.0.113.5", WRONG).await;
    noted(&gateway, 1, 0).await;
    signed_out(&ada);
    let page = ada.get("/.portcullis/login?rd=/sims").await;
    let page = ada.submit(&page, &[("email", ADA), ("password", PASSWORD)]).await;
    let page = ada.submit(&page, &[("code", &gateway.phone(ADA).fresh_code())]).await;
    assert!(page.text().contains(">1 wrong password<") && page.text().contains("nobody has got in"));
    // A form without its token changes nothing.
    let refused = ada.post_form("/.portcullis/wrong-tries", &[("until", "9999999999999")]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(ada.fill(&page, &[]).await.location(), "/sims");
    assert_eq!(ada.get("/.portcullis/wrong-tries").await.location(), "/");

    signed_out(&ada);
    for _ in 0..3 {
        ada.submit_password(ADA, WRONG).await;
    }
    ada.submit_password(ADA, PASSWORD).await;
    ada.submit_code("000000").await;
    noted(&gateway, 3, 1).await;
    assert_eq!(ada.submit_code(&gateway.phone(ADA).fresh_code()).await.location(), "/");
    let stranger = gateway.browser();
    assert_eq!(stranger.get("/.portcullis/wrong-tries").await.location(), "/.portcullis/login");
}

#[tokio::test]
async fn whoever_has_only_the_password_cannot_keep_from_her_what_was_tried() {
    let tomorrow = portcullis::clock::SystemClock.now().plus(Duration::from_hours(24));
    let builder = TestGateway::builder().set("server.trusted_proxies", "127.0.0.1").mandatory_from(tomorrow);
    let (gateway, ada) = builder.start().await;
    gateway.add_user(ADA).await;
    for network in ["203.0.113.5", "2001:db8:7::1"] {
        guess(&gateway, network, WRONG).await;
    }
    noted(&gateway, 2, 0).await;
    // The thief presses it away, and then Ada in a browser of hers, who has no device either.
    for browser in [gateway.browser().from("192.0.2.77"), ada.from(HOME)] {
        let page = browser.visit("/sims").await;
        let page = browser.submit(&page, &[("email", ADA), ("password", PASSWORD)]).await;
        let page = browser.submit(&page, &[("skip", "1")]).await;
        assert_eq!(page.heading(), "Someone tried to sign in as you");
        for _ in 0..2 {
            assert_eq!(browser.fill(&page, &[]).await.location(), "/sims");
        }
        assert_eq!(browser.get("/sims").await.status, StatusCode::OK, "it stands in nobody's way");
        noted(&gateway, 2, 0).await;
    }
    let ada = gateway.browser().from(HOME);
    ada.log_in_to("/sims", ADA).await;
    signed_out(&ada);
    let page = ada.visit("/sims").await;
    let page = ada.submit(&page, &[("email", ADA), ("password", PASSWORD)]).await;
    let page = ada.submit(&page, &[("code", &gateway.phone(ADA).fresh_code())]).await;
    assert!(page.text().contains(">1 wrong password<"), "{}", page.text());
    assert_eq!(ada.fill(&page, &[]).await.location(), "/sims");
    noted(&gateway, 0, 0).await;
}

#[tokio::test]
async fn a_hundred_wrong_passwords_in_a_row_close_the_account_to_strangers_until_she_has_logged_in() {
    let (gateway, ada) = ada_at_home().await;
    let database = &gateway.stores().database;
    sqlx::query("UPDATE passwords SET failures = 100").execute(database).await.unwrap();
    // Nobody is told that there is such an account, nor that the password is right.
    let refused = guess(&gateway, "203.0.113.5", PASSWORD).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(refused.text_of("login-problem").contains("do not match"));
    assert!(refused.text().contains("/.portcullis/code-first"));
    let unknown = gateway.browser().from("203.0.113.5").submit_password("nobody@example.com", PASSWORD).await;
    assert_eq!(unknown.status, refused.status);
    assert_eq!(unknown.text_of("login-problem"), refused.text_of("login-problem"));
    noted(&gateway, 1, 0).await;
    signed_out(&ada);
    ada.submit_password(ADA, PASSWORD).await;
    ada.submit_code(&gateway.phone(ADA).fresh_code()).await;
    assert_eq!(guess(&gateway, "203.0.113.6", PASSWORD).await.location(), "/.portcullis/code");
}

#[tokio::test]
async fn what_is_typed_into_the_wrong_field_stands_in_no_log() {
    let log = log::listen();
    let (gateway, ada) = ada_at_home().await;
    let secret = "correct-horse-battery-staple-4711";
    signed_out(&ada);
    for typed in [secret.to_owned(), format!("{secret}@x"), format!("{secret}@example.com")] {
        for browser in [gateway.browser().from("203.0.113.9"), ada.copy()] {
            for _ in 0..7 {
                browser.submit_password(&typed, PASSWORD).await;
            }
            let page = browser.get("/.portcullis/code-first").await;
            for _ in 0..7 {
                browser.fill(&page, &[("email", &typed), ("code", "123456")]).await;
            }
        }
    }
    let text = log.text() + &gateway.access_log();
    assert!(
        !text.contains("staple"),
        "{}",
        text.lines().find(|line| line.contains("staple")).unwrap_or_default()
    );
    // The same name is the same in each line, so that a flood at one account can be seen.
    assert!(text.contains("user=unknown-") || text.contains("unknown-"), "{text}");
    // Who exists is named.
    assert_eq!(guess(&gateway, "203.0.113.10", WRONG).await.status, StatusCode::UNAUTHORIZED);
    assert!(log.text().contains(ADA));
}

#[tokio::test]
async fn those_who_lose_a_race_with_one_code_have_not_failed() {
    let (gateway, ada) = ada_at_home().await;
    signed_out(&ada);
    ada.submit_password(ADA, PASSWORD).await;
    let page = ada.get("/.portcullis/code").await;
    let code = gateway.phone(ADA).fresh_code();
    let fields = [("code", code.as_str())];
    let answers = join_all((0..24).map(|_| ada.fill(&page, &fields))).await;
    assert_eq!(answers.iter().filter(|answer| answer.starts_session()).count(), 1);
    let row =
        sqlx::query("SELECT MAX(failures) FROM second_factors").fetch_one(&gateway.stores().database).await;
    assert_eq!(sqlx::Row::get::<i64, _>(&row.unwrap(), 0), 0);
    signed_out(&ada);
    assert_eq!(ada.log_in(ADA).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_many_networks_takes_nothing_from_whoever_is_in_or_known() {
    let (gateway, ada) = ada_at_home().await;
    let gateway = std::sync::Arc::new(gateway);
    let flood: Vec<_> = (0..300_u32)
        .map(|number| {
            let browser = gateway.browser().from(&format!("10.1.{}.{}", number / 250, number % 250 + 1));
            tokio::spawn(async move {
                let page = browser.get("/.portcullis/login").await;
                let first = browser.get("/.portcullis/code-first").await;
                for try_ in 0..2 {
                    let name = format!("nobody-{number}-{try_}@example.com");
                    let answer = browser.fill(&page, &[("email", &name), ("password", WRONG)]).await;
                    assert!(matches!(answer.status.as_u16(), 401 | 503), "{answer:?}");
                    let answer = browser.fill(&first, &[("email", &name), ("code", "123456")]).await;
                    assert!(matches!(answer.status.as_u16(), 401 | 503), "{answer:?}");
                }
            })
        })
        .collect();
    let mut asked = 0;
    while !flood.iter().all(tokio::task::JoinHandle::is_finished) {
        assert_eq!(ada.get("/sims").await.status, StatusCode::OK, "request {asked}");
        if asked % 10 == 0 {
            let known = ada.copy();
            signed_out(&known);
            let answer = known.submit_password(ADA, PASSWORD).await;
            assert!(matches!(answer.status.as_u16(), 303 | 429), "{}", answer.text());
        }
        asked += 1;
    }
    for one in flood {
        one.await.unwrap();
    }
    assert!(asked > 0);
}

#[tokio::test]
async fn an_account_that_is_known_in_many_browsers_has_one_rate() {
    let (gateway, ada) = ada_at_home().await;
    let mut passed = 0;
    for number in 0..40 {
        // Signed in, and without the mark: the session makes the browser known, each time as another.
        let browser = ada.copy();
        if number % 2 == 0 {
            browser.remove_cookie("__Host-portcullis-known");
        }
        let page = browser.get("/.portcullis/login?again=1").await;
        let answer = browser.fill(&page, &[("email", ADA), ("password", PASSWORD)]).await;
        passed += u32::from(answer.status == StatusCode::SEE_OTHER);
    }
    assert!((15..=20).contains(&passed), "{passed}");
    drop(gateway);
}

#[tokio::test]
async fn what_cannot_be_a_name_keeps_nobody_waiting() {
    let (gateway, _) = ada_at_home().await;
    for number in 0..8 {
        let browser = gateway.browser().from(&format!("203.0.113.{number}"));
        let answer = browser.submit_password("ingrid muster", WRONG).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{number}");
    }
}

#[tokio::test]
async fn a_first_code_sent_twice_is_no_failure() {
    let (gateway, _) = ada_at_home().await;
    let code = gateway.phone(ADA).fresh_code();
    let browser = gateway.browser().from("192.0.2.5");
    let page = browser.get("/.portcullis/code-first").await;
    let fields = [("email", ADA), ("code", code.as_str())];
    assert_eq!(browser.fill(&page, &fields).await.status, StatusCode::SEE_OTHER);
    for _ in 0..8 {
        let answer = browser.fill(&page, &fields).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.text_of("code-problem").contains("used already"), "{}", answer.text());
    }
}
