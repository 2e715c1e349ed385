//! Two gateways on one host, told apart by their ports alone. Cookies know no port, so neither may take the other's for its
//! own, overwrite it, or let its portal see or set it.

use http::StatusCode;

use crate::support::{Browser, Exchange, HOST, TestGateway, Upstream};

/// A gateway at this port of [`HOST`], with one user.
async fn at(port: u16, upstream: &Upstream, email: &str) -> (TestGateway, Browser) {
    let builder = TestGateway::builder().upstream(upstream);
    let (gateway, browser) =
        builder.set("server.public_url", &format!("https://{HOST}:{port}")).start().await;
    gateway.add_user(email).await;
    (gateway, browser.at(&format!("{HOST}:{port}")))
}

/// The same browser at the other gateway.
fn over_to(browser: Browser, gateway: &TestGateway, port: u16) -> Browser {
    browser.moved_to(gateway.surroundings()).at(&format!("{HOST}:{port}"))
}

#[tokio::test]
async fn a_login_or_logout_at_one_leaves_the_session_at_the_other_alone() {
    let portals = [Upstream::start(), Upstream::start()];
    let (one, browser) = at(8443, &portals[0], "ada@example.com").await;
    let (two, _) = at(9443, &portals[1], "bob@example.com").await;
    browser.log_in("ada@example.com").await;

    let browser = over_to(browser, &two, 9443);
    assert_eq!(browser.get("/").await.status, StatusCode::FOUND, "a session of the other is none here");
    browser.log_in("bob@example.com").await;
    let browser = over_to(browser, &one, 8443);
    assert_eq!(browser.get("/").await.status, StatusCode::OK, "still signed in after the login there");
    assert!(browser.get("/.portcullis/account").await.text().contains("ada@example.com"));

    let browser = over_to(browser, &two, 9443);
    let csrf = browser.get("/.portcullis/account").await.field("csrf");
    let out = browser.post_form("/.portcullis/logout", &[("csrf", &csrf)]).await;
    assert_eq!(out.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.get("/").await.status, StatusCode::FOUND);
    let browser = over_to(browser, &one, 8443);
    assert_eq!(browser.get("/").await.status, StatusCode::OK, "still signed in after the logout there");
}

#[tokio::test]
async fn a_login_in_progress_at_one_survives_a_login_at_the_other() {
    let portals = [Upstream::start(), Upstream::start()];
    let (one, browser) = at(8443, &portals[0], "ada@example.com").await;
    let (two, _) = at(9443, &portals[1], "bob@example.com").await;
    let enrolment = browser.submit_password("ada@example.com", crate::support::PASSWORD).await.location();

    let browser = over_to(browser, &two, 9443);
    browser.log_in("bob@example.com").await;
    let browser = over_to(browser, &one, 8443);
    browser.enrol("ada@example.com", &enrolment).await;
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn neither_portal_sees_or_sets_a_cookie_of_either() {
    let meddling = Upstream::scripted(async |mut exchange: Exchange| {
        exchange.read_content().await.ok()?;
        exchange
            .write(
                "HTTP/1.1 200 OK\r\n\
                 Set-Cookie: __Host-portcullis-8443=planted; Path=/; Secure\r\n\
                 Set-Cookie: __Host-portcullis-login-8443=planted; Path=/; Secure\r\n\
                 Set-Cookie: __host-Portcullis-9443=; Max-Age=0; Path=/; Secure\r\n\
                 Set-Cookie: theme=light\r\nContent-Length: 0\r\n\r\n",
            )
            .await?;
        Some(exchange)
    });
    let portals = [Upstream::start(), meddling];
    let (one, browser) = at(8443, &portals[0], "ada@example.com").await;
    let (two, _) = at(9443, &portals[1], "bob@example.com").await;
    browser.log_in("ada@example.com").await;
    let browser = over_to(browser, &two, 9443);
    browser.log_in("bob@example.com").await;
    browser.set_cookie("theme", "dark");

    let answer = browser.get("/").await;
    assert_eq!(answer.set_cookies(), ["theme=light"]);
    let browser = over_to(browser, &one, 8443);
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
    for portal in &portals {
        for request in portal.requests() {
            let seen = request.value("cookie").unwrap_or_default();
            assert!(!seen.to_lowercase().contains("portcullis"), "{seen}");
        }
    }
}
