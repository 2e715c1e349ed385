//! The notice in a page that is open when its session ends: which pages get the script, what else becomes of them, and what the
//! script asks.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;

use crate::support::{
    Answer, Body, Browser, Exchange, HOST, PATIENCE, TestGateway, Upstream,
    alone::{resident, run_alone},
    empty, logged_in, logged_in_over_both, soon,
    test_gateway::Builder,
    upstream::ordinary,
    within,
};

const PAGE: &str = "<!doctype html><html lang=en><head><title>SIMs</title></head><body>SIMs</body></html>";
const START: &str = "<script async src=\"/.portcullis/assets/";
const LOOK: &str = "/.portcullis/session";
const STAY: &str = "/.portcullis/stay";

/// A portal that answers with the page that the test asks for by `X-Page`, with the fields in `X-Say`, between bars, and framed
/// as `X-How` says.
fn portal() -> Upstream {
    Upstream::scripted(async |mut exchange: Exchange| {
        let said = |name: &str| exchange.head.values(name).pop();
        let Some(page) = said("x-page") else { return ordinary(exchange).await };
        let fields =
            said("x-say").unwrap_or_else(|| "Content-Type: text/html".to_owned()).replace('|', "\r\n");
        let how = said("x-how").unwrap_or_default();
        exchange.read_content().await.ok()?;
        let page = if exchange.method() == "HEAD" { String::new() } else { page };
        let answer = match &*how {
            "chunked" => {
                let chunks = page
                    .as_bytes()
                    .chunks(3)
                    .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)));
                format!("Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunks.collect::<String>())
            }
            "close" => format!("Connection: close\r\n\r\n{page}"),
            "old" => format!("\r\n{page}"),
            _ => format!("Content-Length: {}\r\n\r\n{page}", page.len()),
        };
        let version = if how == "old" { "1.0" } else { "1.1" };
        exchange.write(format!("HTTP/{version} 200 OK\r\n{fields}\r\n{answer}")).await?;
        if matches!(&*how, "close" | "old") { None } else { Some(exchange) }
    })
}

fn builder() -> Builder {
    before(&portal())
}

fn before(portal: &Upstream) -> Builder {
    TestGateway::builder().upstream(portal).set("portal.session_notice", "true")
}

/// A request for a page as a browser makes it that opens it in a window.
fn opening(path: &str, fields: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::get(path)
        .header("sec-fetch-dest", "document")
        .header("sec-fetch-mode", "navigate")
        .header("accept", "text/html,*/*;q=0.8")
        .header("accept-encoding", "gzip, br, zstd, deflate");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(empty()).unwrap()
}

async fn opened(browser: &Browser, fields: &[(&str, &str)]) -> Answer {
    browser.send(opening("/sims", &[&[("x-page", PAGE)], fields].concat())).await
}

/// A page with one tag of ours in it, and the tag.
fn untagged(page: &str) -> (String, String) {
    let (before, rest) = page.split_once(START).unwrap_or_else(|| panic!("no tag in {page}"));
    let (tag, after) = rest.split_once("</script>").unwrap();
    assert!(!after.contains(START), "{page}");
    (format!("{before}{after}"), format!("{START}{tag}</script>"))
}

#[tokio::test]
async fn a_page_that_is_opened_gets_one_tag_of_ours_however_it_comes() {
    let (gateway, browsers) = logged_in_over_both(builder()).await;
    for browser in browsers {
        for how in ["length", "chunked", "close", "old"] {
            gateway.upstream.forget();
            let fields = [
                ("x-how", how),
                ("x-say", "Content-Type: text/html; charset=utf-8|ETag: \"1\"|Accept-Ranges: bytes|X-A: b"),
                ("if-none-match", "\"1\""),
                ("if-modified-since", "Mon, 01 Jan 2024 00:00:00 GMT"),
            ];
            let answer = opened(&browser, &fields).await;
            assert_eq!(answer.status, StatusCode::OK);
            let (page, tag) = untagged(&answer.text());
            assert_eq!(page, PAGE);
            assert!(answer.text().contains(&format!("<head>{tag}<title>")), "{}", answer.text());
            assert_eq!((answer.header("etag"), answer.header("x-a")), ("W/\"1\"".into(), "b".into()));
            assert!(!answer.headers.contains_key("accept-ranges"));
            let length =
                answer.headers.get("content-length").map(|length| length.to_str().unwrap().to_owned());
            assert!(length.is_none_or(|length| length == answer.body.len().to_string()));
            // Whole, and in a form that we can read.
            let request = gateway.upstream.only_request();
            for name in ["accept-encoding", "if-none-match", "if-modified-since"] {
                assert_eq!(request.value(name), None, "{name}");
            }
        }
        // A form that is shown once more.
        let mut form = browser.form_request("/sims/new", &[("label", "")]);
        form.headers_mut().insert("sec-fetch-dest", "document".parse().unwrap());
        form.headers_mut().insert("x-page", PAGE.parse().unwrap());
        form.headers_mut().insert("if-match", "\"1\"".parse().unwrap());
        gateway.upstream.forget();
        assert_eq!(untagged(&browser.send(form).await.text()).0, PAGE);
        assert_eq!(gateway.upstream.only_request().value("if-match"), Some("\"1\"".into()));
    }
}

