//! The portal's servers and the connections to them. Each worker has a pool of its own.

mod connect;
mod dial;
pub mod http1;
pub mod http2;
mod peer;
mod permits;
mod pinned;
mod pool;
mod reuse;
mod round_robin;

use std::{path::PathBuf, time::Duration};

use http::uri::Authority;
use rustls::pki_types::ServerName;
use url::Url;

pub use connect::{ConnectError, Connector};
pub use peer::{Peer, PeerAddress};
pub use permits::PoolLimits;
pub use pool::{Ask, ConnectionOwner, Lease, Pool, Tie};

/// Which requests may reuse a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Any request.
    #[default]
    Shared,
    /// Requests of the same user.
    User,
    /// None.
    Once,
}

/// The value of `Host` towards the portal. The public host is in `X-Forwarded-Host` in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostName {
    /// The public host.
    #[default]
    Public,
    /// The host of each server's URL.
    Upstream,
    Other(Authority),
}

/// Limits per user.
#[derive(Clone, Copy, Debug)]
pub struct PerUser {
    /// Concurrent requests per worker.
    pub connections: u32,
    /// In any case, one user leaves as many connections free as they use.
    pub leaves_room: bool,
    /// WebSockets and event streams, on all workers.
    pub streams: u32,
}

/// The portal's servers, timeouts and limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// `http` or `https` origins without a path, or `unix:` and a path; at least one.
    pub upstreams: Vec<Url>,
    /// The host in requests to the portal.
    pub host: HostName,
    /// The name that their certificates must have, also sent as SNI; absent: the host of each URL.
    pub tls_name: Option<ServerName<'static>>,
    /// PEM file with the authority that signed the portal's certificate; absent: the system's authorities.
    pub ca: Option<PathBuf>,
    /// To establish a connection, TLS included.
    pub connect_timeout: Duration,
    /// From the end of the request to the head of the response.
    pub response_timeout: Duration,
    /// Limits for all workers together.
    pub limits: PoolLimits,
    pub per_user: PerUser,
    /// Which requests may reuse a connection.
    pub sharing: Sharing,
    /// Maximum age of a connection. Each new one resolves the name again.
    pub max_age: Duration,
}
