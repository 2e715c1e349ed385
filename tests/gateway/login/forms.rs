//! Forms: who may send them, in what shape they may come, and where they may lead.

use std::fmt::Write as _;

use http::{Method, Request, StatusCode};

use super::{ADA, BOB, logged_in};
use crate::support::{Answer, Browser, PASSWORD, TestGateway, body, forms::PageForm};

const FORM: &str = "application/x-www-form-urlencoded";

/// Sends a form as something does that says nothing of where it comes from.
async fn post(browser: &Browser, path: &str, kind: &str, content: impl Into<String>) -> Answer {
    let request = Request::post(path).header("content-type", kind).header("accept", "text/html");
    browser.send(request.body(body(content.into())).unwrap()).await
}

async fn post_fields(browser: &Browser, path: &str, fields: &[(&str, &str)]) -> Answer {
    let form: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    post(browser, path, FORM, form).await
}

/// Everything durable but the logins in progress, which every password adds to.
async fn state(gateway: &TestGateway) -> String {
    let mut state = String::new();
    for user in gateway.administration().users().await.unwrap() {
        let details = gateway.administration().user_details(&user.email).await.unwrap();
        let sessions: Vec<_> = details.sessions.iter().map(|session| session.id).collect();
        let (devices, left) = (details.devices, details.recovery_left);
        writeln!(state, "{:?} {devices:?} {left} {sessions:?}", details.user).unwrap();
    }
    state
}

#[tokio::test]
async fn a_form_with_no_or_a_strange_token_is_refused_and_changes_nothing() {
    let (gateway, full) = logged_in(TestGateway::builder()).await;
    gateway.add_user(BOB).await;
    let (stranger, new, coding) = (gateway.browser(), gateway.browser(), gateway.browser());
    let login = stranger.get("/.portcullis/login").await;
    let page = new.visit("/").await;
    let enrol = new.sign_in(&page, BOB).await;
    let phone = new.scan(&enrol, BOB);
    let page = coding.visit("/").await;
    let code = coding.sign_in(&page, ADA).await;
    let account = full.get("/.portcullis/account").await;
    let right = gateway.phone(ADA).fresh_code();
    let (name, bobs) = (("device_name", "Phone"), phone.fresh_code());
    let cases: [(&Browser, PageForm, Vec<(&str, &str)>); 5] = [
        (&stranger, login.form(&["email"]), vec![("email", ADA), ("password", PASSWORD)]),
        (&coding, code.form(&["code"]), vec![("code", &right)]),
        (
            &coding,
            coding.get("/.portcullis/recovery").await.form(&["recovery_code"]),
            vec![("recovery_code", "x")],
        ),
        (&new, enrol.form(&["code"]), vec![("code", &bobs), name]),
        (&full, account.form(&["csrf"]), vec![]),
    ];
    let tokens: Vec<String> =
        cases.iter().map(|(_, form, _)| form.value("csrf").unwrap().to_owned()).collect();
    let before = state(&gateway).await;
    for (index, (browser, form, fields)) in cases.iter().enumerate() {
        let own = &tokens[index];
        // The pages for code and recovery code are in one browser, whose tokens work for both.
        let others = cases.iter().zip(&tokens).filter(|((other, ..), _)| !std::ptr::eq(*other, *browser));
        let mut strange: Vec<String> = others.map(|(_, token)| token.clone()).collect();
        strange.extend([String::new(), "x".into(), own[1..].to_owned(), format!("{own}A")]);
        for token in strange {
            let mut fields = fields.clone();
            fields.push(("csrf", &token));
            let answer = post_fields(browser, &form.action, &fields).await;
            assert_eq!(
                answer.status,
                StatusCode::FORBIDDEN,
                "{} with {token}: {}",
                form.action,
                answer.text()
            );
            assert!(!answer.starts_session(), "{}", form.action);
        }
        let answer = post_fields(browser, &form.action, fields).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{} without a token", form.action);
    }
    assert_eq!(state(&gateway).await, before);
    // What was refused for its form was not used up.
    assert!(coding.fill(&code, &[("code", &right)]).await.starts_session());
    assert!(new.fill(&enrol, &[("code", &bobs), name]).await.starts_session());
}

