//! The command line as an operator uses it: the real program, beside a gateway that is running on the same files.

mod asking;
mod check_request;
mod configuration;
mod making;
mod many_users;
mod permissions;
mod roster;
mod sealing_key;
mod serving;
mod token;

use std::{path::Path, process::Command, time::Duration};

use crate::support::{
    ADA, BOB, Browser, PASSWORD, TestGateway,
    process::{Outcome, PROGRAM, run, run_command},
    soon,
};

const SECOND: Duration = Duration::from_secs(1);
const NEW_PASSWORD: &str = "another horse, another battery";

/// Runs a command on the gateway's files.
pub(crate) async fn portcullis(gateway: &TestGateway, arguments: &[&str]) -> Outcome {
    portcullis_with(gateway, arguments, "").await
}

async fn portcullis_with(gateway: &TestGateway, arguments: &[&str], input: &str) -> Outcome {
    let file = gateway.folder().join("portcullis.toml");
    let mut all = arguments.to_vec();
    let file = file.to_str().unwrap().to_owned();
    all.extend(["--config", &file]);
    run(&all, input).await
}

/// Runs a command that has to succeed, and reads the JSON that it prints.
pub(crate) async fn json(gateway: &TestGateway, arguments: &[&str]) -> serde_json::Value {
    let outcome = portcullis(gateway, &[arguments, &["--json"]].concat()).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    // Beside the answer there is nothing but what goes into the audit trail.
    assert!(outcome.err.lines().all(|line| line.contains(" audit: ")), "{outcome:?}");
    outcome.json()
}

/// Makes the store of this configuration, with Ada in it.
async fn made(file: &Path) {
    let added = run(
        &["user", "add", ADA, "--init", "--password-stdin", "--config", file.to_str().unwrap()],
        PASSWORD,
    )
    .await;
    succeeded(&added, "Added ada@example.com.");
}

#[track_caller]
fn succeeded(outcome: &Outcome, says: &str) {
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.out.contains(says), "{outcome:?}");
}

/// Failed with status 1, and said why to people.
#[track_caller]
fn failed(outcome: &Outcome, why: &str) {
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let error = outcome.err.lines().find(|line| line.starts_with("error: "));
    assert!(error.is_some_and(|error| error.contains(why)), "{why}: {outcome:?}");
}

#[tokio::test]
async fn signing_keys_are_listed_rotated_and_given_up() {
    let (gateway, _) = TestGateway::start().await;
    let listed = json(&gateway, &["signing-key", "list"]).await;
    assert_eq!((listed.as_array().unwrap().len(), listed[0]["state"].as_str()), (1, Some("signing")));
    assert_eq!(listed[0]["published_until"], serde_json::Value::Null);
    let next = json(&gateway, &["signing-key", "rotate"]).await;
    assert_eq!(next["made"], true);
    // Once more changes nothing.
    let again = json(&gateway, &["signing-key", "rotate"]).await;
    assert_eq!((&again["kid"], &again["made"]), (&next["kid"], &serde_json::json!(false)));
    succeeded(&portcullis(&gateway, &["signing-key", "rotate"]).await, "There is a next key already:");
    let listed = json(&gateway, &["signing-key", "list"]).await;
    assert_eq!((&listed[1]["kid"], &listed[1]["state"]), (&next["kid"], &serde_json::json!("next")));
    assert!(listed[0]["published_until"].as_str() > listed[1]["signs_from"].as_str());

    let new = json(&gateway, &["signing-key", "rotate", "--compromised"]).await;
    let listed = json(&gateway, &["signing-key", "list"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 3);
    for key in listed.as_array().unwrap().iter().filter(|key| key["kid"] != new["kid"]) {
        assert_eq!(key["published_until"], new["signs_from"], "{key}");
    }
    succeeded(&portcullis(&gateway, &["signing-key", "list"]).await, "PUBLISHED UNTIL");
    let audited = portcullis(&gateway, &["signing-key", "rotate", "--compromised"]).await;
    succeeded(&audited, "no other key is published");
    assert!(audited.err.contains("signing_key.retired"), "{audited:?}");

    let file = gateway.folder().join("portcullis.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}[identity.assertion]\nenabled = false\n")).unwrap();
    failed(&portcullis(&gateway, &["signing-key", "list"]).await, "nothing is signed");
}

