//! Real servers behind the gateway read each path that passes as whoever decided about it did: what was asked for below
//! one folder is never served from another.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use http::Method;
use percent_encoding::percent_decode_str;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::support::{
    Browser, Exchange, HOST, RawConnection, TestGateway, Upstream,
    origin::{NAMES, Origin, readable_folder},
    upstream::ordinary,
    wire::Wire,
};

const SECRET: &str = "what is secret";
const PUBLIC: &str = "what is public";

/// What the relay says when a server does not answer it; the body says why.
const NO_ANSWER: u16 = 599;

/// Between the steps of a path, for somebody.
const SEPARATORS: [&str; 22] = [
    "/",
    "//",
    "///",
    "%2f",
    "%2F",
    "%252f",
    "%25%32%66",
    "\\",
    "%5c",
    "%255c",
    "/./",
    "/%2e/",
    ";/",
    "/;/",
    ";x=y/",
    "%3b/",
    "%c0%af",
    "%ef%bc%8f",
    "%u2215",
    "%00/",
    "/%09/",
    "/%20/",
];
/// A step upwards, for somebody.
const STEPS_UP: [&str; 26] = [
    "..",
    ".",
    "%2e%2e",
    "%2E.",
    ".%2e",
    "%252e%252e",
    ".%252e",
    "%25252e%25252e",
    "%25%32%65.",
    "..;",
    "..;x=y",
    "..%3b",
    "%2e%2e;",
    "...",
    "....",
    "..%00",
    "..%20",
    "..+",
    "..%09",
    "..%0d",
    "%c0%ae%c0%ae",
    "%e0%80%ae.",
    "%ef%bc%8e%ef%bc%8e",
    "%u002e%u002e",
    "..%3f",
    "..%23",
];
const OTHERS: [&str; 38] = [
    "/public/a.txt",
    "/secret/a.txt",
    "//secret/a.txt",
    "//x/secret/a.txt",
    "///x/secret/a.txt",
    "//u@x:80/secret/a.txt",
    "//x/public/a.txt",
    "//public/secret/a.txt",
    "/%2fx/secret/a.txt",
    "//x%2fsecret/a.txt",
    "//u@x%2fsecret%2fa.txt",
    "/%73ecret/a.txt",
    "/secret%2fa.txt",
    "/%2573ecret/a.txt",
    "/public//a.txt",
    "/public/a%2etxt",
    "/public/a.txt.",
    "/public/a.txt%20",
    "/public/a.txt%00",
    "/public/a.txt%00/../../secret/a.txt",
    "/public/a.txt/",
    "/public/a.txt/../../secret/a.txt",
    "/PUBLIC/a.txt",
    "/public;x/a.txt",
    "/public/a.txt;x",
    "/public/a.txt?/../../secret/a.txt",
    "/public/?/../../secret/a.txt",
    "/public/a.txt#/../../secret/a.txt",
    "/public/%23/../../secret/a.txt",
    "/public/%3f/../../secret/a.txt",
    "/public/%2523/a.txt",
    "/public/%253f%252f..%252f..%252fsecret%252fa.txt",
    "/%E9/a.txt",
    "/pub\u{e9}lic/a.txt",
    "/public/~/a.txt",
    "/public/%7e/../a.txt",
    "/100%25/a.txt",
    "/public/100%25%252e%252e%252fsecret/a.txt",
];

pub(crate) fn spellings() -> Vec<String> {
    let mut spellings: Vec<String> = OTHERS.map(str::to_owned).to_vec();
    for separator in SEPARATORS {
        for up in STEPS_UP {
            spellings.push(format!("/public{separator}{up}{separator}secret/a.txt"));
            spellings.push(format!("/public/{up}{separator}secret/a.txt"));
            spellings.push(format!("/public{separator}{up}/{up}/outside.txt"));
        }
    }
    spellings.sort();
    spellings.dedup();
    spellings
}

/// A portal that passes each request on to the server that it names, and notes what it passes on.
fn relay(origins: &[Origin]) -> Upstream {
    let addresses: BTreeMap<String, _> =
        origins.iter().map(|origin| (origin.name.to_owned(), origin.address)).collect();
    Upstream::scripted(async move |mut exchange: Exchange| {
        let named = exchange.head.values("x-origin");
        let Some(address) = named.first().and_then(|name| addresses.get(name)) else {
            return ordinary(exchange).await;
        };
        let (status, body) = match pass_on(&exchange, address).await {
            Ok(answer) => answer,
            Err(error) => (NO_ANSWER.to_string(), error.to_string().into_bytes()),
        };
        exchange.write(format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len())).await?;
        exchange.write(body).await?;
        Some(exchange)
    })
}

/// Status and body of the answer that the server has for a request.
async fn pass_on(exchange: &Exchange, address: &SocketAddr) -> io::Result<(String, Vec<u8>)> {
    let mut wire = Wire::new(TcpStream::connect(address).await?);
    wire.write(&exchange.head.0).await?;
    let head = wire.read_head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let content = wire.read_content(&head, true).await?;
    let status = head.first_line().split(' ').nth(1).unwrap_or_default().to_owned();
    Ok((status, content.body))
}

