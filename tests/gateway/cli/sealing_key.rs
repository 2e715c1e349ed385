//! Sealing keys that come from the environment or from systemd: the real program, which can read them and not change them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{failed, made, succeeded};
use crate::support::{
    PASSWORD,
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
        failed(&refused, "Run again with `--print` and store the output where the key comes from");
        assert!(refused.err.contains("this command cannot write the key in `storage.key`"), "{refused:?}");
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
    fs::set_permissions(&credential, fs::Permissions::from_mode(0o400)).unwrap();
    let add = ["user", "add", "ada@example.com", "--init", "--password-stdin"];
    let added = run_command(site.command(&add, &of_systemd), PASSWORD).await;
    succeeded(&added, "Added ada@example.com.");
    for (mode, code) in [(0o444, 1), (0o440, 0), (0o400, 0)] {
        fs::set_permissions(&credential, fs::Permissions::from_mode(mode)).unwrap();
        let listed = site.run(&["sealing-key", "list"], &of_systemd).await;
        assert_eq!(listed.code, code, "{mode:o}: {listed:?}");
    }
    let refused = site.run(&["sealing-key", "rotate"], &of_systemd).await;
    failed(&refused, "this command cannot write the credential");
    let printed = site.run(&["sealing-key", "rotate", "--print"], &of_systemd).await;
    assert!(printed.out.contains("derive:00c0ffee"), "{printed:?}");
    assert_eq!(fs::read_to_string(&credential).unwrap(), DIGITS);
}

#[tokio::test]
async fn a_key_is_removed_only_when_somebody_wants_that_and_has_been_shown_it() {
    let site = Site::new("key_file = \"sealing.key\"");
    let key_file = site.folder.path().join("sealing.key");
    made(&site.file).await;
    let first = fs::read_to_string(&key_file).unwrap();
    let rotated = site.run(&["sealing-key", "rotate", "--json"], &[]).await;
    assert!(
        rotated.err.contains("event=\"sealing_key.made\"") && rotated.err.contains("sealing_key.activated")
    );
    let new = rotated.json()["key"].as_str().unwrap().to_owned();
    assert!(rotated.err.contains(&format!("key.id=\"{new}\"")), "{rotated:?}");
    site.run(&["sealing-key", "reseal"], &[]).await;
    let listed = site.run(&["sealing-key", "list", "--json"], &[]).await.json();
    let old =
        listed.as_array().unwrap().iter().find(|key| key["key"] != new.as_str()).unwrap()["key"].clone();
    let old = old.as_str().unwrap();
    let copy = fs::read(&key_file).unwrap();

    let asked = site.run(&["sealing-key", "remove", old], &[]).await;
    failed(&asked, "use --yes");
    assert!(asked.err.contains("Older copies of the database"), "{asked:?}");
    assert_eq!(fs::read(&key_file).unwrap(), copy, "nothing changed");
    // Nothing is removed that cannot be shown.
    let mut unseen = site.command(&["sealing-key", "remove", old, "--yes"], &[]);
    let ended = unseen.stdout(fs::File::options().write(true).open("/dev/full").unwrap()).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(fs::read(&key_file).unwrap(), copy, "nothing changed");

    let removed = site.run(&["sealing-key", "remove", old, "--yes", "--json"], &[]).await;
    let kept = removed.json()["keep"].as_str().unwrap().to_owned();
    assert_eq!(kept, format!("{old}:{}", first.trim()));
    assert!(
        removed.err.contains("event=\"sealing_key.removed\"")
            && removed.err.contains(&format!("key.id=\"{old}\""))
    );
    assert!(!removed.err.contains(first.trim()), "the key is in the output alone");
    assert_eq!(states(&site.run(&["sealing-key", "list", "--json"], &[]).await), ["\"sealing\""]);
    // Added to the file, it opens what was sealed with it.
    let now = fs::read_to_string(&key_file).unwrap();
    fs::write(&key_file, format!("{now}{kept}\n")).unwrap();
    assert_eq!(states(&site.run(&["sealing-key", "list", "--json"], &[]).await).len(), 2);
}
