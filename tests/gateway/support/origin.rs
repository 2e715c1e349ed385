//! Real web servers that a portal may run on, each serving the same folder on a port of its own. A server that is not
//! installed is a failure that says so.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{PATIENCE, soon};

pub(crate) const NAMES: [&str; 7] = ["nginx", "apache", "lighttpd", "node", "python", "gunicorn", "php"];

/// Decodes, joins and opens, as a careless application does. To it, two slashes begin a host.
const NODE: &str = r#"
const [http, fs, path] = ["http", "fs", "path"].map(require);
const [root, port] = process.argv.slice(2);
http.createServer((request, response) => {
  let asked = "/none";
  try { asked = decodeURIComponent(new URL(request.url, "http://portal").pathname); } catch {}
  fs.readFile(path.join(root, asked), (error, content) => {
    response.writeHead(error ? 404 : 200);
    response.end(error ? "no" : content);
  });
}).listen(Number(port), "127.0.0.1");
"#;
/// The most forgiving reader: decodes what the server has decoded, drops parameters, takes `\` for `/`.
const WSGI: &str = r#"
import os, urllib.parse
def app(environ, start_response):
    asked = urllib.parse.unquote(environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace"))
    steps = [step.split(";")[0] for step in asked.replace("\\", "/").split("/")]
    try:
        with open(os.path.normpath(os.environ["ROOT"] + "/" + "/".join(steps)), "rb") as file:
            content = file.read()
        start_response("200 OK", [("Content-Length", str(len(content)))])
        return [content]
    except (OSError, ValueError):
        start_response("404 Not Found", [("Content-Length", "2")])
        return [b"no"]
"#;

/// The same in PHP, whose own reader of addresses it uses.
const PHP: &str = r#"<?php
$asked = rawurldecode(parse_url($_SERVER["REQUEST_URI"], PHP_URL_PATH) ?: "/none");
$file = str_contains($asked, "\0") ? false : $_SERVER["DOCUMENT_ROOT"] . $asked;
if ($file === false || !is_file($file)) { http_response_code(404); echo "no"; return; }
readfile($file);
"#;

/// One server. It has stopped when this is dropped.
pub(crate) struct Origin {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Origin {
    pub(crate) async fn start(name: &'static str, root: &Path) -> Self {
        let folder = readable_folder();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = command(name, root, folder.path(), address.port());
        let log = fs::File::create(folder.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("{name} cannot be started, and `tests/run --install-only` would install it: {error}")
        });
        let origin = Self { name, address, child, _folder: folder };
        soon(PATIENCE, name, async || TcpStream::connect(address).await.is_ok()).await;
        origin
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // Asked, not killed: some have processes of their own to end.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// A folder that a server may read which has given up its rights.
pub(crate) fn readable_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn command(name: &str, root: &Path, folder: &Path, port: u16) -> Command {
    let write = |file: &str, text: &str| {
        let path = folder.join(file);
        fs::write(&path, text).unwrap();
        path
    };
    let (root, own, port) = (root.display().to_string(), folder.display(), port.to_string());
    let start = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments);
        command
    };
    match name {
        "nginx" => {
            let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|kind| format!("{kind}_temp_path {own}/{kind};"))
                .concat();
            let text = format!(
                "daemon off; master_process off; pid {own}/pid; error_log stderr;\nevents {{}}\nhttp {{ {temporary}\n\
                 access_log off; gzip on; gzip_types text/plain; server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n"
            );
            let file = write("nginx.conf", &text).display().to_string();
            start(&sbin("nginx"), &["-e", "stderr", "-c", &file])
        }
        "apache" => {
            let modules = apache_modules(&["mpm_prefork", "authz_core"]);
            let text = format!(
                "{modules}ServerName portal\nListen 127.0.0.1:{port}\nPidFile {own}/pid\nErrorLog /dev/stderr\n\
                 DocumentRoot {root}\nAllowEncodedSlashes On\nUser www-data\nGroup www-data\n\
                 <Directory {root}>\nRequire all granted\n</Directory>\n"
            );
            let file = write("apache.conf", &text).display().to_string();
            start(&sbin("apache2"), &["-X", "-d", &own.to_string(), "-f", &file])
        }
        // Two hosts, which have a folder each with their certificate in it.
        "apache-tls" => {
            let modules = apache_modules(&["mpm_prefork", "authz_core", "ssl"]);
            let hosts: String = ["localhost", "b.internal"]
                .map(|host| {
                    format!(
                        "<VirtualHost *:{port}>\nServerName {host}\nDocumentRoot {root}/{host}\nSSLEngine on\n\
                         SSLCertificateFile {root}/{host}/pair.pem\n</VirtualHost>\n"
                    )
                })
                .concat();
            let text = format!(
                "{modules}ServerName portal\nListen 127.0.0.1:{port}\nPidFile {own}/pid\nErrorLog /dev/stderr\n\
                 SSLSessionCache none\nSSLStrictSNIVHostCheck on\nUser www-data\nGroup www-data\n{hosts}\
                 <Directory {root}>\nRequire all granted\n</Directory>\n"
            );
            let file = write("apache.conf", &text).display().to_string();
            start(&sbin("apache2"), &["-X", "-d", &own.to_string(), "-f", &file])
        }
        "lighttpd" => {
            let text = format!(
                "server.document-root = \"{root}\"\nserver.bind = \"127.0.0.1\"\nserver.port = {port}\n\
                 mimetype.assign = ( \"\" => \"text/plain\" )\n"
            );
            let file = write("lighttpd.conf", &text).display().to_string();
            start(&sbin("lighttpd"), &["-D", "-f", &file])
        }
        "node" => {
            let file = write("portal.js", NODE).display().to_string();
            start("node", &[&file, &root, &port])
        }
        "python" => {
            start("python3", &["-m", "http.server", &port, "--bind", "127.0.0.1", "--directory", &root])
        }
        "gunicorn" => {
            write("portal.py", WSGI);
            let bind = format!("127.0.0.1:{port}");
            let mut command =
                start("gunicorn", &["--bind", &bind, "--chdir", &own.to_string(), "portal:app"]);
            command.env("ROOT", root);
            command
        }
        "php" => {
            let file = write("portal.php", PHP).display().to_string();
            start("php", &["-S", &format!("127.0.0.1:{port}"), "-t", &root, &file])
        }
        other => panic!("{other} is no server that is known here"),
    }
}

fn apache_modules(names: &[&str]) -> String {
    let line = |name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n");
    names.iter().map(line).collect()
}

/// Debian keeps servers where only root looks for programs.
pub(super) fn sbin(program: &str) -> String {
    let there = format!("/usr/sbin/{program}");
    if Path::new(&there).exists() { there } else { program.to_owned() }
}
