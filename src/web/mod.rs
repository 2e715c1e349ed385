//! What every part that touches a request shares: the strict gate, bodies, cookies, forms, addresses, headers.

use ipnet::IpNet;
use url::Url;

/// How the world sees this gateway.
#[derive(Clone, Debug)]
pub struct Config {
    /// The `https` origin that users type; its path is `/`.
    pub public_url: Url,
    /// Peers whose `X-Forwarded-For` or `Forwarded` is believed.
    pub trusted_proxies: Vec<IpNet>,
}