/// What is asked for, as the one reading goes that everybody should have: decoded once, empty steps left out.
fn reading(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let decoded = percent_decode_str(path).decode_utf8_lossy().into_owned();
    let steps: Vec<&str> = decoded.split('/').filter(|step| !step.is_empty()).collect();
    format!("/{}", steps.join("/"))
}

async fn ask(browser: &Browser, origin: &str, path: &str) -> (u16, String) {
    ask_on(&mut browser.raw_connection().await, browser, origin, path).await
}

async fn ask_on(
    connection: &mut RawConnection,
    browser: &Browser,
    origin: &str,
    path: &str,
) -> (u16, String) {
    let cookies = browser.cookies();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookies}\r\nX-Origin: {origin}\r\n\r\n");
    let bytes: Vec<u8> =
        request.chars().map(|character| u8::try_from(u32::from(character)).unwrap()).collect();
    connection.send(bytes).await;
    let answer = connection.answer().await;
    if answer.header("connection") == "close" {
        *connection = browser.raw_connection().await;
    }
    (answer.status.as_u16(), answer.text())
}

/// A site in a folder, of which one part is public and one is secret.
fn two_folders(folder: &TempDir) -> PathBuf {
    let site = folder.path().join("site");
    for (name, content) in [("public", PUBLIC), ("secret", SECRET)] {
        fs::create_dir_all(site.join(name)).unwrap();
        fs::write(site.join(name).join("a.txt"), content).unwrap();
    }
    site
}

async fn started(site: &Path) -> Vec<Origin> {
    let mut origins = Vec::new();
    for name in NAMES {
        origins.push(Origin::start(name, site).await);
    }
    origins
}

