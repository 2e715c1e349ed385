//! Who gets what without a session: a window the login page, a frame a page of its own, a script and a download a status
//! that they can read, each with the way in that leads back to where the user was.

use http::{Request, StatusCode};

use crate::support::{ADA, Answer, Browser, HOST, TestGateway, body, empty, logged_in};

async fn asks(browser: &Browser, method: &str, target: &str, fields: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    browser.send(request.body(if method == "POST" { body("a=b") } else { empty() }).unwrap()).await
}

/// What Chromium says of a navigation with this destination.
fn navigates(dest: &str) -> Vec<(&str, &str)> {
    vec![
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", dest),
        ("sec-fetch-site", "same-origin"),
        ("accept", "text/html,application/xhtml+xml,*/*;q=0.8"),
    ]
}

#[tokio::test]
async fn a_download_is_refused_so_that_no_login_page_is_saved_in_its_place() {
    let (gateway, browser) = TestGateway::start().await;
    for browser in [browser.copy(), browser.http2()] {
        for target in ["/export.csv", "/report.pdf?month=3"] {
            let answer = asks(&browser, "GET", target, &navigates("empty")).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{target}");
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert!(answer.headers.contains_key("www-authenticate"));
            answer.assert_secure();
        }
    }
    assert!(gateway.upstream.requests().is_empty());
}

#[tokio::test]
async fn a_frame_gets_a_page_that_this_site_may_frame_and_that_leads_the_whole_window_to_the_login() {
    let (_gateway, browser) = TestGateway::start().await;
    let page = format!("https://{HOST}/dash?tab=2");
    for dest in ["iframe", "frame", "embed", "object", "fencedframe"] {
        for method in ["GET", "POST"] {
            let fields = [navigates(dest), vec![("referer", page.as_str())]].concat();
            let answer = asks(&browser, method, "/widget", &fields).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{dest}");
            assert_eq!(answer.heading(), "Your session has ended");
            assert_eq!(answer.header("x-frame-options"), "SAMEORIGIN");
            let policy = answer.header("content-security-policy");
            assert!(policy.contains("frame-ancestors 'self'") && !policy.contains("unsafe"), "{policy}");
            let text = answer.text().replace("&#x2f;", "/");
            let link = "href=\"/.portcullis/login?rd=/dash%3Ftab%3D2\" target=\"_top\"";
            assert!(text.contains(link), "{text}");
            assert!(
                !text.contains("<form") && !text.contains("<input"),
                "nothing on it is worth a stolen click"
            );
            assert_eq!(text.contains("was not delivered"), method == "POST");
        }
    }
    for referer in ["https://evil.example/dash", "https://iot.example.com/.portcullis/account?x"] {
        let fields = [navigates("iframe"), vec![("referer", referer)]].concat();
        let text = asks(&browser, "GET", "/widget", &fields).await.text().replace("&#x2f;", "/");
        assert!(text.contains("href=\"/.portcullis/login\" target=\"_top\""), "{referer}: {text}");
    }
}

#[tokio::test]
async fn no_page_of_a_login_may_be_framed_by_anybody() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    for page in ["login", "code", "recovery", "enrol", "recovery-codes", "account", "logout", "kept/x"] {
        let answer = asks(&browser, "GET", &format!("/.portcullis/{page}"), &navigates("iframe")).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{page}");
        answer.assert_secure();
    }
}

#[tokio::test]
async fn the_end_of_a_session_is_told_in_words_that_an_application_can_show() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    gateway.clock.advance(std::time::Duration::from_hours(1));
    let page = format!("https://{HOST}/app?view=list");
    let script = [("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"), ("accept", "application/json")];
    for method in ["GET", "POST", "PUT", "DELETE"] {
        let fields = [script.to_vec(), vec![("referer", page.as_str())]].concat();
        let answer = asks(&browser, method, "/api/sims?page=2", &fields).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.json()["detail"], "Your session has ended. Reload this page to sign in.");
        let back = format!("https://{HOST}/.portcullis/login?rd=/app%3Fview%3Dlist");
        assert_eq!(answer.json()["login_url"], back);
    }
    // Neither the call itself nor a page of another site is worth a return to.
    for referer in [None, Some("https://evil.example/app"), Some("https://iot.example.com.evil.example/app")]
    {
        let fields = [script.to_vec(), referer.map(|url| ("referer", url)).into_iter().collect()].concat();
        let answer = asks(&browser, "GET", "/api/sims?page=2", &fields).await;
        assert_eq!(answer.json()["login_url"], format!("https://{HOST}/.portcullis/login"), "{referer:?}");
    }
    let stranger = gateway.browser().fetch("/api/sims").await;
    assert_eq!(stranger.json()["detail"], "Sign in to use this portal.");
}

#[tokio::test]
async fn the_login_page_says_why_the_user_is_there() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    assert!(
        !gateway.browser().visit("/sims").await.text().contains("class=\"notice\""),
        "a stranger has lost nothing"
    );
    gateway.clock.advance(std::time::Duration::from_hours(1));
    let page = browser.visit("/sims").await;
    assert!(page.text().contains("Your session has ended. Sign in to continue."), "{}", page.text());
    let sent = browser.post_form("/sims/new", &[("label", "Pump 12")]).await;
    let page = browser.follow(sent).await;
    assert_eq!(page.heading(), "Sign in");
    assert!(page.text().contains("what you sent is safe"), "{}", page.text());
}

#[tokio::test]
async fn a_whole_address_of_this_site_is_a_place_to_return_to_and_any_other_is_the_start() {
    let (gateway, _) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let first = gateway.browser();
    first.log_in(ADA).await;
    for (asked, led) in [
        ("https%3A%2F%2Fiot.example.com%2Fdash", "/dash"),
        ("https%3A%2F%2FIOT.EXAMPLE.COM%3A443%2Fdash%3Fa%3Db", "/dash?a=b"),
        ("https://iot.example.com/dash", "/dash"),
        ("/dash", "/dash"),
        ("https%3A%2F%2Fiot.example.com.evil.example%2Fdash", "/"),
        ("https%3A%2F%2Fiot.example.com@evil.example%2Fdash", "/"),
        ("https%3A%2F%2Fiot.example.com%3A8443%2Fdash", "/"),
        ("https%3A%5C%5Ciot.example.com%5Cdash", "/"),
        ("http%3A%2F%2Fiot.example.com%2Fdash", "/"),
        ("%2F%2Fiot.example.com%2Fdash", "/"),
        ("https%253A%252F%252Fiot.example.com%252Fdash", "/"),
        ("https%3A%2F%2Fiot.example.com%2F.portcullis%2Flogout", "/"),
    ] {
        gateway.clock.advance(std::time::Duration::from_mins(1));
        let answer = first.get(&format!("/.portcullis/login?rd={asked}")).await;
        assert_eq!((answer.status, answer.location().as_str()), (StatusCode::FOUND, led), "{asked}");
        let browser = gateway.browser();
        let page = browser.visit(&format!("/.portcullis/login?rd={asked}")).await;
        let page = browser.sign_in(&page, ADA).await;
        let code = browser.phone(ADA).unwrap().fresh_code();
        let answer = browser.fill(&page, &[("code", &code)]).await;
        assert_eq!((answer.status, answer.location().as_str()), (StatusCode::SEE_OTHER, led), "{asked}");
    }
}