#[tokio::test]
async fn the_script_is_where_the_tag_says() {
    let (_gateway, browser) = logged_in(builder()).await;
    let (_, tag) = untagged(&opened(&browser, &[]).await.text());
    let path = tag.split('"').nth(1).unwrap();
    let script = browser.fetch(path).await;
    script.assert_secure_and_kept("public, max-age=31536000, immutable");
    assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
    assert!(script.text().contains(LOOK) && script.text().contains(STAY));
}

#[tokio::test]
async fn whatever_is_no_page_in_a_window_is_as_it_was() {
    let (gateway, browsers) = logged_in_over_both(builder()).await;
    for browser in browsers {
        for say in [
            "Content-Type: application/xhtml+xml",
            "Content-Type: text/html; charset=utf-16",
            "Content-Type: text/css",
            "Content-Type: text/html|Content-Disposition: attachment",
            "Content-Type: text/html|Cache-Control: no-transform",
            "Content-Type: text/html|Content-Security-Policy: sandbox allow-scripts",
            "Content-Type: text/html|Content-Security-Policy: script-src 'strict-dynamic'",
        ] {
            let say = format!("{say}|ETag: \"1\"");
            let answer = opened(&browser, &[("x-say", &say)]).await;
            assert_eq!((answer.text().as_str(), answer.header("etag").as_str()), (PAGE, "\"1\""), "{say}");
            assert_eq!(answer.header("content-length"), PAGE.len().to_string(), "{say}");
        }
        // Compressed although nobody asked for that: the bytes are the portal's.
        for coding in
            ["gzip", "br", "zstd", "deflate", "gzip, br", "identity, gzip", "x", "gzip|Content-Encoding: br"]
        {
            let say = format!("Content-Type: text/html|Content-Encoding: {coding}");
            assert_eq!(opened(&browser, &[("x-say", &say)]).await.text(), PAGE, "{coding}");
        }
        gateway.upstream.forget();
        for fields in [
            &[("sec-fetch-dest", "iframe"), ("sec-fetch-mode", "navigate")][..],
            &[("sec-fetch-dest", "empty"), ("sec-fetch-mode", "cors")],
            &[("sec-fetch-mode", "navigate")],
            &[("sec-fetch-dest", "document"), ("sec-fetch-mode", "navigate"), ("range", "bytes=0-9")],
        ] {
            let mut request = Request::get("/sims").header("x-page", PAGE).header("accept-encoding", "gzip");
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            assert_eq!(browser.send(request.body(empty()).unwrap()).await.text(), PAGE, "{fields:?}");
            assert_eq!(gateway.upstream.only_request().value("accept-encoding"), Some("gzip".into()));
            gateway.upstream.forget();
        }
        let mut head = opening("/sims", &[("x-page", PAGE)]);
        *head.method_mut() = http::Method::HEAD;
        assert_eq!(browser.send(head).await.status, StatusCode::OK);
        assert_eq!(
            gateway.upstream.only_request().value("accept-encoding"),
            Some("gzip, br, zstd, deflate".into())
        );
    }
}

