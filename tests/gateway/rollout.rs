//! The way from "nobody has a device" to "nobody gets in without one", with users in the middle of it.

use std::time::Duration;

use http::{Method, Request, StatusCode};
use portcullis::{
    clock::{Clock as _, Timestamp},
    rollout::{Stage, StageCounts},
};

use crate::{
    cli::{json, portcullis},
    support::{ADA, Answer, Browser, PATIENCE, TestGateway, empty, now, soon, test_gateway::Builder},
};

const DAY: Duration = Duration::from_hours(24);
const INSTANT: Duration = Duration::from_millis(1);

/// A gateway at which a second factor becomes mandatory at the instant given, and Ada, who has none.
async fn before(date: Timestamp) -> (TestGateway, Browser) {
    before_with(TestGateway::builder(), date).await
}

async fn before_with(builder: Builder, date: Timestamp) -> (TestGateway, Browser) {
    let (gateway, browser) = builder.mandatory_from(date).start().await;
    gateway.add_user(ADA).await;
    (gateway, browser)
}

/// An instant on a whole second, as the configuration writes it.
fn in_days(days: u32) -> Timestamp {
    Timestamp::from_unix_seconds(now().plus(days * DAY).unix_seconds())
}

/// Logs in up to the page that invites to enrol.
async fn invited(browser: &Browser, target: &str) -> Answer {
    let page = browser.visit(target).await;
    let page = browser.sign_in(&page, ADA).await;
    assert_eq!(page.heading(), "Set up your authenticator app");
    page
}

/// Puts the device off, to the portal with a password alone.
async fn put_off(browser: &Browser, target: &str) {
    let page = invited(browser, target).await;
    let page = browser.submit(&page, &[("skip", "1")]).await;
    assert_eq!(page.text(), format!("the portal: GET {target}\n"));
    assert_eq!(browser.level().await, "one_factor");
}

#[tokio::test]
async fn before_the_date_the_enrolment_is_an_invitation_with_the_date_as_it_was_written() {
    for (written, said, before) in [
        (
            "2027-03-02T00:00:00+01:00",
            "2 March 2027",
            [
                ("2026-11-30T23:30:00Z", "You have 91 days left."),
                ("2026-12-01T08:00:00+01:00", "You have 91 days left."),
                ("2027-02-28T12:00:00+01:00", "You have 2 days left."),
                ("2027-03-01T22:59:59Z", "You have 1 day left."),
            ],
        ),
        (
            "2027-03-02T09:00:00-05:00",
            "2 March 2027 at 09:00 (UTC−5)",
            [
                ("2027-02-27T12:00:00-05:00", "You have 3 days left."),
                ("2027-03-02T04:59:59Z", "You have 1 day left."),
                ("2027-03-02T05:00:00Z", "That is today."),
                ("2027-03-02T08:59:59-05:00", "That is today."),
            ],
        ),
    ] {
        let (gateway, _) = TestGateway::builder()
            .set("second_factor.mandatory_from", written)
            .clock(at(before[0].0))
            .start()
            .await;
        gateway.add_user(ADA).await;
        for (now, left) in before {
            gateway.clock.set(at(now));
            let text = invited(&gateway.browser(), "/sims").await.text();
            assert!(text.contains(&format!("You’ll need it from <strong>{said}</strong>.")), "{text}");
            assert!(text.contains(left) && text.contains("Not now"), "{now}: {text}");
        }
        // From the very instant on there is no choice.
        gateway.clock.set(at(written));
        let page = invited(&gateway.browser(), "/sims").await;
        assert!(!page.text().contains("Not now") && !page.has_form("skip"), "{}", page.text());
    }
}

