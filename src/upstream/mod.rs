//! The portal's servers and the connections to them. Each worker has a pool of its own.

mod connect;
mod dial;
pub mod http1;
pub mod http2;
mod peer;
mod permits;
mod pinned;
mod pool;
mod round_robin;
mod trust;

use std::{path::PathBuf, time::Duration};

use http::uri::Authority;
use rustls::pki_types::ServerName;
use url::Url;

pub use connect::{ConnectError, Connector};
pub use peer::Peer;
pub use permits::PoolLimits;
pub use pool::{Ask, ConnectionOwner, Lease, Pool, Tie};

/// Who may use a connection again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// The next request, whoever it is from.
    #[default]
    Shared,
    /// The next request of the same user.
    User,
    /// Nobody.
    Once,
}

/// What `Host` says towards the portal. The host that users know is in `X-Forwarded-Host` all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostName {
    /// The one that users know.
    #[default]
    Public,
    /// That of each server's URL.
    Upstream,
    Other(Authority),
}

/// How much one user may take.
#[derive(Clone, Copy, Debug)]
pub struct PerUser {
    /// Requests that a worker has answered at once.
    pub connections: u32,
    /// However many that are, as many connections stay free for others as one user has in use.
    pub leaves_room: bool,
    /// WebSockets and streams of events, on all workers.
    pub streams: u32,
}

/// Where the portal is, and how patient to be with it.
#[derive(Clone, Debug)]
pub struct Config {
    /// `http` or `https` origins without a path; at least one.
    pub upstreams: Vec<Url>,
    /// Which host the portal's servers are asked for.
    pub host: HostName,
    /// The name that their certificates must bear, and that they are told ahead (SNI); absent: that of each URL.
    pub tls_name: Option<ServerName<'static>>,
    /// PEM file with the authority that signed the portal's certificate; absent: the system's authorities.
    pub ca: Option<PathBuf>,
    /// To establish a connection, TLS included.
    pub connect_timeout: Duration,
    /// From the end of the request to the head of the answer.
    pub response_timeout: Duration,
    /// Of all workers together.
    pub limits: PoolLimits,
    pub per_user: PerUser,
    /// Who may use a connection again.
    pub sharing: Sharing,
    /// How old a connection gets. Names are looked up for each new one.
    pub max_age: Duration,
}
