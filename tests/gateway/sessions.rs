//! Sessions as users meet them: how long they last, what ends them where, and what a gateway says while it cannot tell.

use std::time::Duration;

use http::StatusCode;
use portcullis::clock::Clock as _;

use crate::support::{
    ADA, Answer, Browser, PASSWORD, TestGateway, Upstream, logged_in, now, soon, upstream::ordinary,
};

const SESSION: &str = "__Host-portcullis";
const SECOND: Duration = Duration::from_secs(1);
const INSTANT: Duration = Duration::from_millis(1);

async fn gets_through(browser: &Browser) -> bool {
    let answer = browser.get("/sims").await;
    let through = answer.text() == "the portal: GET /sims\n";
    // A session may end after the portal was asked and before it has answered.
    let out = matches!(answer.status, StatusCode::FOUND | StatusCode::UNAUTHORIZED);
    assert!(through || out, "{answer:?}");
    through
}

/// The answer of a gateway that cannot tell who somebody is: it lets nobody in and takes nothing away.
#[track_caller]
fn cannot_tell(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| (1..=60).contains(&seconds)));
    assert!(answer.set_cookies().is_empty(), "{:?}", answer.set_cookies());
    answer.assert_secure();
}

#[tokio::test]
async fn a_restart_logs_nobody_out_and_loses_no_login_in_progress() {
    for redis in [false, true] {
        let builder = TestGateway::builder().mandatory_from(now().plus(Duration::from_hours(48)));
        let (gateway, full) = if redis { builder.redis() } else { builder }.start().await;
        for email in [ADA, "bob@example.com", "eve@example.com"] {
            gateway.add_user(email).await;
        }
        full.log_in(ADA).await;
        let half = gateway.browser();
        let page = half.visit("/").await;
        let page = half.sign_in(&page, "bob@example.com").await;
        half.submit(&page, &[("skip", "1")]).await;
        let (enrolling, coding, reading) = (gateway.browser(), gateway.browser(), gateway.browser());
        let page = enrolling.visit("/sims").await;
        let enrol = enrolling.sign_in(&page, "eve@example.com").await;
        let page = coding.visit("/sims").await;
        let code = coding.sign_in(&page, ADA).await;
        let login = reading.visit("/sims").await;
        let account = full.get("/.portcullis/account").await;

        let gateway = gateway.restart().await;
        let moved = |browser: Browser| browser.moved_to(gateway.surroundings());
        let (full, half) = (moved(full), moved(half));
        assert_eq!((full.level().await.as_str(), half.level().await.as_str()), ("two_factor", "one_factor"));
        assert!(gets_through(&full).await && gets_through(&half).await);
        // Forms that were shown before are as good as they were.
        let (enrolling, coding, reading) = (moved(enrolling), moved(coding), moved(reading));
        let page = enrolling.bind(&enrol, "eve@example.com", "Phone").await;
        assert_eq!(enrolling.submit(&page, &[]).await.text(), "the portal: GET /sims\n");
        let page = coding.submit(&code, &[("code", &gateway.phone(ADA).fresh_code())]).await;
        assert_eq!(page.text(), "the portal: GET /sims\n");
        assert_eq!(reading.sign_in(&login, ADA).await.heading(), "Enter your code");
        assert_eq!(full.submit(&account, &[]).await.heading(), "You are signed out");
    }
}

#[tokio::test]
async fn a_session_that_nobody_uses_ends_after_an_hour_to_the_instant() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    for _ in 0..3 {
        gateway.clock.advance(Duration::from_mins(59));
        assert!(gets_through(&browser).await, "used within the hour");
    }
    gateway.clock.advance(Duration::from_hours(1));
    let answer = browser.get("/sims").await;
    assert_eq!(answer.location(), "/.portcullis/login?rd=/sims");
    assert_eq!(browser.fetch("/sims").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(browser.level().await, "none");

    let page = browser.log_in_to("/sims", ADA).await;
    assert_eq!(page.text(), "the portal: GET /sims\n");
    gateway.clock.advance(Duration::from_mins(59) + Duration::from_millis(59_999));
    assert!(gets_through(&browser).await);
}