/// The same on any configuration.
async fn json_of(file: &str, arguments: &[&str]) -> serde_json::Value {
    let outcome = run(&[arguments, &["--json", "--config", file]].concat(), "").await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    outcome.json()
}

async fn is_out(browser: &Browser) -> bool {
    browser.level().await == "none"
}

#[tokio::test]
async fn users_are_added_listed_shown_and_removed() {
    let (gateway, browser) = TestGateway::start().await;
    assert_eq!(json(&gateway, &["user", "list"]).await, serde_json::json!([]));
    let add =
        ["user", "add", " Ada@Example.com ", "--name", "Ada Lovelace", "--group", "ops", "--group", "dev"];
    let input = format!("{PASSWORD}\nwhat comes after the first line is not the password\n");
    let added = portcullis_with(&gateway, &[&add[..], &["--password-stdin"]].concat(), &input).await;
    succeeded(&added, "Added Ada@Example.com.");
    assert!(!format!("{added:?}").contains(PASSWORD));
    let again = portcullis_with(&gateway, &[&add[..], &["--password-stdin"]].concat(), &input).await;
    failed(&again, "cannot add Ada@Example.com: this user already exists");

    browser.log_in_to("/", ADA).await;
    let users = json(&gateway, &["user", "list"]).await;
    assert_eq!(users[0]["email"], "Ada@Example.com");
    assert_eq!(users[0]["groups"], serde_json::json!(["ops", "dev"]));
    assert_eq!(users[0]["disabled"], false);
    succeeded(
        &portcullis(&gateway, &["user", "list"]).await,
        "Ada@Example.com  Ada Lovelace  ops,dev  enabled",
    );

    let shown = json(&gateway, &["user", "show", "ADA@example.com"]).await;
    assert_eq!((&shown["name"], &shown["recovery_codes_left"]), (&"Ada Lovelace".into(), &10.into()));
    assert_eq!(
        (&shown["devices"][0]["name"], shown["sessions"].as_array().unwrap().len()),
        (&"Phone".into(), 1)
    );
    assert_eq!(shown["sessions"][0]["amr"], serde_json::json!(["pwd", "otp"]));
    let shown = portcullis(&gateway, &["user", "show", ADA]).await;
    succeeded(&shown, "recovery codes  10 left");
    assert!(shown.out.contains("Phone") && shown.out.contains("127.0.0.1"), "{shown:?}");

    failed(&portcullis(&gateway, &["user", "remove", ADA]).await, "use --yes");
    assert!(!is_out(&browser).await);
    succeeded(&portcullis(&gateway, &["user", "remove", ADA, "--yes"]).await, "ada@example.com: removed.");
    soon(SECOND, "out with the user", async || is_out(&browser).await).await;
    assert_eq!(json(&gateway, &["user", "list"]).await, serde_json::json!([]));
}

#[tokio::test]
async fn what_is_about_a_user_who_does_not_exist_fails_and_says_so() {
    let (gateway, _) = TestGateway::start().await;
    let commands: [&[&str]; 9] = [
        &["user", "show"],
        &["user", "disable"],
        &["user", "enable"],
        &["user", "remove", "--yes"],
        &["user", "set-password", "--password-stdin"],
        &["device", "list"],
        &["device", "remove", "Phone"],
        &["session", "list"],
        &["session", "revoke", "--user"],
    ];
    for command in commands {
        let (verb, rest) = command.split_at(2);
        let mut arguments = verb.to_vec();
        if rest == ["--user"] {
            arguments.extend(["--user", "nobody@example.com"]);
        } else {
            arguments.push("nobody@example.com");
            arguments.extend(rest);
        }
        let outcome = portcullis_with(&gateway, &arguments, NEW_PASSWORD).await;
        failed(&outcome, "there is no user nobody@example.com");
        assert_eq!(outcome.out, "", "{arguments:?}");
        arguments.push("--json");
        let outcome = portcullis_with(&gateway, &arguments, NEW_PASSWORD).await;
        assert_eq!(outcome.code, 1);
        assert_eq!(outcome.json()["error"], "there is no user nobody@example.com", "{arguments:?}");
    }
}

