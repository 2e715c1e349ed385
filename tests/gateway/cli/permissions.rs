//! A file that the wrong user made, or runs into: whose it is, who asks, and what to type.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use rustix::process::geteuid;

use super::{failed, made};
use crate::support::{
    process::{Outcome, PROGRAM, run_command},
    test_gateway::{configuration, folder},
};

/// Runs a command as the user `nobody`, who may do nothing.
async fn as_nobody(file: &Path, command: &[&str]) -> Outcome {
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", PROGRAM]);
    nobody.args(command).arg("--config").arg(file);
    run_command(nobody, "").await
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn what_root_made_first_is_named_with_its_owner_and_what_to_type() {
    assert!(geteuid().is_root(), "only root can become somebody else");
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let file = at("portcullis.toml");
    fs::write(&file, configuration(&["http://127.0.0.1:3000".to_owned()], "database")).unwrap();
    made(&file).await;
    mode(folder.path(), 0o755);
    for (path, typed) in [
        (at("portcullis.db"), format!("`sudo chown nobody: {}*`", at("portcullis.db").display())),
        (at("portcullis.key"), format!("`sudo chown nobody: {}*`", at("portcullis.key").display())),
    ] {
        let outcome = as_nobody(&file, &["user", "list"]).await;
        failed(&outcome, &format!("{} belongs to root:root (mode 0600)", path.display()));
        assert!(outcome.err.contains("this runs as nobody") && outcome.err.contains(&typed), "{outcome:?}");
        let name = path.file_name().unwrap().to_str().unwrap();
        for file in fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap()) {
            if file.file_name().to_str().unwrap().starts_with(name) {
                chown(file.path(), Some(65534), None).unwrap();
            }
        }
        chown(folder.path(), Some(65534), None).unwrap();
    }
    assert_eq!(as_nobody(&file, &["user", "list"]).await.code, 0);
    // Files beside the database that root left behind.
    for name in ["portcullis.db-wal", "portcullis.db-shm"] {
        // What is in them already is the database's.
        fs::OpenOptions::new().create(true).append(true).open(at(name)).unwrap();
        chown(at(name), Some(0), Some(0)).unwrap();
        mode(&at(name), 0o644);
    }
    let outcome = as_nobody(&file, &["user", "list"]).await;
    failed(&outcome, "portcullis.db-wal belongs to root:root (mode 0644)");
}

#[tokio::test]
async fn what_may_not_be_read_is_named_with_what_to_type() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let file = at("portcullis.toml");
    fs::write(&file, configuration(&["http://127.0.0.1:3000".to_owned()], "database")).unwrap();
    mode(folder.path(), 0o755);
    mode(&at("key.pem"), 0o600);
    let outcome = as_nobody(&file, &["check"]).await;
    let key = at("key.pem").display().to_string();
    failed(&outcome, &format!("{key} belongs to root:root (mode 0600), and this runs as nobody"));
    assert!(
        outcome.err.contains(&format!("`sudo chgrp nobody {key} && sudo chmod g+r {key}`")),
        "{outcome:?}"
    );
    mode(&file, 0o600);
    let outcome = as_nobody(&file, &["check"]).await;
    assert!(outcome.code == 1 && outcome.err.contains("belongs to root:root (mode 0600)"), "{outcome:?}");
    mode(&file, 0o644);
    // The folder, which lets nobody through.
    chown(folder.path(), Some(33), None).unwrap();
    mode(folder.path(), 0o700);
    let outcome = as_nobody(&file, &["check"]).await;
    assert!(outcome.err.contains("belongs to www-data:root (mode 0700)"), "{outcome:?}");
    assert!(outcome.err.contains("`sudo -u www-data portcullis …`"), "{outcome:?}");
}
