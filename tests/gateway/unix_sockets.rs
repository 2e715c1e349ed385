//! Unix sockets in front of the gateway and behind it.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use http::{Request, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::{TcpStream, UnixStream};

use crate::support::{
    ADA, Browser, HOST, PATIENCE, TestGateway, body,
    front::Front,
    log, logged_in,
    origin::readable_folder,
    process::{PROGRAM, run_command},
    soon,
    test_gateway::Builder,
    wire::Wire,
    within,
};

/// A gateway that listens on a Unix socket as well, in a folder of its own.
async fn gateway_on(socket: &Path, settings: &[(&str, &str)]) -> (TestGateway, Browser) {
    let listen = format!("127.0.0.1:0, unix:{}", socket.display());
    let builder = TestGateway::builder().set("server.listen", &listen);
    let builder = settings.iter().fold(builder, |builder, (key, value)| builder.set(key, value));
    logged_in(builder).await
}

async fn client(gateway: &TestGateway, browser: &Browser) -> String {
    gateway.upstream.forget();
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
    let address = gateway.upstream.only_request().value("x-forwarded-for").unwrap();
    soon(PATIENCE, "the request's line", async || {
        gateway.access_log().lines().last().unwrap().contains(&format!(" client.ip={address} "))
    })
    .await;
    address
}

#[tokio::test]
async fn a_balancer_reaches_the_gateway_by_its_socket_and_tells_the_client() {
    let folder = readable_folder();
    let socket = folder.path().join("https.sock");
    let (gateway, browser) = gateway_on(&socket, &[("server.proxy_protocol", "unix")]).await;
    assert_eq!(fs::symlink_metadata(&socket).unwrap().permissions().mode() & 0o7777, 0o660);
    let at = format!("unix@{}", socket.display());
    for words in ["send-proxy", "send-proxy-v2"] {
        let front = Front::haproxy(&at, words).await;
        let browser = browser.copy().through("127.0.0.3", front.address);
        assert_eq!(client(&gateway, &browser).await, "127.0.0.3");
        let posted = Request::post("/form").body(body("x".repeat(300_000))).unwrap();
        assert_eq!(browser.send(posted).await.status, StatusCode::OK);
        assert_eq!(client(&gateway, &browser.copy().http2()).await, "127.0.0.3");
    }
    // TCP is served as before; on the socket nobody gets in without the header.
    assert_eq!(client(&gateway, &browser).await, "127.0.0.1");
    let silent = Front::haproxy(&at, "").await;
    assert!(browser.copy().through("127.0.0.3", silent.address).try_tls(&["h2"]).await.is_err());
    gateway.stop().await;
    assert!(!socket.exists(), "the file goes with the gateway");
}

