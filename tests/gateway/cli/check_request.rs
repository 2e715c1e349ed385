//! `check --request` says which rule decides about a request, why, and what the portal would be told.

use serde_json::{Value, json};

use super::{ADA, failed, made, run, succeeded};
use crate::support::test_gateway::{configuration, folder};

const RULES: &str = r#"
[access]
presets = ["robots"]
[[access.rules]]
path = ["/webhooks/*", "/health"]
level = "bypass"
[[access.rules]]
path = "/admin/*"
groups = ["operators"]
max_age = "15m"
[[access.rules]]
path = "/admin/*"
level = "deny"
[[access.rules]]
path = "/metrics"
networks = "10.0.0.0/8"
level = "bypass"
anonymous = true
"#;

/// A configuration with rules and a store with Ada in it, and the line of each rule.
async fn ready() -> (tempfile::TempDir, String, Vec<String>) {
    let folder = folder();
    let file = folder.path().join("portcullis.toml");
    let text = configuration(&["http://127.0.0.1:3000".to_owned()], "database") + RULES;
    std::fs::write(&file, &text).unwrap();
    made(&file).await;
    let file = file.to_str().unwrap().to_owned();
    let lines = text.lines().enumerate().filter(|(_, line)| *line == "[[access.rules]]");
    let places = lines.map(|(line, _)| format!("{file}:{}", line + 1)).collect();
    (folder, file, places)
}

async fn ask(file: &str, request: &str, more: &[&str]) -> Value {
    let arguments = [&["check", "--json", "--config", file, "--request", request], more].concat();
    let outcome = run(&arguments, "").await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    outcome.json()
}

#[tokio::test]
async fn the_rule_that_decides_is_named_with_file_and_line() {
    let (_folder, file, places) = ready().await;
    for (request, more, level, rule, passes) in [
        ("GET https://iot.example.com/health", &[][..], "bypass", &*places[0], true),
        ("POST https://iot.example.com/webhooks/a?b=c#d", &[], "bypass", &*places[0], true),
        ("https://IOT.example.com:443/health", &[], "bypass", &*places[0], true),
        ("GET /Health", &[], "two_factor", "access.default", false),
        ("GET /%2fhealth", &[], "two_factor", "access.default", false),
        ("GET /admin/users", &[], "two_factor", &*places[1], false),
        ("GET /admin/users", &["--as", ADA], "deny", &*places[2], false),
        ("GET /x/%c0%ae%c0%ae/admin/users", &["--as", ADA], "deny", &*places[2], false),
        ("GET /metrics", &[], "two_factor", "access.default", false),
        ("GET /metrics", &["--from", "10.1.2.3"], "bypass", &*places[3], true),
        ("GET /metrics", &["--from", "::ffff:10.1.2.3"], "bypass", &*places[3], true),
        ("GET /robots.txt", &[], "bypass", "access.presets: robots", true),
        ("GET /sims", &[], "two_factor", "access.default", false),
        ("GET /sims", &["--as", " Ada@Example.com"], "two_factor", "access.default", true),
    ] {
        let facts = ask(&file, request, more).await;
        let found = (&facts["level"], &facts["rule"], &facts["passes"]);
        assert_eq!(found, (&json!(level), &json!(rule), &json!(passes)), "{request} {more:?}: {facts}");
    }
    for (request, level, says) in [
        ("GET https://other.example.com/health", "refused", "https://iot.example.com only (421)"),
        ("GET /a/../health", "refused", "dot segment"),
        ("get /health", "refused", "501"),
        ("TRACE /health", "refused", "405"),
        ("GET /he alth", "refused", "encode it (400)"),
        ("GET /health?a=<b>", "refused", "encode it (400)"),
        ("GET /health`", "refused", "encode it (400)"),
        ("GET /.portcullis/login", "own", "no rules"),
    ] {
        let facts = ask(&file, request, &[]).await;
        assert_eq!(facts["level"], level, "{request}: {facts}");
        assert!(facts["reason"].as_str().unwrap().contains(says), "{request}: {facts}");
        assert_eq!((&facts["passes"], &facts["rule"]), (&json!(false), &Value::Null));
    }
}

#[tokio::test]
async fn what_the_portal_would_be_told_is_shown() {
    let (_folder, file, places) = ready().await;
    let set = run(&["user", "set-groups", ADA, "operators", "--config", &file], "").await;
    assert_eq!(set.code, 0, "{set:?}");
    let facts = ask(&file, "GET /admin/users", &["--as", ADA]).await;
    assert_eq!(
        (&facts["level"], &facts["max_age"], &facts["rule"]),
        (&json!("two_factor"), &json!("15m"), &json!(places[1]))
    );
    assert_eq!(
        (&facts["headers"]["Remote-User"], &facts["headers"]["Remote-Groups"]),
        (&json!(ADA), &json!("operators"))
    );
    assert!(facts["headers"]["X-Portcullis-Jwt-Assertion"].is_string());
    assert_eq!(ask(&file, "GET /health", &[]).await["headers"], json!({}));
    assert_eq!(ask(&file, "GET /metrics", &["--as", ADA, "--from", "10.0.0.1"]).await["headers"], json!({}));
    let words = run(&["check", "--config", &file, "--request", "GET /%2561dmin/x", "--as", ADA], "").await;
    succeeded(&words, "GET /%2561dmin/x, as ada@example.com: two_factor, with a code no older than 15m");
    succeeded(&words, &format!("Decided by: {}", places[1]));
    succeeded(&words, "some portals read this as /admin/x");
    succeeded(&words, "  Remote-User: ada@example.com");
    let stranger = run(&["check", "--config", &file, "--request", "GET /admin/x"], "").await;
    succeeded(&stranger, "asked to sign in; a rule for groups or users may decide differently");
}

#[tokio::test]
async fn what_cannot_be_asked_is_said() {
    let (_folder, file, _) = ready().await;
    let ask = async |more: &[&str]| run(&[&["check", "--config", &file], more].concat(), "").await;
    failed(&ask(&["--request", "GET health"]).await, "write a method and an address");
    failed(&ask(&["--request", "GET http://iot.example.com/"]).await, "write `https://…`");
    failed(
        &ask(&["--request", "GET /", "--as", "eve@example.com"]).await,
        "there is no user eve@example.com",
    );
    assert_eq!(ask(&["--as", ADA]).await.code, 2);
    assert_eq!(ask(&["--from", "10.0.0.1"]).await.code, 2);
    assert_eq!(ask(&["--request", "GET /", "--from", "here"]).await.code, 2);
}
