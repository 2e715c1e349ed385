//! One login for both sites, what ends it, and what nobody can make of it.

use std::time::Duration;

use http::{Request, StatusCode};
use portcullis::secret::Token;
use secrecy::SecretString;
use tokio::io::AsyncReadExt as _;

use super::{TwoSites, walk::Walk};
use crate::support::{
    ADA, EVE, Exchange, HOST, OTHER_HOST, TestGateway, Upstream, empty, now, soon, test_gateway::Builder,
    upstream::ordinary, websocket, within,
};

pub(super) const SESSION: &str = "__Host-portcullis";
const ASKED: &str = "__Host-portcullis-asked";
/// Within which what is over is over at every site.
const BOUND: Duration = Duration::from_secs(1);

pub(super) fn builders() -> [Builder; 2] {
    [TestGateway::builder(), TestGateway::builder().redis()]
}

/// A token that nobody was given.
fn made_up() -> Token {
    Token::parse(&"A".repeat(43)).unwrap()
}

/// Both sites, with Ada and Eve.
async fn sites(builder: Builder, more: &str) -> TwoSites {
    let sites = TwoSites::start(builder, more).await;
    sites.gateway.add_user(ADA).await;
    sites.gateway.add_user(EVE).await;
    sites
}

/// The address with the code on a way that led to the second site.
fn with_code(walk: &Walk) -> String {
    let found = walk.steps.iter().find(|step| step.contains("/.portcullis/arrive?code="));
    found.unwrap_or_else(|| panic!("no code: {:?}", walk.steps)).clone()
}

/// The way of somebody who is signed in at the first site, up to the code, which is not shown yet.
pub(super) async fn up_to_the_code(person: &super::walk::Person) -> String {
    let asks = person.second.get("/a").await.location();
    let leads = person.second.get(&asks).await.location();
    assert!(leads.starts_with(&format!("https://{HOST}/.portcullis/hand-over?")), "{leads}");
    let code = person.first.get(leads.strip_prefix(&format!("https://{HOST}")).unwrap()).await.location();
    assert!(code.starts_with(&format!("https://{OTHER_HOST}/.portcullis/arrive?code=")), "{code}");
    code
}

/// Refused at the site that asked: a page of its own that leads nowhere by itself.
pub(super) fn assert_refused(walk: &Walk) {
    assert_eq!(walk.answer.status, StatusCode::UNAUTHORIZED, "{:?}", walk.steps);
    assert_eq!(walk.steps.last().unwrap(), &format!("https://{OTHER_HOST}/.portcullis/login?refused=1"));
    assert_eq!(walk.steps.len(), 2, "{:?}", walk.steps);
    assert!(walk.answer.text().contains("Sign in to Customers"), "{}", walk.answer.text());
    assert!(walk.answer.text().contains(">Sign in</a>"));
    walk.answer.assert_secure();
    assert!(walk.answer.headers.contains_key("www-authenticate"));
}

#[tokio::test]
async fn who_is_signed_in_at_the_first_gets_into_the_other_without_a_page() {
    for builder in builders() {
        let sites = sites(builder, "").await;
        let person = sites.person();
        person.first.log_in(ADA).await;
        let walk = person.visit(OTHER_HOST, "/a?b=c&d=%2F").await;
        assert_eq!((walk.answer.status, walk.answer.text().as_str()), (StatusCode::OK, "second"));
        assert_eq!(walk.pages, 1, "no page on the way: {:?}", walk.steps);
        assert_eq!(walk.steps.last().unwrap(), &format!("https://{OTHER_HOST}/a?b=c&d=%2F"));
        let whos = [person.first.whoami().await.unwrap(), person.second.whoami().await.unwrap()];
        assert_eq!(whos[0], whos[1]);
        assert_eq!(whos[1]["level"], "two_factor");
        assert_ne!(person.first.session(), person.second.session());
        // One session, which the account page shows with both sites.
        let page = person.first.get("/.portcullis/account").await.text();
        assert!(
            page.contains(">iot.example.com</span>, <span") && page.contains(">crm.example.com</span>"),
            "{page}"
        );
        let sessions = sites.gateway.administration().sessions(Some(ADA)).await.unwrap();
        assert_eq!(sessions.len(), 1);
        let account = person.visit(OTHER_HOST, "/.portcullis/account").await;
        assert_eq!(account.steps.last().unwrap(), &format!("https://{HOST}/.portcullis/account"));
    }
}

