//! One server of the portal.

use rustls::pki_types::ServerName;
use url::{Host, Url};

/// Where one server is and how to speak to it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What a name server is asked, or an address.
    pub host: String,
    pub port: u16,
    /// The name that its certificate must bear; `None` is plain HTTP.
    pub tls: Option<ServerName<'static>>,
    /// For logs: scheme, host and port.
    pub label: String,
}

impl Peer {
    /// Reads an origin. `None` when it is neither `http` nor `https`, or names no host.
    pub fn parse(url: &Url) -> Option<Self> {
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
        let port = url.port_or_known_default()?;
        Some(Self { host, port, tls, label: url.origin().ascii_serialization() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_become_peers() {
        let peer = |text: &str| Peer::parse(&Url::parse(text).unwrap());
        let plain = peer("http://127.0.0.1:3000").unwrap();
        assert_eq!((plain.host.as_str(), plain.port, plain.tls.is_none()), ("127.0.0.1", 3000, true));
        let secure = peer("https://portal.internal").unwrap();
        assert_eq!(
            (secure.port, secure.tls.is_some(), secure.label.as_str()),
            (443, true, "https://portal.internal")
        );
        assert_eq!(peer("http://[::1]:3000").unwrap().host, "::1");
        assert!(peer("ftp://portal.internal").is_none());
    }
}
