//! The real program on a disk that is full to the last byte: users go on, nobody enrols by halves, and all is well again
//! by itself when there is room.
//!
//! The disk is a tmpfs in a mount namespace of the process alone, which takes root's rights.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use http::StatusCode;
use portcullis::clock::ManualClock;
use tempfile::TempDir;

use crate::support::{
    ADA, Browser, EVE, PASSWORD, PATIENCE, Upstream,
    browser::{Protocol, Surroundings},
    now,
    process::{Outcome, PROGRAM, Process, run_command},
    soon,
    test_gateway::{Phones, configuration, folder},
};

/// A gateway whose data lie on a disk of 1 MiB.
struct Cramped {
    process: Process,
    folder: TempDir,
    surroundings: Arc<Surroundings>,
    _portal: Upstream,
}

impl Cramped {
    async fn start() -> Self {
        let (folder, portal) = (folder(), Upstream::start());
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let file = folder.path().join("portcullis.toml");
        let written = configuration(&[portal.url()], "database");
        fs::write(&file, written.replace("sqlite:portcullis.db", "sqlite:data/portcullis.db")).unwrap();
        let mut command = Command::new("unshare");
        let script = "mount -t tmpfs -o size=1m tmpfs \"$1\" && exec \"$2\" serve --config \"$3\"";
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(&data).arg(PROGRAM).arg(&file);
        let heard = |line: &str| line.split_once("listening address=")?.1.trim().parse().ok();
        let (process, address) = Process::start(command, heard).await;
        let surroundings = Arc::new(Surroundings {
            address,
            certificate: fs::read(folder.path().join("certificate.pem")).unwrap(),
            clock: Arc::new(ManualClock::at(now())),
            phones: Phones::default(),
        });
        Self { process, folder, surroundings, _portal: portal }
    }

    /// Runs the program beside the gateway, on the same disk.
    async fn portcullis(&self, arguments: &[&str], input: &str) -> Outcome {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.process.id().to_string(), PROGRAM]).args(arguments);
        command.arg("--config").arg(self.folder.path().join("portcullis.toml"));
        let outcome = run_command(command, input).await;
        assert_eq!(outcome.code, 0, "{outcome:?}");
        outcome
    }

    async fn add_user(&self, email: &str) {
        self.portcullis(&["user", "add", email, "--password-stdin"], &format!("{PASSWORD}\n")).await;
    }

    fn browser(&self) -> Browser {
        Browser::new(Arc::clone(&self.surroundings), Protocol::Http1)
    }

    /// The disk as the gateway sees it.
    fn disk(&self) -> PathBuf {
        let data = self.folder.path().join("data");
        Path::new("/proc")
            .join(self.process.id().to_string())
            .join("root")
            .join(data.strip_prefix("/").unwrap())
    }

    /// Leaves not one byte.
    fn fill(&self) -> PathBuf {
        let path = self.disk().join("filler");
        let mut filler = File::create(&path).unwrap();
        for size in [4096, 1] {
            let piece = vec![b'x'; size];
            let full = std::iter::repeat_with(|| filler.write_all(&piece)).find_map(Result::err).unwrap();
            assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
        }
        path
    }
}

#[tokio::test]
async fn on_a_full_disk_users_go_on_and_nobody_enrols_until_there_is_room_again() {
    // Root in a container may be no more than anybody.
    if !Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success()) {
        println!("skipped: a disk of 1 MiB cannot be mounted here");
        return;
    }
    let cramped = Cramped::start().await;
    cramped.add_user(ADA).await;
    cramped.add_user(EVE).await;
    let (ada, eve) = (cramped.browser(), cramped.browser());
    ada.log_in(ADA).await;
    let page = eve.visit("/sims").await;
    let enrol = eve.sign_in(&page, EVE).await;
    let phone = eve.scan(&enrol, EVE);

    let filler = cramped.fill();
    for _ in 0..5 {
        assert_eq!(ada.get("/sims").await.text(), "the portal: GET /sims\n");
        let code = phone.code_at(now());
        let refused = eve.fill(&enrol, &[("code", &code), ("device_name", "Phone")]).await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.text());
        assert!(!refused.header("retry-after").is_empty() && refused.set_cookies().is_empty());
        refused.assert_secure();
    }
    let stranger = cramped.browser().get("/sims").await;
    assert_eq!(stranger.status, StatusCode::FOUND);

    fs::remove_file(filler).unwrap();
    let devices = cramped.portcullis(&["device", "list", EVE, "--json"], "").await;
    assert_eq!(devices.json(), serde_json::json!([]));
    let sound = async || {
        let answer = eve.fill(&enrol, &[("code", &phone.code_at(now())), ("device_name", "Phone")]).await;
        answer.starts_session()
    };
    soon(PATIENCE, "the same page binds the device", sound).await;
    let devices = cramped.portcullis(&["device", "list", EVE, "--json"], "").await;
    assert_eq!(devices.json().as_array().map(Vec::len), Some(1));
    assert_eq!(ada.get("/sims").await.text(), "the portal: GET /sims\n");
}