#[tokio::test]
async fn disabling_a_user_holds_in_the_running_gateway_within_a_second() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    browser.log_in(ADA).await;
    let outcome = portcullis(&gateway, &["user", "disable", ADA]).await;
    succeeded(&outcome, "ada@example.com: disabled.");
    assert!(outcome.err.contains("event=\"user.disabled\" user.name=\"ada@example.com\""), "{outcome:?}");
    soon(SECOND, "out", async || is_out(&browser).await).await;
    assert_eq!(browser.submit_password(ADA, PASSWORD).await.status.as_u16(), 401);
    succeeded(&portcullis(&gateway, &["user", "list"]).await, "disabled");
    assert_eq!(json(&gateway, &["user", "show", ADA]).await["disabled"], true);

    succeeded(&portcullis(&gateway, &["user", "enable", ADA]).await, "ada@example.com: enabled.");
    assert!(is_out(&browser).await, "what was ended stays so");
    assert_eq!(browser.log_in_to("/", ADA).await.text(), "the portal: GET /\n");
    // Doing it twice is no failure.
    for verb in ["disable", "disable", "enable", "enable"] {
        assert_eq!(portcullis(&gateway, &["user", verb, ADA]).await.code, 0);
    }
}

#[tokio::test]
async fn a_new_password_ends_the_sessions_made_with_the_old_one() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    browser.log_in(ADA).await;
    let set = ["user", "set-password", ADA, "--password-stdin"];
    for (weak, why) in [
        ("too short", "Use at least 15 characters"),
        ("ada@example.com, of course", "Leave out"),
        ("aaaaaaaaaaaaaaaaaaaaaaa", "repeats the same few characters"),
        ("password123456789", "tried first"),
        ("", "holds no password"),
    ] {
        failed(&portcullis_with(&gateway, &set, &format!("{weak}\n")).await, why);
    }
    assert!(!is_out(&browser).await, "a refused password changes nothing");
    let outcome = portcullis_with(&gateway, &set, &format!("{NEW_PASSWORD}\r\n")).await;
    succeeded(&outcome, "password set");
    assert!(!format!("{outcome:?}").contains(NEW_PASSWORD));
    soon(SECOND, "out", async || is_out(&browser).await).await;
    assert_eq!(browser.submit_password(ADA, PASSWORD).await.status.as_u16(), 401);
    assert_eq!(browser.submit_password(ADA, NEW_PASSWORD).await.location(), "/.portcullis/code");
}

#[tokio::test]
async fn devices_are_listed_and_removed_by_name_or_id() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    assert_eq!(json(&gateway, &["device", "list", ADA]).await, serde_json::json!([]));
    succeeded(&portcullis(&gateway, &["device", "list", ADA]).await, "No devices.");
    browser.log_in(ADA).await;
    let page = browser.visit("/.portcullis/enrol").await;
    browser.bind(&page, ADA, "Tablet").await;
    let devices = json(&gateway, &["device", "list", ADA]).await;
    let devices = devices.as_array().unwrap();
    assert_eq!(devices.len(), 2);
    assert!(
        devices
            .iter()
            .all(|device| device["last_used_at"] == device["added_at"] && device["added_at"].is_string())
    );

    failed(&portcullis(&gateway, &["device", "remove", ADA, "Watch"]).await, "has no device Watch");
    assert!(!is_out(&browser).await);
    assert_eq!(json(&gateway, &["device", "remove", ADA, "Phone"]).await["name"], "Phone");
    soon(SECOND, "out", async || is_out(&browser).await).await;
    browser.log_in_to("/", ADA).await;
    let tablet = devices.iter().find(|device| device["name"] == "Tablet").unwrap()["id"].as_str().unwrap();
    succeeded(
        &portcullis(&gateway, &["device", "remove", ADA, tablet, "--yes"]).await,
        "Removed Tablet of ada@example.com.",
    );
    soon(SECOND, "out", async || is_out(&browser).await).await;
    let page = browser.visit("/").await;
    assert!(browser.sign_in(&page, ADA).await.has_form("device_name"), "there is no device left to ask for");
}

