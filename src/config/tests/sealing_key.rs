//! The source of the sealing key: one place that nobody else can read, and that no message shows.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::{Folder, LEAST, environment, load_with};
use crate::{
    config::{Config, Problems},
    sealing::KeySource,
};

const DIGITS: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";
const VARIABLE: &str = "PORTCULLIS_STORAGE__KEY";

/// Loads a file of this mode, with these lines in `[storage]`.
fn load_file(storage: &str, mode: u32) -> Result<Config, Problems> {
    let folder = Folder::new();
    let file = folder.file("portcullis.toml", &format!("{LEAST}[storage]\n{storage}\n"));
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    Config::load(&[file], environment(&[]), &[])
}

#[test]
fn the_key_may_be_in_the_environment_or_in_a_file_that_is_not_for_everyone() {
    let config = load_with(LEAST, &[(VARIABLE, DIGITS)]).unwrap();
    assert!(matches!(config.key, KeySource::Given(_)), "{:?}", config.key);
    assert!(!format!("{config:?}").contains("c0ffee"));
    let written = format!("key = \"{DIGITS}\"");
    assert!(matches!(load_file(&written, 0o640).unwrap().key, KeySource::Given(_)));
    let public = load_file(&written, 0o644).unwrap_err().to_string();
    assert!(public.contains("error: storage.key: everyone on this machine can read"), "{public}");
    assert!(public.contains(VARIABLE) && public.contains("chmod o-r"), "{public}");
    assert!(!public.contains("c0ffee"), "{public}");
}

#[test]
fn a_key_from_two_places_is_refused_and_both_are_named() {
    let added = format!("{LEAST}[storage]\nkey_file = \"a.key\"\n");
    let problems = load_with(&added, &[(VARIABLE, DIGITS)]).unwrap_err();
    assert_eq!(problems.iter().count(), 1);
    let text = problems.to_string();
    assert!(text.contains("storage.key_file: `storage.key` is set as well"), "{text}");
}

#[test]
fn no_report_holds_a_key_or_a_part_of_one() {
    for value in [
        format!("\"{}\"", &DIGITS[1..]),
        format!("\"\"\"\n{DIGITS}\n{DIGITS}\"\"\""),
        format!("\"{DIGITS}"),
        format!("[\"{DIGITS}\"]"),
        DIGITS.to_owned(),
    ] {
        for name in ["key", "\"key\"", "keey", "database.key"] {
            let problems = load_file(&format!("{name} = {value}"), 0o600).unwrap_err();
            assert!(!format!("{problems} {problems:?}").contains("c0ffee"), "{name}: {problems}");
        }
    }
    for value in [&DIGITS[1..], "", &format!("\"{DIGITS}\""), &format!("[{DIGITS}]")] {
        let problems = load_with(LEAST, &[(VARIABLE, value)]).unwrap_err();
        assert!(!format!("{problems} {problems:?}").contains("c0ffee"), "{problems}");
        assert!(problems.to_string().contains("set by PORTCULLIS_STORAGE__KEY"), "{problems}");
    }
}

#[test]
fn every_file_may_be_a_credential_of_systemds() {
    let folder = Folder::new();
    for name in ["sealing", "tls"] {
        folder.file(name, DIGITS);
    }
    let directory = folder.0.path().to_str().unwrap();
    let load = |key: &str, name: &str, directory: Option<&str>| {
        let file = folder.file("portcullis.toml", &format!("{LEAST}{key} = \"credential:{name}\"\n"));
        let variables: Vec<_> =
            directory.map(|directory| ("CREDENTIALS_DIRECTORY", directory)).into_iter().collect();
        Config::load(&[file], environment(&variables), &[])
    };
    let config = load("[storage]\nkey_file", "sealing", Some(directory)).unwrap();
    assert!(matches!(&config.key, KeySource::Credential(path) if *path == folder.path("sealing")));
    assert_eq!(load("[tls]\nkey", "tls", Some(directory)).unwrap().tls.pairs[0].key, folder.path("tls"));
    for (name, directory, says) in [
        ("sealing", None, "run this under systemd and give its unit `LoadCredential=sealing:/path"),
        ("sealing", Some("relative"), "run this under systemd"),
        ("absent", Some(directory), "the service has no credential `absent`; give its unit `LoadCredential="),
        ("../sealing", Some(directory), "without a folder"),
        ("..", Some(directory), "without a folder"),
        ("", Some(directory), "without a folder"),
    ] {
        let text = load("[storage]\nkey_file", name, directory).unwrap_err().to_string();
        assert!(text.contains("error: storage.key_file: ") && text.contains(says), "{name}: {text}");
    }
}
