//! A real PostgreSQL for tests: own port, own folder, nothing synced to disk, and stopped when the test process ends,
//! however that happens.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, geteuid, kill_process};

/// In Debian's folders, newest version first, or in the path.
fn program(name: &str) -> PathBuf {
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .map(|folders| folders.filter_map(|folder| Some(folder.ok()?.path())).collect())
        .unwrap_or_default();
    versions.sort();
    let installed =
        versions.iter().rev().map(|version| version.join("bin").join(name)).find(|path| path.exists());
    installed.unwrap_or_else(|| name.into())
}

pub(crate) struct PostgresServer {
    /// The shell that stops the server once its standard input is closed.
    keeper: Option<Child>,
    port: u16,
    folder: PathBuf,
    databases: AtomicU32,
}

impl PostgresServer {
    /// The superuser's name.
    pub(crate) const USER: &'static str = "portcullis";

    /// A server with additional settings, such as `["ssl=on"]`.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let folder = new_folder();
        let mut initdb = as_postgres(&program("initdb"));
        initdb.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username", Self::USER]);
        succeed(initdb.arg(folder.join("data")));
        Self::launch(folder, settings)
    }

    /// With a certificate for `localhost` by the authority in `ca.pem`.
    pub(crate) fn start_encrypted() -> Self {
        let folder = new_folder();
        write_certificates(&folder);
        let mut initdb = as_postgres(&program("initdb"));
        initdb.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username", Self::USER]);
        succeed(initdb.arg(folder.join("data")));
        let file = |name: &str| folder.join(name).display().to_string();
        let certificate = format!("ssl_cert_file={}", file("server.pem"));
        let key = format!("ssl_key_file={}", file("server.key"));
        Self::launch(folder, &["ssl=on", &certificate, &key])
    }

    /// From now on everybody but the superuser needs a password.
    pub(crate) fn require_passwords(&self) {
        let rules = format!(
            "local all all trust\nhost all {} 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n",
            Self::USER
        );
        fs::write(self.folder.join("data/pg_hba.conf"), rules).unwrap();
        self.sql("postgres", "SELECT pg_reload_conf()");
        while !self.says("postgres", "SELECT COUNT(*) FROM pg_hba_file_rules", "3") {
            std::thread::yield_now();
        }
    }

    /// Whether a query returns this one value. False while the server does not answer.
    pub(crate) fn says(&self, database: &str, query: &str, value: &str) -> bool {
        self.psql(database, query).output().is_ok_and(|said| said.stdout == format!("{value}\n").as_bytes())
    }

    /// A stand-by of `primary`.
    pub(crate) fn follow(primary: &Self) -> Self {
        let folder = new_folder();
        let mut backup = as_postgres(&program("pg_basebackup"));
        backup.args(["--no-sync", "--checkpoint=fast", "--write-recovery-conf", "--host=127.0.0.1"]);
        backup.args(["--username", Self::USER, "--port", &primary.port.to_string(), "--pgdata"]);
        succeed(backup.arg(folder.join("data")));
        Self::launch(folder, &[])
    }

    fn launch(folder: PathBuf, settings: &[&str]) -> Self {
        let mut server = Self { keeper: None, port: 0, folder, databases: AtomicU32::new(0) };
        loop {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            // Between the look at the port and the bind, another test's server may have taken it.
            if server.try_start(settings) {
                return server;
            }
        }
    }

    fn try_start(&mut self, settings: &[&str]) -> bool {
        // The server is stopped and its folder removed when this process closes the other end of the pipe, even by
        // dying.
        const KEEP: &str = "folder=$1; shift; \"$@\" >\"$folder/log\" 2>&1 </dev/null & server=$!; \
             read _ || :; kill -CONT $server 2>/dev/null; kill -QUIT $server 2>/dev/null; wait $server; \
             rm -rf \"$folder\"";
        let mut command = Command::new("sh");
        command.args(["-c", KEEP, "keeper"]).arg(&self.folder);
        let server = as_postgres(&program("postgres"));
        command.arg(server.get_program()).args(server.get_args());
        command.arg("-D").arg(self.folder.join("data")).arg("-k").arg(&self.folder);
        let port = format!("port={}", self.port);
        let fixed =
            ["listen_addresses=127.0.0.1", "fsync=off", "max_connections=200", "max_wal_senders=4", &port];
        for setting in fixed.iter().chain(settings) {
            command.args(["-c", setting]);
        }
        let keeper =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.keeper = Some(keeper);
        let start = Instant::now();
        loop {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            if log.contains("ready to accept") {
                return true;
            }
            if log.contains("could not bind") {
                return false;
            }
            assert!(
                start.elapsed() < Duration::from_secs(30) && !log.contains("FATAL"),
                "it does not start: {log}"
            );
            std::thread::yield_now();
        }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes an empty database with a new name.
    pub(crate) fn create_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        // A template without connections.
        self.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"));
        name
    }

    /// Runs statements as an operator would, and returns their output.
    pub(crate) fn sql(&self, database: &str, statements: &str) -> String {
        succeed(&mut self.psql(database, statements))
    }

    /// The same, for the caller to run.
    pub(crate) fn psql(&self, database: &str, statements: &str) -> Command {
        let mut psql = Command::new(program("psql"));
        psql.args(["-XqAtv", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", Self::USER, "-d", database]);
        psql.args(["-p", &self.port.to_string(), "-c", statements]);
        psql
    }

    /// Ends it and all its processes like a power cut.
    pub(crate) fn kill(&self) {
        let all = self.processes();
        for &process in &all {
            let _ = kill_process(process, Signal::KILL);
        }
        // Clients must find no server, rather than a dying one.
        for process in all {
            while Path::new(&format!("/proc/{}/fd", process.as_raw_nonzero()))
                .read_dir()
                .is_ok_and(|mut open| open.next().is_some())
            {
                std::thread::yield_now();
            }
        }
    }

    /// Leaves it connected but silent, like a machine that hangs.
    pub(crate) fn freeze(&self) {
        for process in self.processes() {
            kill_process(process, Signal::STOP).unwrap();
        }
    }

    pub(crate) fn thaw(&self) {
        for process in self.processes() {
            kill_process(process, Signal::CONT).unwrap();
        }
    }

    /// The server and its children, the server first.
    fn processes(&self) -> Vec<Pid> {
        let file = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        let server: i32 = file.lines().next().unwrap().trim().parse().unwrap();
        let children =
            fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap_or_default();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        std::iter::once(server).chain(children).filter_map(Pid::from_raw).collect()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

fn new_folder() -> PathBuf {
    // In memory if there is such a folder: a database has hundreds of files.
    let parent = if Path::new("/dev/shm").is_dir() { "/dev/shm".into() } else { std::env::temp_dir() };
    let folder = tempfile::Builder::new().prefix("portcullis-postgres-").tempdir_in(parent).unwrap().keep();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    hand_over(&folder);
    folder
}

/// Gives a file to the user of the server.
fn hand_over(path: &Path) {
    if geteuid().is_root() {
        let id = |flag| succeed(Command::new("id").args([flag, "postgres"])).trim().parse().unwrap();
        chown(path, Some(id("-u")), Some(id("-g"))).unwrap();
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
        let file = folder.join(file);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        hand_over(&file);
    }
}

/// The same program, run as another user than root, whom PostgreSQL refuses.
fn as_postgres(program: &Path) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).current_dir("/tmp").output().expect("PostgreSQL is installed");
    if !output.status.success() {
        let _ = std::io::stderr().write_all(&output.stderr);
        panic!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).unwrap()
}
