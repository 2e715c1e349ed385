//! A form that comes when its user's session has just run out: it is kept for that user in that browser, and sent once,
//! as it was, after the login. And everything that somebody else might make of it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{future::join_all, stream};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

use crate::support::{
    ADA, Answer, BOB, Body, Browser, Exchange, HOST, PATIENCE, TestGateway, Upstream, body, logged_in, soon,
    test_gateway::Builder,
    upstream::{Recorded, ordinary},
};

const HOUR: Duration = Duration::from_hours(1);
const MULTIPART: &str = "multipart/form-data; boundary=\"a b\"";
const FILE: &[u8] =
    b"--a b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"\xff\"\r\n\r\n\0\xfe\r\n--a b--\r\n";

/// A form as a page of the portal sends it.
fn form(target: &str, content_type: &str, bytes: impl Into<Bytes>) -> Request<Body> {
    Request::post(target)
        .header("sec-fetch-mode", "navigate")
        .header("sec-fetch-site", "same-origin")
        .header("sec-fetch-dest", "document")
        .header("origin", format!("https://{HOST}"))
        .header("referer", format!("https://{HOST}/sims/new?from=list"))
        .header("accept", "text/html,*/*;q=0.8")
        .header("content-type", content_type)
        .body(body(bytes))
        .unwrap()
}

fn usual(target: &str) -> Request<Body> {
    form(target, "application/x-www-form-urlencoded", "name=SIM+1&csrf=portal%27s")
}

/// A user whose session has run out, unnoticed.
async fn ran_out(builder: Builder) -> (TestGateway, Browser) {
    let (gateway, browser) = logged_in(builder).await;
    gateway.clock.advance(HOUR);
    (gateway, browser)
}

#[track_caller]
fn is_kept(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
    let to = answer.location();
    let page =
        to.strip_prefix("/.portcullis/login?rd=").unwrap_or_else(|| panic!("leads to {to}")).to_owned();
    assert!(page.starts_with("/.portcullis/kept/"), "{page}");
    page
}

/// Nothing is remembered of it: the way in leads to the start, as for any stranger.
#[track_caller]
fn is_not_kept(answer: &Answer) {
    assert_eq!(answer.location(), "/.portcullis/login", "{}", answer.text());
    assert!(answer.set_cookies().is_empty(), "{:?}", answer.set_cookies());
}

/// Logs in where an answer leads to.
async fn log_in_at(browser: &Browser, answer: Answer, email: &str) -> Answer {
    let login = browser.follow(answer).await;
    let next = browser.sign_in(&login, email).await;
    if next.has_form("device_name") {
        let codes = browser.bind(&next, email, "Phone").await;
        return browser.submit(&codes, &[]).await;
    }
    let code = browser.phone(email).expect("the user has a phone").fresh_code();
    browser.submit(&next, &[("code", &code)]).await
}

fn posts(upstream: &Upstream) -> Vec<Recorded> {
    let requests = upstream.requests().into_iter();
    requests.filter(|request| request.first_line().starts_with("POST ")).collect()
}

