//! A real redis-server for tests: free port, own folder, nothing saved, stopped by its process id.

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

    /// Only TLS, with a certificate for `localhost` by an authority of its own.
    pub(crate) async fn start_encrypted() -> Self {
        Self::launch(Vec::new(), true).await
    }

    /// Only TLS, and only with client certificates of the same authority.
    pub(crate) async fn start_with_clients_certificates() -> Self {
        Self::launch(vec!["--tls-auth-clients".into(), "yes".into()], true).await
    }

    async fn launch(arguments: Vec<String>, encrypted: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if encrypted {
            write_certificates(folder.path());
        }
        let mut server = Self { process: None, port: 0, arguments, encrypted, folder };
        loop {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            // Between the look at the port and the bind, another test's server may have taken it.
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
            command.args(["--port", "0", "--tls-port", &port]);
            if !self.arguments.iter().any(|argument| argument == "--tls-auth-clients") {
                command.args(["--tls-auth-clients", "no"]);
            }
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

    /// Leaves it connected but silent, like a machine that hangs.
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

    /// A certificate of that authority, and its key.
    pub(crate) fn identity(&self) -> (PathBuf, PathBuf) {
        (self.folder.path().join("server.pem"), self.folder.path().join("server.key"))
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The configuration for it, without user and password.
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
            sentinel_user: None,
            sentinel_password: None,
            ca: self.encrypted.then(|| self.ca()),
            certificate: None,
            key: None,
            key_prefix: "portcullis:".into(),
            timeout: Duration::from_millis(250),
        }
    }

    /// Waits until its replica has all its data.
    pub(crate) async fn copied(&self) {
        let mut connection = connect(self.port).await.unwrap();
        // The wait is for what was there at the last command of the connection.
        let mut both = redis::pipe();
        both.cmd("PING").ignore().cmd("WAIT").arg(1).arg(5000);
        let [copies]: [i64; 1] = both.query_async(&mut connection).await.unwrap();
        assert_eq!(copies, 1);
    }

    /// Runs one command on a new connection.
    pub(crate) async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        command_at(self.port, words).await.unwrap()
    }
}

async fn connect(port: u16) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
    // A busy machine, or a server told to wait, may take longer than the client's default.
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
    client.get_multiplexed_async_connection_with_config(&patient).await
}

/// Runs one command on a server of this machine.
pub(crate) async fn command_at<T: redis::FromRedisValue>(port: u16, words: &[&str]) -> redis::RedisResult<T> {
    let mut connection = connect(port).await?;
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]).query_async(&mut connection).await
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn write_certificates(folder: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    // OpenSSL takes a certificate with its issuer's name for self-signed.
    authority.distinguished_name.push(DnType::CommonName, "authority");
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