#[tokio::test]
async fn sessions_are_ended_one_by_one_by_user_or_all_at_once() {
    let (gateway, adas) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    gateway.add_user(BOB).await;
    assert_eq!(json(&gateway, &["session", "list"]).await, serde_json::json!([]));
    succeeded(&portcullis(&gateway, &["session", "list"]).await, "No sessions.");
    adas.log_in(ADA).await;
    let (other, bobs) = (gateway.browser(), gateway.browser());
    other.log_in_to("/", ADA).await;
    bobs.log_in(BOB).await;
    let sessions = json(&gateway, &["session", "list"]).await;
    assert_eq!(sessions.as_array().unwrap().len(), 3);
    for browser in [&adas, &other, &bobs] {
        assert!(!sessions.to_string().contains(&browser.session()), "a list opens nothing");
    }
    let of_ada = json(&gateway, &["session", "list", ADA]).await;
    assert_eq!(of_ada.as_array().unwrap().len(), 2);
    let of_bob = json(&gateway, &["session", "list", BOB]).await;
    let id = of_bob[0]["id"].as_str().unwrap();
    assert_eq!((id.len(), of_bob[0]["user"].as_str()), (16, Some(BOB)));
    assert_eq!(of_bob[0]["client_ip"], "127.0.0.1");
    succeeded(&portcullis(&gateway, &["session", "list", BOB]).await, id);

    // Too few digits could be anybody's.
    failed(&portcullis(&gateway, &["session", "revoke", &id[..7]]).await, "give more digits");
    failed(&portcullis(&gateway, &["session", "revoke", "0123456789abcdef"]).await, "there is no session");
    assert_eq!(json(&gateway, &["session", "revoke", &id[..8].to_uppercase()]).await["ended"], 1);
    soon(SECOND, "Bob is out", async || is_out(&bobs).await).await;
    assert!(!is_out(&adas).await && !is_out(&other).await);

    assert_eq!(json(&gateway, &["session", "revoke", "--user", ADA]).await["ended"], 2);
    for browser in [&adas, &other] {
        soon(SECOND, "Ada is out", async || is_out(browser).await).await;
    }
    adas.log_in_to("/", ADA).await;
    bobs.log_in_to("/", BOB).await;
    succeeded(&portcullis(&gateway, &["session", "revoke", "--all", "--yes"]).await, "Ended 2 sessions.");
    for browser in [&adas, &bobs] {
        soon(SECOND, "everybody is out", async || is_out(browser).await).await;
    }
}

#[tokio::test]
async fn what_ends_sessions_in_redis_ends_them_at_the_gateway() {
    let (gateway, browser) = TestGateway::builder().redis().start().await;
    gateway.add_user(ADA).await;
    browser.log_in(ADA).await;
    assert_eq!(json(&gateway, &["session", "revoke", "--user", ADA]).await["ended"], 1);
    soon(SECOND, "out", async || is_out(&browser).await).await;
    browser.log_in_to("/", ADA).await;
    json(&gateway, &["user", "disable", ADA]).await;
    soon(SECOND, "out", async || is_out(&browser).await).await;

    gateway.redis.as_ref().unwrap().kill().await;
    let outcome = portcullis(&gateway, &["session", "list"]).await;
    failed(&outcome, "no connection to Redis");
}

#[tokio::test]
async fn a_hash_is_what_a_password_is_stored_as() {
    let outcome = run(&["hash", "--password-stdin"], &format!("{PASSWORD}\n")).await;
    succeeded(&outcome, "$argon2id$v=19$m=19456,t=2,p=1$");
    let outcome = run(&["hash", "--password-stdin", "--json"], PASSWORD).await;
    assert!(outcome.json()["hash"].as_str().unwrap().starts_with("$argon2id$"));
    assert_ne!(
        outcome.out,
        run(&["hash", "--password-stdin", "--json"], PASSWORD).await.out,
        "the salt is new"
    );
}

