//! Our pages in a browser where somebody else's script runs, where cookies are too many or blocked, and where a login leads
//! to another site.

use http::{Request, StatusCode};

use crate::support::{
    ADA, Answer, Browser, Exchange, HOST, PASSWORD, TestGateway, Upstream, body, empty, logged_in,
};

async fn asks(browser: &Browser, method: &str, target: &str, fields: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(target);
    if method == "POST" {
        request = request.header("content-type", "application/x-www-form-urlencoded");
    }
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    browser.send(request.body(if method == "POST" { body("csrf=x") } else { empty() }).unwrap()).await
}

#[tokio::test]
async fn no_script_reads_a_page_that_shows_secrets() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let next = browser.submit_password(ADA, PASSWORD).await.location();
    let key = browser.get(&next).await.text_of("key");
    let ways: [&[(&str, &str)]; 7] = [
        &[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"), ("sec-fetch-site", "same-origin")],
        &[("sec-fetch-mode", "cors"), ("accept", "text/html")],
        &[("sec-fetch-mode", "same-origin"), ("accept", "text/html")],
        &[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")],
        &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
        &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "empty")],
        &[("x-requested-with", "XMLHttpRequest"), ("accept", "text/html")],
    ];
    for way in ways {
        for method in ["GET", "POST"] {
            let answer = asks(&browser, method, "/.portcullis/enrol", way).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {way:?}");
            let text = answer.text();
            assert!(!text.contains("otpauth") && !text.contains(&key) && !text.contains("csrf"), "{text}");
            answer.assert_secure();
        }
    }
    browser.enrol(ADA, &next).await;
    for way in ways {
        for method in ["GET", "POST"] {
            let answer = asks(&browser, method, "/.portcullis/recovery-codes", way).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {way:?}");
            assert!(!answer.text().contains("<li>"), "{}", answer.text());
        }
    }
    assert!(browser.get("/.portcullis/recovery-codes").await.text().contains("<li>"));
}

