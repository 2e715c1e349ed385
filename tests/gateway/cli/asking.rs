//! What cannot be taken back asks first: a person at a terminal, and a script with `--yes`.

use std::{fs, process::Command, time::Duration};

use super::{ADA, failed, json, made, portcullis, succeeded};
use crate::support::{
    TestGateway,
    process::{Outcome, PROGRAM, Process, run, run_command},
    soon,
    test_gateway::{configuration, folder},
};

/// Runs a command of a gateway at a terminal of its own, where `typed` is typed.
async fn at_a_terminal(gateway: &TestGateway, command: &str, typed: &str) -> Outcome {
    let file = gateway.folder().join("portcullis.toml");
    let inner = format!("{PROGRAM} {command} --config {}", file.display());
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--echo", "never", "--command", &inner, "/dev/null"]);
    run_command(script, &format!("{typed}\n")).await
}

#[tokio::test]
async fn ending_every_session_asks() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    browser.log_in(ADA).await;
    let asked = portcullis(&gateway, &["session", "revoke", "--all"]).await;
    failed(&asked, "use --yes");
    assert!(asked.err.contains("signs everybody out"), "{asked:?}");
    let refused = at_a_terminal(&gateway, "session revoke --all", "no").await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.out.contains("Type all to go on") && refused.out.contains("nothing was changed"),
        "{refused:?}"
    );
    assert_eq!(browser.level().await, "two_factor");
    succeeded(&at_a_terminal(&gateway, "session revoke --all", "all").await, "Ended 1 session.");
    soon(Duration::from_secs(1), "out", async || browser.level().await == "none").await;
    // One session, or one user's, are asked for by name.
    assert_eq!(json(&gateway, &["session", "revoke", "--user", ADA]).await["ended"], 0);
}

#[tokio::test]
async fn removing_the_last_device_asks_and_says_what_goes_with_it() {
    let (gateway, browser) = TestGateway::start().await;
    gateway.add_user(ADA).await;
    browser.log_in(ADA).await;
    let page = browser.visit("/.portcullis/enrol").await;
    browser.bind(&page, ADA, "Tablet").await;
    succeeded(&portcullis(&gateway, &["device", "remove", ADA, "Tablet"]).await, "Removed Tablet");
    let asked = portcullis(&gateway, &["device", "remove", ADA, "Phone"]).await;
    failed(&asked, "use --yes");
    assert!(
        asked.err.contains("last device") && asked.err.contains("recovery codes go with it"),
        "{asked:?}"
    );
    failed(&portcullis(&gateway, &["device", "remove", ADA, "Watch"]).await, "has no device Watch");
    assert_eq!(json(&gateway, &["device", "list", ADA]).await.as_array().map(Vec::len), Some(1));
    let typed = at_a_terminal(&gateway, &format!("device remove {ADA} Phone"), "remove").await;
    succeeded(&typed, "Removed Phone");
}

#[tokio::test]
async fn copying_a_store_that_a_gateway_has_open_asks() {
    let folder = folder();
    let file = folder.path().join("portcullis.toml");
    fs::write(&file, configuration(&["http://127.0.0.1:3000".to_owned()], "database")).unwrap();
    made(&file).await;
    let file = file.to_str().unwrap();
    let target = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
    let copy = async |name: &str, yes: &[&str]| {
        run(&[&["store", "copy", "--to", &target(name), "--config", file], yes].concat(), "").await
    };
    let copied = copy("alone.db", &[]).await;
    succeeded(&copied, "verified the row counts");

    let mut serve = Command::new(PROGRAM);
    serve.args(["serve", "--config", file]);
    let (mut gateway, ()) =
        Process::start(serve, |line| line.contains("listening address=").then_some(())).await;
    let asked = copy("beside.db", &[]).await;
    failed(&asked, "use --yes");
    assert!(asked.err.contains("is in use, probably by a running gateway. Stop it first"), "{asked:?}");
    assert!(!folder.path().join("beside.db").exists());
    succeeded(&copy("beside.db", &["--yes"]).await, "verified the row counts");
    gateway.kill();
    succeeded(&copy("after.db", &[]).await, "verified the row counts");
}
