//! `docs/conformance.md` against the gateway: every line of its tables is sent, and what comes of it must be what it says.

use std::{collections::BTreeSet, env, path::PathBuf, process::Command, time::Duration};

use http::Method;
use tokio::net::TcpListener;

use crate::support::{
    Answer, HOST, TestGateway,
    forged::{Forgery, owned},
    logged_in, within,
};

const PAGE: &str = include_str!("../../docs/conformance.md");
/// How many tests the suite has.
const SIZE: usize = 107;
/// The whole suite, one test after the other.
const SUITE: Duration = Duration::from_mins(2);

/// The lines of the table below a heading, cell by cell, without the back-quotes around code.
fn table(heading: &str) -> Vec<Vec<String>> {
    let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).expect("the section is there");
    let section = section.split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let cell = |text: &str| {
        let text = text.trim();
        text.strip_prefix('`').and_then(|text| text.strip_suffix('`')).unwrap_or(text).to_owned()
    };
    let rows: Vec<Vec<String>> =
        lines.map(|line| line.trim_matches('|').split(" | ").map(cell).collect()).collect();
    assert!(rows.len() > 10, "{heading} has {} lines", rows.len());
    rows
}

/// Puts in what escapes stand for; characters stand for bytes.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        out.push(if character == '\\' {
            match rest.next().unwrap() {
                'r' => '\r',
                'n' => '\n',
                't' => '\t',
                '0' => '\0',
                'x' => {
                    let digits: String = rest.by_ref().take(2).collect();
                    char::from(u8::from_str_radix(&digits, 16).unwrap())
                }
                other => other,
            }
        } else {
            character
        });
    }
    out
}

/// Whether the portal has seen the end of a request.
fn has_arrived(gateway: &TestGateway, body: &[u8]) -> bool {
    gateway.upstream.requests().iter().any(|request| request.content.body == body && !body.is_empty())
}

fn compare(faults: &[String]) {
    assert!(faults.is_empty(), "docs/conformance.md says otherwise:\n{}", faults.join("\n"));
}

#[tokio::test]
async fn ambiguous_input_of_http_1_meets_the_fate_that_is_published() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let mut faults = Vec::new();
    for (number, row) in table("HTTP/1.1").into_iter().enumerate() {
        // The head of a request that was cut may arrive at the portal when the next one is under way already.
        let number = number.to_string();
        let cookie = format!("Cookie: {}\r\nX-Row: {number}\r\n", browser.cookies());
        let arrived = || {
            let requests = gateway.upstream.requests();
            requests.iter().filter(|request| request.value("x-row").as_ref() == Some(&number)).count()
        };
        let [what, bytes, expected] = &row[..] else { panic!("three cells: {row:?}") };
        gateway.upstream.forget();
        let request =
            unescape(bytes).replace("{H}", &format!("Host: {HOST}\r\n{{C}}")).replace("{C}", &cookie);
        let request: Vec<u8> = request.chars().map(|byte| u8::try_from(u32::from(byte)).unwrap()).collect();
        let mut connection = browser.raw(request).await;
        let answer = connection.answer_to(&Method::GET).await;
        let seen = match &answer {
            Some(answer) if answer.text().starts_with("the portal:") => "passes".to_owned(),
            Some(answer) if arrived() == 0 => {
                answer.assert_secure();
                assert_eq!(answer.header("connection"), "close", "{what}");
                answer.status.as_u16().to_string()
            }
            Some(answer) if answer.status.is_success() => format!("{answer:?}"),
            Some(_) | None => "cut".to_owned(),
        };
        if seen == "passes" {
            assert_eq!(arrived(), 1, "{what}");
        } else {
            assert!(connection.rest().await.is_empty(), "{what}: more than one answer");
        }
        // A body that breaks the rules may show so only once its head is with the portal.
        let agrees = seen == *expected || (*expected == "cut" && seen == "400");
        if !agrees || (seen != "passes" && has_arrived(&gateway, b"a")) {
            faults.push(format!("{what}: {bytes}: {seen}"));
        }
    }
    compare(&faults);
}

