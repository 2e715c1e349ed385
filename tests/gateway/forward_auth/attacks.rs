//! Questions that somebody has tampered with, and answers that a proxy would misunderstand. The site is public throughout: whatever
//! is judged at all passes.

use http::StatusCode;

use super::{CLIENT, DIALECTS, about, builder, connect, cookies, question, send};
use crate::support::{HOST, TestGateway, logged_in, websocket::KEY};

/// What portals believe of a client, or let it choose.
const NAMES: [&str; 26] = [
    "Remote-User",
    "remote-user",
    "REMOTE-GROUPS",
    "Remote_User",
    "Remote.User",
    "Remote~Email",
    "Remote-Anything",
    "X-Portcullis-Jwt-Assertion",
    "X_Portcullis_Jwt_Assertion",
    "X-Forwarded-User",
    "X-Forwarded-Groups",
    "X-Auth-Request-User",
    "X-Authentik-Username",
    "X-WEBAUTH-USER",
    "X-Forwarded-Client-Cert",
    "X-HTTP-Method-Override",
    "X-Rewrite-URL",
    "X-Original-URL",
    "X-Forwarded-Prefix",
    "X.Forwarded.For",
    "X-Original-URI",
    "Client-IP",
    "Proxy",
    "Forwarded",
    "X-Envoy-Original-Path",
    "X-Real-IP",
];

async fn public() -> TestGateway {
    builder().set("access.default", "bypass").set("server.health_path", "/healthz").start().await.0
}

async fn refused(gateway: &TestGateway, request: &str) {
    let answer = send(gateway, request).await;
    assert!(
        matches!(answer.status.as_u16(), 400..=404 | 405 | 421 | 431 | 501 | 508),
        "{request}\n{answer:?}"
    );
    assert!(!answer.headers.contains_key("remote-user"), "{request}\n{answer:?}");
}

#[tokio::test]
async fn a_report_that_is_missing_doubled_or_ambiguous_is_refused() {
    let gateway = public().await;
    for dialect in ["nginx", "traefik", "envoy"] {
        let whole = question(dialect, "GET /sims", "");
        assert_eq!(send(&gateway, &whole).await.status, StatusCode::OK, "{whole}");
        let lines: Vec<&str> = whole.trim_end().split("\r\n").collect();
        let reports: Vec<&&str> = lines
            .iter()
            .filter(|line| line.starts_with("X-") || (dialect == "envoy" && line.starts_with("Host:")))
            .collect();
        assert!(reports.len() >= 3, "{whole}");
        for report in reports {
            let (name, value) = report.split_once(": ").unwrap();
            let without = whole.replace(&format!("{report}\r\n"), "");
            refused(&gateway, &without).await;
            refused(&gateway, &whole.replace(*report, &format!("{name}:"))).await;
            if name == "X-Forwarded-For" {
                for malformed in ["unknown", "1.2.3.4, x", "1.2.3.4 198.51.100.7"] {
                    refused(&gateway, &whole.replace(*report, &format!("{name}: {malformed}"))).await;
                }
                continue;
            }
            refused(&gateway, &whole.replace(*report, &format!("{report}\r\n{report}"))).await;
            refused(
                &gateway,
                &whole.replace(*report, &format!("{report}\r\n{}: {value}", name.to_lowercase())),
            )
            .await;
            if name != "X-Forwarded-Uri" {
                refused(&gateway, &whole.replace(*report, &format!("{report}, {value}"))).await;
            }
        }
        for other in ["http", "HTTPS", "https,http", "ws", "ftp"] {
            refused(&gateway, &whole.replace("https", other)).await;
        }
    }
}

#[tokio::test]
async fn what_is_reported_is_read_by_the_gate_that_reads_what_comes_directly() {
    let gateway = public().await;
    for dialect in ["nginx", "traefik", "envoy"] {
        for line in [
            "GET /a/../b",
            "GET /a/%2e%2e/b",
            "GET /a/..;/b",
            "GET /a%00",
            "GET /a\\b",
            "GET /%",
            "GET /a#b",
            "GET /a\u{1}",
            "GET /a b",
            "GET /a HTTP/1.1",
            "GET *",
            "GET https://iot.example.com/a",
            "GET ",
            "get /a",
            "Post /a",
            "TRACE /a",
            "CONNECT /a",
            // Ours, in any spelling, and the page for balancers.
            "GET /.portcullis/login",
            "GET /.PORTCULLIS/login",
            "GET /%2eportcullis/login",
            "GET //.portcullis/login",
            "GET /.well-known/portcullis/jwks.json",
            "GET /healthz",
        ] {
            refused(&gateway, &question(dialect, line, "")).await;
        }
        for host in [
            "evil.example.com",
            "iot.example.com.",
            "iot.example.com:8443",
            "user@iot.example.com",
            "iot.example.com@evil",
            "a,iot.example.com",
            "",
        ] {
            refused(&gateway, &about(dialect, "GET /", host, CLIENT)).await;
            refused(&gateway, &about(dialect, "GET /healthz", host, CLIENT)).await;
        }
        assert_eq!(
            send(&gateway, &about(dialect, "GET /", "IOT.example.com:443", CLIENT)).await.status,
            StatusCode::OK
        );
    }
    for method in ["G ET", "G,ET", "GET GET", "G(T"] {
        refused(
            &gateway,
            &question("traefik", "GET /", "").replace("Method: GET", &format!("Method: {method}")),
        )
        .await;
        refused(
            &gateway,
            &question("nginx", "GET /", "").replace("Method: GET", &format!("Method: {method}")),
        )
        .await;
    }
    for url in [
        "https:/iot.example.com/",
        "//iot.example.com/",
        "/",
        "https://iot.example.com",
        "https:///",
        "https://iot.example.com?/x",
        "https://iot.example.com\\@x/",
    ] {
        let whole = question("nginx", "GET /", "");
        refused(&gateway, &whole.replace(&format!("https://{HOST}/"), url)).await;
    }
}

