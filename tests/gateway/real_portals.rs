//! Servers and frameworks as they ran before there was a gateway: what they say of themselves, and what they believe.

use std::fs;

use http::{Request, StatusCode};

use crate::support::{
    Answer, Browser, HOST, TestGateway, body, logged_in,
    origin::{Origin, readable_folder},
    python::Python,
};

#[tokio::test]
async fn the_slash_that_a_server_adds_to_a_folder_leads_through_the_gateway() {
    let root = readable_folder();
    fs::create_dir(root.path().join("reports")).unwrap();
    fs::write(root.path().join("index.html"), "start").unwrap();
    // As others do that believe `X-Forwarded-Host`, or the name that they were given.
    for name in ["nginx", "lighttpd"] {
        let origin = Origin::start(name, root.path()).await;
        let url = format!("http://{}", origin.address);
        let (_gateway, browser) = logged_in(TestGateway::builder().upstream_url(&url)).await;
        let answer = browser.get("/reports?tab=1").await;
        assert_eq!(answer.status, StatusCode::MOVED_PERMANENTLY, "{name}");
        let location = answer.location();
        let path = location.strip_prefix(&format!("https://{HOST}")).unwrap_or(&location);
        assert!(path.starts_with("/reports/"), "{name}: {location}");
    }
}

/// Sends Django's form as a browser does that comes from `origin`.
async fn sends_form(browser: &Browser, origin: &str, referer: &str) -> Answer {
    let token = browser.get("/form").await.field("csrfmiddlewaretoken");
    let request = Request::post("/form")
        .header("origin", origin)
        .header("referer", referer)
        .header("content-type", "application/x-www-form-urlencoded");
    browser.send(request.body(body(format!("csrfmiddlewaretoken={token}&label=Pump"))).unwrap()).await
}

#[tokio::test]
async fn a_portal_that_knows_no_proxy_takes_its_own_forms_and_still_refuses_forged_ones() {
    let mut django = Python::start_in_environment("django.py", &[]);
    let url = format!("http://127.0.0.1:{}", django.line().await);
    let (ours, page) = (format!("https://{HOST}"), format!("https://{HOST}/form"));
    let (_gateway, browser) = logged_in(TestGateway::builder().upstream_url(&url)).await;
    assert_eq!(sends_form(&browser, &ours, &page).await.status, StatusCode::FORBIDDEN, "as browsers say it");
    let builder = TestGateway::builder().upstream_url(&url).set("portal.origin", "upstream");
    let (_gateway, browser) = logged_in(builder).await;
    for browser in [browser.copy(), browser.copy().http2()] {
        assert_eq!(sends_form(&browser, &ours, &page).await.text(), "saved Pump");
        for (origin, referer) in [
            ("https://evil.example", "https://evil.example/"),
            ("null", &*page),
            // A page that somebody on the way has put in place of the portal's.
            (&*format!("http://{HOST}"), &*format!("http://{HOST}/form")),
            (&*url, &*page),
        ] {
            let answer = sends_form(&browser, origin, referer).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin}");
        }
        assert_eq!(browser.get("/absolute").await.location(), page);
    }
}