#[tokio::test]
async fn no_script_takes_a_form_token_from_any_page_of_ours() {
    let (_gateway, browser) = logged_in(TestGateway::builder()).await;
    let stranger = browser.copy();
    stranger.remove_cookie("__Host-portcullis");
    for (browser, page) in
        [(&browser, "account"), (&browser, "enrol"), (&stranger, "login"), (&stranger, "code")]
    {
        let path = format!("/.portcullis/{page}");
        let script = [("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"), ("accept", "text/html")];
        let answer = asks(browser, "GET", &path, &script).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{page}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    assert_eq!(browser.fetch("/.portcullis/whoami").await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_has_too_many_cookies_is_told_so_in_a_page() {
    let (gateway, browser) = TestGateway::start().await;
    for browser in [gateway.browser(), gateway.browser().http2()] {
        for number in 0..20 {
            browser.set_cookie(&format!("portal-{number}"), &"x".repeat(1000));
        }
        let answer = browser.get("/sims").await;
        assert_eq!(answer.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        assert_eq!(answer.heading(), "Too many cookies", "{}", answer.text());
        assert!(answer.text().contains("<style>") && !answer.text().contains("rel=\"stylesheet\""));
        assert!(answer.set_cookies().is_empty(), "no cookie is taken away because of it");
        assert_eq!(browser.fetch("/api/sims").await.header("content-type"), "application/problem+json");
    }
    let old =
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html\r\nCookie: a={}", "x".repeat(20_000));
    assert_eq!(browser.raw(old).await.answer().await.heading(), "Too many cookies");
}

#[tokio::test]
async fn a_portal_with_large_cookies_can_have_them() {
    let builder = TestGateway::builder().set("server.max_header_size", "32KiB");
    let (gateway, browser) = logged_in(builder).await;
    for browser in [browser.copy(), browser.http2()] {
        for number in 0..20 {
            browser.set_cookie(&format!("portal-{number}"), &"x".repeat(1000));
        }
        assert_eq!(browser.get("/sims").await.text(), "the portal: GET /sims\n");
        assert_eq!(browser.get("/.portcullis/account").await.heading(), "Your account");
        for number in 20..40 {
            browser.set_cookie(&format!("portal-{number}"), &"x".repeat(1000));
        }
        let answer = browser.get("/sims").await;
        assert_eq!(answer.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        assert_eq!(answer.heading(), "Too many cookies");
    }
    drop(gateway);
}

#[tokio::test]
async fn a_page_about_an_error_needs_nothing_but_itself() {
    let (_gateway, browser) = TestGateway::start().await;
    let request = Request::get("/").header("host", "127.0.0.1").header("sec-fetch-mode", "navigate");
    let wrong_host = browser.send(request.body(empty()).unwrap()).await;
    assert_eq!(wrong_host.status, StatusCode::MISDIRECTED_REQUEST);
    assert!(wrong_host.text().contains("right address for IoT Connectivity"), "{}", wrong_host.text());
    for answer in [wrong_host, browser.get("/.portcullis/none").await] {
        let text = answer.text();
        assert!(!text.contains("<script") && !text.contains("rel=\"stylesheet\""), "{text}");
        let style = text.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, style.as_bytes());
        let digest = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, digest.as_ref());
        let policy = answer.header("content-security-policy");
        assert!(policy.contains(&format!("style-src 'sha256-{digest}';")), "{policy}");
    }
}

#[tokio::test]
async fn a_browser_that_keeps_no_cookie_is_told_so_instead_of_asked_again_for_ever() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let forgetful = async |path: &str, fields: &[(&str, &str)]| {
        browser.remove_cookie("__Host-portcullis-login");
        let answer = browser.post_form(path, fields).await;
        browser.remove_cookie("__Host-portcullis-login");
        answer
    };
    let page = browser.get("/.portcullis/login?rd=/sims").await;
    let fields = [("email", ADA), ("password", PASSWORD), ("csrf", &page.field("csrf")), ("rd", "/sims")];
    let mut answer = forgetful("/.portcullis/login", &fields).await;
    while answer.status.is_redirection() {
        browser.remove_cookie("__Host-portcullis-login");
        answer = browser.get(&answer.location()).await;
    }
    assert_eq!(answer.heading(), "Sign in");
    assert!(answer.text_of("login-problem").contains("blocking cookies"), "{}", answer.text());
    // From there on it goes well where cookies are let through.
    let page = browser.sign_in(&answer, ADA).await;
    assert_eq!(page.heading(), "Set up your authenticator app");
    // Somebody who opens a page of a login by its address has lost no cookie.
    let page = gateway.browser().visit("/.portcullis/code").await;
    assert!(!page.text().contains("blocking cookies"));
}

/// Leads to where its path says.
fn leading() -> Upstream {
    Upstream::scripted(async |mut exchange: Exchange| {
        exchange.read_content().await.ok()?;
        let location = match exchange.target().split('?').next()? {
            "/idp" => "https://idp.example/authorize?state=1&x=%22y",
            "/www" => "//www.example.com/app",
            "/plain" => "http://iot.example.com/app",
            "/here" => "https://iot.example.com/app",
            _ => "/app",
        };
        let head = format!(
            "HTTP/1.1 302 Found\r\nLocation: {location}\r\nSet-Cookie: state=1; Path=/\r\nX-Portal: yes\r\nContent-Length: 0\r\n\r\n"
        );
        exchange.write(head).await?;
        Some(exchange)
    })
}

#[tokio::test]
async fn the_way_out_of_a_login_works_wherever_the_portal_leads() {
    let (gateway, browser) = logged_in(TestGateway::builder().upstream(&leading())).await;
    let last = format!("https://{HOST}/.portcullis/code?rd=/x");
    let navigates = [("sec-fetch-mode", "navigate"), ("accept", "text/html"), ("referer", last.as_str())];
    for browser in [browser.copy(), browser.copy().http2()] {
        for (target, leads) in [
            ("/idp", "https://idp.example/authorize?state=1&x=%22y"),
            ("/www", "https://www.example.com/app"),
        ] {
            let page = asks(&browser, "GET", target, &navigates).await;
            assert_eq!(page.status, StatusCode::OK, "{target}");
            let text = page.text().replace("&#x2f;", "/").replace("&amp;", "&");
            assert!(text.contains(&format!("content=\"0; url={leads}\"")), "{text}");
            assert!(text.contains(&format!("href=\"{leads}\"")), "{text}");
            assert_eq!(page.set_cookies(), ["state=1; Path=/"], "what the portal needs for the way back");
            page.assert_secure();
        }
        for target in ["/here", "/plain", "/other"] {
            assert_eq!(asks(&browser, "GET", target, &navigates).await.status, StatusCode::FOUND, "{target}");
        }
        // What does not come from a form of ours is the portal's own affair, and so is what comes later.
        for referer in ["https://iot.example.com/app", "https://evil.example/.portcullis/code"] {
            let fields = [("sec-fetch-mode", "navigate"), ("referer", referer)];
            let answer = asks(&browser, "GET", "/idp", &fields).await;
            assert_eq!((answer.status, answer.header("x-portal").as_str()), (StatusCode::FOUND, "yes"));
        }
    }
    gateway.clock.advance(std::time::Duration::from_mins(6));
    assert_eq!(asks(&browser, "GET", "/idp", &navigates).await.status, StatusCode::FOUND);
}

/// What a browser sends for a form of another site: none of our cookies with it.
fn foreign(target: &str, form: &str) -> Request<crate::support::Body> {
    Request::post(target)
        .header("sec-fetch-mode", "navigate")
        .header("sec-fetch-dest", "document")
        .header("sec-fetch-site", "cross-site")
        .header("origin", "https://pay.example")
        .header("referer", "https://pay.example/")
        .header("accept", "text/html,*/*;q=0.8")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("cookie", "theme=dark")
        .body(body(form.to_owned()))
        .unwrap()
}

/// Sends what stands in the page, as a browser does from there.
async fn goes_on(browser: &Browser, page: &Answer) -> Answer {
    let form = page.forms().remove(0);
    let fields: String =
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form.filled(&[])).finish();
    let request = Request::post(&form.action)
        .header("sec-fetch-mode", "navigate")
        .header("sec-fetch-dest", "document")
        .header("sec-fetch-site", "same-origin")
        .header("origin", "null")
        .header("accept", "text/html,*/*;q=0.8")
        .header("content-type", "application/x-www-form-urlencoded");
    browser.send(request.body(body(fields)).unwrap()).await
}

#[tokio::test]
async fn the_form_of_another_site_is_asked_for_once_more_from_here_and_reaches_the_portal_once() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let page =
        browser.send(foreign("/payment/return?order=7", "status=paid&note=%22%3E%3Cscript%3E&a=1&a=2")).await;
    assert_eq!((page.status, page.heading().as_str()), (StatusCode::OK, "Continue to IoT Connectivity?"));
    assert!(page.text().contains("pay.example") && !page.text().contains("<script>"), "{}", page.text());
    assert_eq!(
        page.header("referrer-policy"),
        "no-referrer",
        "it does not pass for a form of the portal's own"
    );
    assert!(gateway.upstream.requests().is_empty() && page.set_cookies().is_empty());
    assert_eq!(goes_on(&browser, &page).await.text(), "the portal: POST /payment/return?order=7\n");
    let request = gateway.upstream.only_request();
    assert_eq!(request.content.body, b"status=paid&note=%22%3E%3Cscript%3E&a=1&a=2");
    assert_ne!(request.value("origin"), Some(format!("https://{HOST}")));
    assert_eq!(request.value("referer"), None);

    // Whose session has run out meanwhile finds it kept.
    gateway.clock.advance(std::time::Duration::from_hours(1));
    let page = browser.send(foreign("/saml/acs", "SAMLResponse=PHg%2B")).await;
    let kept = goes_on(&browser, &page).await;
    assert!(kept.location().starts_with("/.portcullis/login?rd=/.portcullis/kept/"), "{}", kept.location());
}

#[tokio::test]
async fn what_cannot_be_asked_for_once_more_leads_to_the_login() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let many = "a=b&".repeat(201);
    let large = "a".repeat(65 * 1024);
    for form in [many, large] {
        let answer = browser.send(foreign("/pay", &form)).await;
        assert_eq!(
            (answer.status, answer.location().as_str()),
            (StatusCode::SEE_OTHER, "/.portcullis/login")
        );
    }
    for (name, value) in [("content-type", "multipart/form-data; boundary=x"), ("sec-fetch-dest", "iframe")] {
        let mut request = foreign("/pay", "a=b");
        request.headers_mut().insert(name, value.parse().unwrap());
        let answer = browser.send(request).await;
        assert!(!answer.text().contains("name=\"a\""), "{name}: {}", answer.text());
    }
    assert!(gateway.upstream.requests().is_empty());
}
