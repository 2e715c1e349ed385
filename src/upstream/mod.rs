//! The portal's servers and the connections to them. Each worker has a pool of its own.

mod connect;
pub mod http1;
pub mod http2;
mod peer;
mod places;
mod pool;
mod turns;

use std::{path::PathBuf, time::Duration};

use url::Url;

pub use connect::{ConnectError, Connector};
pub use peer::Peer;
pub use places::Limits;
pub use pool::{Lease, Pool};

/// Where the portal is, and how patient to be with it.
#[derive(Clone, Debug)]
pub struct Config {
    /// `http` or `https` origins without a path; at least one.
    pub upstreams: Vec<Url>,
    /// PEM file with the authority that signed the portal's certificate; absent: the system's authorities.
    pub ca: Option<PathBuf>,
    /// To establish a connection, TLS included.
    pub connect_timeout: Duration,
    /// From the end of the request to the head of the answer.
    pub response_timeout: Duration,
    /// Of all workers together.
    pub limits: Limits,
}
