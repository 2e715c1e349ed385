//! What the portal is told of a user: in which letters, of which groups, and how soon it hears of a change.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::StatusCode;
use portcullis::users::NewUser;
use secrecy::SecretString;

use crate::support::{Browser, PASSWORD, TestGateway, log, test_gateway::Builder, upstream::Recorded};

const EMAIL: &str = "ada@example.com";

/// A gateway with a user of this name and these groups, who has just got in.
async fn with(builder: Builder, display_name: &str, groups: &[&str]) -> (TestGateway, Browser) {
    let (gateway, browser) = builder.start().await;
    let groups = groups.iter().map(|&group| group.to_owned()).collect();
    let new = NewUser { email: EMAIL.into(), display_name: display_name.into(), groups };
    let password = SecretString::from(PASSWORD);
    gateway.administration().add_user(new, Some(password)).await.unwrap();
    browser.log_in(EMAIL).await;
    gateway.upstream.forget();
    (gateway, browser)
}

async fn asked(gateway: &TestGateway, browser: &Browser) -> Recorded {
    gateway.upstream.forget();
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
    gateway.upstream.only_request()
}

/// What the assertion of a request says.
fn claims(request: &Recorded) -> serde_json::Value {
    let assertion = request.value("x-portcullis-jwt-assertion").unwrap();
    let payload = BASE64_URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

#[tokio::test]
async fn a_name_that_is_not_ascii_reaches_the_portal_in_a_form_that_every_server_takes() {
    let cases = [
        ("", "Céline", "C%C3%A9line"),
        ("", "李小龍", "%E6%9D%8E%E5%B0%8F%E9%BE%8D"),
        ("", "Ada \"the\" 100%", "Ada \"the\" 100%25"),
        ("percent", "Ωμέγα", "%CE%A9%CE%BC%CE%AD%CE%B3%CE%B1"),
        ("rfc2047", "Céline", "=?UTF-8?B?Q8OpbGluZQ==?="),
        ("utf-8", "Céline", "Céline"),
    ];
    for (encoding, name, sent) in cases {
        let builder = TestGateway::builder();
        let builder = if encoding.is_empty() { builder } else { builder.set("identity.encoding", encoding) };
        let (gateway, browser) = with(builder, name, &["équipe", "ops"]).await;
        let request = asked(&gateway, &browser).await;
        assert_eq!(request.value("remote-name").as_deref(), Some(sent), "{encoding}");
        assert_eq!(request.head.0.is_ascii(), encoding != "utf-8", "{encoding}");
        assert!(request.value("remote-groups").unwrap().ends_with(",ops"));
        // JSON has a form of its own.
        assert_eq!(
            (&claims(&request)["name"], &claims(&request)["groups"][0]),
            (&name.into(), &"équipe".into())
        );
    }
}

#[tokio::test]
async fn a_header_that_is_off_is_not_sent_and_still_not_the_clients_to_send() {
    let builder =
        TestGateway::builder().set("identity.headers.name", "off").set("identity.headers.groups", "off");
    let (gateway, browser) = with(builder, "Ada", &["ops"]).await;
    let request = http::Request::get("/").header("remote-name", "eve").header("remote-groups", "admins");
    assert_eq!(browser.send(request.body(crate::support::empty()).unwrap()).await.status, StatusCode::OK);
    let request = gateway.upstream.only_request();
    assert_eq!((request.value("remote-name"), request.value("remote-groups")), (None, None));
    assert_eq!(request.value("remote-user").as_deref(), Some(EMAIL));
}

#[tokio::test]
async fn only_the_chosen_groups_go_out_and_much_of_a_user_is_warned_of() {
    let listener = log::listen();
    let many: Vec<String> = (0..200).map(|number| format!("department-{number:03}-readers")).collect();
    let mut groups: Vec<&str> = many.iter().map(String::as_str).collect();
    groups.extend(["iot-admins", "ops"]);
    let (gateway, browser) = with(TestGateway::builder(), "Ada", &groups).await;
    assert!(asked(&gateway, &browser).await.value("remote-groups").unwrap().len() > 4096);
    let warned = |text: &str| text.lines().filter(|line| line.contains("identity.groups")).count();
    let text = listener.text();
    assert_eq!(warned(&text), 1, "once for a session, with what to set");
    assert!(text.contains("groups=202") && text.contains("bytes="), "{text}");

    let builder = TestGateway::builder().set("identity.groups", "[\"iot-*\", \"ops\"]");
    let (gateway, browser) = with(builder, "Ada", &groups).await;
    let request = asked(&gateway, &browser).await;
    assert_eq!(request.value("remote-groups").as_deref(), Some("iot-admins,ops"));
    assert_eq!(claims(&request)["groups"], serde_json::json!(["iot-admins", "ops"]));
    assert_eq!(warned(&listener.text()), 1, "what is chosen is little");
}
