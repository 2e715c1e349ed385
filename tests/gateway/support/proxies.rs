//! Other proxies in front of a portal, with the gateway beside them: each runs the file for it in `config/examples`, with the
//! addresses of a test in it. One that is not installed is a failure that says so.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{
    Browser, HOST, PATIENCE, TestGateway,
    browser::{Protocol, Surroundings},
    origin::{readable_folder, sbin},
    soon,
};

pub(crate) const NAMES: [&str; 1] = ["nginx"];

/// One proxy. It has stopped when this is dropped.
pub(crate) struct AskingProxy {
    pub(crate) name: &'static str,
    surroundings: Arc<Surroundings>,
    child: Child,
    folder: TempDir,
}

impl AskingProxy {
    pub(crate) async fn start(name: &'static str, gateway: &TestGateway) -> Self {
        let folder = readable_folder();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = command(name, gateway, folder.path(), address);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("{name} cannot be started, and `tests/run --install-only` would install it: {error}")
        });
        let known = gateway.surroundings();
        let surroundings = Surroundings {
            address,
            certificate: known.certificate.clone(),
            clock: Arc::clone(&known.clock),
            phones: Arc::clone(&known.phones),
        };
        let mut proxy = Self { name, surroundings: Arc::new(surroundings), child, folder };
        let log = proxy.folder.path().join("log");
        soon(3 * PATIENCE, name, async || {
            let ended = proxy.child.try_wait().unwrap();
            assert!(ended.is_none(), "{name} has ended: {}", fs::read_to_string(&log).unwrap());
            TcpStream::connect(address).await.is_ok()
        })
        .await;
        proxy
    }

    /// A browser that knows nothing yet, and reaches the site here.
    pub(crate) fn browser(&self) -> Browser {
        Browser::new(Arc::clone(&self.surroundings), Protocol::Http1)
    }

    /// What it has to say for itself.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

impl Drop for AskingProxy {
    fn drop(&mut self) {
        // Asked, not killed: some have processes of their own to end.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// The file for a proxy, with these addresses in place of those that it comes with.
fn example(file: &str, gateway: &TestGateway, listen: (&str, String)) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples").join(file);
    let mut text = fs::read_to_string(path).unwrap();
    let folder = gateway.folder().display();
    for (written, here) in [
        ("127.0.0.1:9191", gateway.proxies_address().to_string()),
        ("127.0.0.1:3000", gateway.upstream.address().to_string()),
        ("/etc/portcullis/tls/fullchain.pem", format!("{folder}/certificate.pem")),
        ("/etc/portcullis/tls/privkey.pem", format!("{folder}/key.pem")),
        ("iot.example.com", HOST.to_owned()),
        listen,
    ] {
        assert!(text.contains(written), "{file} has {written}");
        text = text.replace(written, &here);
    }
    text
}

fn command(name: &str, gateway: &TestGateway, folder: &Path, address: SocketAddr) -> Command {
    let write = |file: &str, text: &str| -> PathBuf {
        let path = folder.join(file);
        fs::write(&path, text).unwrap();
        path
    };
    let own = folder.display();
    match name {
        "nginx" => {
            let listen = ("listen 443 ssl;", format!("listen {address} ssl;"));
            let site = write("site.conf", &example("nginx.conf", gateway, listen));
            let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|kind| format!("{kind}_temp_path {own}/{kind};"))
                .concat();
            let text = format!(
                "daemon off; master_process off; pid {own}/pid; error_log stderr;\nevents {{}}\n\
                 http {{ {temporary}\naccess_log off; include {}; }}\n",
                site.display()
            );
            let mut command = Command::new(sbin("nginx"));
            command.args(["-e", "stderr", "-c"]).arg(write("nginx.conf", &text));
            command
        }
        other => panic!("{other} is no proxy that is known here"),
    }
}