fn at(text: &str) -> Timestamp {
    Timestamp::from_unix_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

#[tokio::test]
async fn not_now_opens_the_portal_with_a_password_alone_until_the_instant() {
    let date = in_days(2);
    let (gateway, browser) = before(date).await;
    put_off(&browser, "/sims?page=2").await;
    assert_eq!(gateway.upstream.requests().last().unwrap().value("remote-user").as_deref(), Some(ADA));
    assert_eq!(browser.whoami().await.unwrap()["amr"], serde_json::json!(["pwd"]));
    // The invitation comes again at the next login, not before.
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
    invited(&gateway.browser(), "/").await;
}

#[tokio::test]
async fn at_the_instant_a_session_of_one_factor_is_asked_for_the_other_and_goes_on_from_there() {
    let date = in_days(2);
    let (gateway, browser) = before(date).await;
    gateway.clock.set(date.minus(Duration::from_mins(5)));
    put_off(&browser, "/sims").await;
    let old = browser.session();
    let expires_at = browser.whoami().await.unwrap()["expires_at"].clone();
    gateway.clock.set(date.minus(INSTANT));
    assert_eq!(browser.get("/sims").await.status, StatusCode::OK);
    let seen = gateway.upstream.requests().len();

    gateway.clock.set(date);
    let page = browser.get("/sims?page=2").await;
    assert_eq!(
        (page.status.as_u16(), page.location().as_str()),
        (302, "/.portcullis/enrol?rd=/sims%3Fpage%3D2")
    );
    let script = browser.fetch("/api/sims").await;
    assert_eq!(
        (script.status.as_u16(), script.header("content-type").as_str()),
        (401, "application/problem+json")
    );
    assert_eq!(script.json()["login_url"], "https://iot.example.com/.portcullis/enrol");
    let form = browser.post_form("/sims", &[("name", "x")]).await;
    let kept = form.location();
    assert_eq!(form.status, StatusCode::SEE_OTHER);
    assert!(kept.starts_with("/.portcullis/enrol?rd=/.portcullis/kept/"), "{kept}");
    let socket = Request::get("/live")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("origin", "https://iot.example.com")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(browser.send(socket.body(empty()).unwrap()).await.status.as_u16(), 401);
    assert_eq!(
        browser.level().await,
        "one_factor",
        "the session is as good as it was, and that is not enough"
    );
    assert_eq!(gateway.upstream.requests().len(), seen, "nothing of it went to the portal");

    let page = browser.follow(page).await;
    assert_eq!(page.heading(), "Set up your authenticator app");
    assert!(!page.has_form("skip"), "{}", page.text());
    let page = browser.bind(&page, ADA, "Phone").await;
    assert_eq!(page.heading(), "Save your recovery codes");
    assert_ne!(browser.session(), old);
    assert_eq!(browser.submit(&page, &[]).await.text(), "the portal: GET /sims?page=2\n");
    let who = browser.whoami().await.unwrap();
    assert_eq!((&who["level"], &who["expires_at"]), (&"two_factor".into(), &expires_at));
    browser.set_cookie("__Host-portcullis", &old);
    assert_eq!(browser.level().await, "none", "what proved less is over");
}

#[tokio::test]
async fn after_the_instant_not_now_is_refused_whichever_page_it_comes_from() {
    let date = in_days(1);
    let (gateway, browser) = before(date).await;
    gateway.clock.set(date.minus(Duration::from_mins(10)));
    let page = invited(&browser, "/sims").await;
    let other = gateway.browser();
    put_off(&other, "/").await;
    let session = other.session();
    let others = other.visit("/.portcullis/enrol").await;
    assert!(others.has_form("skip"), "a session of one factor may still choose");

    gateway.clock.set(date);
    for (browser, page) in [(&browser, &page), (&other, &others)] {
        let answer = browser.fill(page, &[("skip", "1")]).await;
        assert_eq!((answer.status, answer.starts_session()), (StatusCode::FORBIDDEN, false));
        assert!(answer.text().contains("an authenticator app is now required"), "{}", answer.text());
        assert_eq!(answer.text_of("key"), page.text_of("key"));
        assert!(!answer.has_form("skip"));
    }
    assert_eq!(other.session(), session);
    let page = browser.bind(&page, ADA, "Phone").await;
    assert_eq!(page.heading(), "Save your recovery codes");
}

#[tokio::test]
async fn without_a_date_a_device_is_mandatory_now() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let page = invited(&browser, "/").await;
    assert!(!page.has_form("skip") && !page.text().contains("Not now"));
    let csrf = page.field("csrf");
    let answer = browser.post_form("/.portcullis/enrol", &[("skip", "1"), ("csrf", &csrf)]).await;
    assert_eq!((answer.status, answer.starts_session()), (StatusCode::FORBIDDEN, false));
    assert_eq!(browser.get("/").await.status, StatusCode::FOUND);
}

#[tokio::test]
async fn whoever_has_a_device_cannot_do_without_it() {
    let (gateway, browser) = before(in_days(2)).await;
    let enrol = invited(&browser, "/").await;
    gateway.browser().log_in_to("/", ADA).await;
    // At a page from before there was a device, or at the code: the second factor is there and has to be given.
    let answer = browser.fill(&enrol, &[("skip", "1")]).await;
    assert_eq!((answer.location().as_str(), answer.starts_session()), ("/.portcullis/code", false));
    let page = browser.follow(answer).await;
    assert!(!page.has_form("skip"));
    let csrf = page.field("csrf");
    let answer = browser.post_form("/.portcullis/enrol", &[("skip", "1"), ("csrf", &csrf)]).await;
    assert_eq!((answer.location().as_str(), answer.starts_session()), ("/.portcullis/code", false));
    assert_eq!(browser.level().await, "none");
}

