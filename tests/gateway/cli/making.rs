//! Only `serve`, and a command that was told to, make a store; every other one says where it found none.

use std::{fs, path::Path};

use super::{failed, made, succeeded};
use crate::support::{
    PASSWORD,
    postgres::{PostgresServer, new_database},
    process::{Outcome, run},
    test_gateway::{configuration, folder},
};

/// Every command that works on a store.
const COMMANDS: [&[&str]; 14] = [
    &["user", "list"],
    &["user", "show", "ada@example.com"],
    &["user", "add", "ada@example.com", "--password-stdin"],
    &["user", "add", "ada@example.com", "--if-absent", "--password-stdin"],
    &["user", "disable", "ada@example.com"],
    &["user", "remove", "ada@example.com", "--yes"],
    &["user", "set-password", "ada@example.com", "--password-stdin"],
    &["device", "list", "ada@example.com"],
    &["session", "list"],
    &["session", "revoke", "--all", "--yes"],
    &["signing-key", "list"],
    &["sealing-key", "rotate"],
    &["store", "status"],
    &["store", "migrate"],
];

async fn on(file: &Path, command: &[&str]) -> Outcome {
    run(&[command, &["--config", file.to_str().unwrap()]].concat(), PASSWORD).await
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_command_in_the_wrong_place_makes_nothing_and_says_where_it_looked() {
    let folder = folder();
    let file = folder.path().join("portcullis.toml");
    let text = configuration(&["http://127.0.0.1:3000".to_owned()], "database")
        .replace("sqlite:portcullis.db", "sqlite:data/portcullis.db")
        .replace("\"portcullis.key\"", "\"data/portcullis.key\"");
    fs::write(&file, text).unwrap();
    let before = names(folder.path());
    let database = folder.path().join("data/portcullis.db");
    let target = format!("sqlite:{}", folder.path().join("copy.db").display());
    for command in COMMANDS.into_iter().chain([&["store", "copy", "--to", &target][..]]) {
        let outcome = on(&file, command).await;
        failed(&outcome, &format!("no database at {}", database.display()));
        assert!(outcome.err.contains(&format!("configured by {}", file.display())), "{outcome:?}");
        assert!(outcome.err.contains("`portcullis serve`") && outcome.err.contains("--init"), "{outcome:?}");
        let json = on(&file, &[command, &["--json"]].concat()).await;
        assert!(json.json()["error"].as_str().unwrap().starts_with("no database at"), "{json:?}");
        assert_eq!(names(folder.path()), before, "{command:?}");
    }
    made(&file).await;
    let data = names(&folder.path().join("data"));
    assert!(
        ["portcullis.db", "portcullis.key"].iter().all(|name| data.iter().any(|made| made == name)),
        "{data:?}"
    );
    succeeded(&on(&file, &["user", "list"]).await, "ada@example.com");
    // Asking for what is there is no fault.
    let again = on(&file, &["user", "add", "bob@example.com", "--init", "--password-stdin"]).await;
    succeeded(&again, "Added bob@example.com.");
}

#[tokio::test]
async fn an_empty_file_or_an_empty_postgresql_is_no_store_either() {
    let folder = folder();
    let file = folder.path().join("portcullis.toml");
    let usual = configuration(&["http://127.0.0.1:3000".to_owned()], "database");
    let server = PostgresServer::start(&[]);
    let url = new_database(&server);
    let postgres = usual.replace("sqlite:portcullis.db", &url);
    fs::write(folder.path().join("portcullis.db"), "").unwrap();
    for (text, says) in [(&usual, "no database at "), (&postgres, "no tables in postgres://")] {
        fs::write(&file, text).unwrap();
        let before = names(folder.path());
        for command in COMMANDS {
            failed(&on(&file, command).await, says);
        }
        assert_eq!(names(folder.path()), before);
        made(&file).await;
        succeeded(&on(&file, &["user", "list"]).await, "ada@example.com");
        fs::remove_file(folder.path().join("portcullis.key")).unwrap();
        // A key is not made for a store that is sealed with another.
        failed(&on(&file, &["user", "list"]).await, "is missing");
        assert!(!folder.path().join("portcullis.key").exists());
    }
}
