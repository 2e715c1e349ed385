//! Where the portal logs out: what ends our session with it, and what does not.

use http::{Request, StatusCode};

use crate::support::{
    ADA, Browser, Exchange, PATIENCE, TestGateway, Upstream, body, empty, logged_in, soon,
    test_gateway::Builder,
};

/// Asks "Log out?" on a GET without a token, and logs out otherwise.
fn portal() -> Upstream {
    Upstream::scripted(async |mut exchange: Exchange| {
        exchange.read_content().await.ok()?;
        let asks = exchange.method() == "GET" && !exchange.target().contains("token");
        let answer: &[u8] = match exchange.target().split('?').next()? {
            "/logout" if asks => {
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nSet-Cookie: csrf=new; Path=/\r\nContent-Length: 8\r\n\r\nLog out?"
            }
            "/bye" => {
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nSet-Cookie: sid=; Max-Age=0\r\nContent-Length: 4\r\n\r\nBye."
            }
            "/" => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nHome",
            _ => b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        };
        exchange.write(answer).await?;
        Some(exchange)
    })
}

fn builder(portal: &Upstream) -> Builder {
    let paths = "/logout, /bye, GET /wp-login.php?action=logout, POST /session/end, DELETE /api/session";
    TestGateway::builder().upstream(portal).set("portal.logout_paths", paths)
}

async fn sends(browser: &Browser, method: &str, target: &str, field: Option<(&str, &str)>) {
    let mut request = Request::builder().method(method).uri(target).header("sec-fetch-mode", "navigate");
    if let Some((name, value)) = field {
        request = request.header(name, value);
    }
    let body = if method == "POST" { body("a=b") } else { empty() };
    browser.send(request.body(body).unwrap()).await;
}

async fn is_in(browser: &Browser) -> bool {
    browser.whoami().await.is_some()
}

#[tokio::test]
async fn only_a_person_who_has_logged_out_is_signed_out() {
    let (_gateway, browser) = logged_in(builder(&portal())).await;
    for (method, target, field) in [
        ("HEAD", "/logout?token=x", None),
        ("OPTIONS", "/logout?token=x", None),
        ("GET", "/logout?token=x", Some(("sec-purpose", "prefetch"))),
        ("GET", "/logout?token=x", Some(("sec-purpose", "prefetch;prerender"))),
        ("GET", "/logout?token=x", Some(("purpose", "prefetch"))),
        ("GET", "/logout?token=x", Some(("x-moz", "prefetch"))),
        ("GET", "/logout?token=x", Some(("sec-fetch-dest", "image"))),
        ("GET", "/logout", None),
        ("GET", "/wp-login.php", None),
        ("GET", "/wp-login.php?action=lostpassword", None),
        ("POST", "/wp-login.php?action=logout", None),
        ("GET", "/session/end", None),
        ("GET", "/api/session", None),
        ("GET", "/Logout", None),
    ] {
        sends(&browser, method, target, field).await;
        assert!(is_in(&browser).await, "{method} {target} {field:?}");
    }
}

#[tokio::test]
async fn every_spelling_and_every_way_out_ends_the_session() {
    let (gateway, browser) = logged_in(builder(&portal())).await;
    for (method, target) in [
        ("POST", "/logout"),
        ("GET", "/logout?token=x"),
        ("GET", "/%6cogout?token=x"),
        ("GET", "/log%6Fut?token=x"),
        ("GET", "//logout?token=x"),
        ("GET", "/logout;jsessionid=1?token=x"),
        ("GET", "/bye"),
        ("GET", "/wp-login.php?action=logout&_wpnonce=1"),
        ("GET", "/wp-login.php?x=y&act%69on=log%6fut"),
        ("POST", "/session/end"),
        ("DELETE", "/api/session"),
    ] {
        sends(&browser, method, target, None).await;
        assert!(browser.cookie("__Host-portcullis").is_none(), "{method} {target}");
        soon(PATIENCE, "the session has ended", async || !is_in(&browser).await).await;
        gateway.clock.advance(std::time::Duration::from_secs(30));
        browser.log_in_to("/", ADA).await;
    }
}

#[tokio::test]
async fn a_login_never_leads_to_a_way_out() {
    let (gateway, browser) = logged_in(builder(&portal())).await;
    for target in ["/logout", "/%6cogout", "/wp-login.php?action=logout", "/logout?next=/sims"] {
        let asked = gateway.browser().get(target).await;
        assert_eq!(
            (asked.status, asked.location().as_str()),
            (StatusCode::FOUND, "/.portcullis/login"),
            "{target}"
        );
        let rd: String = url::form_urlencoded::byte_serialize(target.as_bytes()).collect();
        let again = browser.get(&format!("/.portcullis/login?rd={rd}")).await;
        assert_eq!(again.location(), "/", "{target}");
    }
    assert_eq!(
        gateway.browser().get("/wp-login.php").await.location(),
        "/.portcullis/login?rd=/wp-login.php"
    );
    // Nor is a log-out kept that came too late, to be carried out after the login.
    gateway.clock.advance(std::time::Duration::from_hours(1));
    let late = browser.post_form("/logout", &[("csrf", "the portal's")]).await;
    assert_eq!(late.location(), "/.portcullis/login");
}