#[tokio::test]
async fn a_form_is_sent_after_the_login_as_it_was() {
    for (content_type, bytes) in [
        ("application/x-www-form-urlencoded", &b"name=SIM+1&b=%F0&&=x"[..]),
        ("application/x-www-form-urlencoded; charset=utf-8", b""),
        (MULTIPART, FILE),
        ("text/plain", b"name=SIM 1\r\n"),
    ] {
        let (gateway, browser) = ran_out(TestGateway::builder()).await;
        browser.set_cookie("portal", "then");
        let answer = browser.send(form("/sims/new?step=2&x=%2F", content_type, bytes)).await;
        is_kept(&answer);
        assert!(posts(&gateway.upstream).is_empty());
        let page = log_in_at(&browser, answer, ADA).await;
        assert_eq!(page.heading(), "Your form was kept", "{}", page.text());
        assert!(page.text().contains("/sims/new".replace('/', "&#x2f;").as_str()), "{}", page.text());
        page.assert_secure();
        assert!(posts(&gateway.upstream).is_empty(), "nothing is sent before the user says so");

        browser.set_cookie("portal", "now");
        let sent = browser.fill(&page, &[]).await;
        assert_eq!(sent.text(), "the portal: POST /sims/new?step=2&x=%2F\n");
        let [request] = <[_; 1]>::try_from(posts(&gateway.upstream)).unwrap();
        assert_eq!(request.content.body, bytes, "{content_type}");
        assert_eq!(request.value("content-type").as_deref(), Some(content_type));
        assert_eq!(request.value("content-length"), Some(bytes.len().to_string()));
        assert_eq!(request.value("transfer-encoding"), None);
        assert_eq!(request.value("referer").unwrap(), format!("https://{HOST}/sims/new?from=list"));
        assert_eq!(request.value("origin").unwrap(), format!("https://{HOST}"));
        assert_eq!(request.value("remote-email").as_deref(), Some(ADA));
        assert_eq!(request.value("cookie").as_deref(), Some("portal=now"), "none of ours");
    }
}

#[tokio::test]
async fn a_form_is_kept_over_http_2_and_with_every_store_and_across_a_restart() {
    for builder in [TestGateway::builder(), TestGateway::builder().redis()] {
        let (gateway, browser) = ran_out(builder).await;
        let browser = browser.http2();
        let page = is_kept(&browser.send(usual("/sims/new")).await);
        let gateway = gateway.restart().await;
        let browser = browser.moved_to(gateway.surroundings());
        let login = browser.get(&page).await;
        let page = log_in_at(&browser, login, ADA).await;
        assert_eq!(browser.fill(&page, &[]).await.text(), "the portal: POST /sims/new\n");
        assert_eq!(posts(&gateway.upstream)[0].content.body, b"name=SIM+1&csrf=portal%27s");
    }
}

#[tokio::test]
async fn ten_tabs_keep_a_form_each_and_one_login_serves_them_all() {
    let (gateway, browser) = ran_out(TestGateway::builder()).await;
    let targets: Vec<String> = (0..10).map(|tab| format!("/tab/{tab}")).collect();
    // All at once: none of them knows what the answers to the others will make the browser hold.
    let tabs: Vec<_> = targets.iter().map(|_| browser.copy()).collect();
    let answers = join_all(targets.iter().zip(&tabs).map(|(target, tab)| tab.send(usual(target)))).await;
    let pages: Vec<String> = answers.iter().map(is_kept).collect();
    let held = tabs[7].cookie("__Host-portcullis-forms").unwrap();
    assert!(tabs.iter().all(|tab| tab.cookie("__Host-portcullis-forms").as_ref() == Some(&held)));
    let first = log_in_at(&tabs[7], answers[3].clone(), ADA).await;
    assert_eq!(tabs[7].fill(&first, &[]).await.text(), "the portal: POST /tab/3\n");
    for (tab, page) in pages.iter().enumerate().filter(|(tab, _)| *tab != 3) {
        // The other tabs load their login pages again, and are let on.
        let page = tabs[7].visit(&format!("/.portcullis/login?rd={page}")).await;
        assert_eq!(tabs[7].fill(&page, &[]).await.text(), format!("the portal: POST /tab/{tab}\n"));
    }
    assert_eq!(posts(&gateway.upstream).len(), 10);
}

#[tokio::test]
async fn a_form_is_sent_once() {
    let (gateway, browser) = ran_out(TestGateway::builder()).await;
    let answer = browser.send(usual("/pay")).await;
    let page = log_in_at(&browser, answer, ADA).await;
    let presses = join_all((0..6).map(|_| browser.fill(&page, &[]))).await;
    let through = |answer: &&Answer| answer.text() == "the portal: POST /pay\n";
    assert_eq!(presses.iter().filter(through).count(), 1, "{presses:?}");
    for answer in presses.iter().filter(|answer| !through(answer)) {
        assert_eq!(
            (answer.status, answer.heading().as_str()),
            (StatusCode::GONE, "This form is no longer kept")
        );
        answer.assert_secure();
    }
    assert_eq!(posts(&gateway.upstream).len(), 1);
    let again = browser.get(&kept_page(&page)).await;
    assert_eq!(again.heading(), "This form is no longer kept");
}