#[tokio::test]
async fn a_login_that_begins_at_the_other_is_made_at_the_first_and_ends_where_it_was_asked_for() {
    let sites = sites(TestGateway::builder(), "").await;
    let person = sites.person();
    let walk = person.visit(OTHER_HOST, "/a?b=c").await;
    assert!(walk.steps.last().unwrap().starts_with(&format!("https://{HOST}/.portcullis/login?rd=")));
    let walk = person.log_in(walk, ADA).await;
    assert_eq!(walk.steps.last().unwrap(), &format!("https://{OTHER_HOST}/a?b=c"));
    assert_eq!(walk.answer.text(), "second");
    // Chromium holds a form to where its redirects lead: a page ends that chain.
    assert_eq!(walk.pages, 2, "{:?}", walk.steps);
    assert_eq!(person.first.get("/").await.text(), "first");
    // The second time with a code.
    let person = sites.person();
    sites.gateway.clock.advance(Duration::from_secs(30));
    let walk = person.visit(OTHER_HOST, "/").await;
    let walk = person.log_in(walk, ADA).await;
    assert_eq!(walk.answer.text(), "second");
}

#[tokio::test]
async fn a_code_is_good_once_and_only_in_the_browser_that_asked() {
    for builder in builders() {
        let sites = sites(builder, "").await;
        let person = sites.person();
        person.first.log_in(ADA).await;
        let walk = person.visit(OTHER_HOST, "/").await;
        let used = with_code(&walk);
        // Again, in the very browser.
        person.second.remove_cookie(SESSION);
        assert_refused(&person.visit_url(&used).await);
        assert!(person.second.cookie(SESSION).is_none());

        // In another browser: one that has not asked, one that has, and one that says that it has.
        let thief = sites.person();
        for prepare in 0..3 {
            let code = up_to_the_code(&person).await;
            match prepare {
                0 => thief.second.remove_cookie(ASKED),
                1 => drop(thief.second.get("/.portcullis/login").await),
                _ => thief.second.set_cookie(ASKED, &made_up().expose()),
            }
            assert_refused(&thief.visit_url(&code).await);
            assert!(thief.second.cookie(SESSION).is_none());
            // Shown in the wrong browser with a cookie of ours, it is used up.
            let own = person.visit_url(&code).await;
            if prepare == 1 {
                assert_refused(&own);
            } else {
                assert_eq!(own.answer.text(), "second");
                person.second.remove_cookie(SESSION);
            }
        }
        // From the page a click begins anew.
        assert_eq!(person.visit(OTHER_HOST, "/.portcullis/login").await.answer.text(), "second");
    }
}

#[tokio::test]
async fn a_code_that_is_old_or_whose_session_is_over_opens_nothing() {
    for builder in builders() {
        let sites = sites(builder, "").await;
        let person = sites.person();
        person.first.log_in(ADA).await;
        let code = up_to_the_code(&person).await;
        sites.gateway.clock.advance(Duration::from_secs(30));
        assert_refused(&person.visit_url(&code).await);
        let code = up_to_the_code(&person).await;
        sites.gateway.clock.advance(Duration::from_millis(29_999));
        assert_eq!(person.visit_url(&code).await.answer.text(), "second");
        person.second.remove_cookie(SESSION);

        let code = up_to_the_code(&person).await;
        sites.gateway.administration().revoke_user(ADA).await.unwrap();
        soon(BOUND, "the session is over", async || person.first.whoami().await.is_none()).await;
        assert_refused(&person.visit_url(&code).await);
        let code = format!("https://{OTHER_HOST}/.portcullis/arrive?code={}", made_up().expose());
        for odd in
            [code.as_str(), &code[..code.len() - 1], &format!("https://{OTHER_HOST}/.portcullis/arrive")]
        {
            assert_refused(&person.visit_url(odd).await);
        }
    }
}

#[tokio::test]
async fn nobody_can_have_another_arrive_as_themselves() {
    let sites = sites(TestGateway::builder(), "").await;
    let (eve, ada) = (sites.person(), sites.person());
    eve.first.log_in(EVE).await;
    // A code of Eve's for a browser of Eve's, shown in Ada's: who is not signed in, who has asked, and who is in.
    assert_refused(&ada.visit_url(&up_to_the_code(&eve).await).await);
    ada.first.log_in(ADA).await;
    drop(ada.second.get("/.portcullis/login").await);
    assert_refused(&ada.visit_url(&up_to_the_code(&eve).await).await);
    assert_eq!(ada.visit(OTHER_HOST, "/").await.answer.text(), "second");
    let session = ada.second.session();
    let code = up_to_the_code(&eve).await;
    let walk = ada.visit_url(&code).await;
    assert_eq!((walk.answer.text().as_str(), ada.second.session()), ("second", session));
    assert_eq!(ada.second.whoami().await.unwrap()["email"], ADA);
    // A question that Eve has Ada's browser ask leads Ada to the other site, with a code that nobody can use.
    let asks = eve.second.get("/.portcullis/login").await.location();
    let walk = ada.visit_url(&asks).await;
    assert_eq!(walk.answer.text(), "second", "as Ada, who is in there");
    let code = with_code(&walk);
    assert_refused(&eve.visit_url(&code).await);
}

