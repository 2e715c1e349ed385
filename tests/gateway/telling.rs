//! What the portal is told of a user: in which letters, of which groups, and how soon it hears of a change.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::StatusCode;
use portcullis::users::NewUser;
use secrecy::SecretString;

use crate::support::{
    Browser, PASSWORD, TestGateway, log, process::run, soon, test_gateway::Builder, upstream::Recorded,
};

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
    browser.remove_cookie("__Host-portcullis");
    browser.log_in(EMAIL).await;
    assert_eq!(asked(&gateway, &browser).await.value("remote-user").as_deref(), Some(EMAIL));
    let text = listener.text();
    assert_eq!(warned(&text), 1, "once for a user, with what to set");
    assert!(text.contains("groups=202") && text.contains("bytes="), "{text}");

    let builder = TestGateway::builder().set("identity.groups", "[\"iot-*\", \"ops\"]");
    let (gateway, browser) = with(builder, "Ada", &groups).await;
    let request = asked(&gateway, &browser).await;
    assert_eq!(request.value("remote-groups").as_deref(), Some("iot-admins,ops"));
    assert_eq!(claims(&request)["groups"], serde_json::json!(["iot-admins", "ops"]));
    assert_eq!(warned(&listener.text()), 1, "what is chosen is little");
}

#[tokio::test]
async fn what_an_operator_changes_of_a_user_the_portal_hears_within_a_second() {
    let (gateway, browser) = with(TestGateway::builder(), "Ada", &["ops"]).await;
    let (other, _) = gateway.twin().await;
    let elsewhere = other.browser().http2();
    elsewhere.set_cookie("__Host-portcullis", &browser.session());
    assert_eq!(asked(&gateway, &elsewhere).await.value("remote-groups").as_deref(), Some("ops"));
    let command = async |arguments: &[&str]| {
        let file = gateway.folder().join("portcullis.toml");
        let outcome = run(&[arguments, &["--json", "--config", file.to_str().unwrap()]].concat(), "").await;
        assert_eq!(outcome.code, 0, "{outcome:?}");
        (outcome.json(), outcome.err)
    };
    let (user, audit) = command(&["user", "set-name", EMAIL, "Céline"]).await;
    assert_eq!(user["name"], "Céline");
    assert!(audit.contains("event=\"user.name_set\" user.name=\"ada@example.com\""), "{audit}");
    let (user, audit) =
        command(&["user", "set-groups", "ADA@example.com", "dev,qa", "--group", "night shift"]).await;
    assert_eq!(user["groups"], serde_json::json!(["dev", "qa", "night shift"]));
    assert!(audit.contains("event=\"user.groups_set\""), "{audit}");
    let (user, audit) = command(&["user", "set-email", EMAIL, " Celine@Example.com\u{200b}"]).await;
    assert_eq!(user["email"], "Celine@Example.com");
    assert!(
        audit.contains(
            "event=\"user.email_set\" user.name=\"celine@example.com\" user.previous_name=\"ada@example.com\""
        ),
        "{audit}"
    );
    for browser in [&browser, &elsewhere] {
        soon(Duration::from_secs(1), "told", async || {
            let request = asked(&gateway, browser).await;
            let claims = claims(&request);
            request.value("remote-user").as_deref() == Some("celine@example.com")
                && request.value("remote-email").as_deref() == Some("Celine@Example.com")
                && request.value("remote-name").as_deref() == Some("C%C3%A9line")
                && request.value("remote-groups").as_deref() == Some("dev,qa,night shift")
                && claims["email"] == "Celine@Example.com"
                && claims["name"] == "Céline"
                && claims["groups"][2] == "night shift"
        })
        .await;
    }

    // The phone stays, the old name is nobody's.
    let fresh = gateway.browser();
    assert_eq!(fresh.submit_password(EMAIL, PASSWORD).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(fresh.submit_password("celine@example.com", PASSWORD).await.status, StatusCode::SEE_OTHER);
    gateway.clock.advance(Duration::from_mins(1));
    assert_eq!(fresh.submit_code(&gateway.phone(EMAIL).fresh_code()).await.location(), "/");
    command(&["user", "set-groups", "celine@example.com"]).await;
    soon(Duration::from_secs(1), "in no group", async || {
        asked(&gateway, &fresh).await.value("remote-groups").as_deref() == Some("")
    })
    .await;
}

#[tokio::test]
async fn a_change_that_cannot_be_is_refused_with_the_reason_and_changes_nothing() {
    let (gateway, browser) = with(TestGateway::builder(), "Ada", &["ops"]).await;
    gateway.add_user("bob@example.com").await;
    let file = gateway.folder().join("portcullis.toml");
    for (arguments, why) in [
        (&["set-email", EMAIL, "Bob@example.com\u{feff}"][..], "already"),
        (&["set-email", EMAIL, "a b"], "white space"),
        (&["set-email", EMAIL, "\u{200b}"], "empty"),
        (&["set-name", EMAIL, "a\u{7}b"], "control characters"),
        (&["set-groups", EMAIL, "\u{ad}"], "empty"),
        (&["set-groups", "nobody@example.com", "ops"], "no user"),
    ] {
        let arguments = [&["user"], arguments, &["--config", file.to_str().unwrap()]].concat();
        let outcome = run(&arguments, "").await;
        assert!(outcome.code == 1 && outcome.err.contains(why), "{arguments:?}: {outcome:?}");
    }
    let request = asked(&gateway, &browser).await;
    assert_eq!(request.value("remote-user").as_deref(), Some(EMAIL));
    assert_eq!(
        (request.value("remote-name"), request.value("remote-groups")),
        (Some("Ada".into()), Some("ops".into()))
    );
}

#[tokio::test]
async fn a_name_with_what_nobody_sees_is_the_same_name_at_every_door() {
    let (gateway, browser) = TestGateway::start().await;
    let file = gateway.folder().join("portcullis.toml");
    let command = async |arguments: &[&str]| {
        run(&[arguments, &["--config", file.to_str().unwrap()]].concat(), &format!("{PASSWORD}\n")).await
    };
    let added =
        command(&["user", "add", "\u{feff}Zoe@b\u{fc}cher.example\u{200b}", "--password-stdin"]).await;
    assert!(added.out.contains("Added Zoe@b\u{fc}cher.example."), "{added:?}");
    let again = command(&["user", "add", "zoe@xn--bcher-kva.example", "--password-stdin"]).await;
    assert!(again.code == 1 && again.err.contains("already"), "{again:?}");
    for typed in [
        "zoe@b\u{fc}cher.example",
        "ZOE@XN--BCHER-KVA.EXAMPLE\u{200b}",
        "\u{202a}zoe@bu\u{308}cher.example\u{202c}",
    ] {
        assert_eq!(browser.submit_password(typed, PASSWORD).await.status, StatusCode::SEE_OTHER, "{typed:?}");
        assert_eq!(command(&["user", "show", typed]).await.code, 0, "{typed:?}");
    }
}

#[tokio::test]
async fn codes_are_taken_in_any_digits_and_with_any_separator() {
    let (gateway, browser) = with(TestGateway::builder(), "Ada", &[]).await;
    let phone = gateway.phone(EMAIL);
    let arabic = |code: &str| {
        code.bytes().map(|digit| char::from_u32(0x660 + u32::from(digit - b'0')).unwrap()).collect()
    };
    let wide = |code: &str| {
        code.bytes().map(|digit| char::from_u32(0xff10 + u32::from(digit - b'0')).unwrap()).collect()
    };
    let forms: [&dyn Fn(&str) -> String; 4] =
        [&arabic, &wide, &|code| format!("{}-{}", &code[..3], &code[3..]), &|code| {
            format!("\u{202d}{} . {}\u{200b}", &code[..3], &code[3..])
        }];
    for form in forms {
        let browser = gateway.browser();
        gateway.clock.advance(Duration::from_mins(1));
        assert_eq!(browser.submit_password(EMAIL, PASSWORD).await.status, StatusCode::SEE_OTHER);
        let code = form(&phone.fresh_code());
        assert_eq!(browser.submit_code(&code).await.location(), "/", "{code}");
    }
    drop(browser);
}