#[tokio::test]
async fn a_proxy_on_the_socket_is_believed_as_the_configuration_says() {
    let page =
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 192.0.2.66\r\nConnection: close\r\n\r\n");
    for (settings, address) in [
        (&[("server.trusted_proxies", "unix")][..], "127.0.0.1"),
        // Nobody on a network is one of them.
        (&[("server.trusted_proxies", "127.0.0.0/8")][..], "::"),
        (&[][..], "::"),
    ] {
        let folder = readable_folder();
        let socket = folder.path().join("https.sock");
        let (gateway, _browser) = gateway_on(&socket, settings).await;
        let front = Front::haproxy_http(&format!("unix@{}", socket.display()), "").await;
        let mut wire = Wire::new(TcpStream::connect(front.address).await.unwrap());
        wire.write(page.as_bytes()).await.unwrap();
        let answer = within(PATIENCE, wire.read_to_end()).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 401 "), "{}", answer.escape_ascii());
        soon(PATIENCE, address, async || gateway.access_log().contains(&format!(" client.ip={address} ")))
            .await;
        // A header where none is taken.
        let mut wire = Wire::new(UnixStream::connect(&socket).await.unwrap());
        wire.write(b"PROXY TCP4 203.0.113.9 198.51.100.1 1 2\r\n\x16\x03\x01").await.unwrap();
        assert!(within(PATIENCE, wire.read_to_end()).await.unwrap_or_default().is_empty());
        let refused = "portcullis_connections_refused_total{reason=\"proxy_protocol\"} 1";
        assert!(gateway.admin("/metrics").await.contains(refused));
        let mut plain = Wire::new(UnixStream::connect(&socket).await.unwrap());
        plain.write(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(within(PATIENCE, plain.read_some()).await.unwrap().starts_with(b"HTTP/1.1 400 "));
    }
}

#[tokio::test]
async fn check_and_start_say_what_is_wrong_with_a_socket() {
    let folder = readable_folder();
    let socket = folder.path().join("https.sock");
    let (gateway, _) = gateway_on(&socket, &[("server.proxy_protocol", "unix")]).await;
    let check = async |key: &str, value: &str| {
        let mut command = Command::new(PROGRAM);
        command.arg("check").arg("--config").arg(gateway.folder().join("portcullis.toml")).env(key, value);
        run_command(command, "").await
    };
    let listen = format!("unix:{}", socket.display());
    let outcome = check("PORTCULLIS_SERVER__LISTEN", &listen).await;
    assert!(outcome.code == 0 && outcome.err.contains("Add `unix` to"), "{outcome:?}");
    for (key, value, words) in [
        ("PORTCULLIS_SERVER__LISTEN", "unix:relative.sock", "the whole path"),
        ("PORTCULLIS_SERVER__SOCKET_MODE", "rw-rw----", "0660"),
        ("PORTCULLIS_PORTAL__UPSTREAMS", "unix:app.sock", "the whole path"),
        ("PORTCULLIS_PORTAL__UPSTREAMS", "unix:/run/my app.sock", "only letters"),
    ] {
        let outcome = check(key, value).await;
        assert!(outcome.code == 1 && outcome.err.contains(words), "{key}={value}: {outcome:?}");
    }
    // The portal's: not there, nobody behind it.
    let nobody = folder.path().join("left.sock");
    drop(std::os::unix::net::UnixListener::bind(&nobody).unwrap());
    for (path, words) in [(folder.path().join("none.sock"), "No such file"), (nobody, "refused")] {
        let outcome = check("PORTCULLIS_PORTAL__UPSTREAMS", &format!("unix:{}", path.display())).await;
        assert!(outcome.code == 0, "{outcome:?}");
        assert!(
            outcome.err.contains("the portal can't be reached") && outcome.err.contains(words),
            "{outcome:?}"
        );
    }
}

/// A server behind a Unix socket.
struct Portal(Child);

impl Drop for Portal {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Starts gunicorn or nginx there, with a page that says who asked and under which host.
async fn portal(name: &str, folder: &Path, socket: &Path) -> Portal {
    let mut command = match name {
        "gunicorn" => {
            let app = "def app(environ, start_response):\n    body = environ['wsgi.input'].read()\n    start_response('200 OK', [('Content-Type', 'text/plain')])\n    \
                       return [f\"{environ.get('HTTP_REMOTE_USER')} {environ['HTTP_HOST']} {len(body)}\".encode()]\n";
            fs::write(folder.join("portal.py"), app).unwrap();
            let mut command = Command::new("gunicorn");
            command
                .arg("--bind")
                .arg(format!("unix:{}", socket.display()))
                .arg("--chdir")
                .arg(folder)
                .arg("portal:app");
            command
        }
        _ => {
            let own = folder.display();
            let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|kind| format!("{kind}_temp_path {own}/{kind};"))
                .concat();
            let text = format!(
                "daemon off; master_process off; pid {own}/pid; error_log stderr;\nevents {{}}\nhttp {{ {temporary} access_log off;\n\
                 server {{ listen unix:{}; location / {{ return 200 \"$http_remote_user $http_host $content_length\"; }} }} }}\n",
                socket.display()
            );
            let file = folder.join("nginx.conf");
            fs::write(&file, text).unwrap();
            let mut command = Command::new("/usr/sbin/nginx");
            command.args(["-e", "stderr", "-c"]).arg(file);
            command
        }
    };
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    soon(PATIENCE, name, async || UnixStream::connect(socket).await.is_ok()).await;
    Portal(child)
}

fn before(socket: &Path) -> Builder {
    TestGateway::builder().upstream_url(&format!("unix:{}", socket.display()))
}

#[tokio::test]
async fn a_portal_behind_a_unix_socket_is_served_as_any_other() {
    for name in ["gunicorn", "nginx"] {
        let folder = readable_folder();
        let socket = folder.path().join("app.sock");
        let portal = portal(name, folder.path(), &socket).await;
        for (setting, host) in [("public", HOST), ("inner.example:81", "inner.example:81")] {
            let (_gateway, browser) = logged_in(before(&socket).set("portal.host", setting)).await;
            for browser in [browser.copy(), browser.copy().http2()] {
                for _ in 0..3 {
                    assert_eq!(
                        browser.get("/x").await.text().trim_end(),
                        format!("{ADA} {host} {}", if name == "nginx" { "" } else { "0" }).trim_end()
                    );
                }
                let posted = Request::post("/form").body(body("x".repeat(200_000))).unwrap();
                assert_eq!(browser.send(posted).await.text(), format!("{ADA} {host} 200000"), "{name}");
            }
        }
        // One that is gone, and one that comes back.
        let listener = log::listen();
        let (_gateway, browser) = logged_in(before(&socket)).await;
        drop(portal);
        let _ = fs::remove_file(&socket);
        assert_eq!(browser.get("/x").await.status, StatusCode::BAD_GATEWAY, "{name}");
        assert!(listener.text().contains(&format!("cannot connect to unix:{}", socket.display())));
    }
}

#[tokio::test]
async fn the_host_of_a_unix_socket_has_to_be_given() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("portcullis.toml");
    let text = format!(
        "[server]\npublic_url = \"https://{HOST}\"\nlisten = \"127.0.0.1:{port}\"\n[portal]\nname = \"IoT\"\nhost = \"upstream\"\n\
         upstreams = [\"unix:/run/app.sock\"]\n"
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(PROGRAM);
    command.arg("check").arg("--config").arg(&file);
    let outcome = run_command(command, "").await;
    assert!(outcome.code == 1 && outcome.err.contains("a Unix socket has no host"), "{outcome:?}");
}