#[tokio::test]
async fn putting_off_again_and_again_prolongs_nothing() {
    let (gateway, browser) = before(in_days(3)).await;
    put_off(&browser, "/").await;
    let expires_at = browser.whoami().await.unwrap()["expires_at"].clone();
    let session = browser.session();
    for _ in 0..3 {
        gateway.clock.advance(Duration::from_mins(3));
        let page = browser.visit("/.portcullis/enrol").await;
        browser.submit(&page, &[("skip", "1")]).await;
        assert_eq!(browser.session(), session);
        assert_eq!(browser.whoami().await.unwrap()["expires_at"], expires_at);
    }
    for _ in 0..15 {
        gateway.clock.advance(Duration::from_mins(50));
        browser.send(Request::builder().method(Method::HEAD).uri("/").body(empty()).unwrap()).await;
    }
    assert_eq!(browser.level().await, "none", "twelve hours after the password, busy or not");
}

#[tokio::test]
async fn pressing_not_now_twice_makes_one_session() {
    let (gateway, browser) = before(in_days(2)).await;
    let page = invited(&browser, "/sims").await;
    let press = || browser.fill(&page, &[("skip", "1")]);
    let answers = <[_; 2]>::from(tokio::join!(press(), press()));
    assert!(answers.iter().any(Answer::starts_session), "{answers:?}");
    for answer in answers {
        assert_eq!(browser.follow(answer).await.text(), "the portal: GET /sims\n");
    }
    assert_eq!(gateway.administration().sessions(Some(ADA)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_instant_reaches_every_gateway_and_store() {
    let date = in_days(2);
    let (gateway, browser) = before_with(TestGateway::builder().redis(), date).await;
    let (_twin, elsewhere) = gateway.twin().await;
    gateway.clock.set(date.minus(Duration::from_mins(5)));
    put_off(&browser, "/").await;
    elsewhere.set_cookie("__Host-portcullis", &browser.session());
    assert_eq!(elsewhere.get("/").await.status, StatusCode::OK);
    gateway.clock.set(date);
    for browser in [&browser, &elsewhere] {
        assert_eq!(browser.get("/x").await.location(), "/.portcullis/enrol?rd=/x");
    }
    // It is bound at one of them, begun at the other.
    let page = elsewhere.visit("/.portcullis/enrol?rd=/x").await;
    let page = browser.bind(&page, ADA, "Phone").await;
    assert_eq!(browser.submit(&page, &[]).await.text(), "the portal: GET /x\n");
}

/// How many users are at each stage now, in their order, and how many are blocked.
async fn counts(gateway: &TestGateway) -> ([u64; 5], u64) {
    let mut counts = StageCounts::default();
    let take = &mut |_, standing| counts.add(standing);
    gateway.administration().standings(gateway.clock.now(), take).await.unwrap();
    (Stage::ALL.map(|stage| counts.at(stage)), counts.blocked)
}

const STAGES: [&str; 5] = ["not_started", "password_known", "qr_seen", "put_off", "device_saved"];
const BOB: &str = "bob@example.com";
const CYD: &str = "cyd@example.com";

#[tokio::test]
async fn a_wave_needs_a_device_earlier_and_a_session_in_the_middle_is_asked_for_it() {
    let (wave, date) = (in_days(2), in_days(9));
    let builder = TestGateway::builder()
        .set("second_factor.waves", &format!("[{{groups=[\"ops\"], from=\"{wave}\"}}]"));
    let (gateway, browser) = before_with(builder, date).await;
    gateway.administration().set_groups(ADA, vec!["sales".into()]).await.unwrap();
    gateway.add_user(BOB).await;
    // Bob is in the wave, Ada is not.
    gateway.clock.set(wave.minus(Duration::from_mins(5)));
    put_off(&browser, "/sims").await;
    let bob = gateway.browser();
    let page = bob.visit("/sims").await;
    let page = bob.sign_in(&page, BOB).await;
    bob.submit(&page, &[("skip", "1")]).await;
    gateway.clock.set(wave);
    assert_eq!(bob.get("/sims").await.location(), "/.portcullis/enrol?rd=/sims");
    assert_eq!(browser.get("/sims").await.status, StatusCode::OK);
    assert_eq!(counts(&gateway).await, ([0, 0, 0, 2, 0], 1));
    // Whoever joins the group joins its wave, with a session that is open.
    gateway.administration().set_groups(ADA, vec!["ops".into()]).await.unwrap();
    let is_asked = async || browser.get("/sims").await.location() == "/.portcullis/enrol?rd=/sims";
    soon(PATIENCE, "a session follows its user into another wave", is_asked).await;
    gateway.clock.set(date);
    assert!(!gateway.browser().log_in_to("/sims", BOB).await.has_form("skip"));
}

#[tokio::test]
async fn the_grace_is_counted_from_the_first_login_and_never_again() {
    let builder = TestGateway::builder().set("second_factor.grace", "3d");
    let (gateway, browser) = before_with(builder, in_days(30)).await;
    put_off(&browser, "/sims").await;
    let before_its_end = Duration::from_mins(5);
    gateway.clock.advance((3 * DAY).saturating_sub(before_its_end));
    let again = gateway.browser();
    put_off(&again, "/sims").await;
    gateway.clock.advance(before_its_end);
    assert_eq!(again.get("/sims").await.location(), "/.portcullis/enrol?rd=/sims");
    let page = invited(&gateway.browser(), "/").await;
    assert!(!page.has_form("skip"), "{}", page.text());
    // Others have not begun.
    gateway.add_user(BOB).await;
    assert_eq!(counts(&gateway).await, ([1, 0, 0, 1, 0], 1));
    let page = gateway.browser().submit_password(BOB, crate::support::PASSWORD).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
    assert_eq!(counts(&gateway).await, ([0, 1, 0, 1, 0], 1));
}

#[tokio::test]
async fn a_device_is_put_off_as_often_as_allowed() {
    let builder = TestGateway::builder().set("second_factor.skips", "2");
    let (gateway, browser) = before_with(builder, in_days(30)).await;
    let page = invited(&browser, "/").await;
    assert!(page.text().contains("You can put it off 2 more times."), "{}", page.text());
    // Of two tabs, each login counts once.
    browser.submit(&page, &[("skip", "1")]).await;
    let page = invited(&gateway.browser(), "/").await;
    assert!(page.text().contains("This is the last time that you can put it off."), "{}", page.text());
    let (last, late) = (gateway.browser(), gateway.browser());
    let (first, second) = (invited(&last, "/").await, invited(&late, "/").await);
    last.submit(&first, &[("skip", "1")]).await;
    let refused = late.submit(&second, &[("skip", "1")]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text());
    assert!(late.whoami().await.is_none(), "a login that may not be put off opens nothing");
    // The session that there is goes on, and its page asks no more.
    assert_eq!(last.get("/").await.status, StatusCode::OK);
    assert!(!invited(&gateway.browser(), "/").await.has_form("skip"));
    assert_eq!(counts(&gateway).await, ([0, 0, 0, 1, 0], 1));
}

#[tokio::test]
async fn report_metrics_and_preview_agree_and_name_who_is_where() {
    let date = in_days(30);
    let (gateway, browser) = before(date).await;
    for email in [BOB, CYD, "dan@example.com", "eve@example.com"] {
        gateway.add_user(email).await;
    }
    gateway.administration().set_disabled("eve@example.com", true).await.unwrap();
    browser.log_in(ADA).await;
    let page = gateway.browser();
    let shown = page.visit("/").await;
    page.sign_in(&shown, BOB).await;
    gateway.browser().submit_password(CYD, crate::support::PASSWORD).await;
    let now = [1, 1, 1, 0, 1];
    assert_eq!(counts(&gateway).await, (now, 0));
    let file = gateway.folder().join("rollout.toml");
    std::fs::write(&file, format!("[second_factor]\nmandatory_from = \"{date}\"\n")).unwrap();
    let (file, just_before, at) = (file.to_str().unwrap(), date.minus(INSTANT).to_string(), date.to_string());
    for (instant, blocked) in [(&just_before, 0), (&at, 3)] {
        let report = json(&gateway, &["rollout", "preview", "--at", instant, "--config", file]).await;
        for group in [0, 1] {
            let counts = &report["counts"][group];
            assert_eq!(STAGES.map(|stage| counts[stage].as_u64().unwrap()), now, "{report}");
            assert_eq!((&counts["users"], &counts["blocked"]), (&4.into(), &blocked.into()), "{report}");
        }
        assert_eq!(report["counts"][1]["group"], "ops");
    }
    let metrics = gateway.admin("/metrics").await;
    for (stage, users) in STAGES.iter().zip(now) {
        let line = format!("portcullis_rollout_users{{stage=\"{stage}\"}} {users}\n");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    assert!(metrics.contains("portcullis_rollout_blocked_users 0\n"));
    let listed = portcullis(
        &gateway,
        &["rollout", "preview", "--at", &at, "--list", "blocked", "--csv", "--config", file],
    )
    .await;
    let emails: Vec<_> = listed.out.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    assert_eq!(emails, [BOB, CYD, "dan@example.com"], "{listed:?}");
}
