//! What is wrong with a configuration is said all at once, with file and line, before anything is served.

use std::{path::Path, process::Command};

use super::{failed, made, succeeded};
use crate::support::{
    HOST, TestGateway, Upstream, certificate,
    process::{Outcome, PROGRAM, Process, run, run_command},
    test_gateway::{configuration, folder},
};

async fn check(file: &Path, more: &[&str]) -> Outcome {
    let mut arguments = vec!["check", "--config", file.to_str().unwrap()];
    arguments.extend(more);
    run(&arguments, "").await
}

/// A folder with a good configuration in it.
fn good() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = folder();
    let file = folder.path().join("portcullis.toml");
    std::fs::write(&file, configuration(&["http://127.0.0.1:3000".to_owned()], "database")).unwrap();
    (folder, file)
}

#[tokio::test]
async fn a_good_configuration_is_called_good() {
    let (folder, file) = good();
    let outcome = check(&file, &[]).await;
    succeeded(&outcome, &format!("The configuration is good: https://{HOST}/ on 127.0.0.1:0"));
    let facts = check(&file, &["--json"]).await.json();
    // The warning is about a certificate that nobody has signed.
    assert_eq!((&facts["ok"], &facts["warnings"]), (&true.into(), &1.into()));
    assert_eq!(facts["files"], serde_json::json!([file]));
    assert!(outcome.err.contains("warning: the certificate is signed by itself"), "{outcome:?}");
    assert_eq!(facts["upstreams"], serde_json::json!(["http://127.0.0.1:3000/"]));
    assert!(!folder.path().join("portcullis.db").exists(), "looking makes no files");
}

#[tokio::test]
async fn every_fault_is_shown_at_once_with_file_and_line() {
    let (_folder, file) = good();
    let good = std::fs::read_to_string(&file).unwrap();
    let bad = good
        .replace("listen = [\"127.0.0.1:0\"]", "listen = [\"nowhere\"]")
        .replace("public_url = \"https://", "public_url = \"http://")
        .replace("name = \"IoT Connectivity\"", "nmae = \"IoT Connectivity\"")
        .replace("[sessions]", "[sessions]\ninactivity = \"soon\"\nexpiration = 12");
    std::fs::write(&file, &bad).unwrap();
    let line = |text: &str| 1 + bad.lines().position(|line| line.contains(text)).unwrap();
    for command in ["check", "serve", "user"] {
        let mut arguments = vec![command, "--config", file.to_str().unwrap()];
        if command == "user" {
            arguments.push("list");
        }
        let outcome = run(&arguments, "").await;
        assert_eq!((outcome.code, outcome.out.as_str()), (1, ""), "{outcome:?}");
        for (text, says) in [
            ("listen = [\"nowhere\"]", "server.listen"),
            ("public_url", "server.public_url"),
            ("nmae", "portal.nmae"),
            ("inactivity", "sessions.inactivity"),
            ("expiration", "sessions.expiration"),
        ] {
            let place = format!("{}:{}:", file.display(), line(text));
            assert!(outcome.err.contains(&place), "{place}: {}", outcome.err);
            let key = says.rsplit('.').next().unwrap();
            assert!(outcome.err.contains(says) || outcome.err.contains(key), "{says}: {}", outcome.err);
        }
        assert!(outcome.err.contains("error: the configuration cannot be used"), "{}", outcome.err);
    }
    let outcome = check(&file, &["--json"]).await;
    assert_eq!(outcome.json()["error"], "the configuration cannot be used");
}

#[tokio::test]
async fn a_file_that_is_missing_or_no_toml_is_said_to_be() {
    let (folder, file) = good();
    let missing = folder.path().join("absent.toml");
    let outcome = check(&missing, &[]).await;
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains(missing.to_str().unwrap()), "{}", outcome.err);
    std::fs::write(&file, "[server\nlisten = 1").unwrap();
    let outcome = check(&file, &[]).await;
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains(&format!("{}:1:", file.display())), "{}", outcome.err);
}

