//! What becomes of the embedded store: locked by another program, read-only, gone. Nobody gets in, nobody is logged out,
//! and the log says which file it is.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use http::StatusCode;
use tokio::time::Instant;

use crate::support::{ADA, Browser, EVE, PASSWORD, PATIENCE, TestGateway, soon, within};

const SECOND: Duration = Duration::from_secs(1);

/// Another program that holds the write lock until this is dropped.
struct Lock(Child);

impl Lock {
    fn on(file: &Path) -> Self {
        const HOLD: &str = "import sqlite3, sys\n\
            store = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\n\
            store.execute('BEGIN EXCLUSIVE')\n\
            print('held', flush=True)\n\
            sys.stdin.read()";
        let mut program = Command::new("/usr/bin/python3");
        program.args(["-c", HOLD]).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = program.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "held\n");
        Self(child)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn logins(gateway: &TestGateway) -> String {
    let ready = gateway.admin("/ready").await;
    let ready: serde_json::Value = serde_json::from_str(&ready[ready.find('{').unwrap()..]).unwrap();
    assert_eq!(ready["ready"], true, "{ready}");
    ready["logins"].as_str().unwrap().to_owned()
}

/// Sends a password, on a page that was opened before, until it is answered.
async fn refused(browser: Browser) {
    let answer = browser.submit_password(ADA, PASSWORD).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|wait| (1..=60).contains(&wait)));
    assert!(!answer.starts_session());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_another_program_locks_the_file_users_go_on_and_nothing_half_is_kept() {
    let log = crate::support::log::listen();
    let (gateway, ada) = TestGateway::start().await;
    for user in [ADA, EVE] {
        gateway.add_user(user).await;
    }
    ada.log_in(ADA).await;
    // Eve has scanned her code, and Ada is about to give one in another browser.
    let eve = gateway.browser();
    let page = eve.visit("/sims").await;
    let enrol = eve.sign_in(&page, EVE).await;
    let phone = eve.scan(&enrol, EVE);
    let other = gateway.browser();
    other.submit_password(ADA, PASSWORD).await;
    let code_page = other.get("/.portcullis/code").await;
    let code = gateway.phone(ADA).fresh_code();
    // This gateway has not seen Ada's session yet.
    let (twin, _) = gateway.twin().await;
    let newcomer = ada.copy().moved_to(twin.surroundings());

    let lock = Lock::on(&gateway.database_file());
    // With the two below, as many as there are connections for them: nobody waits for one, and then for the lock as well.
    let strangers: Vec<_> = (0..1).map(|_| tokio::spawn(refused(gateway.browser()))).collect();
    let there: Vec<_> = (0..3).map(|_| tokio::spawn(refused(twin.browser()))).collect();
    let enrols = tokio::spawn(async move {
        let fields = [("code", &*phone.fresh_code()), ("device_name", "Phone")];
        let answer = eve.fill(&enrol, &fields).await;
        (eve, enrol, phone, answer)
    });
    let logs_in = tokio::spawn(async move {
        let answer = other.fill(&code_page, &[("code", &code)]).await;
        (other, code_page, code, answer)
    });
    assert_eq!(newcomer.get("/sims").await.status, StatusCode::OK);
    let start = Instant::now();
    while start.elapsed() < 3 * SECOND {
        assert_eq!(ada.get("/sims").await.status, StatusCode::OK, "after {:?}", start.elapsed());
        assert_eq!(newcomer.get("/sims").await.status, StatusCode::OK, "after {:?}", start.elapsed());
    }
    let file = gateway.database_file().display().to_string();
    let said = logins(&gateway).await;
    assert!(said.contains("takes too long to write") && said.contains(&file), "{said}");
    for stranger in strangers.into_iter().chain(there) {
        within(3 * PATIENCE, stranger).await.unwrap();
    }
    let (eve, enrol, phone, answer) = within(3 * PATIENCE, enrols).await.unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
    let (other, code_page, code, answer) = within(3 * PATIENCE, logs_in).await.unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
    let lines = log.text();
    let line = lines.lines().find(|line| line.contains("database is locked") && line.contains(&file));
    assert!(line.is_some_and(|line| line.matches("is locked").count() == 1), "{line:?}");

    drop(lock);
    soon(PATIENCE, "all is well", async || logins(&gateway).await == "ok").await;
    let answer = other.fill(&code_page, &[("code", &code)]).await;
    assert!(answer.starts_session(), "the code was not used: {}", answer.text());
    assert_eq!(gateway.administration().user_details(EVE).await.unwrap().devices.len(), 0);
    let answer = eve.fill(&enrol, &[("code", &*phone.fresh_code()), ("device_name", "Phone")]).await;
    assert!(answer.starts_session(), "the same page binds the device: {}", answer.text());
    assert_eq!(gateway.administration().user_details(EVE).await.unwrap().devices.len(), 1);
}