#[tokio::test]
async fn what_a_client_says_of_who_it_is_never_passes() {
    let gateway = public().await;
    for name in NAMES {
        for dialect in DIALECTS {
            // What the proxy sets itself.
            let own = match dialect {
                "envoy" => name.starts_with("X-Envoy"),
                "traefik" => name == "X-Real-IP",
                _ => false,
            };
            if own {
                continue;
            }
            for fields in [
                format!("{name}: eve\r\n"),
                format!("{name}: a\r\n{name}: b\r\n"),
                format!("Connection: {name}\r\n{name}: eve\r\n"),
                format!("{name}:\r\n"),
            ] {
                refused(&gateway, &question(dialect, "GET /", &fields)).await;
            }
        }
    }
    // What one proxy says for itself, another passes on from the client.
    for (dialect, name) in [
        ("nginx", "X-Forwarded-Uri"),
        ("nginx", "X-Forwarded-Host"),
        ("nginx", "X-Forwarded-Proto"),
        ("traefik", "X-Portcullis-Url"),
        ("envoy", "X-Forwarded-Host"),
        ("envoy", "X-Forwarded-Method"),
        ("envoy", "X-Portcullis-Method"),
    ] {
        refused(&gateway, &question(dialect, "GET /", &format!("{name}: https\r\n"))).await;
    }
    let (gateway, _) = builder()
        .set("access.default", "bypass")
        .set("portal.pass_headers", "X-HTTP-Method-Override")
        .start()
        .await;
    let passed = question("traefik", "GET /", "X-HTTP-Method-Override: PUT\r\n");
    assert_eq!(send(&gateway, &passed).await.status, StatusCode::OK);
}

#[tokio::test]
async fn no_refusal_is_taken_for_an_approval() {
    let (gateway, _) = builder().start().await;
    for dialect in DIALECTS {
        for (line, fields) in [
            // Each of these is refused with 200 where it comes directly.
            ("POST /api.Sims/List", "Content-Type: application/grpc\r\nTE: trailers\r\n"),
            ("GET /worker.js", "Service-Worker: script\r\nSec-Fetch-Dest: serviceworker\r\n"),
            ("GET /frame", "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n"),
            ("GET /", "Authorization: Bearer pcl_nonsense\r\n"),
            ("GET /", "Authorization: Basic dTpw\r\nAuthorization: Basic dTpx\r\n"),
            ("GET /", "Cookie: __Host-portcullis=x; __Host-portcullis=y\r\n"),
        ] {
            let answer = send(&gateway, &question(dialect, line, fields)).await;
            assert!(
                !answer.status.is_success() && !answer.status.is_informational(),
                "{dialect} {line}: {answer:?}"
            );
            assert!(dialect != "nginx" || matches!(answer.status.as_u16(), 401 | 403), "{line}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_page_of_another_site_opens_no_socket_as_the_user() {
    let (gateway, browser) = logged_in(builder()).await;
    let ours = format!("Origin: https://{HOST}\r\n");
    let handshake = format!("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n");
    for dialect in ["nginx", "traefik", "envoy"] {
        // Most proxies leave out what holds between them and the browser.
        for upgrade in ["", "Connection: Upgrade\r\nUpgrade: websocket\r\n"] {
            for (origin, status) in [
                (&*ours, 200),
                ("", 403),
                ("Origin: https://evil.example\r\n", 403),
                ("Origin: null\r\n", 403),
            ] {
                let fields = format!("{}{upgrade}{handshake}{origin}", cookies(&browser));
                let answer = send(&gateway, &question(dialect, "GET /live", &fields)).await;
                assert_eq!(answer.status, status, "{dialect} {upgrade} {origin}");
            }
        }
    }
}

#[tokio::test]
async fn a_question_with_a_body_is_answered_and_nothing_behind_it_is_a_question() {
    let gateway = public().await;
    for framing in [
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nExpect: 100-continue\r\n",
    ] {
        let mut connection = connect(&gateway).await;
        connection.send(question("traefik", "POST /", framing)).await;
        let mut answer = connection.answer().await;
        if answer.status == StatusCode::CONTINUE {
            answer = connection.answer().await;
        }
        assert_eq!(answer.status, StatusCode::OK, "{framing}");
        connection.send(question("traefik", "GET /second", "")).await;
        assert!(!String::from_utf8_lossy(&connection.rest().await).contains("200 OK"), "{framing}");
    }
    // One connection carries the questions of many.
    let mut connection = connect(&gateway).await;
    for _ in 0..3 {
        connection.send(question("traefik", "GET /", "Cookie: a=1\r\n")).await;
        assert_eq!(connection.answer().await.header("cookie"), "a=1");
        connection.send(question("traefik", "GET /", "")).await;
        assert_eq!(connection.answer().await.headers["cookie"], "");
    }
}