#[tokio::test]
async fn later_files_win_over_earlier_ones() {
    let (folder, file) = good();
    let local = folder.path().join("local.toml");
    std::fs::write(&local, "[portal]\nupstreams = [\"http://127.0.0.1:4000\"]\n").unwrap();
    let outcome = check(&file, &["--config", local.to_str().unwrap(), "--json"]).await;
    assert_eq!(outcome.json()["upstreams"], serde_json::json!(["http://127.0.0.1:4000/"]));
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_its_key_is_refused() {
    let (folder, file) = good();
    let (_, other) = certificate(HOST);
    std::fs::write(folder.path().join("key.pem"), other).unwrap();
    for command in ["check", "serve"] {
        let outcome = run(&[command, "--config", file.to_str().unwrap()], "").await;
        failed(&outcome, "key.pem");
        assert!(outcome.err.contains("does not"), "{}", outcome.err);
    }
    std::fs::remove_file(folder.path().join("key.pem")).unwrap();
    failed(&check(&file, &[]).await, "key.pem");
    std::fs::write(folder.path().join("certificate.pem"), "no PEM at all").unwrap();
    failed(&check(&file, &[]).await, "certificate.pem");
}

#[tokio::test]
async fn a_key_file_that_others_can_read_and_a_database_that_is_none_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, file) = good();
    let list = ["user", "list", "--config", file.to_str().unwrap()];
    let (database, key) = (folder.path().join("portcullis.db"), folder.path().join("portcullis.key"));
    std::fs::write(&database, "this is not a database, but it is long enough to be looked at".repeat(20))
        .unwrap();
    for command in [&list[..], &["serve", "--config", file.to_str().unwrap()]] {
        let outcome = run(command, "").await;
        failed(&outcome, "cannot open the database");
        assert!(outcome.err.contains("file is not a database"), "{outcome:?}");
    }
    std::fs::remove_file(&database).unwrap();
    made(&file).await;
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let outcome = run(&list, "").await;
    failed(&outcome, "can be read by others: run `chmod 600");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&key, "too short").unwrap();
    failed(&run(&list, "").await, "must contain 64 hexadecimal digits");
    // A new key would open nothing of what is there.
    std::fs::remove_file(&key).unwrap();
    failed(&run(&list, "").await, "is missing");
    std::fs::write(&key, "0".repeat(64)).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    failed(&run(&list, "").await, "does not fit");
}

#[tokio::test]
async fn a_database_is_never_opened_with_another_key_than_the_one_it_was_sealed_with() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, file) = good();
    let list = ["user", "list", "--config", file.to_str().unwrap()];
    let (database, key) = (folder.path().join("portcullis.db"), folder.path().join("portcullis.key"));
    made(&file).await;
    assert_eq!(std::fs::metadata(&database).unwrap().permissions().mode() & 0o777, 0o600);
    let right = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    failed(&run(&list, "").await, "is missing, and");
    assert!(!key.exists(), "no other key was made");
    std::fs::write(&key, "0".repeat(64)).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    failed(&run(&list, "").await, "does not fit");
    std::fs::write(&key, right).unwrap();
    assert_eq!(run(&list, "").await.code, 0);
}

