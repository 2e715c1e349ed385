//! A program in Python beside the gateway, spoken to line by line.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use tokio::sync::mpsc;

use super::{PATIENCE, within};

/// A running program. It is ended when this is dropped.
pub(crate) struct Python {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Python {
    /// Debian's interpreter, which finds Debian's packages.
    pub(crate) fn start(file: &str, words: &[&str]) -> Self {
        Self::start_by(Path::new("/usr/bin/python3"), file, words)
    }

    /// The interpreter that finds what `tests/verifiers/requirements.txt` names.
    pub(crate) fn start_in_environment(file: &str, words: &[&str]) -> Self {
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verifiers/.venv/bin/python");
        assert!(python.exists(), "{} is missing: run tests/run --install-only", python.display());
        Self::start_by(&python, file, words)
    }

    fn start_by(python: &Path, file: &str, words: &[&str]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/support").join(file);
        let mut child = Command::new(python)
            .arg(path)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python is there; tests/run installs it");
        let output = BufReader::new(child.stdout.take().unwrap());
        let (report, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| report.send(line))
        });
        Self { child, lines }
    }

    /// The next line that it says.
    pub(crate) async fn line(&mut self) -> String {
        within(3 * PATIENCE, self.lines.recv()).await.expect("it goes on")
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
