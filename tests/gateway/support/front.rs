//! Real servers in front of a gateway, which pass TCP on to it. One that is not installed is a failure that says so.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};

use super::{
    Browser, PATIENCE,
    origin::{readable_folder, sbin},
    soon,
};

/// How a browser reaches the gateway.
#[derive(Clone, Default)]
pub(crate) struct Way {
    /// What a balancer writes at the start of each connection.
    pub(super) preamble: Vec<u8>,
    /// From where it connects, and where to, when not to the gateway itself.
    route: Option<(IpAddr, SocketAddr)>,
}

impl Browser {
    /// The same browser behind a balancer that begins each connection like this.
    #[must_use]
    pub(crate) fn announced(mut self, preamble: impl Into<Vec<u8>>) -> Self {
        self.way = Arc::new(Way { preamble: preamble.into(), ..(*self.way).clone() });
        self.idle = Arc::default();
        self
    }

    /// The same browser at one of this machine's addresses, connected to a server in front of the gateway.
    #[must_use]
    pub(crate) fn through(mut self, from: &str, front: SocketAddr) -> Self {
        self.way = Arc::new(Way { route: Some((from.parse().unwrap(), front)), ..(*self.way).clone() });
        self.idle = Arc::default();
        self
    }

    /// A connection on which nothing has been said.
    pub(crate) async fn tcp(&self) -> std::io::Result<TcpStream> {
        let socket = match self.way.route {
            None => TcpStream::connect(self.surroundings.address).await?,
            Some((from, front)) => {
                let socket = TcpSocket::new_v4()?;
                socket.bind(SocketAddr::new(from, 0))?;
                socket.connect(front).await?
            }
        };
        socket.set_nodelay(true)?;
        Ok(socket)
    }
}

/// One server. It has stopped when this is dropped.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Front {
    /// HAProxy with these words about its server, `gateway`: an address, or a path after `unix@`.
    pub(crate) async fn haproxy(gateway: &str, words: &str) -> Self {
        Self::start("haproxy", |_, port| {
            format!(
                "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
                 listen front\n bind 127.0.0.1:{port}\n server gateway {gateway} {words}\n"
            )
        })
        .await
    }

    /// HAProxy that speaks HTTP with clients and with the gateway, which it tells the client in a header.
    pub(crate) async fn haproxy_http(gateway: &str, words: &str) -> Self {
        Self::start("haproxy", |_, port| {
            format!(
                "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
                 listen front\n bind 127.0.0.1:{port}\n option forwardfor\n\
                 server gateway {gateway} ssl verify none {words}\n"
            )
        })
        .await
    }

    /// nginx that begins each connection with a header of the first version.
    pub(crate) async fn nginx(gateway: &str) -> Self {
        Self::start("nginx", |own, port| {
            format!(
                "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off; master_process off; pid {own}/pid;\n\
                 error_log stderr;\nevents {{}}\nstream {{ server {{ listen 127.0.0.1:{port};\n\
                 proxy_pass {gateway}; proxy_protocol on; }} }}\n"
            )
        })
        .await
    }

    async fn start(name: &str, configuration: impl FnOnce(&str, u16) -> String) -> Self {
        let folder = readable_folder();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let file = folder.path().join("configuration");
        fs::write(&file, configuration(&folder.path().display().to_string(), address.port())).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(sbin(name));
        match name {
            "nginx" => command.args(["-e", "stderr", "-c"]).arg(&file),
            _ => command.args(["-db", "-f"]).arg(&file),
        };
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("{name} cannot be started, and `tests/run --install-only` would install it: {error}")
        });
        let front = Self { address, child, _folder: folder };
        soon(PATIENCE, name, async || TcpStream::connect(address).await.is_ok()).await;
        front
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}