#[tokio::test]
async fn passwords_come_from_a_prompt_or_standard_input_and_from_nowhere_else() {
    let (gateway, _) = TestGateway::start().await;
    for arguments in [
        ["user", "add", ADA, "--password", PASSWORD],
        ["user", "add", ADA, "--password-stdin=x", ""],
        ["user", "set-password", ADA, "--password", PASSWORD],
        ["user", "add", ADA, PASSWORD, ""],
        ["hash", PASSWORD, "", "", ""],
    ] {
        let arguments: Vec<&str> = arguments.into_iter().filter(|argument| !argument.is_empty()).collect();
        let outcome = portcullis(&gateway, &arguments).await;
        assert_eq!(outcome.code, 2, "{outcome:?}");
    }
    for arguments in [&["user", "add", ADA][..], &["hash"], &["user", "set-password", ADA]] {
        failed(&portcullis(&gateway, arguments).await, "use --password-stdin");
    }
    assert_eq!(json(&gateway, &["user", "list"]).await, serde_json::json!([]));
}

#[tokio::test]
async fn a_prompt_asks_twice_and_repeats_nothing() {
    // `script` gives the command a terminal of its own, and prints what is to be seen on it.
    let ask = async |first: &str, second: &str| {
        let mut command = Command::new("script");
        let inner = format!("{PROGRAM} hash");
        command.args(["--quiet", "--return", "--echo", "never", "--command", &inner, "/dev/null"]);
        let input = format!("{first}\n{second}\n");
        run_command(command, &input).await
    };
    let outcome = ask(PASSWORD, PASSWORD).await;
    succeeded(&outcome, "$argon2id$");
    assert!(outcome.out.contains("Password:") && outcome.out.contains("Once more:"), "{outcome:?}");
    assert!(!outcome.out.contains(PASSWORD), "{outcome:?}");
    let outcome = ask(PASSWORD, NEW_PASSWORD).await;
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.out.contains("the two passwords differ"), "{outcome:?}");
}

#[tokio::test]
async fn a_command_that_is_no_command_is_wrong_usage() {
    let cases: [&[&str]; 12] = [
        &[],
        &["nonsense"],
        &["user"],
        &["user", "add"],
        &["user", "show"],
        &["user", "show", "a", "b"],
        &["device", "remove", "a"],
        &["session", "revoke"],
        &["session", "revoke", "01234567", "--all"],
        &["session", "revoke", "--user", "a", "--all"],
        &["serve", "--port", "1"],
        &["demo", "--port", "x"],
    ];
    for arguments in cases {
        let outcome = run(arguments, "").await;
        assert_eq!((outcome.code, outcome.out.as_str()), (2, ""), "{arguments:?}: {outcome:?}");
        assert!(outcome.err.contains("--help") || outcome.err.contains("Usage:"), "{outcome:?}");
        // A script gets the same as JSON.
        let script = run(&[arguments, &["--json"]].concat(), "").await;
        assert!(script.code == 2 && script.err.contains("--help"), "{script:?}");
        let fact = script.json();
        assert!(
            fact["error"].as_str().is_some_and(|error| !error.is_empty() && !error.contains('\n')),
            "{fact}"
        );
        assert!(
            fact["usage"]
                .as_str()
                .is_some_and(|usage| usage.contains("portcullis") || usage.contains("--help")),
            "{fact}"
        );
    }
    let typed_later = run(&["user", "show", "--", "--json"], "").await;
    assert_ne!(typed_later.code, 2, "an argument, not the flag");
    for arguments in [&["--help"][..], &["user", "--help"], &["--version"], &["--json", "--help"]] {
        let outcome = run(arguments, "").await;
        assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{arguments:?}");
        assert!(outcome.out.contains("portcullis") || outcome.out.contains("Usage"), "{outcome:?}");
    }
}
