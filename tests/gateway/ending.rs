//! Ways for users to end sessions: their other ones, the oldest of too many, and the one that the portal's own log-out ends.

use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;

use crate::support::{
    ADA, Answer, BOB, Browser, Exchange, PATIENCE, TestGateway, Upstream, logged_in, soon,
    test_gateway::Builder, upstream::ordinary,
};

/// Another browser of the same user, a while later.
async fn another(gateway: &TestGateway) -> Browser {
    gateway.clock.advance(Duration::from_secs(30));
    let browser = gateway.browser();
    browser.log_in_to("/", ADA).await;
    browser
}

async fn is_in(browser: &Browser) -> bool {
    browser.whoami().await.is_some()
}

#[tokio::test]
async fn a_user_ends_another_session_or_all_others_but_never_somebody_elses() {
    for builder in [TestGateway::builder(), TestGateway::builder().redis()] {
        let (gateway, browser) = logged_in(builder).await;
        gateway.add_user(BOB).await;
        let bob = gateway.browser();
        bob.log_in_to("/", BOB).await;
        let others = [another(&gateway).await, another(&gateway).await, another(&gateway).await];
        let page = browser.get("/.portcullis/account").await;
        let rows: Vec<String> =
            page.forms().iter().filter_map(|form| form.value("end").map(str::to_owned)).collect();
        assert_eq!(rows.len(), 4, "three others, and all of them: {}", page.text());
        let csrf = page.field("csrf");
        let end = async |csrf: &str, which: &str| {
            browser.post_form("/.portcullis/account", &[("csrf", csrf), ("end", which)]).await
        };
        assert_eq!(end("x", &rows[0]).await.status, StatusCode::FORBIDDEN);
        let theirs = bob.get("/.portcullis/account").await.field("csrf");
        assert_eq!(end(&theirs, &rows[0]).await.status, StatusCode::FORBIDDEN);
        let bobs = gateway.administration().user_details(BOB).await.unwrap().sessions[0].id.short();
        let own =
            gateway.administration().user_details(ADA).await.unwrap().sessions.pop().unwrap().id.short();
        for which in [bobs.as_str(), own.as_str(), ""] {
            assert_eq!(end(&csrf, which).await.status, StatusCode::SEE_OTHER);
        }
        for browser in others.iter().chain([&browser, &bob]) {
            assert!(is_in(browser).await, "nothing was ended");
        }
        // The latest login comes first.
        assert_eq!(end(&csrf, &rows[0]).await.location(), "/.portcullis/account");
        assert!(!is_in(&others[2]).await && is_in(&others[1]).await);
        end(&csrf, "others").await;
        assert!(!is_in(&others[0]).await && !is_in(&others[1]).await);
        assert!(is_in(&browser).await && is_in(&bob).await);
        let stranger = gateway.browser().post_form("/.portcullis/account", &[("end", "others")]).await;
        assert_eq!(stranger.location(), "/.portcullis/login?rd=/.portcullis/account");
    }
}

#[tokio::test]
async fn with_one_session_too_many_the_oldest_login_ends() {
    for builder in [TestGateway::builder(), TestGateway::builder().redis()] {
        let (gateway, first) = logged_in(builder.set("sessions.max_per_user", "2")).await;
        let second = another(&gateway).await;
        assert!(is_in(&first).await && is_in(&second).await);
        let third = another(&gateway).await;
        assert!(!is_in(&first).await && is_in(&second).await && is_in(&third).await);
    }
}

/// Six browsers whose logins finish at the same instant, and what each was answered. It takes a gateway whose date is still to
/// come: before it a login needs no code.
async fn six_logins_at_once(gateway: &TestGateway) -> (Vec<Browser>, Vec<Answer>) {
    let (mut browsers, mut pages) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let browser = gateway.browser();
        let login = browser.visit("/").await;
        pages.push(browser.sign_in(&login, ADA).await);
        browsers.push(browser);
    }
    let finish = browsers.iter().zip(&pages).map(|(browser, page)| browser.fill(page, &[("skip", "1")]));
    let finished = join_all(finish).await;
    (browsers, finished)
}

async fn how_many_are_in(browsers: &[Browser]) -> usize {
    join_all(browsers.iter().map(is_in)).await.into_iter().filter(|is_in| *is_in).count()
}

#[tokio::test]
async fn logins_that_finish_at_once_leave_as_many_sessions_as_there_may_be() {
    for builder in [TestGateway::builder(), TestGateway::builder().redis()] {
        // Before the mandatory date a login needs no code, so that many can finish at the same instant.
        let from = crate::support::now().plus(Duration::from_hours(9));
        let builder = builder.mandatory_from(from).set("sessions.max_per_user", "2");
        let (gateway, _) = builder.start().await;
        gateway.add_user(ADA).await;
        let (browsers, finished) = six_logins_at_once(&gateway).await;
        assert!(finished.iter().all(|answer| answer.status == StatusCode::SEE_OTHER));
        assert_eq!(gateway.administration().user_details(ADA).await.unwrap().sessions.len(), 2);
        assert_eq!(how_many_are_in(&browsers).await, 2);
    }
}

/// Gateways that refuse whoever would have a session too many.
fn refusing() -> [Builder; 2] {
    let builder =
        || TestGateway::builder().set("sessions.max_per_user", "2").set("sessions.when_full", "refuse");
    [builder(), builder().redis()]
}