/// An ordinary request with the changes that a cell names.
fn changed(changes: &str, cookies: &str) -> Forgery {
    let ordinary =
        [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/"), ("cookie", cookies)];
    let mut fields = owned(&ordinary);
    let mut seen = BTreeSet::new();
    for change in changes.split(", ").map(unescape) {
        if let Some(absent) = change.strip_prefix('-') {
            fields.retain(|(name, _)| name != absent);
            continue;
        }
        let at = change.char_indices().skip(1).find(|(_, letter)| *letter == ':').map_or(0, |(at, _)| at);
        let (name, value) = (change[..at].to_owned(), change[at + 1..].strip_prefix(' ').unwrap_or_default());
        let known = fields.iter_mut().find(|(known, _)| name.starts_with(':') && *known == name);
        match known {
            Some(field) if seen.insert(name.clone()) => value.clone_into(&mut field.1),
            _ => fields.push((name, value.to_owned())),
        }
    }
    let body = changes.contains(":method: POST").then(|| "hi".to_owned());
    Forgery { fields, body, ..Forgery::default() }
}

#[tokio::test]
async fn ambiguous_input_of_http_2_meets_the_fate_that_is_published() {
    let (gateway, browser) = logged_in(TestGateway::builder()).await;
    let mut faults = Vec::new();
    for row in table("HTTP/2") {
        let [what, changes, expected] = &row[..] else { panic!("three cells: {row:?}") };
        gateway.upstream.forget();
        let answer: Result<Answer, _> = browser.forge(&changed(changes, &browser.cookies())).await;
        let seen = match &answer {
            Ok(answer) if answer.text().starts_with("the portal:") => "passes".to_owned(),
            Ok(answer) if gateway.upstream.bytes() == 0 => answer.status.as_u16().to_string(),
            Ok(answer) => format!("{answer:?}"),
            Err(_) => "reset".to_owned(),
        };
        if seen != *expected || (seen != "passes" && has_arrived(&gateway, b"hi")) {
            faults.push(format!("{what}: {changes}: {seen}"));
        }
    }
    compare(&faults);
}

/// The program of the suite: installed, or where `tests/run` keeps it.
fn suite() -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let home = PathBuf::from(env::var_os("HOME").unwrap_or_default());
    let cache = env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    let kept = cache.join("portcullis-ci/bin");
    let found =
        env::split_paths(&path).chain([kept]).map(|folder| folder.join("httpwg")).find(|file| file.exists());
    found.expect("httpwg is not installed, and `tests/run --install-only` would install it")
}

#[tokio::test]
async fn the_suite_for_http_2_passes_but_for_what_is_published() {
    let (_gateway, browser) = TestGateway::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let forwarder = tokio::spawn(async move {
        while let Ok((mut plain, _)) = listener.accept().await {
            let browser = browser.copy();
            tokio::spawn(async move {
                let mut encrypted = browser.tls(&["h2"]).await;
                let _ = tokio::io::copy_bidirectional(&mut plain, &mut encrypted).await;
            });
        }
    });
    let mut command = Command::new(suite());
    command.args(["--address", &address, "--frame-timeout", "1000", "--connect-timeout", "5000", "-v"]);
    command.env("SEQUENTIAL", "1").env("NO_COLOR", "1");
    let ran = tokio::task::spawn_blocking(move || command.output());
    let output = within(SUITE, ran).await.unwrap().unwrap();
    forwarder.abort();

    let said = String::from_utf8_lossy(&output.stderr);
    let tests = |mark: &str| -> BTreeSet<&str> {
        said.lines().filter_map(|line| line.split_once(mark)).map(|(_, name)| name.trim()).collect()
    };
    let mut failed = tests("Running test: RFC 9113 :: ");
    let count = failed.len();
    for test in tests("Test passed: RFC 9113 :: ") {
        failed.remove(test);
    }
    let published = table("The suite for RFC 9113");
    let excused: BTreeSet<&str> = published.iter().map(|row| row[0].as_str()).collect();
    let unexpected: Vec<_> = failed.difference(&excused).collect();
    assert!(unexpected.is_empty(), "these failed: {unexpected:#?}\n{said}");
    assert_eq!(count, SIZE, "{said}");
}