#[tokio::test]
async fn recovery_codes_are_confirmed_only_by_the_sessions_own_form() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let page = browser.visit("/").await;
    let page = browser.sign_in(&page, ADA).await;
    let page = browser.bind(&page, ADA, "Phone").await;
    let other = gateway.browser().get("/.portcullis/login").await.field("csrf");
    for token in ["", "x", &other] {
        let answer = browser.post_form("/.portcullis/recovery-codes", &[("csrf", token)]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert_eq!(answer.text_of("codes"), page.text_of("codes"), "nothing was sent: they are still there");
        assert!(answer.text().contains("out of date"));
    }
    assert_eq!(browser.submit(&page, &[]).await.text(), "the portal: GET /\n");
}

#[tokio::test]
async fn the_form_of_a_tab_that_was_overtaken_works_when_the_browser_vouches_for_it() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let first = browser.visit("/first").await;
    let second = browser.visit("/second").await;
    browser.sign_in(&second, ADA).await;
    // The token of the first tab is ours, but for what the browser held before.
    let form = first.form(&["email"]);
    let fields = form.filled(&[("email", ADA), ("password", PASSWORD)]);
    for site in ["cross-site", "same-site", "none", ""] {
        let request = Request::post(&form.action)
            .header("content-type", FORM)
            .header("sec-fetch-site", site)
            .header("origin", "https://iot.example.com");
        let content: String =
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&fields).finish();
        let answer = browser.send(request.body(body(content)).unwrap()).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{site}");
    }
    let request = Request::post(&form.action).header("content-type", FORM).header("origin", "null");
    let content: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&fields).finish();
    assert_eq!(browser.send(request.body(body(content)).unwrap()).await.status, StatusCode::FORBIDDEN);

    let page = browser.sign_in(&first, ADA).await;
    assert_eq!(page.heading(), "Set up your authenticator app");
    let page = browser.bind(&page, ADA, "Phone").await;
    assert_eq!(browser.submit(&page, &[]).await.text(), "the portal: GET /first\n");
}

#[tokio::test]
async fn a_form_in_another_shape_is_refused_with_the_fitting_status() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let csrf = browser.get("/.portcullis/login").await.field("csrf");
    let fields = format!("email={ADA}&password={}&csrf={csrf}", PASSWORD.replace(' ', "+"));
    let large = format!("{fields}&rd={}", "x".repeat(9000));
    let json = format!("{{\"email\":\"{ADA}\",\"csrf\":\"{csrf}\"}}");
    let cases: [(&str, String, u16); 11] = [
        ("application/json", json, 415),
        ("multipart/form-data; boundary=x", "--x--".into(), 415),
        ("text/plain", fields.clone(), 415),
        ("", fields.clone(), 415),
        (FORM, large, 413),
        (FORM, format!("{fields}&email=x"), 400),
        (FORM, format!("{fields}&csrf={csrf}"), 400),
        (FORM, format!("{fields}&%63srf=x"), 400),
        (FORM, format!("{fields}&rd=%zz"), 400),
        (FORM, format!("{fields}&rd=%ff"), 400),
        ("Application/X-WWW-Form-Urlencoded ; charset=UTF-8", format!("{fields}&unknown=1"), 303),
    ];
    for (kind, content, status) in cases {
        let answer = post(&browser, "/.portcullis/login", kind, content.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{kind} {content}");
        assert_eq!(status == 303, answer.header("location") == "/.portcullis/enrol", "{content}");
        answer.assert_secure();
    }
    // What is in the address is no form.
    let answer = browser.get(&format!("/.portcullis/login?{fields}")).await;
    assert_eq!((answer.status, answer.heading().as_str()), (StatusCode::OK, "Sign in"));
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_get_the_very_same_answer() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    gateway.add_user("off@example.com").await;
    gateway.administration().set_disabled("off@example.com", true).await.unwrap();
    let page = browser.get("/.portcullis/login").await;
    let mut answers = Vec::new();
    for (email, password) in [
        (ADA, "not the right password"),
        ("nobody@example.com", PASSWORD),
        ("off@example.com", PASSWORD),
        ("no name at all", PASSWORD),
        ("", ""),
    ] {
        let answer = browser.fill(&page, &[("email", email), ("password", password)]).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        let csrf = answer.field("csrf");
        let shown = format!("value=\"{email}\"");
        let mut text = answer.text().replace(&csrf, "(token)");
        assert!(email.is_empty() || text.contains(&shown));
        text = text.replace(&shown, "value=\"(email)\"").replace("value=\"\"", "value=\"(email)\"");
        // An empty field takes the cursor, which says nothing of who exists.
        text = text.replace(" autofocus", "");
        let mut headers = answer.headers.clone();
        headers.remove("date");
        headers.remove("content-length");
        answers.push((headers, text));
    }
    for other in &answers[1..] {
        assert_eq!(*other, answers[0]);
    }
}