#[tokio::test]
async fn the_first_hands_over_to_its_own_sites_only_and_nobody_hands_over_to_it() {
    let sites = sites(TestGateway::builder(), "").await;
    let person = sites.person();
    person.first.log_in(ADA).await;
    let browser = made_up().hash().to_hex();
    for query in [
        format!("site=evil.example&for={browser}"),
        format!("site={HOST}&for={browser}"),
        format!("site={OTHER_HOST}.evil.example&for={browser}"),
        format!("site=https://{OTHER_HOST}&for={browser}"),
        format!("site={OTHER_HOST}&for="),
        format!("site={OTHER_HOST}&for={browser}0"),
        format!("for={browser}"),
        String::new(),
    ] {
        let answer = person.first.get(&format!("/.portcullis/hand-over?{query}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{query}");
    }
    let code = format!("code={}", made_up().expose());
    assert_eq!(person.first.get(&format!("/.portcullis/arrive?{code}")).await.status, StatusCode::NOT_FOUND);
    let query = format!("site={OTHER_HOST}&for={browser}");
    assert_eq!(
        person.second.get(&format!("/.portcullis/hand-over?{query}")).await.status,
        StatusCode::NOT_FOUND
    );
    // Not for a script, a frame or a HEAD, and nowhere but to a page of that site.
    let path = format!("/.portcullis/hand-over?{query}");
    for (method, mode, dest) in [
        ("GET", "cors", "empty"),
        ("GET", "navigate", "iframe"),
        ("HEAD", "navigate", "document"),
        ("POST", "navigate", "document"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(&path)
            .header("sec-fetch-mode", mode)
            .header("sec-fetch-dest", dest);
        let answer = person.first.send(request.body(empty()).unwrap()).await;
        assert!(answer.status.is_client_error(), "{method} {mode} {dest}: {}", answer.status);
    }
    for target in ["https://evil.example/", "//evil.example/", "/.portcullis/logout", "/\\evil.example"] {
        let asks = url::form_urlencoded::byte_serialize(target.as_bytes()).collect::<String>();
        let walk = person.visit(OTHER_HOST, &format!("/.portcullis/login?rd={asks}")).await;
        assert_eq!(walk.steps.last().unwrap(), &format!("https://{OTHER_HOST}/"), "{target}");
        person.second.remove_cookie(SESSION);
        // Nor where somebody else has written the question.
        let asked = person.second.cookie(ASKED).unwrap();
        let browser = Token::parse(&asked).unwrap().hash().to_hex();
        let url = format!("https://{HOST}/.portcullis/hand-over?site={OTHER_HOST}&for={browser}&rd={asks}");
        let walk = person.visit_url(&url).await;
        assert_eq!(walk.steps.last().unwrap(), &format!("https://{OTHER_HOST}/"), "{target}");
        person.second.remove_cookie(SESSION);
    }
}

/// A portal that keeps a socket open.
pub(super) fn lasting() -> Upstream {
    Upstream::scripted(async |exchange: Exchange| {
        if exchange.head.values("upgrade").is_empty() {
            return ordinary(exchange).await;
        }
        websocket::echo(exchange).await;
        None
    })
}

#[tokio::test]
async fn what_ends_a_session_ends_it_at_both_sites_with_what_is_open() {
    for builder in builders() {
        for ending in ["logout at the first", "logout at the second", "revoked", "disabled", "new password"] {
            let sites = TwoSites::before([lasting(), lasting()], builder.clone(), "").await;
            sites.gateway.add_user(ADA).await;
            let person = sites.person();
            person.first.log_in(ADA).await;
            person.visit(OTHER_HOST, "/").await;
            let own = format!("https://{OTHER_HOST}");
            let mut open = [
                person.first.tunnel("/live").await,
                person
                    .second
                    .try_tunnel("/live", &[("Host", OTHER_HOST), ("Origin", &own)])
                    .await
                    .ok()
                    .unwrap(),
            ];
            let administration = sites.gateway.administration();
            match ending {
                "revoked" => drop(administration.revoke_user(ADA).await.unwrap()),
                "disabled" => drop(administration.set_disabled(ADA, true).await.unwrap()),
                "new password" => {
                    let password = SecretString::from("another correct horse battery");
                    administration.set_password(ADA, password).await.unwrap();
                }
                _ => {
                    let csrf = person.first.get("/.portcullis/account").await.field("csrf");
                    let at = if ending.ends_with("first") { &person.first } else { &person.second };
                    let out = at.post_form("/.portcullis/logout", &[("csrf", &csrf)]).await;
                    assert_eq!(out.status, StatusCode::SEE_OTHER, "{}", out.text());
                }
            }
            for socket in &mut open {
                let mut rest = Vec::new();
                let _ = within(BOUND + Duration::from_secs(1), socket.read_to_end(&mut rest)).await;
            }
            for browser in [&person.first, &person.second] {
                soon(BOUND, ending, async || browser.whoami().await.is_none()).await;
                assert_eq!(browser.fetch("/").await.status, StatusCode::UNAUTHORIZED, "{ending}");
            }
            // Asked for again, it takes a login.
            let walk = person.visit(OTHER_HOST, "/").await;
            assert!(walk.steps.last().unwrap().starts_with(&format!("https://{HOST}/.portcullis/login")));
        }
    }
}

#[tokio::test]
async fn a_level_is_the_same_at_both_sites_and_a_fresh_code_counts_at_both() {
    let date = now().plus(Duration::from_hours(9));
    let builder = TestGateway::builder()
        .mandatory_from(date)
        .set("access.rules", "[{ path = \"/fresh\", max_age = \"10m\" }]");
    let sites = sites(builder, "").await;
    let person = sites.person();
    let page = person.first.visit("/").await;
    let page = person.first.sign_in(&page, ADA).await;
    person.first.submit(&page, &[("skip", "1")]).await;
    assert_eq!(person.visit(OTHER_HOST, "/").await.answer.text(), "second");
    assert_eq!(person.second.level().await, "one_factor");
    // What takes a code there takes a device, which is bound at the first.
    let walk = person.visit(OTHER_HOST, "/fresh").await;
    assert!(
        walk.steps.last().unwrap().starts_with(&format!("https://{HOST}/.portcullis/enrol?rd=")),
        "{:?}",
        walk.steps
    );
    let walk = person.bind(walk, ADA).await;
    assert_eq!(walk.steps.last().unwrap(), &format!("https://{OTHER_HOST}/fresh"));
    assert_eq!((walk.answer.text().as_str(), person.second.level().await.as_str()), ("second", "two_factor"));

    sites.gateway.clock.advance(Duration::from_mins(11));
    assert_eq!(person.second.get("/").await.text(), "second");
    let walk = person.visit(OTHER_HOST, "/fresh").await;
    assert!(walk.steps.last().unwrap().ends_with("&again=1"), "{:?}", walk.steps);
    let walk = person.log_in(walk, ADA).await;
    assert_eq!(walk.steps.last().unwrap(), &format!("https://{OTHER_HOST}/fresh"));
    assert_eq!(walk.answer.text(), "second");
    assert_eq!(person.first.get("/fresh").await.text(), "first", "and at the first");
}

#[tokio::test]
async fn who_is_kept_signed_in_is_so_at_both_sites_and_a_blocked_cookie_is_no_loop() {
    let builder = TestGateway::builder().set("sessions.remember_me", "30d");
    let sites = sites(builder, "").await;
    let person = sites.person();
    let page = person.first.visit("/").await;
    let page = person
        .first
        .submit(&page, &[("email", ADA), ("password", crate::support::PASSWORD), ("remember", "1")])
        .await;
    let page = person.first.bind(&page, ADA, "Phone").await;
    person.first.submit(&page, &[]).await;
    let code = up_to_the_code(&person).await;
    let arrived = person.second.get(code.strip_prefix(&format!("https://{OTHER_HOST}")).unwrap()).await;
    let cookie =
        arrived.set_cookies().into_iter().find(|cookie| cookie.starts_with("__Host-portcullis=")).unwrap();
    assert!(
        cookie.contains("Max-Age=25") && cookie.contains("HttpOnly; SameSite=Lax; Secure; Path=/"),
        "{cookie}"
    );
    assert!(!cookie.contains("Domain"));

    // A browser that keeps no cookie of the second site.
    person.second.remove_cookie(SESSION);
    let code = up_to_the_code(&person).await;
    person.second.remove_cookie(ASKED);
    assert_refused(&person.visit_url(&code).await);
}
