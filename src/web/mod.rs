//! What every part that touches a request shares: the strict gate, bodies, cookies, forms, addresses, headers.

pub mod answer;
pub mod body;
pub mod bound;
pub mod caching;
pub mod clear_site_data;
pub mod client;
pub mod cookies;
pub mod field_set;
pub mod form;
pub mod gate;
pub mod grpc;
pub mod incoming;
pub mod logout;
pub mod loop_mark;
pub mod origin;
pub mod path;
pub mod portal_answers;
pub mod portal_fields;
pub mod portal_origin;
pub mod raw_frames;
pub mod raw_paths;
pub mod reply;
pub mod return_to;
pub mod service_worker;
pub mod socket;
pub mod upgraded;

use ipnet::IpNet;
use url::Url;

/// How the world sees this gateway.
#[derive(Clone, Debug)]
pub struct Config {
    /// The `https` origin that users type; its path is `/`.
    pub public_url: Url,
    /// Peers that are believed in what follows.
    pub trusted_proxies: Vec<IpNet>,
    /// Where they say who the client is.
    pub client_address: client::AddressField,
    /// Whether they say in `X-Forwarded-Host` which host was asked for.
    pub believes_forwarded_host: bool,
    /// The path of a page that says whether the gateway serves, whatever the host.
    pub health_path: Option<String>,
}
