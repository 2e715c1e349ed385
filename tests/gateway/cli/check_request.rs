//! `check --request` says which rule decides about a request, why, and what the portal would be told.

use serde_json::{Value, json};

use super::{ADA, failed, made, run, succeeded};
use crate::{
    client_certificates::authority::{Authority, email, uri},
    support::test_gateway::{configuration, folder},
};

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

#[tokio::test]
async fn what_a_certificate_opens_is_explained_and_why_one_opens_nothing() {
    let authority = Authority::new("Clients");
    authority.revoke(&[4], 2040);
    let files = format!("[tls]\nclient_ca = {:?}\nclient_crl = {:?}\n", authority.file(), authority.list());
    let clients = format!(
        "[[tls.clients]]\nsan = \"URI:urn:ci\"\nservice = \"ci\"\npath = \"/api/*\"\ngroups = \"deploy\"\n\
         [[tls.clients]]\nsan = \"email:{ADA}\"\nuser = \"{ADA}\"\n\
         [[tls.clients]]\nsan = \"URI:urn:ada\"\nuser = \"{ADA}\"\nas = \"first_factor\"\n"
    );
    let (folder, file, _) = ready().await;
    let with = folder.path().join("with.toml");
    let text = std::fs::read_to_string(&file).unwrap().replacen("[tls]\n", &files, 1);
    std::fs::write(&with, text + &clients).unwrap();
    let with = with.to_str().unwrap();
    let shown = |serial, names| authority.sign(serial, names).certificate.display().to_string();
    let (ci, ada) = (shown(1, vec![uri("urn:ci")]), shown(2, vec![email(ADA)]));
    for (certificate, request, level, passes, says) in [
        (&ci, "GET /api/sims", "two_factor", true, "passes with the certificate"),
        (
            &ci,
            "GET /sims",
            "two_factor",
            false,
            "not for this path, method, network or site; without it, no rule",
        ),
        (&ci, "GET /health", "bypass", true, "passes without a login"),
        (&ada, "GET /sims", "two_factor", true, "passes with the certificate"),
        (&ada, "GET /admin/users", "two_factor", false, "no certificate is enough for it; without it, rule"),
    ] {
        let facts = ask(with, request, &["--certificate", certificate]).await;
        assert_eq!(
            (&facts["level"], &facts["passes"]),
            (&json!(level), &json!(passes)),
            "{request}: {facts}"
        );
        assert!(facts["reason"].as_str().unwrap().contains(says), "{request}: {facts}");
    }
    let facts = ask(with, "GET /api/sims", &["--certificate", &ci]).await;
    assert_eq!(
        (&facts["user"], &facts["headers"]["Remote-User"], &facts["headers"]["Remote-Groups"]),
        (&json!("service:ci"), &json!("service:ci"), &json!("deploy"))
    );
    let other = Authority::new("Clients").sign(1, vec![uri("urn:ci")]).certificate;
    std::fs::write(folder.path().join("empty.pem"), "").unwrap();
    let empty = folder.path().join("empty.pem");
    for (certificate, says) in [
        (shown(3, vec![uri("urn:other")]), "it is nobody's in tls.clients"),
        (shown(4, vec![uri("urn:ci")]), "it has been revoked"),
        (shown(5, vec![uri("urn:ada")]), "is in place of ada@example.com's password"),
        (other.display().to_string(), "cannot read certificate from"),
        (empty.display().to_string(), "holds no readable certificate"),
    ] {
        let words = ["check", "--config", with, "--request", "GET /", "--certificate", &certificate];
        failed(&run(&words, "").await, says);
    }
    let without = ["check", "--config", &file, "--request", "GET /", "--certificate", &ci];
    failed(&run(&without, "").await, "`tls.client_ca` is not set");
}
