//! `[server]` and `[server.timeouts]`: listeners, trusted proxies, limits and timeouts.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use ipnet::IpNet;
use serde::Deserialize;
use url::Url;

use super::{
    layers::Layers,
    values::{ConfigValue, List, Parsed, Size, origin, socket_path},
};
use crate::{
    http1::request_head::MOST_HEAD_BYTES,
    server::{self, ListenAddress, NO_ADDRESS},
    web::{self, client::AddressField},
};

/// `[server]`, validated.
pub(super) struct ServerSettings {
    pub(super) server: server::Config,
    /// `None` if `public_url` is missing, which is a fault.
    pub(super) web: Option<web::Config>,
    pub(super) admin_listen: Option<SocketAddr>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    /// The addresses and ports for HTTPS, or `unix:/path` for a Unix socket. `[::]` includes IPv4.
    listen: List<ListenAddress>,
    /// The mode of a Unix socket's file: who may connect.
    socket_mode: Parsed<FileMode>,
    /// The addresses and ports that redirect plain HTTP to `public_url`, for pages only. Absent: none.
    redirect_listen: List<SocketAddr>,
    /// The `https` URL that users type, without a path. Redirects and cookies are made for it. Required.
    public_url: Option<Parsed<PublicUrl>>,
    /// The address of `/live`, `/ready` and `/metrics`, without TLS or login; `off` for none.
    admin_listen: Parsed<AdminListen>,
    /// The address where the proxies in `trusted_proxies` ask what they may let pass, over plain HTTP. Absent: none.
    forward_auth_listen: Option<SocketAddr>,
    /// Load balancers whose `X-Forwarded-For` or `Forwarded` names the client: networks or single addresses.
    trusted_proxies: List<Front>,
    /// Balancers that open each connection with a PROXY protocol header, version 1 or 2, which names the client. Others
    /// may not send one.
    proxy_protocol: List<Front>,
    /// The field in which trusted proxies name the client: `x-forwarded-for` or `forwarded`; `peer` trusts neither.
    client_address: ClientAddress,
    /// The field in which trusted proxies name the requested host: `host`, or `x-forwarded-host`.
    client_host: ClientHost,
    /// The path of a health check for load balancers, for any host. Absent: none.
    health_path: Option<Parsed<HealthPath>>,
    /// Threads that serve connections. Absent: one per core.
    workers: Option<usize>,
    /// Concurrent connections; further ones wait until one closes.
    max_connections: usize,
    /// Concurrent connections from one IPv4 address or IPv6 /64; further ones are closed. Trusted proxies are exempt.
    max_connections_per_network: usize,
    /// Memory of the whole process near which requests without a session are turned away. Absent: three quarters of the
    /// control group's limit, or else a quarter of the machine's memory.
    max_memory: Option<Parsed<Size>>,
    /// The maximum size of a request's head, including cookies: between 8 and 64 KiB.
    max_header_size: Parsed<HeaderSize>,
    /// Bytes per second that a client has to send of a request body, and to read of a response, while the gateway waits
    /// for it; measured over `timeouts.stall`. Zero: any progress is enough.
    min_rate: u32,
    timeouts: Timeouts,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Timeouts {
    /// From the accepted connection to the end of the TLS handshake.
    handshake: Parsed<Duration>,
    /// From the handshake to the first byte of the first request.
    first_byte: Parsed<Duration>,
    /// From the first byte of a request to the end of its head.
    head: Parsed<Duration>,
    /// Without any progress of a body, in either direction.
    stall: Parsed<Duration>,
    /// Between two requests on one connection.
    idle: Parsed<Duration>,
    /// From the signal to stop until the open connections are closed.
    drain: Parsed<Duration>,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum ClientAddress {
    #[default]
    XForwardedFor,
    Forwarded,
    Peer,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum ClientHost {
    #[default]
    Host,
    XForwardedHost,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            listen: List(vec![ListenAddress::Tcp(SocketAddr::from(([0; 16], 8443)))]),
            socket_mode: Parsed(FileMode(0o660)),
            redirect_listen: List::default(),
            public_url: None,
            admin_listen: Parsed(AdminListen(Some(SocketAddr::from(([127, 0, 0, 1], 9180))))),
            forward_auth_listen: None,
            trusted_proxies: List::default(),
            proxy_protocol: List::default(),
            client_address: ClientAddress::default(),
            client_host: ClientHost::default(),
            health_path: None,
            workers: None,
            max_connections: 10_000,
            max_connections_per_network: 1000,
            max_memory: None,
            max_header_size: Parsed(HeaderSize(MOST_HEAD_BYTES)),
            min_rate: 100,
            timeouts: Timeouts::default(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = |seconds| Parsed(Duration::from_secs(seconds));
        Self {
            handshake: seconds(5),
            first_byte: seconds(5),
            head: seconds(10),
            stall: seconds(30),
            idle: seconds(60),
            drain: seconds(30),
        }
    }
}

impl Section {
    pub(super) fn validate(self, layers: &mut Layers) -> ServerSettings {
        self.check(layers);
        if self.public_url.is_none() {
            layers.missing(
                "server.public_url",
                "set it to the URL that users type, such as `https://iot.example.com`",
            );
        }
        let timeouts = self.timeouts;
        let trusted_proxies = networks(&self.trusted_proxies);
        let Parsed(AdminListen(admin_listen)) = self.admin_listen;
        ServerSettings {
            server: server::Config {
                listen: self.listen.0,
                socket_mode: self.socket_mode.0.0,
                redirect_listen: self.redirect_listen.0,
                proxies_listen: self.forward_auth_listen,
                workers: self
                    .workers
                    .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)),
                handshake_timeout: timeouts.handshake.0,
                first_byte_timeout: timeouts.first_byte.0,
                head_timeout: timeouts.head.0,
                stall_timeout: timeouts.stall.0,
                idle_timeout: timeouts.idle.0,
                drain_timeout: timeouts.drain.0,
                max_connections: self.max_connections,
                max_connections_per_network: self.max_connections_per_network,
                trusted_proxies: trusted_proxies.clone(),
                proxy_protocol: networks(&self.proxy_protocol),
                min_rate: self.min_rate,
                max_header_size: self.max_header_size.0.0,
                max_memory: self.max_memory.map(|Parsed(Size(bytes))| bytes),
            },
            web: self.public_url.map(|Parsed(PublicUrl(public_url))| web::Config {
                public_url,
                trusted_proxies,
                client_address: match self.client_address {
                    ClientAddress::XForwardedFor => AddressField::XForwardedFor,
                    ClientAddress::Forwarded => AddressField::Forwarded,
                    ClientAddress::Peer => AddressField::Peer,
                },
                believes_forwarded_host: self.client_host == ClientHost::XForwardedHost,
                health_path: self.health_path.map(|Parsed(HealthPath(path))| path),
            }),
            admin_listen,
        }
    }

    fn check_forward_auth(&self, layers: &mut Layers) {
        const KEY: &str = "server.forward_auth_listen";
        let Some(address) = self.forward_auth_listen else { return };
        let Parsed(AdminListen(admin)) = self.admin_listen;
        if address.port() != 0
            && (self.listen.0.contains(&ListenAddress::Tcp(address)) || admin == Some(address))
        {
            layers.fault(KEY, "is also in `server.listen` or `server.admin_listen`; choose another port");
        }
        if self.trusted_proxies.0.is_empty() && layers.sound(&["server.trusted_proxies"]) {
            layers.fault(
                KEY,
                "needs `server.trusted_proxies`: nobody else may ask. List the addresses that your proxy comes from, such as \
                 `127.0.0.1`",
            );
        }
        if self.client_address == ClientAddress::Peer {
            layers.fault(
                "server.client_address",
                "must not be `peer` with `server.forward_auth_listen`: the proxy has to say whose request it is",
            );
        }
        if !address.ip().is_loopback() {
            layers.warn(
                KEY,
                "is not a loopback address: passwords and cookies travel to it unencrypted, so the network in between must be yours",
            );
        }
    }

    fn check(&self, layers: &mut Layers) {
        let List(listen) = &self.listen;
        if listen.is_empty() && layers.sound(&["server.listen"]) {
            layers
                .fault("server.listen", "is empty; give at least one address and port, such as `[::]:8443`");
        }
        let plain: Vec<_> = self.redirect_listen.0.iter().copied().map(ListenAddress::Tcp).collect();
        let redirect_listen = &plain;
        let mut seen = HashSet::new();
        for (key, addresses) in [("server.listen", listen), ("server.redirect_listen", redirect_listen)] {
            for address in
                addresses.iter().filter(|address| address.tcp().is_none_or(|address| address.port() != 0))
            {
                if !seen.insert(address) {
                    let elsewhere = key != "server.listen" && listen.contains(address);
                    let text = if elsewhere { "is also in `server.listen`" } else { "is there twice" };
                    layers.fault(key, format!("lists `{address}`, which {text}"));
                }
            }
        }
        if let Parsed(AdminListen(Some(admin))) = self.admin_listen {
            for (key, addresses) in [("server.listen", listen), ("server.redirect_listen", redirect_listen)] {
                if addresses.contains(&ListenAddress::Tcp(admin)) && admin.port() != 0 {
                    layers.fault("server.admin_listen", format!("is also in `{key}`; choose another port"));
                }
            }
            if !admin.ip().is_loopback() {
                layers.warn(
                    "server.admin_listen",
                    "is not a loopback address: whoever reaches it sees the metrics",
                );
            }
        }
        self.check_forward_auth(layers);
        for (key, networks) in [
            ("server.trusted_proxies", &self.trusted_proxies.0),
            ("server.proxy_protocol", &self.proxy_protocol.0),
        ] {
            for (index, _) in
                networks.iter().enumerate().filter(|(_, Front(network))| network.prefix_len() == 0)
            {
                layers.warn(
                    &format!("{key}.{index}"),
                    "trusts the whole internet: every client may choose the address it is known by",
                );
            }
        }
        self.check_sockets(layers);
        let nobody = self.trusted_proxies.0.is_empty() && layers.sound(&["server.trusted_proxies"]);
        for (key, is_set) in [
            ("server.client_address", self.client_address == ClientAddress::Forwarded),
            ("server.client_host", self.client_host != ClientHost::Host),
        ] {
            if is_set && nobody {
                layers.warn(key, "has no effect: `server.trusted_proxies` is empty");
            }
        }
        if self.workers == Some(0) {
            layers.fault("server.workers", "must be at least 1; leave it out for one a core");
        }
        if self.max_connections == 0 {
            layers.fault("server.max_connections", "must be at least 1");
        }
        if self.max_connections_per_network == 0 {
            layers.fault("server.max_connections_per_network", "must be at least 1");
        }
    }
}

fn networks(fronts: &List<Front>) -> Vec<IpNet> {
    fronts.0.iter().map(|Front(network)| *network).collect()
}

impl Section {
    fn check_sockets(&self, layers: &mut Layers) {
        let List(listen) = &self.listen;
        if listen.iter().all(|address| address.tcp().is_some()) {
            return;
        }
        let tells = |fronts: &List<Front>| {
            networks(fronts).iter().any(|network| network.contains(&IpAddr::from(NO_ADDRESS)))
        };
        if !tells(&self.trusted_proxies) && !tells(&self.proxy_protocol) {
            layers.warn(
                "server.listen",
                "has a Unix socket, whose clients have no address: all of them count as one. Add `unix` to \
                 `server.proxy_protocol` or `server.trusted_proxies`, by how the proxy in front tells who the client is",
            );
        }
        if self.socket_mode.0.0 & 0o002 != 0 {
            layers.warn(
                "server.socket_mode",
                "lets every user of this machine connect, and choose the address it is known by where `unix` is trusted",
            );
        }
    }
}

/// The peers in front of the gateway: a network, an address, or `unix` for the peers of Unix sockets.
struct Front(IpNet);

impl ConfigValue for Front {
    const EXPECTED: &'static str = "a network such as `10.0.0.0/8`, one address, or `unix`";

