//! What a session may do by what it has proved, how long, and what ends it: the cells of `docs/levels.md`.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use portcullis::clock::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    ADA, BOB, Browser, TestGateway, empty, now, soon, test_gateway::Builder, upstream::keeping_open, within,
};

const SESSION: &str = "__Host-portcullis";
const ENROL: &str = "/.portcullis/enrol";
const ACCOUNT: &str = "/.portcullis/account";
const CODES: &str = "/.portcullis/recovery-codes";
/// Within which what is over is over on every gateway.
const BOUND: Duration = Duration::from_secs(1);
const FRESH: Duration = Duration::from_mins(10);
const INSTANT: Duration = Duration::from_millis(1);

/// A gateway at which a second factor becomes mandatory in an hour, with Ada and Bob, who have no device.
async fn before(builder: Builder) -> (TestGateway, Timestamp) {
    let date = Timestamp::from_unix_seconds(now().unix_seconds() + 3600);
    let (gateway, _) = builder.mandatory_from(date).start().await;
    gateway.add_user(ADA).await;
    gateway.add_user(BOB).await;
    (gateway, date)
}

/// Somebody who has proved so many factors, a moment ago.
async fn proved(gateway: &TestGateway, email: &str, factors: u8) -> Browser {
    let browser = gateway.browser();
    let page = browser.visit("/").await;
    let page = browser.sign_in(&page, email).await;
    match (factors, page.has_form("device_name")) {
        (1, true) => drop(browser.submit(&page, &[("skip", "1")]).await),
        (2, true) => {
            let page = browser.bind(&page, email, "Phone").await;
            browser.submit(&page, &[]).await;
        }
        (2, false) => drop(browser.submit(&page, &[("code", &gateway.phone(email).fresh_code())]).await),
        (factors, _) => panic!("{email} cannot get in with {factors} factors"),
    }
    let level = if factors == 2 { "two_factor" } else { "one_factor" };
    assert_eq!(browser.level().await, level);
    browser
}

/// What becomes of a request, by the page that a navigation ends at.
async fn leads_to(browser: &Browser, path: &str) -> String {
    let page = browser.visit(path).await;
    if page.heading().is_empty() { page.text() } else { page.heading() }
}

/// What a session gets, one kind of request after another: a page, a WebSocket, its own page, the enrolment, the
/// recovery codes, and the end of other sessions.
async fn cells(browser: &Browser) -> [String; 6] {
    let page = leads_to(browser, "/sims").await;
    let socket = match browser.try_tunnel("/live", &[]).await {
        Ok(_) => "open".to_owned(),
        Err(answer) => answer.status.as_u16().to_string(),
    };
    let account = browser.visit(ACCOUNT).await;
    let (own, csrf) = (account.heading(), account.field("csrf"));
    let enrol = leads_to(browser, ENROL).await;
    let codes = leads_to(browser, &format!("{CODES}?new=1")).await;
    let end = browser.post_form(ACCOUNT, &[("csrf", &csrf), ("end", "others")]).await;
    [page, socket, own, enrol, codes, end.status.as_u16().to_string()]
}

const START: &str = "the portal: GET /\n";
const PORTAL: &str = "the portal: GET /sims\n";
const SIGN_IN: &str = "Sign in";
const SET_UP: &str = "Set up your authenticator app";
const YOURS: &str = "Your account";
const NEW_CODES: &str = "Get new recovery codes";

#[tokio::test]
async fn each_cell_of_the_table_holds() {
    let table = [
        // factors, after the date, old: page, WebSocket, own page, enrolment, new codes, ending others
        (1, false, false, [PORTAL, "open", YOURS, SET_UP, START, "403"]),
        (1, false, true, [PORTAL, "open", YOURS, SIGN_IN, START, "403"]),
        (1, true, false, [SET_UP, "401", YOURS, SET_UP, SET_UP, "403"]),
        (1, true, true, [SIGN_IN, "401", YOURS, SIGN_IN, SIGN_IN, "403"]),
        (2, false, false, [PORTAL, "open", YOURS, SET_UP, NEW_CODES, "303"]),
        (2, false, true, [PORTAL, "open", YOURS, SIGN_IN, NEW_CODES, "303"]),
        (2, true, false, [PORTAL, "open", YOURS, SET_UP, NEW_CODES, "303"]),
        (2, true, true, [PORTAL, "open", YOURS, SIGN_IN, NEW_CODES, "303"]),
    ];
    for (factors, after, old, expected) in table {
        let (gateway, date) = before(TestGateway::builder().upstream(&keeping_open())).await;
        let age = if old { FRESH + INSTANT } else { Duration::from_mins(1) };
        if after {
            gateway.clock.set(date.minus(Duration::from_mins(1)));
        }
        let browser = proved(&gateway, ADA, factors).await;
        gateway.clock.advance(age);
        assert_eq!(cells(&browser).await, expected, "factors {factors}, after {after}, old {old}");
    }
}

/// Waits until what a browser has open ends, and says that it did in time.
async fn ends(open: impl IntoIterator<Item = Open>) {
    for end in open {
        within(BOUND, end).await;
    }
}
type Open = futures_util::future::BoxFuture<'static, ()>;

