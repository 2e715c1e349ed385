//! Requests and responses, as all rooms above share them: the request gate, bodies, cookies, forms, addresses, field policies.

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
pub mod http2_body;
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
pub mod session_notice;
pub mod site_tokens;
pub mod socket;
pub mod upgraded;

use ipnet::IpNet;
use url::Url;

/// The gateway's public address, and the proxies in front of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// The public `https` origin; its path is `/`.
    pub public_url: Url,
    /// Proxies whose headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// The header with the client's address.
    pub client_address: client::AddressField,
    /// Whether they send the requested host in `X-Forwarded-Host`.
    pub believes_forwarded_host: bool,
    /// The path of the health check, answered for any host.
    pub health_path: Option<String>,
}