#[tokio::test]
async fn no_return_target_leads_off_the_site_at_the_end_of_a_login() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    drop(browser);
    let phone = gateway.phone(ADA);
    let browser = gateway.browser();
    for target in [
        "//evil.example",
        "/\\evil.example",
        "\\/evil.example",
        "https://evil.example/",
        "https:evil.example",
        "///evil.example",
        "/\t/evil.example",
        "/\r\n/evil.example",
        "\u{1}//evil.example",
        " //evil.example",
        "javascript:alert(1)",
        "data:text/html,x",
        "evil.example",
        "@evil.example",
        "/../..//evil.example",
        "/%2e%2e//evil.example",
        "/x\r\nSet-Cookie: a=b",
        "/x\u{2028}y",
        "/.portcullis/logout",
        "/.portcullis/login?rd=//evil.example",
        "?rd=x",
        "#x",
    ] {
        let query: String =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("rd", target).finish();
        let page = browser.get(&format!("/.portcullis/login?{query}")).await;
        assert!(!page.text().contains("evil"), "{target:?} is on the page");
        // The form may have been tampered with as well.
        let form = page.form(&["email"]);
        let csrf = form.value("csrf").unwrap();
        let fields = [("email", ADA), ("password", PASSWORD), ("csrf", csrf), ("rd", target)];
        let answer = browser.post_form(&form.action, &fields).await;
        assert_eq!((answer.status, answer.location().as_str()), (StatusCode::SEE_OTHER, "/.portcullis/code"));
        let path = format!("/.portcullis/code?{query}");
        let page = browser.get(&path).await;
        assert!(!page.text().contains("evil"), "{target:?} is on the page");
        let (code, csrf) = (phone.fresh_code(), page.field("csrf"));
        let fields = [("code", code.as_str()), ("csrf", &csrf)];
        let answer = browser.post_form(&path, &fields).await;
        assert!(answer.starts_session(), "{}", answer.text());
        assert_eq!((answer.location().as_str(), answer.set_cookies().len()), ("/", 3), "{target:?}");
        // Nor does the login page lead there once somebody is signed in.
        assert_eq!(browser.get(&format!("/.portcullis/login?{query}")).await.location(), "/", "{target:?}");
        browser.remove_cookie("__Host-portcullis");
    }
    // Given twice it is as if it had not been given.
    let page = browser.get("/.portcullis/login?rd=/a&rd=/b").await;
    assert_eq!(page.form(&["email"]).value("rd"), None);
    browser.fill(&page, &[("email", ADA), ("password", PASSWORD)]).await;
    let csrf = browser.get("/.portcullis/code").await.field("csrf");
    let code = phone.fresh_code();
    let fields = [("code", code.as_str()), ("csrf", &csrf)];
    assert_eq!(browser.post_form("/.portcullis/code?rd=/a&rd=/b", &fields).await.location(), "/");
    let host = Request::builder().method(Method::GET).uri("/x").header("accept", "text/html");
    let poisoned = host.header("x-forwarded-host", "evil.example").header("forwarded", "host=evil.example");
    let answer = gateway.browser().send(poisoned.body(crate::support::empty()).unwrap()).await;
    assert_eq!(answer.location(), "/.portcullis/login?rd=/x");
}