#[tokio::test]
async fn a_session_ends_after_twelve_hours_however_busy_it_is() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    for _ in 0..23 {
        gateway.clock.advance(Duration::from_mins(30));
        assert!(gets_through(&browser).await);
    }
    gateway.clock.advance(Duration::from_mins(30).checked_sub(INSTANT).unwrap());
    assert!(gets_through(&browser).await);
    gateway.clock.advance(INSTANT);
    assert!(!gets_through(&browser).await);
}

#[tokio::test]
async fn the_limits_are_the_operators() {
    let (gateway, browser) = TestGateway::builder()
        .set("sessions.inactivity", "5m")
        .set("sessions.expiration", "8m")
        .start()
        .await;
    gateway.add_user(ADA).await;
    browser.log_in(ADA).await;
    gateway.clock.advance(Duration::from_mins(4));
    assert!(gets_through(&browser).await);
    gateway.clock.advance(Duration::from_mins(4));
    assert!(!gets_through(&browser).await);
    browser.log_in_to("/", ADA).await;
    gateway.clock.advance(Duration::from_mins(5));
    assert!(!gets_through(&browser).await);
}

#[tokio::test]
async fn a_clock_that_is_set_back_prolongs_no_session() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    gateway.clock.set(gateway.clock.now().minus(Duration::from_hours(5)));
    assert!(gets_through(&browser).await);
    gateway.clock.advance(Duration::from_hours(1));
    assert!(!gets_through(&browser).await);
}

#[tokio::test]
async fn the_last_use_survives_a_restart() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    gateway.clock.advance(Duration::from_mins(50));
    assert!(gets_through(&browser).await);
    let gateway = gateway.restart().await;
    let browser = browser.moved_to(gateway.surroundings());
    gateway.clock.advance(Duration::from_mins(50));
    assert!(
        gets_through(&browser).await,
        "an hour and forty minutes after the login, fifty after the last use"
    );
}

#[tokio::test]
async fn two_gateways_on_one_store_are_one_site() {
    for redis in [false, true] {
        let builder = TestGateway::builder();
        let (here, browser) = if redis { builder.redis() } else { builder }.start().await;
        let (there, elsewhere) = here.twin().await;
        here.add_user(ADA).await;
        // A login that is begun here and finished there.
        let page = browser.visit("/sims").await;
        let enrol = browser.sign_in(&page, ADA).await;
        let browser = browser.moved_to(there.surroundings());
        let page = browser.bind(&enrol, ADA, "Phone").await;
        assert_eq!(browser.submit(&page, &[]).await.text(), "the portal: GET /sims\n");
        let browser = browser.moved_to(here.surroundings());
        assert!(gets_through(&browser).await);

        // Ended there, it is over here within a second: by an operator, by signing out, with its user.
        elsewhere.set_cookie(SESSION, &browser.session());
        assert!(gets_through(&elsewhere).await);
        let id = there.administration().sessions(Some(ADA)).await.unwrap()[0].id.short();
        there.administration().revoke_session(&id).await.unwrap();
        soon(SECOND, "over here", async || !gets_through(&browser).await).await;
        soon(SECOND, "over there", async || !gets_through(&elsewhere).await).await;

        let (browser, elsewhere) = (here.browser(), there.browser());
        browser.log_in_to("/", ADA).await;
        elsewhere.set_cookie(SESSION, &browser.session());
        assert!(gets_through(&elsewhere).await);
        let page = elsewhere.get("/.portcullis/account").await;
        elsewhere.fill(&page, &[]).await;
        soon(SECOND, "signed out here", async || !gets_through(&browser).await).await;

        browser.log_in_to("/", ADA).await;
        assert!(gets_through(&browser).await);
        there.administration().set_disabled(ADA, true).await.unwrap();
        soon(SECOND, "out with the user", async || !gets_through(&browser).await).await;
    }
}