/// The address of the page itself, which is where the form on it is dropped.
fn kept_page(page: &Answer) -> String {
    page.forms()[1].action.clone()
}

#[tokio::test]
async fn a_form_that_is_not_to_be_sent_is_gone_and_its_page_is_there_again() {
    let (gateway, browser) = ran_out(TestGateway::builder()).await;
    let answer = browser.send(usual("/sims")).await;
    let page = log_in_at(&browser, answer, ADA).await;
    let csrf = page.field("csrf");
    let forged = browser.post_form(&kept_page(&page), &[("csrf", "x")]).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    let dropped = browser.post_form(&kept_page(&page), &[("csrf", &csrf)]).await;
    assert_eq!(dropped.location(), "/sims/new?from=list");
    assert_eq!(browser.fill(&page, &[]).await.status, StatusCode::GONE);
    assert!(posts(&gateway.upstream).is_empty());
}

#[tokio::test]
async fn somebody_else_in_the_same_browser_learns_nothing_and_the_browser_forgets_it() {
    let (gateway, browser) = ran_out(TestGateway::builder()).await;
    gateway.add_user(BOB).await;
    let answer = browser.send(usual("/adas/secret")).await;
    let kept = is_kept(&answer);
    let landed = log_in_at(&browser, answer, BOB).await;
    assert_eq!(landed.text(), "the portal: GET /\n", "no word of a form");
    // Ada is back, and her form stays where it is: somebody else was here in between.
    browser.remove_cookie("__Host-portcullis");
    browser.log_in_to("/", ADA).await;
    assert_eq!(browser.cookie("__Host-portcullis-forms"), None);
    assert_eq!(browser.get(&kept).await.location(), "/");
    assert!(posts(&gateway.upstream).is_empty());
}

#[tokio::test]
async fn somebody_else_cannot_send_it_by_its_name() {
    let (gateway, browser) = ran_out(TestGateway::builder()).await;
    gateway.add_user(BOB).await;
    let answer = browser.send(usual("/adas/secret")).await;
    let kept = is_kept(&answer);
    let name = kept.strip_prefix("/.portcullis/kept/").unwrap();
    let held = browser.cookie("__Host-portcullis-forms").unwrap();
    let marked = format!("/adas/secret?.portcullis-form={name}");
    // Bob knows the name, and even has the cookie.
    let bob = gateway.browser();
    bob.log_in_to("/", BOB).await;
    for cookie in [None, Some(&held)] {
        if let Some(cookie) = cookie {
            bob.set_cookie("__Host-portcullis-forms", cookie);
        }
        let account = bob.get("/.portcullis/account").await;
        let answer = bob.post_form(&marked, &[("csrf", &account.field("csrf"))]).await;
        assert_eq!((answer.status, answer.location().as_str()), (StatusCode::SEE_OTHER, "/"));
    }
    // Ada in another browser has no claim either.
    let elsewhere = gateway.browser();
    elsewhere.log_in_to("/", ADA).await;
    assert_eq!(elsewhere.get(&kept).await.location(), "/");
    assert!(posts(&gateway.upstream).is_empty());
}

#[tokio::test]
async fn what_is_read_while_its_session_ends_does_not_reach_the_portal() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    gateway.upstream.forget();
    let mut slow = browser
        .raw(format!(
            "POST /pay?.portcullis-form={} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {}\r\nExpect: 100-continue\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\n",
            "x".repeat(22),
            browser.cookies()
        ))
        .await;
    // The gate has let it pass by now: only the body is awaited.
    assert_eq!(slow.answer_to(&Method::POST).await.unwrap().status, StatusCode::CONTINUE);
    assert_eq!(gateway.administration().revoke_user(ADA).await.unwrap(), 1);
    soon(PATIENCE, "the session is over", async || {
        browser.fetch("/").await.status == StatusCode::UNAUTHORIZED
    })
    .await;
    slow.send("a=b").await;
    assert_eq!(slow.answer().await.status, StatusCode::UNAUTHORIZED);
    assert!(posts(&gateway.upstream).is_empty());
}