/// Writes a pair for this host, good from one day of a year to the same day of another.
fn write_pair(folder: &Path, host: &str, from: i32, until: i32) {
    let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(folder.join("certificate.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

#[tokio::test]
async fn a_certificate_that_browsers_refuse_fails_the_check_and_is_served_with_an_error() {
    let (folder, file) = good();
    for (host, from, until, says) in [
        ("www.example.com", 2020, 2090, format!("the certificate is for www.example.com, not for {HOST}")),
        (HOST, 2020, 2021, "the certificate expired on 2021-01-01T00:00:00Z: renew it".to_owned()),
        (HOST, 2089, 2090, "the certificate is not valid before 2089-01-01T00:00:00Z".to_owned()),
    ] {
        write_pair(folder.path(), host, from, until);
        failed(&check(&file, &[]).await, &says);
        let mut serve = Command::new(PROGRAM);
        serve.args(["serve", "--config", file.to_str().unwrap()]);
        let told = says.clone();
        let (gateway, ()) =
            Process::start(serve, move |line| (line.contains("ERROR") && line.contains(&told)).then_some(()))
                .await;
        assert!(gateway.said().contains("listening"), "a wall that nobody can pass is better than none");
    }
}

#[tokio::test]
async fn the_start_says_what_is_running_and_what_it_was_read_from() {
    let (folder, file) = good();
    let local = folder.path().join("local.toml");
    std::fs::write(&local, "[second_factor]\nmandatory_from = 2090-03-02T00:00:00+01:00\n").unwrap();
    let mut serve = Command::new(PROGRAM);
    serve.args(["serve", "--config", file.to_str().unwrap(), "--config", local.to_str().unwrap()]);
    let (gateway, ()) = Process::start(serve, |line| line.contains("listening address=").then_some(())).await;
    let said = gateway.said();
    for fact in [
        format!("version=\"{}\"", env!("CARGO_PKG_VERSION")),
        format!("configuration=\"{}, {}\"", file.display(), local.display()),
        format!("public_url=https://{HOST}/"),
        "users=0".to_owned(),
        "certificate_expires=4096-01-01T00:00:00Z".to_owned(),
        "mandatory_from=\"2090-03-02T00:00:00+01:00\"".to_owned(),
        "there are no users yet: add one with `portcullis user add EMAIL`".to_owned(),
    ] {
        assert!(said.contains(&fact), "{fact}: {said}");
    }
}

#[tokio::test]
async fn in_a_container_the_environment_is_the_configuration() {
    let folder = folder();
    let mut serve = Command::new(PROGRAM);
    serve.arg("serve").current_dir(folder.path()).env_clear().envs([
        ("PORTCULLIS_SERVER__PUBLIC_URL", format!("https://{HOST}").as_str()),
        ("PORTCULLIS_SERVER__LISTEN", "127.0.0.1:0"),
        ("PORTCULLIS_SERVER__ADMIN_LISTEN", "127.0.0.1:0"),
        ("PORTCULLIS_TLS__CERTIFICATE", "certificate.pem"),
        ("PORTCULLIS_TLS__KEY", "key.pem"),
        ("PORTCULLIS_PORTAL__NAME", "IoT"),
        ("PORTCULLIS_PORTAL__UPSTREAMS", "http://127.0.0.1:3000"),
    ]);
    let (gateway, ()) = Process::start(serve, |line| line.contains("listening address=").then_some(())).await;
    assert!(gateway.said().contains("configuration=\"the environment\""), "{}", gateway.said());
    // Without either there is nothing to go by, and it is said what was looked for.
    let mut lost = Command::new(PROGRAM);
    lost.args(["user", "list"]).current_dir(folder.path()).env_clear();
    let outcome = run_command(lost, "").await;
    failed(&outcome, &format!("there is no portcullis.toml in {}", folder.path().display()));
    assert!(outcome.err.contains("/etc/portcullis/portcullis.toml") && outcome.err.contains("--config FILE"));
}

/// What openssl makes by default: an authority that signed itself.
fn authority(name: &str) -> (String, String) {
    let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[tokio::test]
async fn check_tries_the_certificate_of_the_portal() {
    let shown = authority("127.0.0.1");
    let portal = Upstream::with_pair(shown.clone());
    let (folder, file) = good();
    let text = configuration(&[portal.url()], "database").replace("[storage]", "ca = \"ca.pem\"\n[storage]");
    std::fs::write(&file, text).unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &shown.0).unwrap();
    succeeded(&check(&file, &[]).await, "The configuration is good");
    let builder = TestGateway::builder().upstream(&portal).set("portal.ca", &ca.display().to_string());
    let (_gateway, browser) = crate::support::logged_in(builder).await;
    assert_eq!(browser.fetch("/it").await.text(), "the portal: GET /it\n");
    // Another one of the same name.
    std::fs::write(&ca, authority("127.0.0.1").0).unwrap();
    let outcome = check(&file, &[]).await;
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.err.contains(&portal.url()), "{}", outcome.err);
    // One that is not there cannot be tried, and is no fault.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(&portal.url(), "https://127.0.0.1:9")).unwrap();
    let outcome = check(&file, &[]).await;
    succeeded(&outcome, "The configuration is good");
    assert!(outcome.err.contains("could not be tried"), "{outcome:?}");
}
