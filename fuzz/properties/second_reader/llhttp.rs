//! Asks a Node that runs beside the tests what it makes of a request.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{LazyLock, Mutex, PoisonError},
};

use serde::Deserialize;

/// A request as both readers tell it; values and bodies in hexadecimal, fields by name.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: String,
}

struct Node {
    /// Ends with the tests, when its input does.
    _child: Child,
    asks: ChildStdin,
    tells: BufReader<ChildStdout>,
}

/// One for all inputs.
static NODE: LazyLock<Mutex<Node>> = LazyLock::new(|| {
    let mut child = Command::new("node")
        .args(["--no-deprecation", "--eval", include_str!("llhttp.js")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node is installed");
    let (asks, tells) = (child.stdin.take().expect("its input"), child.stdout.take().expect("its output"));
    Mutex::new(Node { _child: child, asks, tells: BufReader::new(tells) })
});

impl Node {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.tells.read_line(&mut line).expect("node answers");
        line
    }
}

/// What it makes of `bytes`: one whole request and nothing more, or why not.
pub(super) fn read(bytes: &[u8]) -> Result<Request, String> {
    let mut node = NODE.lock().unwrap_or_else(PoisonError::into_inner);
    let length = u32::try_from(bytes.len()).expect("a length");
    node.asks.write_all(&length.to_be_bytes()).expect("node listens");
    node.asks.write_all(bytes).expect("node listens");
    node.asks.flush().expect("node listens");
    let line = node.line();
    serde_json::from_str(&line).map_err(|_| line)
}