#[tokio::test]
async fn without_a_session_or_the_setting_there_is_no_notice() {
    let open = builder().set("access.rules", "[{path=\"/sims\",level=\"bypass\"}]");
    let (_gateway, browser) = open.start().await;
    assert_eq!(opened(&browser, &[]).await.text(), PAGE);
    let (gateway, browser) = logged_in(builder().set("portal.session_notice", "false")).await;
    assert_eq!(opened(&browser, &[]).await.text(), PAGE);
    assert_eq!(
        gateway.upstream.only_request().value("accept-encoding"),
        Some("gzip, br, zstd, deflate".into())
    );
    for path in [LOOK, "/.portcullis/signed-in"] {
        assert_eq!(browser.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(browser.post_form(STAY, &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_policy_of_the_page_lets_our_script_in_and_nothing_else() {
    let (_gateway, browsers) = logged_in_over_both(builder()).await;
    for browser in browsers {
        let say = "Content-Type: text/html|Content-Security-Policy: default-src 'none'; script-src 'nonce-Zm9v' 'strict-dynamic'";
        let answer = opened(&browser, &[("x-say", say)]).await;
        let (page, tag) = untagged(&answer.text());
        assert_eq!(page, PAGE);
        assert!(tag.contains(" nonce=\"Zm9v\">"), "{tag}");
        assert_eq!(
            answer.header("content-security-policy"),
            format!(
                "default-src 'none'; script-src 'nonce-Zm9v' 'strict-dynamic'; \
                 connect-src https://{HOST}{LOOK} https://{HOST}{STAY}"
            )
        );
        let say = "Content-Type: text/html|Content-Security-Policy: default-src 'self'";
        assert_eq!(
            opened(&browser, &[("x-say", say)]).await.header("content-security-policy"),
            "default-src 'self'"
        );
    }
}

#[tokio::test]
async fn a_page_goes_on_while_the_portal_is_still_at_it() {
    let portal = Upstream::scripted(async |mut exchange: Exchange| {
        if exchange.target() != "/slow" {
            return ordinary(exchange).await;
        }
        exchange
            .write("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await?;
        exchange.write("8\r\n<!-- a -\r\n").await?;
        let _ = exchange.wire.fill().await;
        None
    });
    let (_gateway, browsers) = logged_in_over_both(before(&portal)).await;
    for browser in browsers {
        let mut answer = browser.open(opening("/slow", &[])).await;
        let first = within(PATIENCE, answer.body_mut().frame()).await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "<!-- a -");
    }
}

/// A page of this size, of which nothing may be kept.
const LARGE: usize = 100 << 20;

#[tokio::test]
#[ignore = "measures the memory of a whole process; the test below runs it in one of its own"]
async fn a_large_page_alone_in_its_process() {
    let portal = Upstream::scripted(async |mut exchange: Exchange| {
        let target = exchange.target();
        let Some(size) = target.strip_prefix("/large/") else { return ordinary(exchange).await };
        let size = size.parse::<usize>().unwrap();
        let start = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n";
        exchange.write(format!("{start}Content-Length: {}\r\n\r\n<head>", size + "<head>".len())).await?;
        let piece = vec![b'x'; 1 << 16];
        for _ in 0..size / piece.len() {
            exchange.write(&piece).await?;
        }
        Some(exchange)
    });
    let (_gateway, browsers) = logged_in_over_both(before(&portal)).await;
    let mut before = usize::MAX;
    for size in [8 << 20, LARGE] {
        for browser in &browsers {
            let mut page = browser.open(opening(&format!("/large/{size}"), &[])).await.into_body();
            let (mut received, mut most, mut next) = (0, resident(), 0);
            while let Some(frame) = within(PATIENCE, page.frame()).await {
                received += frame.unwrap().into_data().map_or(0, |data| data.len());
                if received >= next {
                    most = most.max(resident());
                    next += LARGE / 20;
                }
            }
            assert!((1..500).contains(&(received - size)), "{received} of {size}");
            before = if size == LARGE { before } else { most.min(before) };
            assert!(most < before + (30 << 20), "grew from {before} to {most} bytes");
        }
    }
}

#[tokio::test]
async fn a_page_of_a_hundred_megabytes_passes_without_being_held() {
    run_alone("session_notice::a_large_page_alone_in_its_process").await;
}

#[tokio::test]
async fn a_page_that_breaks_off_is_cut_and_not_ended() {
    let portal = Upstream::scripted(async |mut exchange: Exchange| {
        if exchange.target() != "/cut" {
            return ordinary(exchange).await;
        }
        exchange
            .write("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 100\r\n\r\n<html><head><p>")
            .await?;
        None
    });
    let (_gateway, browsers) = logged_in_over_both(before(&portal)).await;
    for browser in browsers {
        let answer = browser.open(opening("/cut", &[])).await;
        assert!(within(PATIENCE, answer.into_body().collect()).await.is_err());
    }
}

/// What the script is told.
async fn told(browser: &Browser) -> (u64, u64) {
    let answer = browser.fetch(LOOK).await;
    answer.assert_secure();
    let told = answer.json();
    assert_eq!(
        (told["signed_in"].as_bool(), told["user"].as_str()),
        (Some(true), Some("ada@example.com")),
        "{told}"
    );
    (told["idle_in"].as_u64().unwrap(), told["ends_in"].as_u64().unwrap())
}

/// A press on the button: a script asks.
async fn press(browser: &Browser) -> Answer {
    let mut pressed = browser.form_request(STAY, &[]);
    for (name, value) in
        [("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"), ("accept", "application/json")]
    {
        pressed.headers_mut().insert(name, value.parse().unwrap());
    }
    browser.send(pressed).await
}

#[tokio::test]
async fn looking_keeps_no_session_and_a_press_on_the_button_does() {
    for builder in [builder(), builder().redis(), builder().set("sessions.activity", "people")] {
        let (gateway, browser) = logged_in(builder).await;
        let (idle, end) = told(&browser).await;
        assert!((3590..=3600).contains(&idle) && end > 11 * 3600, "{idle} {end}");
        gateway.clock.advance(Duration::from_mins(58));
        for browser in [&browser, &browser.copy().http2()] {
            let (later, _) = told(browser).await;
            assert!(later <= 120 && later >= idle - 58 * 60 - 1, "{later}");
        }
        let stays = press(&browser).await;
        assert_eq!(stays.status, StatusCode::OK);
        assert!(stays.json()["idle_in"].as_u64().is_some_and(|idle| idle >= 3590), "{}", stays.text());
        gateway.clock.advance(Duration::from_mins(58));
        let (later, still) = told(&browser).await;
        assert!((110..=120).contains(&later) && still < end - 115 * 60, "{later} {still}");
        gateway.clock.advance(Duration::from_mins(2));
        let over = browser.fetch(LOOK).await;
        assert_eq!((over.status, over.text().as_str()), (StatusCode::OK, "{\"signed_in\":false}"));
        let late = press(&browser).await;
        assert_eq!(late.text(), "{\"signed_in\":false}");
        assert_eq!(browser.fetch("/sims").await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_session_that_is_in_use_at_another_gateway_is_not_about_to_end() {
    // Uses are written down within a tenth of this.
    let (gateway, browser) = logged_in(builder().set("sessions.inactivity", "20s")).await;
    let (_twin, elsewhere) = gateway.twin().await;
    elsewhere.set_cookie("__Host-portcullis", &browser.session());
    told(&browser).await;
    // The clock of both.
    gateway.clock.advance(Duration::from_secs(15));
    assert_eq!(elsewhere.get("/sims").await.status, StatusCode::OK);
    soon(PATIENCE, "this gateway knows of it", async || told(&browser).await.0 > 15).await;
}

#[tokio::test]
async fn nobody_else_presses_the_button() {
    let (_gateway, browser) = logged_in(builder()).await;
    let mut forged = browser.form_request(STAY, &[]);
    forged.headers_mut().insert("origin", "https://x.example".parse().unwrap());
    forged.headers_mut().insert("sec-fetch-site", "cross-site".parse().unwrap());
    assert_eq!(browser.send(forged).await.status, StatusCode::FORBIDDEN);
    assert_eq!(browser.get(STAY).await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(browser.post_form(LOOK, &[]).await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_login_beside_the_page_ends_at_a_page_of_ours() {
    let (gateway, browser) = logged_in(builder()).await;
    let page = browser.get("/.portcullis/signed-in").await;
    assert_eq!(page.status, StatusCode::OK);
    page.assert_secure();
    assert!(page.text().contains("data-beside"), "{}", page.text());
    let stranger = gateway.browser();
    let answer = stranger.get("/.portcullis/signed-in").await;
    assert_eq!(
        (answer.status, answer.location().as_str()),
        (StatusCode::FOUND, "/.portcullis/login?rd=/.portcullis/signed-in")
    );
}