/// A WebSocket, an event stream and a download.
async fn open(browser: &Browser) -> Vec<Open> {
    let mut tunnel = browser.tunnel("/live").await;
    let mut all: Vec<Open> = vec![Box::pin(async move {
        let mut rest = Vec::new();
        let _ = tunnel.read_to_end(&mut rest).await;
    })];
    for path in ["/events", "/download"] {
        let request = Request::get(path).header("accept", "*/*").body(empty()).unwrap();
        let mut body = browser.open(request).await.into_body();
        assert!(body.frame().await.unwrap().is_ok());
        all.push(Box::pin(async move {
            assert!(body.frame().await.is_none_or(|frame| frame.is_err()), "cut, never ended well");
        }));
    }
    all
}

#[tokio::test]
async fn what_one_factor_has_open_is_cut_at_the_date_on_every_gateway() {
    let (gateway, date) = before(TestGateway::builder().redis().upstream(&keeping_open())).await;
    let (_twin, elsewhere) = gateway.twin().await;
    gateway.clock.set(date.minus(Duration::from_mins(1)));
    let (one, two) = (proved(&gateway, ADA, 1).await, proved(&gateway, BOB, 2).await);
    elsewhere.set_cookie(SESSION, &one.session());
    let mut cut = open(&one).await;
    cut.extend(open(&elsewhere).await);
    let mut stays = two.tunnel("/live").await;
    gateway.clock.set(date);
    ends(cut).await;
    assert_eq!(one.level().await, "one_factor", "the session is as good as it was, and that is not enough");
    for browser in [&one, &elsewhere] {
        assert_eq!(leads_to(browser, "/sims").await, SET_UP);
    }
    // Nothing comes back with a clock that is set back.
    gateway.clock.set(date.minus(Duration::from_mins(30)));
    assert_ne!(one.get("/sims").await.status, StatusCode::OK);
    assert!(one.try_tunnel("/live", &[]).await.is_err());
    stays.write_all(b"still here").await.unwrap();
    let mut echoed = [0; 10];
    within(BOUND, stays.read_exact(&mut echoed)).await.unwrap();
}

