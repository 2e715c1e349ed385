//! A real mail server of a test's own: aiosmtpd, which takes every mail apart with Python's parser.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::{certificate_for, python::Python, test_gateway::Builder};

/// A running mail server. It is ended when this is dropped.
pub(crate) struct SmtpServer {
    python: Python,
    pub(crate) port: u16,
    mode: &'static str,
    folder: TempDir,
}

impl SmtpServer {
    /// `mode`: `plain`, `starttls` or `tls`.
    pub(crate) async fn start(mode: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = certificate_for(&["localhost"]);
        std::fs::write(folder.path().join("certificate.pem"), certificate).unwrap();
        std::fs::write(folder.path().join("key.pem"), key).unwrap();
        std::fs::write(folder.path().join("password"), "secret\n").unwrap();
        let (python, port) = run(mode, &folder, 0).await;
        Self { python, port, mode, folder }
    }

    /// Ends it, and leaves its port to nobody.
    pub(crate) fn stop(self) -> Stopped {
        Stopped { mode: self.mode, folder: self.folder, port: self.port }
    }

    /// What it takes next.
    pub(crate) async fn mail(&mut self) -> Mail {
        Mail(serde_json::from_str(&self.python.line().await).unwrap())
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    pub(crate) fn password_file(&self) -> PathBuf {
        self.folder.path().join("password")
    }

    pub(crate) fn url(&self) -> String {
        let port = self.port;
        match self.mode {
            "plain" => format!("smtp://localhost:{port}"),
            "starttls" => format!("smtp://gate@localhost:{port}?tls=required"),
            _ => format!("smtps://gate@localhost:{port}"),
        }
    }

    /// A gateway that sends its mail here.
    pub(crate) fn used_by(&self, builder: Builder) -> Builder {
        let builder = builder.set("mail.url", &self.url()).set("mail.from", "IoT <no-reply@example.com>");
        if self.mode == "plain" {
            return builder;
        }
        let path = |path: PathBuf| path.display().to_string();
        builder.set("mail.ca", &path(self.ca())).set("mail.password_file", &path(self.password_file()))
    }
}

/// A mail server that is down for the moment.
pub(crate) struct Stopped {
    mode: &'static str,
    folder: TempDir,
    port: u16,
}

impl Stopped {
    pub(crate) async fn start(self) -> SmtpServer {
        let (python, port) = run(self.mode, &self.folder, self.port).await;
        SmtpServer { python, port, mode: self.mode, folder: self.folder }
    }
}

async fn run(mode: &str, folder: &TempDir, port: u16) -> (Python, u16) {
    let path = |name: &str| folder.path().join(name).display().to_string();
    let words = [mode, &path("certificate.pem"), &path("key.pem"), &port.to_string()];
    let mut python = Python::start_in_environment("smtp.py", &words);
    let port = python.line().await.parse().unwrap();
    (python, port)
}

/// A mail as the server took it.
#[derive(Debug)]
pub(crate) struct Mail(pub(crate) Value);

impl Mail {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.0["headers"].as_array().unwrap().iter();
        headers.find(|header| header[0].as_str().unwrap().eq_ignore_ascii_case(name))?[1].as_str()
    }

    pub(crate) fn to(&self) -> &str {
        self.0["to"][0].as_str().unwrap()
    }

    pub(crate) fn subject(&self) -> &str {
        self.header("subject").unwrap()
    }

    pub(crate) fn text(&self) -> &str {
        self.0["text"].as_str().unwrap()
    }

    pub(crate) fn html(&self) -> &str {
        self.0["html"].as_str().unwrap()
    }

    /// The paths of the links to our own pages in the text.
    pub(crate) fn links(&self) -> Vec<String> {
        let lines = self.text().lines().filter_map(|line| line.strip_prefix("https://iot.example.com"));
        lines.filter(|path| path.starts_with("/.portcullis/")).map(str::to_owned).collect()
    }
}