#[tokio::test]
async fn no_page_but_the_one_that_asks_can_have_it_sent() {
    let (gateway, browser) = ran_out(TestGateway::builder()).await;
    let answer = browser.send(usual("/sims?a=b")).await;
    let page = log_in_at(&browser, answer, ADA).await;
    let form = page.form(&["csrf"]);
    let other = gateway.browser();
    other.log_in_to("/", ADA).await;
    let theirs = other.get("/.portcullis/account").await.field("csrf");
    for csrf in ["", "x", &theirs] {
        let answer = browser.post_form(&form.action, &[("csrf", csrf)]).await;
        assert_eq!(
            (answer.status, answer.heading().as_str()),
            (StatusCode::FORBIDDEN, "Your form is still here")
        );
    }
    // Elsewhere than it was meant for, or by another method.
    let (_, mark) = form.action.split_once("&.portcullis-form=").unwrap();
    for target in [format!("/users?.portcullis-form={mark}"), format!("/sims?a=c&.portcullis-form={mark}")] {
        let answer = browser.post_form(&target, &[("csrf", &page.field("csrf"))]).await;
        assert_eq!(answer.status, StatusCode::GONE, "{target}");
    }
    assert!(posts(&gateway.upstream).is_empty());
    // What is no mark is the portal's.
    for target in [format!("/sims?a=b&x.portcullis-form={mark}"), format!("/sims?.portcullis-form={mark}x")] {
        let answer = browser.post_form(&target, &[("a", "b")]).await;
        assert_eq!(answer.text(), format!("the portal: POST {target}\n"));
    }
    assert_eq!(browser.fill(&page, &[]).await.text(), "the portal: POST /sims?a=b\n");
}

