//! Real servers behind the gateway read each path that passes as whoever decided about it did: what was asked for below
//! one folder is never served from another.

use std::{collections::BTreeMap, fs, io, net::SocketAddr};

use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;

use crate::support::{
    Browser, Exchange, HOST, TestGateway, Upstream,
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
const OTHERS: [&str; 30] = [
    "/public/a.txt",
    "/secret/a.txt",
    "//secret/a.txt",
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

fn spellings() -> Vec<String> {
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
    let cookies = browser.cookies();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookies}\r\nX-Origin: {origin}\r\n\r\n");
    let bytes: Vec<u8> =
        request.chars().map(|character| u8::try_from(u32::from(character)).unwrap()).collect();
    let answer = browser.raw(bytes).await.answer().await;
    (answer.status.as_u16(), answer.text())
}

#[tokio::test]
async fn no_server_serves_a_path_that_passes_from_elsewhere() {
    let folder = readable_folder();
    let site = folder.path().join("site");
    for (name, content) in [("public", PUBLIC), ("secret", SECRET)] {
        fs::create_dir_all(site.join(name)).unwrap();
        fs::write(site.join(name).join("a.txt"), content).unwrap();
    }
    fs::write(folder.path().join("outside.txt"), SECRET).unwrap();
    let mut origins = Vec::new();
    for name in NAMES {
        origins.push(Origin::start(name, &site).await);
    }
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
                    if path.starts_with(other) || (name != "gunicorn" && !reading(&path).starts_with(folder))
                    {
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
