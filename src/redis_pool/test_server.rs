//! A real redis-server of a test's own: free port, own folder, nothing written, stopped by its process id.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::Config;

pub(crate) struct RedisServer {
    process: Option<Child>,
    port: u16,
    arguments: Vec<String>,
    encrypted: bool,
    folder: tempfile::TempDir,
}

impl RedisServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With more arguments, such as `["--requirepass", "secret"]`.
    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        Self::launch(arguments.iter().map(|&argument| argument.to_owned()).collect(), false).await
    }

    /// Speaks TLS only, with a certificate for `localhost` by an authority of its own.
    pub(crate) async fn start_encrypted() -> Self {
        Self::launch(Vec::new(), true).await
    }

    async fn launch(arguments: Vec<String>, encrypted: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if encrypted {
            write_certificates(folder.path());
        }
        let mut server = Self { process: None, port: 0, arguments, encrypted, folder };
        loop {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            // Between our look at the port and its bind, another test's server may have taken it.
            if server.try_start().await {
                return server;
            }
        }
    }

    /// Starts it again on the same port, empty.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        assert!(self.try_start().await, "the port is still free");
    }

    async fn try_start(&mut self) -> bool {
        let log = self.folder.path().join("log");
        let _ = std::fs::remove_file(&log);
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
        command.arg(self.folder.path()).arg("--logfile").arg(&log);
        let port = self.port.to_string();
        if self.encrypted {
            command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"]);
            for (option, file) in [
                ("--tls-cert-file", "server.pem"),
                ("--tls-key-file", "server.key"),
                ("--tls-ca-cert-file", "ca.pem"),
            ] {
                command.arg(option).arg(self.folder.path().join(file));
            }
        } else {
            command.args(["--port", &port]);
        }
        command.args(&self.arguments).stdout(Stdio::null()).stderr(Stdio::null());
        let process = self.process.insert(command.spawn().expect("redis-server is installed"));
        loop {
            if std::fs::read_to_string(&log).is_ok_and(|text| text.contains("Ready to accept connections")) {
                return true;
            }
            if process.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Leaves it connected but silent, as a machine that hangs does.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().unwrap();
        kill_process(Pid::from_child(process), signal).unwrap();
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// How to reach it, without user or password.
    pub(crate) fn config(&self) -> Config {
        let url = if self.encrypted {
            format!("rediss://localhost:{}", self.port)
        } else {
            format!("redis://127.0.0.1:{}", self.port)
        };
        Config {
            url: url.into(),
            password: None,
            user: None,
            ca: self.encrypted.then(|| self.ca()),
            key_prefix: "portcullis:".into(),
            timeout: Duration::from_millis(250),
        }
    }

    /// Runs one command in a connection of its own.
    pub(crate) async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query_async(&mut connection).await.unwrap()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn write_certificates(folder: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    for (file, text) in
        [("ca.pem", authority.pem()), ("server.pem", certificate.pem()), ("server.key", key.serialize_pem())]
    {
        std::fs::write(folder.join(file), text).unwrap();
    }
}