#[tokio::test]
async fn what_another_site_sends_is_never_kept() {
    let (gateway, browser) = ran_out(TestGateway::builder()).await;
    let set = |name: &'static str, value: &'static str| {
        let mut request = usual("/pay");
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    let unset = |names: &[&'static str]| {
        let mut request = usual("/pay");
        for name in names {
            request.headers_mut().remove(*name);
        }
        request
    };
    let requests = vec![
        set("sec-fetch-site", "cross-site"),
        set("sec-fetch-site", "same-site"),
        set("sec-fetch-site", "none"),
        set("origin", "https://evil.example"),
        set("origin", "http://iot.example.com"),
        set("content-encoding", "gzip"),
        set("content-type", "application/json"),
        unset(&["sec-fetch-site", "origin"]),
        unset(&["content-type"]),
    ];
    for request in requests {
        let told = format!("{:?}", request.headers());
        let answer = browser.send(request).await;
        assert_eq!(answer.location(), "/.portcullis/login", "{told}");
    }
    let in_frame = browser.send(set("sec-fetch-dest", "iframe")).await;
    assert_eq!(in_frame.status, StatusCode::UNAUTHORIZED);
    assert!(in_frame.set_cookies().is_empty() && in_frame.text().contains("was not delivered"));
    // A portal whose pages send no referrer, and a browser that says no more than the origin.
    is_kept(&browser.send(set("origin", "null")).await);
    is_kept(&browser.send(unset(&["sec-fetch-site"])).await);
    let mut null = unset(&["sec-fetch-site"]);
    null.headers_mut().insert("origin", "null".parse().unwrap());
    assert_eq!(browser.send(null).await.location(), "/.portcullis/login");
    let script = Request::post("/pay").header("content-type", "text/plain").body(body("x")).unwrap();
    assert_eq!(browser.send(script).await.status, StatusCode::UNAUTHORIZED);
    assert!(posts(&gateway.upstream).is_empty());
}

#[tokio::test]
async fn only_the_form_of_a_session_that_ran_out_is_kept() {
    for redis in [false, true] {
        let builder = TestGateway::builder();
        let (gateway, browser) = logged_in(if redis { builder.redis() } else { builder }).await;
        is_not_kept(&gateway.browser().send(usual("/pay")).await);
        let stranger = gateway.browser();
        stranger.set_cookie("__Host-portcullis", &"A".repeat(43));
        is_not_kept(&stranger.send(usual("/pay")).await);
        // Ended by somebody, by its user, and with its user.
        gateway.administration().revoke_user(ADA).await.unwrap();
        soon(PATIENCE, "the session has ended", async || browser.whoami().await.is_none()).await;
        is_not_kept(&browser.send(usual("/pay")).await);
        browser.log_in_to("/", ADA).await;
        let cookie = browser.session();
        let account = browser.get("/.portcullis/account").await;
        browser.post_form("/.portcullis/logout", &[("csrf", &account.field("csrf"))]).await;
        browser.set_cookie("__Host-portcullis", &cookie);
        is_not_kept(&browser.send(usual("/pay")).await);
        browser.log_in_to("/", ADA).await;
        gateway.clock.advance(HOUR);
        is_kept(&browser.send(usual("/pay")).await);
        gateway.administration().set_disabled(ADA, true).await.unwrap();
        is_not_kept(&browser.send(usual("/pay")).await);
    }
}

#[tokio::test]
async fn a_form_that_is_too_large_is_not_kept_and_the_user_is_told_how_to_save_it() {
    let (gateway, browser) = ran_out(TestGateway::builder().set("sessions.kept_form_max", "1KiB")).await;
    let kind = "application/x-www-form-urlencoded";
    is_kept(&browser.send(form("/a", kind, vec![b'a'; 1024])).await);
    let chunks = stream::iter((0..9).map(|_| Ok(Frame::data(Bytes::from(vec![b'a'; 128])))));
    let mut chunked = usual("/a");
    *chunked.body_mut() = StreamBody::new(chunks).boxed_unsync();
    for request in [form("/a", kind, vec![b'a'; 1025]), chunked] {
        let answer = browser.send(request).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(answer.heading(), "Your form has not been sent");
        assert!(answer.text().contains("larger than the 1\u{a0}KB"), "{}", answer.text());
        assert!(answer.text().contains("target=\"_blank\""), "the page that it was on stays one step back");
        answer.assert_secure();
    }
    let (_off, browser) = ran_out(TestGateway::builder().set("sessions.kept_form_max", "0")).await;
    is_not_kept(&browser.send(usual("/a")).await);
    assert!(posts(&gateway.upstream).is_empty());
}

#[tokio::test]
async fn a_flood_of_forms_is_bounded_and_takes_nothing_from_those_before_it() {
    let (_gateway, browser) = ran_out(TestGateway::builder()).await;
    let answers = join_all((0..30).map(|tab| browser.send(usual(&format!("/tab/{tab}"))))).await;
    let kept: Vec<_> = answers.iter().filter(|answer| answer.status == StatusCode::SEE_OTHER).collect();
    assert_eq!(kept.len(), 20);
    for answer in answers.iter().filter(|answer| answer.status != StatusCode::SEE_OTHER) {
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.header("retry-after"), "60");
        assert!(answer.text().contains("as many of your forms as we can keep"), "{}", answer.text());
    }
    let page = log_in_at(&browser, kept[0].clone(), ADA).await;
    assert_eq!(page.heading(), "Your form was kept");
}

/// A form of another site whose fields never come. Whoever gets a place is asked for them.
fn slow_form(from: &str) -> String {
    format!(
        "POST /x HTTP/1.1\r\nHost: {HOST}\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n\
         Sec-Fetch-Dest: document\r\nOrigin: https://evil.example\r\nX-Forwarded-For: {from}\r\n\
         Expect: 100-continue\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 60000\r\n\r\n"
    )
}

