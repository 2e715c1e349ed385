//! A session runs out at both sites at once: when it has been used at neither for a while, and at its end however busy it is.

use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{
    TwoSites,
    hand_over::{SESSION, assert_refused, builders, lasting, up_to_the_code},
    walk::Person,
};
use crate::support::{
    ADA, Browser, HOST, OTHER_HOST, PATIENCE, TestGateway, Upstream, test_gateway::Builder, within,
};

const IDLE: Duration = Duration::from_mins(5);
const LONGEST: Duration = Duration::from_mins(16);
const FORMS: &str = "__Host-portcullis-forms";
const INSTANT: Duration = Duration::from_millis(1);

/// Ada, who has just signed in at both.
async fn in_at_both(builder: Builder) -> (TwoSites, Person) {
    let builder = builder.set("sessions.inactivity", "5m").set("sessions.expiration", "16m");
    let builder = builder.set("portal.session_notice", "true");
    let sites = TwoSites::before([lasting(), lasting()], builder, "").await;
    sites.gateway.add_user(ADA).await;
    let person = sites.signed_in().await;
    (sites, person)
}

/// Used, if it is in.
async fn gets_through(browser: &Browser) -> bool {
    match browser.fetch("/").await.status.as_u16() {
        200 => true,
        401 => false,
        other => panic!("{other}"),
    }
}

/// Looked at, which is no use.
async fn is_in(browser: &Browser) -> bool {
    browser.fetch("/.portcullis/session").await.json()["signed_in"] == true
}

/// A socket that says nothing.
async fn open(browser: &Browser) -> impl AsyncRead + Unpin + use<> {
    let origin = format!("https://{}", browser.host());
    let fields = [("Host", browser.host()), ("Origin", &origin)];
    browser.try_tunnel("/live", &fields).await.unwrap_or_else(|answer| panic!("{answer:?}"))
}

async fn is_cut(mut socket: impl AsyncRead + Unpin) {
    let _ = within(PATIENCE, socket.read_to_end(&mut Vec::new())).await;
}

async fn is_out_everywhere(person: &Person) {
    for browser in [&person.second, &person.first] {
        assert!(!is_in(browser).await && !gets_through(browser).await && browser.whoami().await.is_none());
    }
    let walk = person.visit(OTHER_HOST, "/").await;
    assert!(walk.steps.last().unwrap().starts_with(&format!("https://{HOST}/.portcullis/login?")));
}

#[tokio::test]
async fn used_at_one_site_it_lasts_at_the_other_and_used_at_neither_it_ends_at_both() {
    for builder in builders() {
        let (sites, person) = in_at_both(builder).await;
        let Person { first, second } = &person;
        let clock = &sites.gateway.clock;
        for used in [second, first] {
            clock.advance(IDLE.checked_sub(INSTANT).unwrap());
            assert!(gets_through(used).await);
        }
        let sockets = (open(first).await, open(second).await);
        clock.advance(IDLE.checked_sub(INSTANT).unwrap());
        assert!(is_in(first).await && is_in(second).await);
        clock.advance(INSTANT);
        is_out_everywhere(&person).await;
        is_cut(sockets.0).await;
        is_cut(sockets.1).await;
    }
}

#[tokio::test]
async fn however_busy_at_either_site_it_ends_at_both() {
    for builder in builders() {
        let (sites, person) = in_at_both(builder).await;
        let clock = &sites.gateway.clock;
        for used in [&person.second, &person.first, &person.second] {
            clock.advance(LONGEST / 4);
            assert!(gets_through(used).await);
        }
        let sockets = (open(&person.first).await, open(&person.second).await);
        clock.advance((LONGEST / 4).checked_sub(INSTANT).unwrap());
        // To be handed over once more makes it no longer.
        person.second.remove_cookie(SESSION);
        assert_eq!(person.visit(OTHER_HOST, "/").await.answer.status, StatusCode::OK);
        clock.advance(INSTANT);
        is_out_everywhere(&person).await;
        is_cut(sockets.0).await;
        is_cut(sockets.1).await;
    }
}

#[tokio::test]
async fn a_code_opens_no_session_that_has_run_out_since() {
    for builder in builders() {
        let (sites, person) = in_at_both(builder).await;
        let clock = &sites.gateway.clock;
        for then in [LONGEST / 4, LONGEST / 4, LONGEST / 4, (LONGEST / 4).checked_sub(INSTANT).unwrap()] {
            clock.advance(then);
            assert!(gets_through(&person.first).await);
        }
        person.second.remove_cookie(SESSION);
        let code = up_to_the_code(&person).await;
        // The code itself lasts longer.
        clock.advance(INSTANT);
        assert_refused(&person.visit_url(&code).await);
        assert_eq!(person.second.cookie(SESSION), None);
    }
}

/// Submits a form of the portal's when the session has run out; the page on which it is kept.
async fn submit_late(browser: &Browser) -> String {
    let mut form = browser.form_request("/save", &[("name", "SIM 1")]);
    for (name, value) in [
        ("origin", format!("https://{}", browser.host()).as_str()),
        ("sec-fetch-site", "same-origin"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
        ("accept", "text/html"),
    ] {
        form.headers_mut().insert(name, value.parse().unwrap());
    }
    let led = browser.send(form).await.location();
    let kept = led.strip_prefix("/.portcullis/login?rd=").unwrap_or_else(|| panic!("{led}"));
    assert!(kept.starts_with("/.portcullis/kept/"), "{kept}");
    kept.to_owned()
}

#[tokio::test]
async fn a_form_that_comes_too_late_is_sent_after_the_login_at_its_own_site_and_no_other() {
    let (sites, person) = in_at_both(TestGateway::builder()).await;
    sites.gateway.clock.advance(IDLE);
    let kept = [submit_late(&person.first).await, submit_late(&person.second).await];
    let walk = person.visit(OTHER_HOST, &format!("/.portcullis/login?rd={}", kept[1])).await;
    let page = person.log_in(walk, ADA).await;
    assert_eq!(page.steps.last().unwrap(), &format!("https://{OTHER_HOST}{}", kept[1]));
    let nowhere = async |browser: &Browser, kept: &str| browser.get(kept).await.location() == "/";
    assert!(nowhere(&person.first, &kept[1]).await && nowhere(&person.second, &kept[0]).await);
    let cookies = [&person.first, &person.second].map(|browser| browser.cookie(FORMS).unwrap());
    person.first.set_cookie(FORMS, &cookies[1]);
    assert!(nowhere(&person.first, &kept[1]).await, "the cookie of one site is none of the other's");
    person.first.set_cookie(FORMS, &cookies[0]);
    assert_eq!(person.first.get(&kept[0]).await.status, StatusCode::OK);
    sites.portals.iter().for_each(Upstream::forget);
    person.submit(&page, &[]).await;
    assert_eq!(sites.portals[1].only_request().first_line(), "POST /save HTTP/1.1");
    assert!(sites.portals[0].requests().is_empty());
}
