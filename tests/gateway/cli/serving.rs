//! `serve` and `demo` in processes of their own: how they begin, and how they end.

use std::{net::TcpListener, process::Command, sync::Arc};

use portcullis::clock::ManualClock;
use rustix::process::Signal;

use super::failed;
use crate::support::{
    ADA, Browser, PASSWORD,
    browser::{Protocol, Surroundings},
    now,
    process::{PROGRAM, Process, Served, run},
    test_gateway::{Phones, add_user, configuration, folder},
};

#[tokio::test]
async fn a_gateway_serves_and_stops_when_it_is_told_to() {
    for signal in [Signal::TERM, Signal::INT] {
        let served = Served::start().await;
        add_user(served.administration(), ADA).await;
        let browser = served.browser();
        assert_eq!(browser.log_in_to("/sims", ADA).await.text(), "the portal: GET /sims\n");
        let (status, said) = served.stop(signal).await;
        assert!(status.success(), "{status}");
        assert!(said.contains("stopping"), "{said}");
        assert!(!said.contains(PASSWORD) && !said.contains(&browser.session()), "{said}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let good = configuration(&["http://127.0.0.1:3000".to_owned()], "database");
    let file = folder.path().join("portcullis.toml");
    for key in ["listen = [\"", "admin_listen = \""] {
        let text = good.replace(&format!("{key}127.0.0.1:0"), &format!("{key}{address}"));
        assert_ne!(text, good);
        std::fs::write(&file, text).unwrap();
        let outcome = run(&["serve", "--config", file.to_str().unwrap()], "").await;
        failed(&outcome, &format!("cannot listen on {address}"));
        assert!(outcome.err.contains("in use"), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let folder = folder();
    let (file, database) = (folder.path().join("portcullis.toml"), folder.path().join("portcullis.db"));
    std::fs::write(&file, configuration(&["http://127.0.0.1:3000".to_owned()], "database")).unwrap();
    std::fs::write(&database, "no database at all, but a text").unwrap();
    for command in [&["serve"][..], &["user", "list"]] {
        let outcome = run(&[command, &["--config", file.to_str().unwrap()]].concat(), "").await;
        failed(&outcome, &database.display().to_string());
        assert!(outcome.err.contains("file is not a database"), "{outcome:?}");
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn demo(port: u16, temporary: &std::path::Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["demo", "--port", &port.to_string()]).env("TMPDIR", temporary);
    command
}

#[tokio::test]
async fn the_demonstration_runs_says_how_to_get_in_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let port = free_port();
    let (process, ()) =
        Process::start(demo(port, temporary.path()), |line| line.contains("Ctrl-C stops").then_some(()))
            .await;
    let said = process.said();
    let fact = |name: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name}: {said}")).trim().to_owned()
    };
    assert_eq!(fact("Open"), format!("https://localhost:{port}"));
    let (email, password) = (fact("E-mail"), fact("Password"));
    assert_eq!((email.as_str(), password.len()), (ADA, 24));

    let folder = std::fs::read_dir(temporary.path()).unwrap().next().unwrap().unwrap().path();
    let surroundings = Surroundings {
        address: ([127, 0, 0, 1], port).into(),
        certificate: std::fs::read(folder.join("certificate.pem")).unwrap(),
        clock: Arc::new(ManualClock::at(now())),
        phones: Phones::default(),
    };
    let browser = Browser::new(Arc::new(surroundings), Protocol::Http1).at(&format!("localhost:{port}"));
    let page = browser.visit("/").await;
    assert_eq!(page.heading(), "Sign in");
    let page = browser.submit(&page, &[("email", &email), ("password", &password)]).await;
    let page = browser.bind(&page, ADA, "Phone").await;
    let page = browser.submit(&page, &[]).await;
    assert_eq!(page.status.as_u16(), 200, "{}", page.text());
    assert!(page.text().contains("Northline"), "{}", page.text());

    process.signal(Signal::INT);
    let (status, _) = process.ended().await;
    assert!(status.success(), "{status}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "a folder was left behind");
}

#[tokio::test]
async fn a_second_demonstration_on_the_same_port_says_so_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = demo(taken.local_addr().unwrap().port(), temporary.path());
    command.arg("--json");
    let outcome = crate::support::process::run_command(command, "").await;
    failed(&outcome, "give this one another port with --port");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "a folder was left behind");
}