#[tokio::test]
async fn a_session_that_ends_while_the_portal_is_at_work_gets_a_page_that_says_so() {
    let portal = Upstream::scripted(async |exchange| {
        if exchange.target() == "/slow" {
            std::future::pending::<()>().await;
        }
        ordinary(exchange).await
    });
    let (gateway, browser) = TestGateway::builder().upstream(&portal).start().await;
    gateway.add_user(ADA).await;
    browser.log_in(ADA).await;
    gateway.upstream.forget();
    let end = async {
        gateway.upstream.arrived(1).await;
        gateway.administration().revoke_all().await.unwrap();
    };
    let (answer, ()) = tokio::join!(browser.get("/slow"), end);
    assert_eq!((answer.status, answer.set_cookies().len()), (StatusCode::UNAUTHORIZED, 0));
    assert_eq!(answer.heading(), "Your session has ended");
    assert!(answer.text().contains("href=\"\">Try again</a>"), "the same address leads to the login");
    assert_eq!(browser.visit("/slow").await.heading(), "Sign in");
}

#[tokio::test]
async fn a_code_is_used_up_on_every_gateway() {
    let (here, browser) = logged_in(TestGateway::builder()).await;
    let (there, _) = here.twin().await;
    drop(browser);
    let (left, right) = (here.browser(), there.browser());
    left.submit_password(ADA, PASSWORD).await;
    right.submit_password(ADA, PASSWORD).await;
    let code = here.phone(ADA).fresh_code();
    let (left, right) = tokio::join!(left.submit_code(&code), right.submit_code(&code));
    assert!(left.starts_session() != right.starts_session(), "{left:?} {right:?}");
}

