//! The real program on a machine whose clock jumps an hour: no session gets longer, and no code that was used is good again.
//!
//! libfaketime stands before the wall clock of the process alone, and leaves the time that passes as it is.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use http::StatusCode;
use tempfile::TempDir;

use crate::support::{
    ADA, Answer, Browser, TestGateway,
    browser::Surroundings,
    now,
    phone::Phone,
    postgres::{PostgresServer, new_database},
    process::{PROGRAM, Process, Served},
    soon,
    test_gateway::add_user,
};

const STEP: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(20);
/// Guesses here are many and wrong on purpose.
const MANY_TRIES: &str = "\n[login.throttle]\nmax_retries = 1000\nnetwork_max_retries = 1000\n";

/// A gateway, and the hand at its clock.
struct Jumping {
    served: Served,
    hand: PathBuf,
    _folder: TempDir,
}

fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let mut found = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    found.find(|path| path.exists()).expect("Debian's libfaketime is installed: tests/run does that")
}

/// What makes a process show the time that is as far off as the file `hand` says.
fn fake<'a>(library: &'a Path, hand: &'a Path) -> [(&'static str, &'a str); 5] {
    [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", hand.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ]
}

impl Jumping {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hand = folder.path().join("offset");
        std::fs::write(&hand, "+0\n").unwrap();
        let library = library();
        let environment = fake(&library, &hand);
        let served = Served::start_with(MANY_TRIES, &environment).await;
        add_user(served.administration(), ADA).await;
        Self { served, hand, _folder: folder }
    }

    /// Sets the clock so many seconds off the machine's. In one step: half a file would be another time.
    fn set(&self, seconds: i64) {
        let next = self.hand.with_extension("next");
        std::fs::write(&next, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(next, &self.hand).unwrap();
    }

    async fn restart(&mut self, browser: Browser) -> Browser {
        self.served.kill();
        self.served.restart().await;
        browser.moved_to(&self.served.surroundings())
    }
}

/// Enrols a phone, with the code of the step before: this step's is left for later.
pub(crate) async fn enrolled(browser: &Browser) -> Phone {
    for _ in 0..3 {
        let page = browser.visit("/").await;
        let page = browser.sign_in(&page, ADA).await;
        let phone = browser.scan(&page, ADA);
        let code = phone.code_at(now().minus(STEP));
        let answer = browser.fill(&page, &[("code", &code), ("device_name", "Phone")]).await;
        if answer.starts_session() {
            let codes = browser.follow(answer).await;
            browser.submit(&codes, &[]).await;
            return phone;
        }
    }
    panic!("the code is never right");
}

/// Begins a login in a browser of its own, and gives a code.
async fn tried(jumping: &Jumping, code: &str) -> Answer {
    let browser = jumping.served.browser();
    let page = browser.visit("/").await;
    let page = browser.sign_in(&page, ADA).await;
    browser.fill(&page, &[("code", code)]).await
}

async fn is_in(browser: &Browser) -> bool {
    browser.whoami().await.is_some()
}

#[tokio::test]
async fn a_code_that_was_used_stays_used_wherever_the_clock_jumps_and_after_a_restart() {
    let mut jumping = Jumping::start().await;
    let browser = jumping.served.browser();
    let phone = enrolled(&browser).await;
    let used = phone.code_at(now());
    let answer = tried(&jumping, &used).await;
    assert!(answer.starts_session(), "{}", answer.text());
    let mut browser = browser;
    for restarts in [false, true] {
        for seconds in [0, 3600, 30, -30, -60, -3600, 0] {
            jumping.set(seconds);
            if restarts {
                browser = jumping.restart(browser).await;
            }
            let answer = tried(&jumping, &used).await;
            let refused = [StatusCode::UNAUTHORIZED, StatusCode::SERVICE_UNAVAILABLE];
            assert!(refused.contains(&answer.status), "{seconds}: {}", answer.text());
            assert!(!answer.starts_session());
        }
    }
}

