//! Other proxies in front of a portal, with the gateway beside them: each runs the file for it in `config/examples`, with the
//! addresses of a test in it. One that is not installed is a failure that says so.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    Browser, HOST, PATIENCE, TestGateway,
    browser::{Protocol, Surroundings},
    origin::{readable_folder, sbin},
    soon,
};

pub(crate) const NAMES: [&str; 5] = ["nginx", "traefik", "caddy", "haproxy", "envoy"];

/// One proxy. It has stopped when this is dropped.
pub(crate) struct AskingProxy {
    pub(crate) name: &'static str,
    surroundings: Arc<Surroundings>,
    child: Child,
    folder: TempDir,
}

impl AskingProxy {
    pub(crate) async fn start(name: &'static str, gateway: &TestGateway) -> Self {
        Self::start_with(name, gateway, &[]).await
    }

    /// The same with changes to its file, in HAProxy's case to its script: what stands there, and what an operator has in its place.
    pub(crate) async fn start_with(
        name: &'static str,
        gateway: &TestGateway,
        changes: &[(&str, &str)],
    ) -> Self {
        let folder = readable_folder();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = command(name, (gateway, changes), folder.path(), address);
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
            // Some listen before they know what for.
            let browser = proxy.browser();
            browser.try_tls(&["http/1.1"]).await.is_ok()
                && browser.fetch("/.portcullis/whoami").await.status == StatusCode::UNAUTHORIZED
        })
        .await;
        proxy
    }

    /// A browser that knows nothing yet, and reaches the site here.
    pub(crate) fn browser(&self) -> Browser {
        Browser::new(Arc::clone(&self.surroundings), Protocol::Http1)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.surroundings.address
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

/// A file as an operator has it.
fn changed(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (written, instead)| {
        assert!(text.contains(written), "there is {written} in it");
        text.replace(written, instead)
    })
}

/// The file for a proxy, with these addresses in place of those that it comes with.
fn example(file: &str, (gateway, changes): Setting<'_>, listen: (&str, String)) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples").join(file);
    let mut text = fs::read_to_string(path).unwrap();
    let folder = gateway.folder().display();
    let (asked, portal) = (gateway.proxies_address(), gateway.upstream.address());
    text = changed(&text, changes);
    assert!(text.contains(listen.0), "{file} has {}", listen.0);
    for (written, here) in [
        ("127.0.0.1:9191", asked.to_string()),
        ("127.0.0.1:3000", portal.to_string()),
        ("port_value: 9191", format!("port_value: {}", asked.port())),
        ("port_value: 3000", format!("port_value: {}", portal.port())),
        ("/etc/portcullis/tls/fullchain.pem", format!("{folder}/certificate.pem")),
        ("/etc/portcullis/tls/privkey.pem", format!("{folder}/key.pem")),
        ("iot.example.com", HOST.to_owned()),
        (listen.0, listen.1),
    ] {
        text = text.replace(written, &here);
    }
    text
}

/// A program of those that `tests/proxies/requirements.txt` names.
fn packaged(name: &str) -> PathBuf {
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proxies/.venv");
    let installed = environment.join("bin").join(name);
    if name != "envoy" {
        return installed;
    }
    // What stands there starts this one, and would leave it behind.
    let versions = fs::read_dir(environment.join("lib")).into_iter().flatten().flatten();
    let inside = versions.map(|version| version.path().join("site-packages/envoy/_bin/envoy"));
    inside.into_iter().find(|path| path.exists()).unwrap_or(installed)
}

type Setting<'a> = (&'a TestGateway, &'a [(&'a str, &'a str)]);

fn command(name: &str, setting: Setting<'_>, folder: &Path, address: SocketAddr) -> Command {
    let gateway = setting.0;
    let write = |file: &str, text: &str| -> PathBuf {
        let path = folder.join(file);
        fs::write(&path, text).unwrap();
        path
    };
    let own = folder.display();
    match name {
        "nginx" => {
            let listen = ("listen 443 ssl", format!("listen {address} ssl"));
            let site = write("site.conf", &example("nginx.conf", setting, listen));
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
        "traefik" => {
            let listen = ("websecure", "websecure".to_owned());
            let file = write("dynamic.yml", &example("traefik.yml", setting, listen));
            let mut command = Command::new(packaged("traefik"));
            command
                .arg(format!("--providers.file.filename={}", file.display()))
                .arg(format!("--entrypoints.websecure.address={address}"))
                .args([
                    "--log.level=INFO",
                    "--global.checknewversion=false",
                    "--global.sendanonymoususage=false",
                ]);
            command
        }
        "caddy" => {
            let text = example("Caddyfile", setting, ("reverse_proxy", "reverse_proxy".to_owned()));
            let options = format!(
                "{{\n\tadmin off\n\tauto_https disable_redirects\n\thttps_port {}\n\tdefault_bind 127.0.0.1\n}}\n",
                address.port()
            );
            let file = write("Caddyfile", &(options + &text));
            let mut command = Command::new(packaged("caddy"));
            command.args(["run", "--config"]).arg(file).env("HOME", folder).env("XDG_DATA_HOME", folder);
            command
        }
        "haproxy" => {
            let read = |file: &str| fs::read_to_string(gateway.folder().join(file)).unwrap();
            let pair = write("pair.pem", &(read("certificate.pem") + &read("key.pem")));
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/portcullis.lua");
            let script = write("portcullis.lua", &changed(&fs::read_to_string(script).unwrap(), setting.1));
            let text = example("haproxy.cfg", (gateway, &[]), ("bind :443", format!("bind {address}")))
                .replace("/etc/haproxy/portal.pem", &pair.display().to_string())
                .replace("/etc/haproxy/portcullis.lua", &script.display().to_string());
            let mut command = Command::new(sbin("haproxy"));
            command.args(["-db", "-f"]).arg(write("haproxy.cfg", &text));
            command
        }
        "envoy" => {
            let listen = ("0.0.0.0, port_value: 443", format!("127.0.0.1, port_value: {}", address.port()));
            let file = write("envoy.yaml", &example("envoy.yaml", setting, listen));
            let mut command = Command::new(packaged("envoy"));
            command.args(["--use-dynamic-base-id", "--concurrency", "1", "-l", "warning", "-c"]).arg(file);
            command
        }
        other => panic!("{other} is no proxy that is known here"),
    }
}