    fn read(text: &str) -> Result<Self, String> {
        if text == "unix" { Ok(Self(IpAddr::from(NO_ADDRESS).into())) } else { IpNet::read(text).map(Self) }
    }
}

impl ConfigValue for ListenAddress {
    const EXPECTED: &'static str =
        "an address and port such as `[::]:8443`, or a Unix socket such as `unix:/run/portcullis/https.sock`";

    fn read(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) => socket_path(path).map(Self::Unix),
            None => SocketAddr::read(text).map(Self::Tcp),
        }
    }
}

/// A file mode, as in `chmod`.
struct FileMode(u32);

impl ConfigValue for FileMode {
    const EXPECTED: &'static str = "a mode in octal such as `\"0660\"`";

    fn read(text: &str) -> Result<Self, String> {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
        let plain = (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        mode.filter(|_| plain).map(Self).ok_or_else(|| format!("`{text}` is not {}", Self::EXPECTED))
    }
}

/// An `https` URL without a path.
pub(super) struct PublicUrl(pub(super) Url);

impl ConfigValue for PublicUrl {
    const EXPECTED: &'static str = "a URL such as `https://iot.example.com`";

    fn read(text: &str) -> Result<Self, String> {
        origin(text, &["https"]).map(Self)
    }
}

/// A path on the portal's port that belongs to the gateway.
struct HealthPath(String);

impl ConfigValue for HealthPath {
    const EXPECTED: &'static str = "a path such as `/healthz`";

