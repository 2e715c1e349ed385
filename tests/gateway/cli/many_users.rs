//! The install page's way to add many users: as it is written there, with files as spreadsheets save them.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use super::{json_of, succeeded};
use crate::support::{
    PASSWORD,
    process::{Outcome, PROGRAM, run, run_command},
    test_gateway::{configuration, folder},
};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/install.md");

/// What the page says between the line that begins it and the one that ends it.
fn recipe() -> String {
    let text = fs::read_to_string(PAGE).unwrap();
    let (_, rest) = text.split_once("<<'PYTHON'\n").expect("the page has a recipe");
    rest.split_once("\nPYTHON\n").expect("the recipe has an end").0.to_owned()
}

#[tokio::test]
async fn a_file_from_a_spreadsheet_adds_everybody_once() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("portcullis.toml"), configuration(&["http://127.0.0.1:3000".to_owned()], "database"))
        .unwrap();
    let file = at("portcullis.toml").to_str().unwrap().to_owned();
    let add = ["user", "add", "old@example.com", "--init", "--password-stdin", "--config", &file];
    succeeded(&run(&add, PASSWORD).await, "Added");
    // In place of `sudo -u portcullis portcullis`.
    fs::write(at("sudo"), format!("#!/bin/sh\nshift 3\nexec {PROGRAM} --config {file} \"$@\"\n")).unwrap();
    fs::set_permissions(at("sudo"), fs::Permissions::from_mode(0o755)).unwrap();
    let import = async |text: &[u8]| -> Outcome {
        fs::write(at("users.csv"), text).unwrap();
        let mut python = Command::new("python3");
        python.arg("-").arg(at("users.csv"));
        let path = std::env::var_os("PATH").unwrap();
        let path = std::iter::once(folder.path().to_owned()).chain(std::env::split_paths(&path));
        python.env("PATH", std::env::join_paths(path).unwrap());
        run_command(python, &recipe()).await
    };
    let spreadsheet = "\u{feff}email,name,groups\r\nada@example.com,\"Lovelace, Ada\",ops;dev\r\n\r\nold@example.com,,\r\n\
                       bad address,Nobody,\r\ncéline@example.com,Céline,ops";
    let first = import(spreadsheet.as_bytes()).await;
    assert!(first.err.contains("the e-mail is empty"), "one line that is refused stops no other: {first:?}");
    let added: Vec<&str> = first.out.lines().map(|line| line.split_once(' ').unwrap().0).collect();
    assert_eq!(added, ["ada@example.com", "céline@example.com"]);
    assert!(first.out.lines().all(|line| line.split_once(' ').unwrap().1.len() >= 20), "{first:?}");
    let users = json_of(&file, &["user", "list"]).await;
    let facts: Vec<_> =
        users.as_array().unwrap().iter().map(|user| (&user["name"], &user["groups"])).collect();
    assert_eq!(facts.len(), 3, "{users}");
    assert_eq!(facts[0], (&"Lovelace, Ada".into(), &serde_json::json!(["ops", "dev"])));

    let again = import(spreadsheet.as_bytes()).await;
    assert_eq!(again.out, "", "no password is given out twice, and none is changed");
    // Without the line that says what is what, nothing is added.
    let headless = import(b"eve@example.com,Eve,ops\nbob@example.com,Bob,ops\n").await;
    assert!(headless.code != 0 && headless.out.is_empty(), "{headless:?}");
    assert_eq!(json_of(&file, &["user", "list"]).await.as_array().map(Vec::len), Some(3));
}
