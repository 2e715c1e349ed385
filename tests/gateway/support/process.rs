//! The real program in processes of its own: the gateway as it is deployed, and every other command.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, mpsc},
};

use portcullis::{administration::Administration, app::Stores, clock::ManualClock, config::Config};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    Browser, PATIENCE, Upstream,
    browser::{Protocol, Surroundings},
    log::Memory,
    now,
    test_gateway::{Phones, configuration, folder},
    within,
};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis");

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Outcome {
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs the program to its end, with `input` on its standard input.
pub(crate) async fn run<A: AsRef<OsStr>>(arguments: &[A], input: &str) -> Outcome {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    run_command(command, input).await
}

/// Runs any command to its end, with `input` on its standard input.
pub(crate) async fn run_command(command: Command, input: &str) -> Outcome {
    let input = input.to_owned();
    let ran = tokio::task::spawn_blocking(move || run_blocking(command, &input));
    within(PATIENCE, ran).await.unwrap()
}

fn run_blocking(mut command: Command, input: &str) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // What does not read its input may have closed it already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code().expect("the command ended by itself"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A process that is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    said: Arc<Memory>,
}

impl Process {
    /// Starts the program, and waits until a line that it says is what `sought` looks for.
    pub(crate) async fn start<T: Send + 'static>(
        mut command: Command,
        sought: impl Fn(&str) -> Option<T> + Send + 'static,
    ) -> (Self, T) {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = Arc::new(Memory::default());
        let (tell, told) = mpsc::channel();
        let memory = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                memory.append(format!("{line}\n").as_bytes());
                if let Some(found) = sought(&line) {
                    let _ = tell.send(found);
                }
            }
        });
        let process = Self { child, said };
        let found = tokio::task::spawn_blocking(move || told.recv_timeout(PATIENCE)).await.unwrap();
        let found = found.unwrap_or_else(|_| panic!("it did not start: {}", process.said()));
        (process, found)
    }

    /// All that it has said on its standard output.
    pub(crate) fn said(&self) -> String {
        self.said.text()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String) {
        let ended = tokio::task::spawn_blocking(move || {
            let status = self.child.wait().unwrap();
            (status, self.said())
        });
        within(PATIENCE, ended).await.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `portcullis serve` on files of its own, on the machine's clock.
pub(crate) struct Served {
    process: Process,
    folder: TempDir,
    pub(crate) upstream: Upstream,
    phones: Phones,
    address: SocketAddr,
    restarts: usize,
    stores: Stores,
    environment: Vec<(String, String)>,
}

impl Served {
    pub(crate) async fn start() -> Self {
        Self::start_with("", &[]).await
    }

    /// The same with more in its configuration, and with these variables around it whenever it is started.
    pub(crate) async fn start_with(more: &str, environment: &[(&str, &str)]) -> Self {
        let (folder, upstream) = (folder(), Upstream::start());
        let file = folder.path().join("portcullis.toml");
        std::fs::write(&file, configuration(&[upstream.url()], "database") + more).unwrap();
        let environment: Vec<_> =
            environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (process, address) = serve(&file, &environment).await;
        let config = Config::load(&[file], [], &[]).unwrap_or_else(|problems| panic!("{problems}"));
        let stores = Stores::open(&config).await.unwrap();
        let phones = Phones::default();
        Self { process, folder, upstream, phones, address, restarts: 0, stores, environment }
    }

    /// Tells it to stop, and waits until it has. Answers how it ended and all that it said.
    pub(crate) async fn stop(self, signal: Signal) -> (ExitStatus, String) {
        self.process.signal(signal);
        self.process.ended().await
    }

    /// Kills it as a power cut does, whatever it is doing.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same files, once it has been killed.
    pub(crate) async fn restart(&mut self) {
        (self.process, self.address) = serve(&self.file(), &self.environment).await;
        self.restarts += 1;
    }

    /// All that it has said since it was last started.
    pub(crate) fn said(&self) -> String {
        self.process.said()
    }

    pub(crate) fn restarts(&self) -> usize {
        self.restarts
    }

    /// The log of what has been written to the database.
    pub(crate) fn write_ahead_log(&self) -> PathBuf {
        self.folder.path().join("portcullis.db-wal")
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("portcullis.toml")
    }

    pub(crate) fn administration(&self) -> &Administration {
        &self.stores.administration
    }

    pub(crate) fn stores(&self) -> &Stores {
        &self.stores
    }

    pub(crate) fn browser(&self) -> Browser {
        Browser::new(self.surroundings(), Protocol::Http1)
    }

    /// Where it is to be found since it was last started.
    pub(crate) fn surroundings(&self) -> Arc<Surroundings> {
        Arc::new(Surroundings {
            address: self.address,
            certificate: std::fs::read(self.folder.path().join("certificate.pem")).unwrap(),
            clock: Arc::new(ManualClock::at(now())),
            phones: Arc::clone(&self.phones),
        })
    }
}

async fn serve(file: &Path, environment: &[(String, String)]) -> (Process, SocketAddr) {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--config"]).arg(file).envs(environment.iter().cloned());
    Process::start(command, |line| line.split_once("listening address=")?.1.trim().parse().ok()).await
}