#[tokio::test]
async fn where_too_many_are_refused_nobody_is_put_out_and_the_page_says_what_to_do() {
    for builder in refusing() {
        let (gateway, first) = logged_in(builder).await;
        let second = another(&gateway).await;
        gateway.clock.advance(Duration::from_secs(30));
        let third = gateway.browser();
        let page = third.visit("/sims").await;
        let page = third.sign_in(&page, ADA).await;
        let refused = third.fill(&page, &[("code", &gateway.phone(ADA).fresh_code())]).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text());
        assert!(refused.text().contains("already signed in on 2 other devices"), "{}", refused.text());
        assert!(!refused.starts_session() && third.cookie("__Host-portcullis-login").is_none());
        refused.assert_secure();
        assert!(is_in(&first).await && is_in(&second).await && !is_in(&third).await);
        assert_eq!(gateway.administration().user_details(ADA).await.unwrap().sessions.len(), 2);
        assert!(
            gateway.admin("/metrics").await.contains("portcullis_audit_events_total{event=\"login.full\"} 1")
        );
        // The login is over; what was proved in it is not good for another try.
        assert!(third.get("/.portcullis/code").await.location().starts_with("/.portcullis/login"));

        let account = second.get("/.portcullis/account").await;
        second.post_form("/.portcullis/logout", &[("csrf", &account.field("csrf"))]).await;
        gateway.clock.advance(Duration::from_secs(30));
        third.log_in_to("/", ADA).await;
        assert!(is_in(&third).await && is_in(&first).await);
    }
}

#[tokio::test]
async fn a_login_that_takes_the_place_of_a_session_is_none_too_many() {
    for builder in refusing() {
        let (gateway, first) = logged_in(builder).await;
        let second = another(&gateway).await;
        gateway.clock.advance(Duration::from_mins(11));
        let page = second.visit("/.portcullis/enrol").await;
        let page = second.sign_in(&page, ADA).await;
        let answer = second.fill(&page, &[("code", &gateway.phone(ADA).fresh_code())]).await;
        assert!(answer.starts_session(), "{}", answer.text());
        assert!(is_in(&first).await && is_in(&second).await);
    }
}

#[tokio::test]
async fn of_logins_that_finish_at_once_as_many_get_in_as_there_is_room_for() {
    for builder in refusing() {
        let from = crate::support::now().plus(Duration::from_hours(9));
        let (gateway, _) = builder.mandatory_from(from).start().await;
        gateway.add_user(ADA).await;
        let sits = gateway.browser();
        let page = sits.visit("/").await;
        let page = sits.sign_in(&page, ADA).await;
        sits.submit(&page, &[("skip", "1")]).await;
        gateway.clock.advance(Duration::from_secs(1));
        let (browsers, finished) = six_logins_at_once(&gateway).await;
        let statuses: Vec<_> = finished.iter().map(|answer| answer.status).collect();
        assert!(
            statuses.iter().all(|status| matches!(*status, StatusCode::SEE_OTHER | StatusCode::FORBIDDEN))
        );
        assert!(is_in(&sits).await, "whoever was in already stays");
        assert_eq!(how_many_are_in(&browsers).await, 1, "{statuses:?}");
        assert_eq!(gateway.administration().user_details(ADA).await.unwrap().sessions.len(), 2);
    }
}

/// A portal whose log-out answers at length, and one path at which it refuses.
fn portal() -> Upstream {
    Upstream::scripted(async |mut exchange: Exchange| {
        match exchange.target().as_str() {
            "/logout" => {
                exchange.read_content().await.ok()?;
                exchange
                    .write("HTTP/1.1 302 Found\r\nLocation: /bye\r\nSet-Cookie: portal=; Max-Age=0\r\nContent-Length: 0\r\n\r\n")
                    .await?;
            }
            "/auth/out" => {
                exchange.read_content().await.ok()?;
                exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
                for _ in 0..100 {
                    exchange.write("8\r\nfarewell\r\n").await?;
                }
                exchange.write("0\r\n\r\n").await?;
            }
            "/auth/refused" => {
                exchange.read_content().await.ok()?;
                exchange.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await?;
            }
            _ => return ordinary(exchange).await,
        }
        Some(exchange)
    })
}

#[tokio::test]
async fn the_portals_log_out_ends_the_session_once_it_has_been_answered() {
    let portal = portal();
    for redis in [false, true] {
        let builder = TestGateway::builder().upstream(&portal).set("portal.logout_paths", "/logout, /auth/*");
        let (gateway, browser) = logged_in(if redis { builder.redis() } else { builder }).await;
        for path in ["/auth/refused", "/logout/", "/logout?x=/logout", "/auth", "/other"] {
            let session = browser.session();
            let answer = browser.get(path).await;
            if path.starts_with("/logout?") {
                // A query changes nothing about where it is.
                assert!(browser.cookie("__Host-portcullis").is_none());
                browser.log_in_to("/", ADA).await;
                continue;
            }
            assert!(!answer.headers.contains_key("clear-site-data"), "{path}");
            assert_eq!(browser.session(), session, "{path}");
            assert!(is_in(&browser).await, "{path}");
        }
        for (path, status) in [("/logout", StatusCode::FOUND), ("/auth/out", StatusCode::OK)] {
            let session = browser.session();
            let answer = browser.get(path).await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.headers["clear-site-data"], "\"cache\"");
            assert!(path == "/logout" || answer.text() == "farewell".repeat(100), "the answer is whole");
            assert!(browser.cookie("__Host-portcullis").is_none());
            let kept = gateway.browser();
            kept.set_cookie("__Host-portcullis", &session);
            soon(PATIENCE, "the session has ended", async || !is_in(&kept).await).await;
            browser.log_in_to("/", ADA).await;
        }
    }
}
