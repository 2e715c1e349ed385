//! `token …`: made, listed, replaced and revoked beside a running gateway.

use http::Request;
use serde_json::json;

use super::{ADA, SECOND, failed, json, portcullis, succeeded};
use crate::support::{Browser, TestGateway, empty, soon};

async fn status(browser: &Browser, path: &str, token: &str) -> u16 {
    let request = Request::get(path).header("authorization", format!("Bearer {token}"));
    browser.send(request.body(empty()).unwrap()).await.status.as_u16()
}

#[tokio::test]
async fn tokens_are_made_shown_replaced_and_revoked() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    let create = ["token", "create", "nightly", "--service", "ci", "--path", "/api/*", "--method", "GET"];
    let made = json(
        &gateway,
        &[&create[..], &["--network", "127.0.0.1", "--group", "read", "--expires", "90d"]].concat(),
    )
    .await;
    assert_eq!((&made["name"], &made["user"]), (&json!("nightly"), &json!("service:ci")));
    assert!(made["expires_at"].is_string() && made.get("previous_expires_at").is_none(), "{made}");
    let token = made["token"].as_str().unwrap();
    assert_eq!((status(&browser, "/api/a", token).await, status(&browser, "/", token).await), (200, 401));

    // Alone on its line, for whoever catches it.
    let printed =
        portcullis(&gateway, &["token", "create", "ada", "--for", "ADA@example.com", "--expires", "never"])
            .await;
    succeeded(&printed, "pcl_");
    assert!(printed.err.contains("acts as ada@example.com and never expires"), "{printed:?}");
    assert_eq!(status(&browser, "/", printed.out.trim_end()).await, 200);

    let listed = json(&gateway, &["token", "list"]).await;
    let facts: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|fact| (&fact["name"], &fact["status"], fact["expires_at"].is_null()))
        .collect();
    assert_eq!(
        facts,
        [(&json!("ada"), &json!("active"), true), (&json!("nightly"), &json!("active"), false)]
    );
    assert_eq!(
        listed[1]["scope"],
        json!({"paths": ["/api/*"], "methods": ["GET"], "networks": ["127.0.0.1/32"], "groups": ["read"]})
    );
    let shown = portcullis(&gateway, &["token", "show", "nightly"]).await;
    succeeded(&shown, "limits     path /api/*; method GET; network 127.0.0.1/32; group read");
    let prefix = listed[1]["prefix"].as_str().unwrap();
    assert!(
        token.starts_with(prefix) && shown.out.contains(prefix) && !shown.out.contains(token),
        "{shown:?}"
    );

    let new = json(&gateway, &["token", "rotate", "nightly", "--overlap", "1h"]).await;
    let new_token = new["token"].as_str().unwrap();
    assert!(new["previous_expires_at"].is_string(), "{new}");
    for token in [token, new_token] {
        assert_eq!(status(&browser, "/api/a", token).await, 200);
    }
    let states = json(&gateway, &["token", "show", "nightly"]).await;
    assert_eq!((&states[0]["status"], &states[1]["status"]), (&json!("active"), &json!("overlapping")));

    let revoked = json(&gateway, &["token", "revoke", "nightly"]).await;
    assert_eq!(revoked, json!({"name": "nightly", "revoked": 2}));
    for token in [token, new_token] {
        soon(SECOND, "the token is over", async || status(&browser, "/api/a", token).await == 401).await;
    }
    assert_eq!(json(&gateway, &["token", "list"]).await.as_array().unwrap().len(), 1);
    assert_eq!(json(&gateway, &["token", "list", "--all"]).await.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_command_that_cannot_be_done_says_why() {
    let (gateway, _) = TestGateway::start().await;
    let service = ["token", "create", "t", "--service", "ci"];
    succeeded(&portcullis(&gateway, &service).await, "pcl_");
    for (arguments, why) in [
        (&service[..], "a token named t exists already"),
        (&["token", "create", "u", "--for", "nobody@example.com"], "there is no user nobody@example.com"),
        (&["token", "create", "a b", "--service", "ci"], "is not a valid name for a token"),
        (&["token", "create", "u", "--service", "CI"], "is not a valid name for a service"),
        (&["token", "create", "u", "--service", "ci", "--path", "api"], "must begin with `/`"),
        (&["token", "create", "u", "--service", "ci", "--method", "get"], "is not a method"),
        (
            &["token", "create", "u", "--service", "ci", "--site", "other.example"],
            "this gateway serves iot.example.com",
        ),
        (&["token", "create", "u", "--service", "ci", "--group", "a,b"], "is no group"),
        (&["token", "revoke", "u"], "there is no token named u"),
        (&["token", "show", "u"], "there is no token named u"),
        (&["token", "rotate", "u"], "there is no token named u"),
    ] {
        failed(&portcullis(&gateway, arguments).await, why);
    }
    for usage in [
        &["token", "create", "u"][..],
        &["token", "create", "u", "--service", "ci", "--for", "ada@example.com"],
        &["token", "create", "u", "--service", "ci", "--expires", "soon"],
        &["token", "create", "u", "--service", "ci", "--expires", "0s"],
        &["token", "create", "u", "--service", "ci", "--network", "ten"],
    ] {
        assert_eq!(portcullis(&gateway, usage).await.code, 2, "{usage:?}");
    }
    assert_eq!(json(&gateway, &["token", "list"]).await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_check_says_what_a_token_gets() {
    let rules = r#"[{path = "/fresh/*", max_age = "5m"}, {path = "/people/*", clients = "browser"}]"#;
    let (gateway, _) = TestGateway::builder().start().await;
    let file = gateway.folder().join("portcullis.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}[access]\nrules = {rules}\n")).unwrap();
    succeeded(
        &portcullis(
            &gateway,
            &["token", "create", "t", "--service", "ci", "--path", "/a/*", "--path", "/fresh/*"],
        )
        .await,
        "pcl_",
    );
    for (path, passes, says) in [
        ("/a/b", true, "passes with the token"),
        ("/b", false, "the token is not for this path"),
        ("/fresh/a", false, "no token has a fresh code"),
        ("/people/a", false, "answered 403"),
    ] {
        let request = format!("GET {path}");
        let facts = json(&gateway, &["check", "--request", &request, "--token", "t"]).await;
        assert_eq!(facts["passes"], passes, "{facts}");
        assert!(facts["reason"].as_str().unwrap().contains(says), "{facts}");
        let user = if passes { json!("service:ci") } else { json!(null) };
        assert_eq!(facts["headers"]["Remote-User"], user, "{facts}");
    }
    succeeded(&portcullis(&gateway, &["token", "revoke", "t"]).await, "Revoked t");
    failed(
        &portcullis(&gateway, &["check", "--request", "GET /a/b", "--token", "t"]).await,
        "the token t is revoked",
    );
}
