//! Workers, listeners and connections. Does not know what it serves.

use std::{net::SocketAddr, time::Duration};

/// Where to listen, and how patient to be.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: Vec<SocketAddr>,
    /// Threads that serve connections; one a core by default.
    pub workers: usize,
    /// From the accepted connection to the finished TLS handshake.
    pub handshake_timeout: Duration,
    /// From the handshake to the first byte of the first request.
    pub first_byte_timeout: Duration,
    /// From the first byte of a request to the end of its head.
    pub head_timeout: Duration,
    /// Without any progress of a body, in either direction.
    pub stall_timeout: Duration,
    /// Between two requests of one connection.
    pub idle_timeout: Duration,
    /// From the signal to stop until the connections still open are cut.
    pub drain_timeout: Duration,
    /// Connections at once; further ones wait to be accepted.
    pub max_connections: usize,
}