    fn read(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
        let steps_out = text.split('/').any(|step| matches!(step, "." | ".."));
        if !text.starts_with('/')
            || text == "/"
            || text.contains("//")
            || steps_out
            || !text.bytes().all(plain)
        {
            return Err(format!("`{text}` is not {}", Self::EXPECTED));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Bytes of a head. Each of a connection's 64 streams may have as many.
struct HeaderSize(usize);

impl ConfigValue for HeaderSize {
    const EXPECTED: &'static str = "a size between `8KiB` and `64KiB`";

    fn read(text: &str) -> Result<Self, String> {
        let Size(bytes) = Size::read(text)?;
        usize::try_from(bytes)
            .ok()
            .filter(|bytes| (8 << 10..=64 << 10).contains(bytes))
            .map(Self)
            .ok_or_else(|| "must be between `8KiB` and `64KiB`".to_owned())
    }
}

/// An address and port, or `off`.
struct AdminListen(Option<SocketAddr>);

impl ConfigValue for AdminListen {
    const EXPECTED: &'static str = "an address and port such as `127.0.0.1:9180`, or `off`";

    fn read(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let address = text.parse().map(|address| Self(Some(address)));
        address.map_err(|_| {
            format!("`{text}` is neither an IP address with a port, such as `127.0.0.1:9180`, nor `off`")
        })
    }
}