#[tokio::test]
async fn slow_forms_of_strangers_keep_out_neither_other_networks_nor_users() {
    let (gateway, browser) = ran_out(TestGateway::builder().set("server.trusted_proxies", "127.0.0.1")).await;
    let stranger = gateway.browser();
    let one = slow_form("203.0.113.1");
    let mut slow = join_all((0..36).map(|_| stranger.raw(&one))).await;
    for network in 0..7 {
        for _ in 0..4 {
            let mut other = stranger.raw(slow_form(&format!("192.0.2.{network}"))).await;
            assert_eq!(other.head().await.unwrap().first_line(), "HTTP/1.1 100 Continue");
            slow.push(other);
        }
    }
    for target in ["/h1", "/again"] {
        is_kept(&browser.send(usual(target)).await);
    }
    is_kept(&browser.copy().http2().send(usual("/h2")).await);
    // Clients that hang up half-way leave their places to others.
    drop(slow);
    let mut request = usual("/pay");
    request.headers_mut().insert("sec-fetch-site", "cross-site".parse().unwrap());
    assert_eq!(stranger.send(request).await.status, StatusCode::OK);
}

#[tokio::test]
async fn after_half_an_hour_its_user_is_told_that_it_is_gone() {
    let (gateway, browser) = ran_out(TestGateway::builder()).await;
    let answer = browser.send(usual("/sims")).await;
    let page = log_in_at(&browser, answer, ADA).await;
    gateway.clock.advance(Duration::from_mins(7));
    let reloaded = browser.get(&kept_page(&page)).await;
    assert!(reloaded.text().contains("7 minutes ago"), "{}", reloaded.text());
    gateway.clock.advance(Duration::from_mins(23));
    assert_eq!(browser.fill(&page, &[]).await.status, StatusCode::GONE);
    assert_eq!(browser.get(&kept_page(&page)).await.heading(), "This form is no longer kept");
    assert!(posts(&gateway.upstream).is_empty());
}

#[tokio::test]
async fn a_portal_that_cannot_be_reached_costs_nobody_the_form() {
    let gone = Upstream::start();
    let url = gone.url();
    let builder = TestGateway::builder().upstream_url(&url);
    drop(gone);
    let (gateway, browser) = builder.start().await;
    gateway.add_user(ADA).await;
    browser.submit_password(ADA, crate::support::PASSWORD).await;
    browser.enrol(ADA, "/.portcullis/enrol").await;
    gateway.clock.advance(HOUR);
    let answer = browser.send(usual("/sims")).await;
    let kept = is_kept(&answer);
    browser.follow(answer).await;
    browser.submit_password(ADA, crate::support::PASSWORD).await;
    browser.submit_code(&browser.phone(ADA).unwrap().fresh_code()).await;
    for _ in 0..2 {
        let page = browser.get(&kept).await;
        assert_eq!(page.heading(), "Your form was kept");
        let answer = browser.fill(&page, &[]).await;
        assert_eq!(
            (answer.status, answer.heading().as_str()),
            (StatusCode::BAD_GATEWAY, "Your form is still here")
        );
        assert!(answer.text().contains(&kept.replace('/', "&#x2f;")), "{}", answer.text());
    }
}