#[tokio::test]
async fn no_server_serves_a_path_that_passes_from_elsewhere() {
    let folder = readable_folder();
    let site = two_folders(&folder);
    fs::write(folder.path().join("outside.txt"), SECRET).unwrap();
    let origins = started(&site).await;
    let (gateway, browser) = TestGateway::builder().upstream(&relay(&origins)).start().await;
    gateway.add_user("ada@example.com").await;
    browser.log_in("ada@example.com").await;

    let (mut passed, mut faults) = (0, Vec::new());
    let mut served: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for path in spellings() {
        for name in NAMES {
            gateway.upstream.forget();
            let (status, text) = ask(&browser, name, &path).await;
            let seen = gateway.upstream.requests();
            if seen.is_empty() {
                assert_eq!(status, 400, "{path:?}: {text}");
                break;
            }
            passed += 1;
            assert_eq!(seen[0].first_line(), format!("GET {path} HTTP/1.1"), "byte for byte");
            assert!(!matches!(status, 502 | NO_ANSWER), "{name} does not answer to {path}: {status} {text}");
            for (content, folder) in [(SECRET, "/secret/"), (PUBLIC, "/public/")] {
                if text.contains(content) {
                    *served.entry((name, folder)).or_default() += 1;
                    // An application that decodes twice, drops parameters or forgives more reads more spellings of the
                    // same folder; none that leads from the one to the other.
                    let other = if folder == "/secret/" { "/public" } else { "/secret" };
                    // Some take what two slashes begin for a host; what is asked of a path thinks of that.
                    let is_lax = name == "gunicorn" || path.starts_with("//");
                    if path.starts_with(other) || (!is_lax && !reading(&path).starts_with(folder)) {
                        faults.push(format!("{name} serves {path} from {folder}"));
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(passed > 500, "only {passed} paths passed");
    for name in NAMES {
        for folder in ["/secret/", "/public/"] {
            assert!(served.contains_key(&(name, folder)), "{name} serves nothing from {folder}: {served:?}");
        }
    }
}

/// The part of a path that a rule names, as somebody may spell it who wants it to be another one.
pub(crate) fn disguises(name: &str) -> Vec<String> {
    let mut disguises = Vec::new();
    let (first, rest) = name.split_at(1);
    let code = first.as_bytes()[0];
    for letter in
        [format!("%{code:02x}"), format!("%25{code:02x}"), format!("%2525{code:02x}"), first.to_uppercase()]
    {
        disguises.push(format!("/{letter}{rest}"));
    }
    for (before, after) in [
        ("/", ""),
        ("%2f", ""),
        ("%252f", ""),
        (";x", ""),
        ("%3bx", ""),
        (".", ""),
        ("%20", ""),
        ("", ";"),
        ("", ";x=y"),
        ("", "%3bx"),
        ("", "%253b"),
        ("", "."),
        ("", "%2e"),
        ("", "%20"),
        ("", "%252e"),
        ("", "/"),
        ("", "%2f"),
        ("", "%00"),
        ("", "%ff"),
        ("", "%c0%80"),
        ("%c0%af", ""),
        ("", "%c0%af"),
        ("", "?x"),
        ("", "%3fx"),
        ("", "%23x"),
        ("", "::$DATA"),
        ("%e2%80%8b", ""),
        ("x/%c0%ae%c0%ae/", ""),
    ] {
        disguises.push(format!("/{before}{name}{after}"));
        disguises.push(format!("/{before}/{name}{after}"));
    }
    disguises
}

#[tokio::test]
async fn no_server_serves_a_stranger_what_no_rule_opens() {
    let folder = readable_folder();
    let origins = started(&two_folders(&folder)).await;
    let spellings = spellings();
    let mut paths = Vec::new();
    for name in ["secret", "public"] {
        for disguise in disguises(name) {
            paths.extend(
                [
                    "/a.txt",
                    "//a.txt",
                    "%2fa.txt",
                    "%252fa.txt",
                    ";/a.txt",
                    "%c0%afa.txt",
                    "/a.txt?/public/a.txt",
                ]
                .map(|file| format!("{disguise}{file}")),
            );
        }
    }
    for (default, rules) in [
        ("two_factor", r#"[{path = "/public/*", level = "bypass"}]"#),
        ("two_factor", r#"[{regex = "/public/.*", level = "bypass"}]"#),
        ("two_factor", r#"[{path = ["/public/a.txt"], methods = ["GET"], level = "bypass"}]"#),
        ("bypass", r#"[{path = "/secret/*", level = "deny"}]"#),
        ("bypass", r#"[{regex = "/secret(/.*)?"}]"#),
        ("bypass", r#"[{path = "/secret/*", methods = ["GET", "POST"]}]"#),
    ] {
        let builder = TestGateway::builder().upstream(&relay(&origins));
        let (_gateway, stranger) =
            builder.set("access.default", default).set("access.rules", rules).start().await;
        let (mut opened, mut faults) = (0, Vec::new());
        let mut connection = stranger.raw_connection().await;
        // Each for all below a folder.
        let more =
            if rules.contains("{path = \"/") && !rules.contains("methods") { &spellings[..] } else { &[] };
        for path in paths.iter().chain(more) {
            for name in NAMES {
                let (status, text) = ask_on(&mut connection, &stranger, name, path).await;
                opened += usize::from(text.contains(PUBLIC));
                if text.contains(SECRET) {
                    faults.push(format!("{name} serves {path} ({status}) although {rules}"));
                }
                // What the gateway answers, it answers whichever server is there.
                if matches!(status, 400 | 401 | 403) {
                    break;
                }
            }
        }
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        assert!(opened >= NAMES.len(), "{rules} opens {opened}");
    }
}

#[tokio::test]
async fn no_other_method_or_host_opens_what_a_rule_opens_to_one() {
    let folder = readable_folder();
    let origins = started(&two_folders(&folder)).await;
    let rules = r#"[{path = "/public/*", methods = "GET", level = "bypass"}, {path = "/secret/*", methods = "POST", level = "bypass"}]"#;
    let builder = TestGateway::builder().upstream(&relay(&origins)).set("access.rules", rules);
    let (gateway, stranger) = builder.set("portal.pass_headers", "X-HTTP-Method-Override").start().await;
    let ask = async |head: &str| {
        let method: Method = head.split(' ').next().unwrap().parse().unwrap();
        let head = head.replace('|', "\r\n");
        let request = format!("{head}\r\nX-Origin: nginx\r\nContent-Length: 0\r\n\r\n");
        let answer = stranger.raw(request).await.answer_to(&method).await.unwrap();
        (answer.status.as_u16(), answer.text())
    };
    assert_eq!(ask(&format!("GET /public/a.txt HTTP/1.1|Host: {HOST}")).await, (200, PUBLIC.to_owned()));
    gateway.upstream.forget();
    for head in [
        "GET /secret/a.txt HTTP/1.1|Host: HOST",
        "HEAD /secret/a.txt HTTP/1.1|Host: HOST",
        "POST /secret/a.txt HTTP/1.1|Host: HOST|X-HTTP-Method-Override: GET",
        "POST /secret/a.txt HTTP/1.1|Host: HOST|x-http-method-override: get",
        "POST /secret/a.txt HTTP/1.1|Host: HOST|X-Method-Override: GET",
        "POST /secret/a.txt?_method=GET HTTP/1.1|Host: HOST",
        "GET /public/a.txt HTTP/1.1|Host: HOST|X-HTTP-Method-Override: DELETE",
        "DELETE /public/a.txt HTTP/1.1|Host: HOST",
        "PROPFIND /public/a.txt HTTP/1.1|Host: HOST",
        "HEAD /public/a.txt HTTP/1.1|Host: HOST",
        "GET /public/a.txt HTTP/1.1|Host: other.example.com",
        "GET https://other.example.com/public/a.txt HTTP/1.1|Host: HOST",
        "GET /secret/a.txt HTTP/1.1|Host: HOST|X-Original-URL: /public/a.txt",
        "GET /secret/a.txt HTTP/1.1|Host: HOST|X-Rewrite-URL: /public/a.txt",
        "GET /secret/a.txt HTTP/1.1|Host: HOST|X-Forwarded-Prefix: /public|X-Forwarded-Method: POST",
    ] {
        let (status, text) = ask(&head.replace("HOST", HOST)).await;
        assert!(matches!(status, 400 | 401 | 421), "{head}: {status} {text}");
    }
    assert!(gateway.upstream.requests().is_empty());
}
