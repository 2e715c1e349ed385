//! The same gate for HTTP/2, whose frames can carry what HTTP/1 has no words for: refused with a full answer of ours, or
//! the stream reset, and nothing reaches the portal.

use crate::support::{
    HOST, TestGateway,
    forged::{Forgery, owned},
};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Refused(u16),
    /// Malformed in the sense of RFC 9113 §8.1.1: a stream error.
    Reset,
    /// The HTTP/2 library's own words, which are a status and no more.
    Bare(u16),
}
use Fate::{Bare, Refused, Reset};

/// The fields of an ordinary request, with some of them replaced (`None`: left out) and others behind them.
fn request(changes: &[(&str, Option<&str>)], more: &[(&str, &str)], cookies: &str) -> Forgery {
    let ordinary = [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/")];
    let mut fields = Vec::new();
    for (name, value) in ordinary {
        let change = changes.iter().find(|(changed, _)| *changed == name);
        if let Some(value) = change.map_or(Some(value), |(_, value)| *value) {
            fields.push((name.to_owned(), value.to_owned()));
        }
    }
    fields.push(("cookie".to_owned(), cookies.to_owned()));
    fields.extend(owned(more));
    Forgery { fields, ..Forgery::default() }
}

async fn refuses(cases: impl IntoIterator<Item = (Forgery, Fate)>) {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    gateway.upstream.forget();
    let mut faults = Vec::new();
    for (mut forgery, fate) in cases {
        for (_, value) in &mut forgery.fields {
            *value = value.replace("{cookies}", &browser.cookies());
        }
        let shown: String = format!("{forgery:?}").chars().take(600).collect();
        match browser.forge(&forgery).await {
            Ok(answer) if fate == Bare(answer.status.as_u16()) && answer.headers.is_empty() => {}
            Ok(answer)
                if fate == Refused(answer.status.as_u16())
                    && answer.header("content-type") == "application/problem+json" =>
            {
                answer.assert_secure();
            }
            Ok(answer) => faults.push(format!("{shown}: {answer:?}")),
            Err(_) if fate == Reset => {}
            Err(error) => faults.push(format!("{shown}: {error}")),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(gateway.upstream.bytes(), 0, "{:?}", gateway.upstream.requests());
}

/// Changes to the pseudo-fields, then fields behind them.
type Case = (&'static [(&'static str, Option<&'static str>)], &'static [(&'static str, &'static str)], Fate);

async fn refuses_all(cases: &[Case]) {
    refuses(cases.iter().map(|(changes, more, fate)| (request(changes, more, "{cookies}"), *fate))).await;
}

#[tokio::test]
async fn an_authority_that_is_missing_doubled_or_not_ours_is_refused() {
    refuses_all(&[
        (&[(":authority", None)], &[], Refused(400)),
        (&[(":authority", None)], &[("host", HOST)], Refused(400)),
        (&[(":authority", Some(""))], &[], Reset),
        (&[(":authority", Some("evil.example.com"))], &[], Refused(421)),
        (&[(":authority", Some("iot.example.com:8443"))], &[], Refused(421)),
        (&[(":authority", Some("eve@iot.example.com"))], &[], Refused(400)),
        (&[(":authority", Some("iot.example.com:443x"))], &[], Refused(400)),
        (&[(":authority", Some("a b"))], &[], Reset),
        (&[], &[("host", "evil.example.com")], Refused(400)),
        (&[(":authority", Some("evil.example.com"))], &[("host", HOST)], Refused(400)),
        (&[], &[("host", HOST), ("host", HOST)], Refused(400)),
        (&[], &[(":authority", HOST)], Reset),
    ])
    .await;
}

#[tokio::test]
async fn a_scheme_path_or_method_of_another_form_is_refused() {
    refuses_all(&[
        (&[(":scheme", Some("http"))], &[], Refused(400)),
        (&[(":scheme", Some("ftp"))], &[], Refused(400)),
        (&[(":scheme", None)], &[], Reset),
        (&[(":path", None)], &[], Reset),
        (&[(":path", Some(""))], &[], Reset),
        (&[(":path", Some("*"))], &[], Refused(400)),
        (&[(":path", Some("x"))], &[], Reset),
        (&[(":path", Some("https://evil.example.com/"))], &[], Reset),
        (&[(":path", Some("/a b"))], &[], Reset),
        (&[(":path", Some("/a\r\nX: y"))], &[], Reset),
        (&[(":path", Some("/ HTTP/1.1\r\nHost: evil.example.com\r\n\r\n"))], &[], Reset),
        (&[(":path", Some("/a/../b"))], &[], Refused(400)),
        (&[(":path", Some("/a\\b"))], &[], Refused(400)),
        (&[(":path", Some("/%252e%252e/b"))], &[], Refused(400)),
        (&[(":method", None)], &[], Reset),
        (&[(":method", Some(""))], &[], Reset),
        (&[(":method", Some("GET / HTTP/1.1\r\nX:"))], &[], Reset),
        (&[(":method", Some("TRACE"))], &[], Refused(405)),
        (&[(":method", Some("CONNECT"))], &[], Reset),
        (&[(":method", Some("CONNECT")), (":scheme", None), (":path", None)], &[], Refused(405)),
        (&[(":method", Some("CONNECT"))], &[(":protocol", "websocket")], Reset),
        (&[], &[(":path", "/other")], Reset),
        (&[], &[(":unknown", "x")], Reset),
    ])
    .await;
}

#[tokio::test]
async fn a_field_that_would_be_another_one_on_http_1_is_refused() {
    refuses_all(&[
        (&[], &[("X-Upper", "x")], Reset),
        (&[], &[("x y", "z")], Reset),
        (&[], &[("x:y", "z")], Reset),
        (&[], &[("", "nameless")], Reset),
        (&[], &[("x\r\ny", "z")], Reset),
        (&[], &[("x\0", "z")], Reset),
        (&[], &[("x", "a\r\nremote-user: eve")], Reset),
        (&[], &[("x", "a\nb")], Reset),
        (&[], &[("x", "a\0b")], Reset),
        (&[], &[("x", " a")], Refused(400)),
        (&[], &[("x", "a\t")], Refused(400)),
        (&[], &[("x_y", "z")], Refused(400)),
        (&[], &[("remote_user", "eve")], Refused(400)),
        (&[], &[("connection", "close")], Reset),
        (&[], &[("connection", "x")], Reset),
        (&[], &[("keep-alive", "timeout=5")], Reset),
        (&[], &[("proxy-connection", "close")], Reset),
        (&[], &[("transfer-encoding", "chunked")], Reset),
        (&[], &[("upgrade", "websocket")], Reset),
        (&[], &[("te", "gzip")], Reset),
        (&[], &[("expect", "a-miracle")], Refused(417)),
    ])
    .await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let many: Vec<(String, String)> =
        (0..101).map(|number| (format!("x-{number}"), "y".to_owned())).collect();
    let mut too_many = request(&[], &[], "{cookies}");
    too_many.fields.extend(many);
    let mut crumbs = request(&[], &[], "{cookies}");
    crumbs.fields.extend((0..120).map(|number| ("cookie".to_owned(), format!("c{number}=y"))));
    let mut too_long = request(&[], &[], "{cookies}");
    too_long.fields.push(("x".to_owned(), "y".repeat(17 * 1024)));
    let mut endless = request(&[], &[], "{cookies}");
    endless.fields.push(("x".to_owned(), "y".repeat(33 * 1024)));
    let cases =
        [(too_many, Refused(431)), (crumbs, Refused(431)), (too_long, Refused(431)), (endless, Bare(431))];
    refuses(cases).await;
}

/// As over HTTP/1, where it is refused as well: the parser would drop it before anybody judges the path.
#[tokio::test]
async fn a_fragment_is_malformed() {
    const WEBSOCKET: &[(&str, &str)] = &[(":protocol", "websocket"), ("sec-websocket-version", "13")];
    refuses_all(&[
        (&[(":path", Some("/a#"))], &[], Reset),
        (&[(":path", Some("/a#b"))], &[], Reset),
        (&[(":path", Some("/a#/../b"))], &[], Reset),
        (&[(":path", Some("/a?b#c"))], &[], Reset),
        (&[(":path", Some("/a?#"))], &[], Reset),
        (&[(":path", Some("/#/.portcullis/login"))], &[], Reset),
        (&[(":path", Some("/.portcullis/login#a"))], &[], Reset),
        (&[(":path", Some("/a#b#c"))], &[], Reset),
        (&[(":path", Some("#"))], &[], Reset),
        (&[(":path", Some("#a"))], &[], Reset),
        (&[(":path", Some("*#"))], &[], Reset),
        (&[(":path", Some("?a#b"))], &[], Reset),
        (&[(":path", Some("?a"))], &[], Refused(400)),
        (&[(":method", Some("OPTIONS")), (":path", Some("*#a"))], &[], Reset),
        (&[(":method", Some("CONNECT")), (":path", Some("/a#b"))], WEBSOCKET, Reset),
        (&[(":authority", Some("iot.example.com#a"))], &[], Reset),
        (&[(":authority", Some("iot.example.com?a"))], &[], Reset),
        (&[(":authority", Some("iot.example.com/a"))], &[], Reset),
        (&[(":authority", Some("#iot.example.com"))], &[], Reset),
        (&[(":authority", Some("ada:secret@iot.example.com"))], &[], Refused(400)),
        (&[(":authority", Some("@iot.example.com"))], &[], Refused(400)),
        (&[(":scheme", Some("https#a"))], &[], Reset),
    ])
    .await;
}

#[tokio::test]
async fn a_hash_that_is_no_fragment_reaches_the_portal_as_it_was_sent() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    gateway.upstream.forget();
    let path = [(":path", Some("/a%23b?c=%23d"))];
    let forgery = request(&path, &[("x-colour", "#ff0000"), ("referer", "/a#b")], &browser.cookies());
    assert_eq!(browser.forge(&forgery).await.unwrap().status, 200);
    let request = gateway.upstream.only_request();
    assert_eq!(request.first_line(), "GET /a%23b?c=%23d HTTP/1.1");
    assert_eq!(request.value("x-colour").as_deref(), Some("#ff0000"));
    assert_eq!(request.value("referer").as_deref(), Some("/a#b"));
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_is_cut() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    for (lengths, body) in
        [(vec!["4"], "hello"), (vec!["6"], "hello"), (vec!["5"], ""), (vec!["5", "5"], "hello")]
    {
        gateway.upstream.forget();
        let lengths: Vec<(&str, &str)> =
            lengths.into_iter().map(|length| ("content-length", length)).collect();
        let mut forgery = request(&[(":method", Some("POST"))], &lengths, &browser.cookies());
        forgery.body = Some(body.to_owned());
        let answer = browser.forge(&forgery).await;
        assert!(answer.as_ref().map_or(true, |answer| answer.status == 400), "{lengths:?}: {answer:?}");
        // Whatever the portal saw, it never saw a whole request.
        let whole = gateway.upstream.requests().iter().any(|request| request.content.body == body.as_bytes());
        assert!(!whole || body.is_empty(), "{lengths:?}: {:?}", gateway.upstream.requests());
    }
}
