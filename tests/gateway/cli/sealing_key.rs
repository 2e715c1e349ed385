//! Sealing keys that come from the environment or from systemd: the real program, which can read them and not change them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{failed, succeeded};
use crate::support::{
    process::{Outcome, PROGRAM, Process, run_command},
    test_gateway::{configuration, folder},
};

const VARIABLE: &str = "PORTCULLIS_STORAGE__KEY";
const DIGITS: &str = "00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee";

/// A configuration, and what runs commands on it in an environment of their own.
struct Site {
    folder: TempDir,
    file: PathBuf,
}

impl Site {
    /// The usual configuration with another line about the key, and a log that says as much as it can.
    fn new(key: &str) -> Self {
        let folder = folder();
        let file = folder.path().join("portcullis.toml");
        let usual = configuration(&["http://127.0.0.1:3000".to_owned()], "database");
        let text = usual.replace("key_file = \"portcullis.key\"", key);
        assert_ne!(text, usual);
        fs::write(&file, text).unwrap();
        Self { folder, file }
    }

    fn command(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).arg("--config").arg(&self.file).env("PORTCULLIS_LOG__LEVEL", "trace");
        command.envs(variables.iter().copied());
        command
    }

    async fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Outcome {
        run_command(self.command(arguments, variables), "").await
    }
}

fn states(listed: &Outcome) -> Vec<String> {
    let listed = listed.json();
    listed.as_array().unwrap().iter().map(|key| format!("{}", key["state"])).collect()
}

#[tokio::test]
async fn a_key_from_the_environment_is_changed_by_hand_and_shown_only_when_asked_for() {
    let site = Site::new("");
    let given = async |arguments: &[&str], keys: &str| site.run(arguments, &[(VARIABLE, keys)]).await;
    let check = given(&["check"], DIGITS).await;
    succeeded(&check, "The configuration is good");
    let (process, ()) = Process::start(site.command(&["serve"], &[(VARIABLE, DIGITS)]), |line| {
        line.contains("listening address=").then_some(())
    })
    .await;
    process.signal(Signal::TERM);
    let (status, said) = process.ended().await;
    assert!(status.success(), "{said}");
    assert!(!site.folder.path().join("data").exists(), "no key file was made beside it");

    // What cannot be done is not half done.
    let mut shown = vec![check.out, check.err, said];
    for arguments in [&["rotate"][..], &["rotate", "--prepare"]] {
        let refused = given(&[&["sealing-key"], arguments].concat(), DIGITS).await;
        failed(&refused, "`--print` shows what has to stand there, on every gateway");
        assert!(refused.err.contains("the key in `storage.key` cannot be changed from here"), "{refused:?}");
        shown.extend([refused.out, refused.err]);
    }
    let listed = given(&["sealing-key", "list", "--json"], DIGITS).await;
    assert_eq!(states(&listed), ["\"sealing\""]);
    let old = listed.json()[0]["key"].as_str().unwrap().to_owned();

    let prepared = given(&["sealing-key", "rotate", "--prepare", "--print"], DIGITS).await;
    assert!(prepared.code == 0 && prepared.out.contains(DIGITS), "{prepared:?}");
    let active = given(&["sealing-key", "rotate", "--activate", "--print"], &prepared.out).await;
    // A variable may have no room for lines.
    let keys = active.out.trim().replace('\n', " ");
    let listed = given(&["sealing-key", "list", "--json"], &keys).await;
    assert_eq!(states(&listed), ["\"sealing\"", "\"opening\""]);
    let removed = given(&["sealing-key", "remove", &old, "--print"], &keys).await;
    failed(&removed, "sealing-key reseal");
    let resealed = given(&["sealing-key", "reseal", "--json"], &keys).await;
    assert_eq!(resealed.json()["left"], 0);
    let last = given(&["sealing-key", "remove", &old, "--print", "--json"], &keys).await.json();
    let last = last["keys"].as_str().unwrap().to_owned();
    assert_eq!(states(&given(&["sealing-key", "list", "--json"], &last).await), ["\"sealing\""]);

    // The key that the store is no longer sealed with, or half a key, is refused and not repeated.
    let before = given(&["user", "list"], DIGITS).await;
    failed(&before, "the key in `storage.key` does not fit");
    let cut = given(&["check"], &DIGITS[1..]).await;
    assert!(cut.code == 1 && cut.err.contains("is not a sealing key"), "{cut:?}");
    assert!(cut.err.contains(&format!("set by {VARIABLE}")), "{cut:?}");
    shown.extend([before.out, before.err, cut.out, cut.err, resealed.err]);
    assert!(shown.iter().all(|text| !text.contains(&DIGITS[8..40])), "{shown:#?}");
}

#[tokio::test]
async fn a_key_from_systemd_is_read_where_it_says_and_never_made() {
    let site = Site::new("key_file = \"credential:sealing\"");
    let credentials = site.folder.path().join("credentials");
    let credential = credentials.join("sealing");
    let of_systemd = [("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap())];
    let outside = site.run(&["user", "list"], &[]).await;
    let says = "run this under systemd and give its unit `LoadCredential=sealing:/path/of/the/file`";
    assert!(outside.code == 1 && outside.err.contains(says), "{outside:?}");
    fs::create_dir(&credentials).unwrap();
    let absent = site.run(&["user", "list"], &of_systemd).await;
    assert!(absent.code == 1 && absent.err.contains("the service has no credential `sealing`"), "{absent:?}");
    assert!(!credential.exists());

    fs::write(&credential, DIGITS).unwrap();
    for (mode, code) in [(0o444, 1), (0o440, 0), (0o400, 0)] {
        fs::set_permissions(&credential, fs::Permissions::from_mode(mode)).unwrap();
        let listed = site.run(&["sealing-key", "list"], &of_systemd).await;
        assert_eq!(listed.code, code, "{mode:o}: {listed:?}");
    }
    let refused = site.run(&["sealing-key", "rotate"], &of_systemd).await;
    failed(&refused, "sealing cannot be changed from here");
    let printed = site.run(&["sealing-key", "rotate", "--print"], &of_systemd).await;
    assert!(printed.out.contains("derive:00c0ffee"), "{printed:?}");
    assert_eq!(fs::read_to_string(&credential).unwrap(), DIGITS);
}
