//! Assertions as a portal verifies them: by libraries that are not ours, in processes of their own, with keys that they
//! fetch from the running gateway. `tests/run` installs them.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::Value;

use super::{HOST, PATIENCE, TestGateway, within};

pub(crate) const ISSUER: &str = "https://iot.example.com";

/// Who verifies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Library {
    PyJwt,
    Jose,
}

impl Library {
    /// The interpreter and the script.
    fn command(self) -> Command {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verifiers");
        let (program, needed, script) = match self {
            Self::PyJwt => {
                let python = folder.join(".venv/bin/python");
                (python.clone(), python, "verify.py")
            }
            Self::Jose => (PathBuf::from("node"), folder.join("node_modules/jose"), "verify.js"),
        };
        assert!(needed.exists(), "{} is missing: run tests/run --install-only", needed.display());
        let mut command = Command::new(program);
        command.arg(folder.join(script));
        command
    }
}

/// A verifier that has fetched no keys yet, and remembers those that it fetches. It ends when this is dropped.
pub(crate) struct Verifier(Arc<Mutex<Running>>);

struct Running {
    child: Child,
    tokens: ChildStdin,
    outcomes: BufReader<ChildStdout>,
}

impl Verifier {
    pub(crate) fn start(library: Library, gateway: &TestGateway, audience: &str) -> Self {
        let mut child = library
            .command()
            .arg(format!("https://{HOST}/.well-known/portcullis/jwks.json"))
            .arg(gateway.address().to_string())
            .arg(gateway.folder().join("certificate.pem"))
            .args([ISSUER, audience])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (tokens, outcomes) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self(Arc::new(Mutex::new(Running { child, tokens, outcomes })))
    }

    /// The claims of a token that holds, or the name of what is wrong with it.
    pub(crate) async fn verify(&self, token: &str) -> Result<Value, String> {
        let (running, line) = (Arc::clone(&self.0), format!("{token}\n"));
        let asked = tokio::task::spawn_blocking(move || {
            let mut running = running.lock().unwrap();
            running.tokens.write_all(line.as_bytes()).unwrap();
            let mut outcome = String::new();
            running.outcomes.read_line(&mut outcome).unwrap();
            outcome
        });
        // An interpreter takes its time to start.
        let outcome = within(3 * PATIENCE, asked).await.unwrap();
        let mut outcome: Value = serde_json::from_str(&outcome).expect("the verifier answers");
        match outcome["refused"].take() {
            Value::String(reason) => Err(reason),
            _ => Ok(outcome["claims"].take()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