#[tokio::test]
async fn right_codes_are_refused_while_the_clock_is_an_hour_off_and_good_again_when_it_is_right() {
    for seconds in [3600, -3600] {
        let jumping = Jumping::start().await;
        let phone = enrolled(&jumping.served.browser()).await;
        jumping.set(seconds);
        let code = phone.code_at(now());
        let answer = tried(&jumping, &code).await;
        if seconds > 0 {
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text());
        } else {
            // Not even the code of an hour ago, which nobody has used.
            for code in [code, phone.code_at(now().minus(Duration::from_hours(1)))] {
                let answer = tried(&jumping, &code).await;
                assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
            }
            let told = async || jumping.served.said().contains("the machine's clock was set back by");
            soon(PATIENCE, "the log says that the clock was set back", told).await;
        }
        jumping.set(0);
        let code = phone.code_at(now());
        let answer = tried(&jumping, &code).await;
        assert!(answer.starts_session(), "{seconds}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_jump_forward_ends_what_lay_unused_so_long_and_a_jump_back_revives_nothing() {
    let jumping = Jumping::start().await;
    let browser = jumping.served.browser();
    enrolled(&browser).await;
    assert!(is_in(&browser).await);
    jumping.set(3600);
    assert!(!is_in(&browser).await);
    for seconds in [0, -3600] {
        jumping.set(seconds);
        assert!(!is_in(&browser).await, "{seconds}");
    }
}

#[tokio::test]
async fn a_jump_back_is_told_and_makes_no_session_longer() {
    let jumping = Jumping::start().await;
    let browser = jumping.served.browser();
    enrolled(&browser).await;
    let end = browser.whoami().await.unwrap()["expires_at"].clone();
    jumping.set(-3600);
    assert!(is_in(&browser).await);
    assert_eq!(browser.whoami().await.unwrap()["expires_at"], end);
    let told = async || jumping.served.said().contains("the machine's clock was set back");
    soon(PATIENCE, "the log says that the clock was set back", told).await;
    // What really passes goes on counting from where it was: an hour later by the clock is no time at all.
    jumping.set(0);
    assert!(is_in(&browser).await);
    jumping.set(3600);
    assert!(!is_in(&browser).await);
}

/// The skewed gateway goes by PostgreSQL's clock: a session of the other is neither of the future nor over there.
#[tokio::test]
async fn a_gateway_whose_clock_is_off_says_so_and_shares_its_sessions_all_the_same() {
    let server = PostgresServer::start(&[]);
    let url = new_database(&server);
    let (right, browser) = TestGateway::builder().set("storage.database", &url).start().await;
    right.add_user(ADA).await;
    browser.log_in(ADA).await;
    let written = std::fs::read_to_string(right.folder().join("portcullis.toml")).unwrap();
    let file = right.folder().join("skewed.toml");
    std::fs::write(&file, written.replace("sqlite:portcullis.db", &url)).unwrap();
    let (library, hand) = (library(), right.folder().join("offset"));
    for (offset, word) in
        [("+7200\n", "7200 s ahead of the database's"), ("-7200\n", "7200 s behind the database's")]
    {
        std::fs::write(&hand, offset).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--config"]).arg(&file).envs(fake(&library, &hand));
        let heard = |line: &str| line.split_once("listening address=")?.1.trim().parse().ok();
        let (skewed, address) = Process::start(command, heard).await;
        let off = |word: &str| skewed.said().contains(word);
        let number: u32 = word.split(' ').next().unwrap().parse().unwrap();
        // The way takes its time.
        assert!(
            (number - 1..=number).any(|n| off(&word.replace(&number.to_string(), &n.to_string()))),
            "{}",
            skewed.said()
        );
        let surroundings = Arc::new(Surroundings {
            address,
            certificate: std::fs::read(right.folder().join("certificate.pem")).unwrap(),
            clock: Arc::clone(&right.surroundings().clock),
            phones: Arc::clone(&right.surroundings().phones),
        });
        let there = browser.copy().moved_to(&surroundings);
        assert_eq!(there.level().await, "two_factor", "{offset}");
    }
}