#[tokio::test]
async fn the_first_device_ends_every_session_of_one_factor_on_every_gateway() {
    for builder in [TestGateway::builder(), TestGateway::builder().redis()] {
        let (gateway, _) = before(builder.upstream(&keeping_open())).await;
        let (_twin, elsewhere) = gateway.twin().await;
        // Somebody who knows the password is in, here and there, and another user as well.
        let thief = proved(&gateway, ADA, 1).await;
        let bob = proved(&gateway, BOB, 1).await;
        elsewhere.set_cookie(SESSION, &thief.session());
        let mut cut = open(&thief).await;
        cut.extend(open(&elsewhere).await);
        let enrol = thief.visit(ENROL).await;
        let account = thief.visit(ACCOUNT).await;

        let ada = proved(&gateway, ADA, 2).await;
        ends(cut).await;
        for browser in [&thief, &elsewhere] {
            soon(BOUND, "it is over", async || browser.level().await == "none").await;
            assert_eq!(leads_to(browser, "/sims").await, SIGN_IN);
        }
        // Nor does anything go on that was begun with it.
        for (page, fields) in
            [(&enrol, vec![("skip", "1")]), (&enrol, vec![("code", "000000"), ("device_name", "Thief's")])]
        {
            let answer = thief.fill(page, &fields).await;
            assert!(!answer.starts_session(), "{}", answer.text());
        }
        let csrf = account.field("csrf");
        thief.post_form(ACCOUNT, &[("csrf", &csrf), ("end", "others")]).await;
        assert_eq!((ada.level().await.as_str(), bob.level().await.as_str()), ("two_factor", "one_factor"));
        assert_eq!(gateway.administration().sessions(Some(ADA)).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_first_device_bound_in_a_session_ends_the_others_of_one_factor() {
    let (gateway, _) = before(TestGateway::builder()).await;
    let (thief, ada) = (proved(&gateway, ADA, 1).await, proved(&gateway, ADA, 1).await);
    let page = ada.visit(ENROL).await;
    let page = ada.bind(&page, ADA, "Phone").await;
    assert_eq!(page.heading(), "Save your recovery codes");
    soon(BOUND, "the other one is over", async || thief.level().await == "none").await;
    assert_eq!(ada.level().await, "two_factor");
}

#[tokio::test]
async fn one_factor_ends_no_other_session_and_is_not_offered_to() {
    let (gateway, _) = before(TestGateway::builder()).await;
    let (thief, ada) = (proved(&gateway, ADA, 1).await, proved(&gateway, ADA, 1).await);
    let account = thief.visit(ACCOUNT).await;
    assert!(!account.has_form("end"), "{}", account.text());
    let id =
        gateway.administration().sessions(Some(ADA)).await.unwrap().into_iter().map(|one| one.id.short());
    for which in id.chain(["others".to_owned()]) {
        let answer = thief.post_form(ACCOUNT, &[("csrf", &account.field("csrf")), ("end", &which)]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert_eq!(answer.heading(), "Set up your authenticator app first");
    }
    assert_eq!(ada.level().await, "one_factor");
    // The own one may always be ended.
    assert_eq!(thief.submit(&account, &[]).await.heading(), "You are signed out");
}

#[tokio::test]
async fn an_old_password_alone_binds_no_first_device_not_even_on_a_page_shown_in_time() {
    let (gateway, _) = before(TestGateway::builder()).await;
    let thief = proved(&gateway, ADA, 1).await;
    gateway.clock.advance(FRESH);
    let page = thief.visit(ENROL).await;
    assert_eq!(page.heading(), SET_UP, "just fresh enough");
    let phone = thief.scan(&page, ADA);
    gateway.clock.advance(INSTANT);
    let answer = thief.get("/.portcullis/enrol?rd=/sims").await;
    assert_eq!(answer.location(), "/.portcullis/login?rd=/sims&again=1");
    // A page that was shown late by a token of another page of the session is too late as well.
    let late = thief.visit(ACCOUNT).await.field("csrf");
    let fields = [("code", &*phone.fresh_code()), ("device_name", "Thief's"), ("csrf", &late)];
    let answer = thief.post_form(ENROL, &fields).await;
    assert!(answer.location().ends_with("again=1"), "{answer:?}");
    gateway.clock.advance(Duration::from_mins(30));
    let answer = thief.fill(&page, &[("code", &phone.fresh_code()), ("device_name", "Thief's")]).await;
    assert!(answer.location().ends_with("again=1"), "{answer:?}");
    assert!(gateway.administration().user_details(ADA).await.unwrap().devices.is_empty());
    // With the password given once more it goes on, to the page first asked for.
    let page = thief.visit("/.portcullis/enrol?rd=/sims").await;
    let page = thief.sign_in(&page, ADA).await;
    let page = thief.bind(&page, ADA, "Phone").await;
    assert_eq!(thief.submit(&page, &[]).await.text(), PORTAL);
}

/// Posts a form of the portal, and goes on as far as it takes. What the portal answers in the end, or where it was lost.
async fn posts_a_form(browser: &Browser, email: &str) -> String {
    let answer = browser.post_form("/sims/new", &[("name", "SIM 1")]).await;
    if answer.status == StatusCode::OK {
        return "passes".to_owned();
    }
    let was_kept = answer.location().contains("/.portcullis/kept/");
    let mut steps = vec![if was_kept { "kept" } else { "not kept" }];
    let mut page = browser.follow(answer).await;
    for _ in 0..5 {
        page = if page.has_form("password") {
            steps.push("password");
            browser.sign_in(&page, email).await
        } else if page.has_form("skip") {
            steps.push("not now");
            browser.submit(&page, &[("skip", "1")]).await
        } else if page.has_form("device_name") {
            steps.push("device");
            let page = browser.bind(&page, email, "Phone").await;
            browser.submit(&page, &[]).await
        } else if page.has_form("code") {
            steps.push("code");
            let code = browser.phone(email).unwrap().fresh_code();
            browser.submit(&page, &[("code", &code)]).await
        } else if page.heading() == "Your form was kept" {
            let sent = browser.fill(&page, &[]).await;
            assert_eq!(sent.text(), "the portal: POST /sims/new\n");
            steps.push("sent");
            break;
        } else {
            break;
        };
    }
    steps.join(", ")
}

#[tokio::test]
async fn each_cell_for_a_posted_form_holds() {
    const RUNS_OUT: Duration = Duration::from_mins(15);
    let (minute, old) = (Duration::from_mins(1), FRESH + INSTANT);
    let table = [
        // factors, after the date, age of the session, whether the user has a device since
        (1, false, minute, false, "passes"),
        (1, false, old, false, "passes"),
        (1, true, minute, false, "kept, device, sent"),
        (1, true, old, false, "kept, password, device, sent"),
        (1, false, minute, true, "not kept, password, code"),
        (1, false, RUNS_OUT, false, "kept, password, not now, sent"),
        (1, true, RUNS_OUT, false, "kept, password, device, sent"),
        (1, false, RUNS_OUT, true, "kept, password, code, sent"),
        (2, false, minute, false, "passes"),
        (2, true, old, false, "passes"),
        (2, false, RUNS_OUT, false, "kept, password, code, sent"),
        (2, true, RUNS_OUT, false, "kept, password, code, sent"),
    ];
    for (factors, after, age, device, expected) in table {
        let (gateway, date) = before(TestGateway::builder().set("sessions.inactivity", "15m")).await;
        if after {
            gateway.clock.set(date.minus(minute));
        }
        let browser = proved(&gateway, ADA, factors).await;
        gateway.clock.advance(age);
        if device {
            proved(&gateway, ADA, 2).await;
            soon(BOUND, "it is over", async || browser.level().await == "none").await;
        }
        let became = posts_a_form(&browser, ADA).await;
        assert_eq!(became, expected, "factors {factors}, after {after}, age {age:?}, device {device}");
    }
}
