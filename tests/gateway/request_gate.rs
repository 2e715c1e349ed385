//! What can be read in two ways is refused at the door, by a full answer of ours, and not one byte of it reaches the portal.
//!
//! Every request here carries the cookie of a good session: what keeps it from the portal is the gate alone.

use http::Method;

use crate::support::{Answer, TestGateway};

/// A valid nonce (RFC 6455 §1.3).
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Sends each request on a connection of its own. `{H}` stands for `Host` and the cookie, `{C}` for the cookie alone.
async fn refuses(cases: &[(&str, u16)]) {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    gateway.upstream.forget();
    let mut faults = Vec::new();
    for (request, status) in cases {
        let shown: String = request.chars().take(160).collect();
        let mut connection = browser.raw(fill(request, &browser.cookies())).await;
        let fault = match connection.answer_to(&Method::GET).await {
            None => Some("closed without an answer".to_owned()),
            Some(answer) if !is_refusal(&answer, *status) => Some(format!("{answer:?}")),
            Some(answer) if answer.header("connection") != "close" => {
                Some("does not say that it closes".to_owned())
            }
            Some(_) if connection.rest().await.is_empty() => None,
            Some(_) => Some("more than one answer".to_owned()),
        };
        faults.extend(fault.map(|fault| format!("{shown:?}: {fault}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(gateway.upstream.bytes(), 0, "{:?}", gateway.upstream.requests());
}

fn fill(request: &str, cookies: &str) -> Vec<u8> {
    // Bytes beyond ASCII are written as characters of Latin-1.
    let text = request
        .replace("{H}", "Host: iot.example.com\r\n{C}")
        .replace("{C}", &format!("Cookie: {cookies}\r\n"));
    text.chars().map(|character| u8::try_from(u32::from(character)).unwrap()).collect()
}

fn is_refusal(answer: &Answer, status: u16) -> bool {
    answer.assert_secure();
    answer.status.as_u16() == status
        && answer.header("content-type") == "application/problem+json"
        && answer.json()["status"] == status
        && (status != 405 || answer.header("allow").contains("GET"))
}

#[tokio::test]
async fn a_host_that_is_missing_doubled_or_not_ours_is_refused() {
    refuses(&[
        ("GET / HTTP/1.1\r\n{C}\r\n", 400),
        ("GET / HTTP/1.0\r\n{C}\r\n", 400),
        ("GET / HTTP/1.1\r\n{H}Host: iot.example.com\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n{H}Host: evil.example.com\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n{C}\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n{C}\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: iot.example.com,evil.example.com\r\n{C}\r\n", 421),
        ("GET / HTTP/1.1\r\nHost: iot.example.com:\r\n{C}\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: iot.example.com:443x\r\n{C}\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x@iot.example.com\r\n{C}\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: iot.example.com/x\r\n{C}\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: evil.example.com\r\n{C}\r\n", 421),
        ("GET / HTTP/1.1\r\nHost: iot.example.com:8443\r\n{C}\r\n", 421),
        ("GET / HTTP/1.1\r\nHost: iot.example.com.\r\n{C}\r\n", 421),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n{C}\r\n", 421),
    ])
    .await;
}

#[tokio::test]
async fn a_target_of_another_form_host_or_scheme_is_refused() {
    refuses(&[
        ("GET https://evil.example.com/ HTTP/1.1\r\n{H}\r\n", 400),
        ("GET https://iot.example.com/ HTTP/1.1\r\nHost: evil.example.com\r\n{C}\r\n", 400),
        ("GET https://evil.example.com/ HTTP/1.1\r\nHost: evil.example.com\r\n{C}\r\n", 421),
        ("GET http://iot.example.com/ HTTP/1.1\r\n{H}\r\n", 400),
        ("GET ftp://iot.example.com/ HTTP/1.1\r\n{H}\r\n", 400),
        ("GET https://x@iot.example.com/ HTTP/1.1\r\n{H}\r\n", 400),
        ("GET iot.example.com/ HTTP/1.1\r\n{H}\r\n", 400),
        ("GET iot.example.com:443 HTTP/1.1\r\n{H}\r\n", 400),
        ("GET * HTTP/1.1\r\n{H}\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\n{H}\r\n", 400),
        ("GET /a#b HTTP/1.1\r\n{H}\r\n", 400),
        ("GET /a?b#c HTTP/1.1\r\n{H}\r\n", 400),
        ("GET /a b HTTP/1.1\r\n{H}\r\n", 400),
        ("GET  / HTTP/1.1\r\n{H}\r\n", 400),
        ("GET /\tHTTP/1.1\r\n{H}\r\n", 400),
        ("GET /a?b=\u{e9} HTTP/1.1\r\n{H}\r\n", 400),
        ("GET /a?b=\x7f HTTP/1.1\r\n{H}\r\n", 400),
    ])
    .await;
}

#[tokio::test]
async fn a_path_with_two_meanings_is_refused() {
    let paths = [
        "/..",
        "/a/../b",
        "/a/./b",
        "/a/%2e%2e/b",
        "/a/%2E./b",
        "/a/.%2e;x/b",
        "/a/..;/b",
        "/%252e%252e/b",
        "/a%2f..%2fb",
        "/a\\b",
        "/a%5cb",
        "/a%00b",
        "/a%0d%0ab",
        "/a%7fb",
        "/%",
        "/%4",
        "/%zz",
        "/a%c0%ae%c0%ae/..",
        "/\u{e9}/..",
    ];
    let requests: Vec<String> =
        paths.iter().map(|path| format!("GET {path} HTTP/1.1\r\n{{H}}\r\n")).collect();
    let cases: Vec<(&str, u16)> = requests.iter().map(|request| (request.as_str(), 400)).collect();
    refuses(&cases).await;
}

#[tokio::test]
async fn methods_that_address_the_gateway_itself_are_refused() {
    refuses(&[
        ("CONNECT iot.example.com:443 HTTP/1.1\r\n{H}\r\n", 405),
        ("CONNECT / HTTP/1.1\r\n{H}\r\n", 405),
        ("TRACE / HTTP/1.1\r\n{H}\r\n", 405),
        ("G@T / HTTP/1.1\r\n{H}\r\n", 400),
        ("(GET) / HTTP/1.1\r\n{H}\r\n", 400),
    ])
    .await;
}

#[tokio::test]
async fn other_versions_are_refused() {
    refuses(&[
        ("GET / HTTP/1.2\r\n{H}\r\n", 400),
        ("GET / HTTP/2.0\r\n{H}\r\n", 400),
        ("GET / http/1.1\r\n{H}\r\n", 400),
        ("GET / HTTP/1.1 \r\n{H}\r\n", 400),
        ("GET / HTTP/11\r\n{H}\r\n", 400),
        ("GET /\r\n\r\n", 400),
    ])
    .await;
}

#[tokio::test]
async fn a_length_that_is_no_plain_number_is_refused() {
    let values = ["+5", "-5", "5, 5", "0x5", "5 5", "", "5;", "\u{b2}", "18446744073709551616", "5\x0b"];
    let requests: Vec<String> = values
        .iter()
        .map(|value| format!("POST / HTTP/1.1\r\n{{H}}Content-Length: {value}\r\n\r\nhello"))
        .collect();
    let mut cases: Vec<(&str, u16)> = requests.iter().map(|request| (request.as_str(), 400)).collect();
    cases.extend([
        ("POST / HTTP/1.1\r\n{H}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
        ("POST / HTTP/1.1\r\n{H}Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello", 400),
        ("GET / HTTP/1.1\r\n{H}Content-Length: 0\r\ncontent-length: 5\r\n\r\nhello", 400),
    ]);
    refuses(&cases).await;
}

#[tokio::test]
async fn a_transfer_coding_other_than_chunked_alone_is_refused() {
    let values = [
        "chunked, chunked",
        "gzip, chunked",
        "chunked, gzip",
        "identity",
        "xchunked",
        "chunkedx",
        "\"chunked\"",
        "chunked;q=1",
        "chun\\ked",
        "\x0bchunked",
        "chunked,",
        ",chunked",
        "",
        "\u{a0}chunked",
    ];
    let requests: Vec<String> = values
        .iter()
        .map(|value| format!("POST / HTTP/1.1\r\n{{H}}Transfer-Encoding: {value}\r\n\r\n0\r\n\r\n"))
        .collect();
    let mut cases: Vec<(&str, u16)> = requests.iter().map(|request| (request.as_str(), 400)).collect();
    cases.extend([
        ("POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\n{H}Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\n{H}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\n{H}Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\n{H}Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nhello", 400),
        ("POST / HTTP/1.0\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\n{H}Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\n{H}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\n{H}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    ])
    ;
    refuses(&cases).await;
}

#[tokio::test]
async fn a_head_whose_lines_are_not_plain_is_refused() {
    refuses(&[
        ("GET / HTTP/1.1\n{H}\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: iot.example.com\n{C}\r\n", 400),
        ("GET / HTTP/1.1\r\n{H}\n", 400),
        ("GET / HTTP/1.1\r\n{H}X: a\rY: b\r\n\r\n", 400),
        ("GET /\r HTTP/1.1\r\n{H}\r\n", 400),
        ("GET / HTTP/1.1\r\n{H}X: a\r\n b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n{H}X: a\r\n\tb\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n {H}\r\n", 400),
        ("GET / HTTP/1.1\r\n{H}X : a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n{H}X\t: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n{H}no colon\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n{H}: nameless\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n{H}X\x00: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n{H}X: a\x00b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n{H}X: a\x01b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n{H}X\u{e9}: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n{H}X(y): a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n{H}X_Y: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n{H}Remote_User: eve\r\n\r\n", 400),
        ("\r\n\r\nGET / HTTP/1.1\r\n{H}\r\n", 400),
        ("\nGET / HTTP/1.1\r\n{H}\r\n", 400),
        (" GET / HTTP/1.1\r\n{H}\r\n", 400),
        (&format!("{}GET / HTTP/1.1\r\n{{H}}\r\n", "\r\n".repeat(50_000)), 400),
    ])
    .await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let many = "X: y\r\n".repeat(100);
    let long = "y".repeat(17 * 1024);
    let endless = "y".repeat(200 * 1024);
    refuses(&[
        (&format!("GET / HTTP/1.1\r\n{{H}}{many}\r\n"), 431),
        (&format!("GET / HTTP/1.1\r\n{{H}}X: {long}\r\n\r\n"), 431),
        (&format!("GET / HTTP/1.1\r\n{{H}}X: {endless}\r\n\r\n"), 431),
        (&format!("GET / HTTP/1.1\r\n{{H}}{long}: x\r\n\r\n"), 431),
        (&format!("GET /{long} HTTP/1.1\r\n{{H}}\r\n"), 431),
    ])
    .await;
}

#[tokio::test]
async fn an_upgrade_that_is_not_a_plain_handshake_is_refused() {
    const UPGRADE: &str = "Connection: Upgrade\r\nOrigin: https://iot.example.com\r\n";
    let with = |start: &str, fields: &str| format!("{start} HTTP/1.1\r\n{{H}}{UPGRADE}{fields}\r\n");
    let version = "Sec-WebSocket-Version: 13\r\n";
    let get = "GET /";
    let requests = [
        with(get, "Upgrade: h2c\r\n"),
        with(get, "Upgrade: HTTP/2.0\r\n"),
        with(get, "Upgrade: TLS/1.2\r\n"),
        with(get, "Upgrade: websocket, h2c\r\n"),
        with(get, "Upgrade:\r\n"),
        with(get, &format!("Upgrade: websocket\r\nUpgrade: websocket\r\n{KEY}{version}")),
        with(get, &format!("Upgrade: websocket\r\n{version}")),
        with(get, &format!("Upgrade: websocket\r\n{KEY}")),
        with(get, &format!("Upgrade: websocket\r\n{KEY}{KEY}{version}")),
        with(get, &format!("Upgrade: websocket\r\n{KEY}Sec-WebSocket-Version: 12\r\n")),
        with(get, &format!("Upgrade: websocket\r\nSec-WebSocket-Key: short\r\n{version}")),
        with("POST /", &format!("Upgrade: websocket\r\n{KEY}{version}")),
        with(get, &format!("Upgrade: websocket\r\n{KEY}{version}Content-Length: 5\r\n")) + "hello",
        with(get, &format!("Upgrade: websocket\r\n{KEY}{version}Transfer-Encoding: chunked\r\n"))
            + "0\r\n\r\n",
        format!("GET / HTTP/1.1\r\n{{H}}Upgrade: websocket\r\n{KEY}{version}\r\n"),
    ];
    let cases: Vec<(&str, u16)> = requests.iter().map(|request| (request.as_str(), 400)).collect();
    refuses(&cases).await;
}

#[tokio::test]
async fn an_unknown_expectation_is_refused() {
    refuses(&[
        ("POST / HTTP/1.1\r\n{H}Expect: a-miracle\r\nContent-Length: 5\r\n\r\n", 417),
        ("POST / HTTP/1.1\r\n{H}Expect: 100-continue, more\r\nContent-Length: 5\r\n\r\n", 417),
        (
            "POST / HTTP/1.1\r\n{H}Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
            417,
        ),
        ("POST / HTTP/1.1\r\n{H}Expect:\r\nContent-Length: 5\r\n\r\n", 417),
    ])
    .await;
}

#[tokio::test]
async fn a_person_gets_a_refusal_as_a_page() {
    let (gateway, browser) = TestGateway::start().await;
    let request = "GET /a/../b HTTP/1.1\r\nHost: iot.example.com\r\nSec-Fetch-Mode: navigate\r\n\r\n";
    let answer = browser.raw(request).await.answer().await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-type")),
        (400, "text/html; charset=utf-8".into())
    );
    answer.assert_secure();
    assert_eq!(gateway.upstream.bytes(), 0);
}

#[tokio::test]
async fn requests_with_one_meaning_pass_byte_for_byte() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;
    for target in
        ["/a//b", "/a;v=1/b?x=%2e%2e/..", "/%41%2Fb", "/100%25", "/?", "/.well-known/acme/x", "/%E9"]
    {
        gateway.upstream.forget();
        let request = fill(&format!("\r\nGET {target} HTTP/1.1\r\n{{H}}\r\n"), &browser.cookies());
        let answer = browser.raw(request).await.answer().await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        assert_eq!(gateway.upstream.only_request().first_line(), format!("GET {target} HTTP/1.1"));
    }
    let absolute = fill(
        "GET https://IOT.example.com:443/x HTTP/1.1\r\nHost: IOT.example.com:443\r\n{C}\r\n",
        &browser.cookies(),
    );
    gateway.upstream.forget();
    assert_eq!(browser.raw(absolute).await.answer().await.status, 200);
    let request = gateway.upstream.only_request();
    assert_eq!(
        (request.first_line(), request.value("host").unwrap()),
        ("GET /x HTTP/1.1".into(), "iot.example.com".into())
    );
}
