//! One server of the portal.

use std::path::PathBuf;

use http::uri::Authority;
use rustls::pki_types::ServerName;
use url::{Host, Url};

use super::{Config, HostName};

/// Where one server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    /// A host name to resolve, or an address.
    Network { host: String, port: u16 },
    /// A Unix socket.
    Socket(PathBuf),
}

/// The address and protocol of one server.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: PeerAddress,
    /// The name that its certificate must have; `None` for plain HTTP.
    pub tls: Option<ServerName<'static>>,
    /// The value of `Host`; `None` for the public host.
    pub named: Option<Authority>,
    /// For logs: scheme, host and port.
    pub label: String,
}

impl Peer {
    /// Parses an origin, or `unix:` and a path. `None` when it is neither.
    pub fn parse(url: &Url) -> Option<Self> {
        if url.scheme() == "unix" {
            let address = PeerAddress::Socket(url.path().into());
            return Some(Self { address, tls: None, named: None, label: url.to_string() });
        }
        let host = match url.host()? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let tls = match url.scheme() {
            "http" => None,
            "https" => Some(ServerName::try_from(host.clone()).ok()?),
            _ => return None,
        };
        let address = PeerAddress::Network { host, port: url.port_or_known_default()? };
        Some(Self { address, tls, named: None, label: url.origin().ascii_serialization() })
    }

    /// The same server with the configured names.
    pub fn configured(url: &Url, config: &Config) -> Option<Self> {
        let peer = Self::parse(url)?;
        let named = match &config.host {
            HostName::Public => None,
            HostName::Upstream => Some(url.authority().parse().ok()?),
            HostName::Other(name) => Some(name.clone()),
        };
        let tls = peer.tls.map(|own| config.tls_name.clone().unwrap_or(own));
        Some(Self { tls, named, ..peer })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{PerUser, PoolLimits, Sharing},
        *,
    };

    #[test]
    fn a_server_is_asked_for_by_the_name_that_the_configuration_has_for_it() {
        let peer = |url: &str, host: HostName, tls_name: Option<&'static str>| {
            let config = Config {
                upstreams: Vec::new(),
                host,
                tls_name: tls_name.map(|name| ServerName::try_from(name).unwrap()),
                ca: None,
                connect_timeout: Duration::from_secs(1),
                response_timeout: Duration::from_secs(1),
                limits: PoolLimits { connections: 1, waiting: 1, streams: 1 },
                per_user: PerUser { connections: 1, leaves_room: true, streams: 1 },
                sharing: Sharing::Shared,
                max_age: Duration::from_secs(1),
            };
            let peer = Peer::configured(&Url::parse(url).unwrap(), &config).unwrap();
            (peer.named.map(|name| name.to_string()), peer.tls.map(|name| name.to_str().into_owned()))
        };
        let text = |text: &str| Some(text.to_owned());
        for (url, named) in [
            ("http://127.0.0.1:3000", "127.0.0.1:3000"),
            ("http://[::1]:3000", "[::1]:3000"),
            ("http://[2001:db8:0::7]", "[2001:db8::7]"),
            ("http://portal.internal:80", "portal.internal"),
            ("https://PORTAL.internal:443", "portal.internal"),
            ("https://portal.internal:80", "portal.internal:80"),
        ] {
            assert_eq!(peer(url, HostName::Upstream, None).0, text(named), "{url}");
            assert_eq!(peer(url, HostName::Public, None).0, None);
            let other = HostName::Other("other:81".parse().unwrap());
            assert_eq!(peer(url, other, None).0, text("other:81"));
        }
        let tls = |url, name| peer(url, HostName::Public, name).1;
        assert_eq!(tls("https://10.0.0.5", None), text("10.0.0.5"));
        assert_eq!(tls("https://10.0.0.5", Some("portal.internal")), text("portal.internal"));
        assert_eq!(tls("http://10.0.0.5", Some("portal.internal")), None);
    }

    #[test]
    fn origins_become_peers() {
        let peer = |text: &str| Peer::parse(&Url::parse(text).unwrap());
        let plain = peer("http://127.0.0.1:3000").unwrap();
        let at = |host: &str, port| PeerAddress::Network { host: host.to_owned(), port };
        assert_eq!((plain.address, plain.tls.is_none()), (at("127.0.0.1", 3000), true));
        let secure = peer("https://portal.internal").unwrap();
        assert_eq!(
            (secure.address, secure.tls.is_some(), secure.label.as_str()),
            (at("portal.internal", 443), true, "https://portal.internal")
        );
        assert_eq!(peer("http://[::1]:3000").unwrap().address, at("::1", 3000));
        let socket = peer("unix:/run/app.sock").unwrap();
        assert_eq!(socket.address, PeerAddress::Socket("/run/app.sock".into()));
        assert_eq!((socket.tls.is_none(), socket.label.as_str()), (true, "unix:/run/app.sock"));
        assert!(peer("ftp://portal.internal").is_none());
    }
}