/// A portal that finds fault answers with the form once more, and that leads to the address it is at.
#[tokio::test]
async fn a_form_of_the_portals_at_the_address_of_a_kept_one_is_the_portals() {
    let (gateway, browser) = ran_out(TestGateway::builder()).await;
    let answer = browser.send(usual("/sims?a=b")).await;
    let page = log_in_at(&browser, answer, ADA).await;
    let address = page.form(&["csrf"]).action.clone();
    assert_eq!(browser.fill(&page, &[]).await.text(), "the portal: POST /sims?a=b\n");
    let urlencoded = "application/x-www-form-urlencoded";
    let long = [b"csrf=".as_slice(), &[b'x'; 200]].concat();
    let again: [(&str, &[u8]); 4] = [
        (urlencoded, b"csrf=portal%27s&name=SIM+1"),
        (urlencoded, b"name=%F0"),
        (urlencoded, &long),
        (MULTIPART, FILE),
    ];
    for (content_type, bytes) in again {
        let sent = browser.send(form(&address, content_type, bytes.to_vec())).await;
        assert_eq!(sent.text(), "the portal: POST /sims?a=b\n");
    }
    gateway.clock.advance(HOUR);
    for (content_type, bytes) in again {
        is_kept(&browser.send(form(&address, content_type, bytes.to_vec())).await);
    }
    let answer = browser.send(form(&address, again[0].0, again[0].1.to_vec())).await;
    let page = log_in_at(&browser, answer, ADA).await;
    assert_eq!(browser.fill(&page, &[]).await.text(), "the portal: POST /sims?a=b\n");
    let sent = posts(&gateway.upstream);
    let bodies: Vec<&[u8]> = sent.iter().skip(1).map(|request| &*request.content.body).collect();
    assert_eq!(bodies, [again[0].1, again[1].1, again[2].1, again[3].1, again[0].1]);
}

#[tokio::test]
async fn a_portal_that_breaks_off_has_perhaps_seen_it_so_it_is_not_sent_again() {
    let portal =
        Upstream::scripted(
            async |exchange: Exchange| {
                if exchange.method() == "POST" { None } else { ordinary(exchange).await }
            },
        );
    let (_gateway, browser) = ran_out(TestGateway::builder().upstream(&portal)).await;
    let answer = browser.send(usual("/pay")).await;
    let page = log_in_at(&browser, answer, ADA).await;
    assert_eq!(browser.fill(&page, &[]).await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(browser.fill(&page, &[]).await.status, StatusCode::GONE);
    assert_eq!(posts(&portal).len(), 1);
}

#[tokio::test]
async fn a_session_that_runs_out_again_leads_back_to_the_form() {
    let (gateway, browser) = ran_out(TestGateway::builder().set("sessions.inactivity", "5m")).await;
    let answer = browser.send(usual("/sims")).await;
    let page = log_in_at(&browser, answer, ADA).await;
    gateway.clock.advance(Duration::from_mins(5));
    let late = browser.fill(&page, &[]).await;
    assert_eq!(is_kept(&late), kept_page(&page), "the same form, not the one that asks for it");
    let page = log_in_at(&browser, late, ADA).await;
    assert_eq!(browser.fill(&page, &[]).await.text(), "the portal: POST /sims\n");
}

#[tokio::test]
async fn a_form_waits_while_its_user_binds_the_device_that_has_become_mandatory() {
    let from = crate::support::now().plus(Duration::from_mins(9));
    let (gateway, browser) = TestGateway::builder().mandatory_from(from).start().await;
    gateway.add_user(ADA).await;
    let page = browser.visit("/").await;
    let page = browser.sign_in(&page, ADA).await;
    browser.submit(&page, &[("skip", "1")]).await;
    gateway.upstream.forget();
    gateway.clock.advance(Duration::from_mins(9));
    let answer = browser.send(usual("/sims")).await;
    assert!(
        answer.location().starts_with("/.portcullis/enrol?rd=/.portcullis/kept/"),
        "{}",
        answer.location()
    );
    let page = browser.follow(answer).await;
    let page = browser.bind(&page, ADA, "Phone").await;
    let page = browser.submit(&page, &[]).await;
    assert_eq!(browser.fill(&page, &[]).await.text(), "the portal: POST /sims\n");
}

#[tokio::test]
async fn what_is_kept_is_sealed_and_in_no_log() {
    let (gateway, browser) = ran_out(TestGateway::builder()).await;
    is_kept(&browser.send(form("/sims", "text/plain", "marker-in-a-form")).await);
    let mut stored = std::fs::read(gateway.database_file()).unwrap();
    stored.extend(std::fs::read(gateway.database_file().with_extension("db-wal")).unwrap_or_default());
    assert!(!stored.windows(16).any(|bytes| bytes == b"marker-in-a-form"));
    assert!(!gateway.access_log().contains("marker-in-a-form"));
}