#[tokio::test]
async fn while_redis_is_silent_or_dead_nobody_gets_in_and_nobody_is_logged_out() {
    let (gateway, browser) = TestGateway::builder().redis().start().await;
    let redis = gateway.redis.as_ref().unwrap();
    gateway.add_user(ADA).await;
    browser.log_in(ADA).await;
    let login = gateway.browser();
    let page = login.visit("/").await;
    let code = login.sign_in(&page, ADA).await;
    let stranger = gateway.browser();
    stranger.set_cookie(SESSION, &"A".repeat(43));

    for dead in [false, true] {
        if dead {
            redis.kill().await;
        } else {
            redis.freeze().await;
        }
        // What has been checked is believed for a second at most.
        soon(Duration::from_secs(2), "the gateway notices", async || {
            browser.get("/sims").await.status == StatusCode::SERVICE_UNAVAILABLE
        })
        .await;
        let asked = gateway.upstream.requests().len();
        for browser in [&browser, &stranger] {
            for path in ["/sims", "/.portcullis/whoami", "/.portcullis/account", "/.portcullis/enrol"] {
                cannot_tell(&browser.get(path).await);
                cannot_tell(&browser.fetch(path).await);
            }
            cannot_tell(&browser.post_form("/sims", &[("name", "x")]).await);
            cannot_tell(&browser.post_form("/.portcullis/logout", &[("csrf", "x")]).await);
        }
        // Whoever has no session yet sees the pages, and gets none.
        assert_eq!(gateway.browser().get("/.portcullis/login").await.status, StatusCode::OK);
        assert_eq!(gateway.browser().get("/sims").await.status, StatusCode::FOUND);
        cannot_tell(&login.fill(&code, &[("code", &gateway.phone(ADA).fresh_code())]).await);
        assert_eq!(gateway.upstream.requests().len(), asked, "nothing went to the portal");
        assert!(gateway.admin("/ready").await.contains("\"sessions\":\"unavailable\""));

        if dead {
            redis.restart().await;
        } else {
            redis.thaw().await;
        }
        soon(Duration::from_secs(3), "the gateway is back", async || {
            browser.get("/sims").await.status != StatusCode::SERVICE_UNAVAILABLE
        })
        .await;
        // Redis came back with its memory, or without.
        assert_eq!(gets_through(&browser).await, !dead);
        assert!(!gets_through(&stranger).await);
        let page = login.submit(&code, &[("code", &gateway.phone(ADA).fresh_code())]).await;
        assert_eq!(page.text(), "the portal: GET /\n", "the login in progress goes on");
        login.remove_cookie(SESSION);
        let page = login.visit("/").await;
        login.sign_in(&page, ADA).await;
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_read_lets_nobody_in() {
    let (gateway, known) = logged_in(TestGateway::builder()).await;
    let database = &gateway.stores().database;
    let (twin, _) = gateway.twin().await;
    for table in ["sessions", "users"] {
        let fresh = twin.browser();
        fresh.log_in_to("/", ADA).await;
        let fresh = fresh.moved_to(gateway.surroundings());
        let asked = gateway.upstream.requests().len();
        let hide = format!("ALTER TABLE {table} RENAME TO hidden_{table}");
        sqlx::query(sqlx::AssertSqlSafe(hide)).execute(database).await.unwrap();
        for path in ["/sims", "/.portcullis/whoami", "/.portcullis/account", "/.portcullis/enrol"] {
            cannot_tell(&fresh.get(path).await);
        }
        cannot_tell(&fresh.fetch("/sims").await);
        if table == "users" {
            cannot_tell(&gateway.browser().submit_password(ADA, PASSWORD).await);
        }
        assert_eq!(gateway.upstream.requests().len(), asked);
        let back = format!("ALTER TABLE hidden_{table} RENAME TO {table}");
        sqlx::query(sqlx::AssertSqlSafe(back)).execute(database).await.unwrap();
        assert!(gets_through(&fresh).await, "it goes on where it was");
    }
    // Without the feed of changes nothing that was checked before is believed, but it can still be checked.
    sqlx::query("ALTER TABLE changes RENAME TO hidden_changes").execute(database).await.unwrap();
    assert!(gets_through(&known).await);
    sqlx::query("UPDATE users SET disabled = 1").execute(database).await.unwrap();
    soon(Duration::from_secs(2), "out, although nobody could be told", async || !gets_through(&known).await)
        .await;
}

#[tokio::test]
async fn a_database_that_cannot_be_written_keeps_who_is_in_and_lets_nobody_else_in() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let other = gateway.browser();
    other.submit_password(ADA, PASSWORD).await;
    let page = other.get("/.portcullis/code").await;
    let code = gateway.phone(ADA).fresh_code();
    let lock = gateway.stores().database.write().await.unwrap();
    let fresh = gateway.browser();
    let login = fresh.get("/.portcullis/login").await;
    let fields = [("code", code.as_str())];
    let credentials = [("email", ADA), ("password", PASSWORD)];
    // Both wait for the lock, side by side.
    let (by_code, by_password) = tokio::join!(other.fill(&page, &fields), fresh.fill(&login, &credentials));
    cannot_tell(&by_code);
    cannot_tell(&by_password);
    assert!(gets_through(&browser).await);
    lock.rollback().await.unwrap();
    assert!(
        other.fill(&page, &fields).await.starts_session(),
        "the code was not used up by what did not happen"
    );
    assert!(fresh.fill(&login, &credentials).await.status.is_redirection());
}

#[tokio::test]
async fn every_change_of_what_was_proved_makes_a_new_session_and_ends_the_old_one() {
    let builder = TestGateway::builder().mandatory_from(now().plus(Duration::from_hours(48)));
    let (gateway, browser) = builder.start().await;
    gateway.add_user(ADA).await;
    let page = browser.visit("/").await;
    let page = browser.sign_in(&page, ADA).await;
    browser.submit(&page, &[("skip", "1")]).await;
    let mut seen = vec![browser.session()];

    let page = browser.visit("/.portcullis/enrol").await;
    browser.bind(&page, ADA, "Phone").await;
    seen.push(browser.session());
    let page = browser.visit("/.portcullis/login?again=1").await;
    let page = browser.sign_in(&page, ADA).await;
    browser.submit(&page, &[("code", &gateway.phone(ADA).fresh_code())]).await;
    seen.push(browser.session());
    let page = browser.visit("/.portcullis/enrol").await;
    browser.bind(&page, ADA, "Tablet").await;
    seen.push(browser.session());

    let old = gateway.browser();
    for (at, session) in seen.iter().enumerate() {
        assert!(!seen[..at].contains(session));
        old.set_cookie(SESSION, session);
        assert_eq!(old.level().await == "none", at + 1 < seen.len(), "session {at}");
    }
    assert_eq!(gateway.administration().sessions(Some(ADA)).await.unwrap().len(), 1);
}
