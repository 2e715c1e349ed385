//! What a service may know of the connection that a request came on, and what it may say to it.

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use http::{HeaderMap, StatusCode};
use tokio_util::sync::CancellationToken;

use super::{
    monitor::ConnectionMonitor,
    tunnel_guard::{TunnelGuard, Tunnels},
};

/// One in so many streams is for what is answered soon.
const SHORT_STREAMS: u32 = 8;

/// What a service may know of the connection a request came on.
#[derive(Debug)]
pub struct ConnectionHandle {
    peer: SocketAddr,
    /// Streams at once; absent on HTTP/1.
    streams: Option<u32>,
    monitor: Rc<ConnectionMonitor>,
    drain: CancellationToken,
    tunnels: Tunnels,
    /// Interim answers of HTTP/1 that are to be written.
    interim: Rc<RefCell<Vec<u8>>>,
}

impl ConnectionHandle {
    pub(super) fn new(
        peer: SocketAddr,
        streams: Option<u32>,
        monitor: Rc<ConnectionMonitor>,
        drain: CancellationToken,
        tunnels: Tunnels,
    ) -> Self {
        Self { peer, streams, monitor, drain, tunnels, interim: Rc::default() }
    }

    /// The other end of the socket.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Lets what is in progress end, and takes no further request.
    pub fn finish(&self) {
        self.monitor.drain();
    }

    /// Cancelled when the gateway stops: what is long-lived should end.
    pub fn drain(&self) -> &CancellationToken {
        &self.drain
    }

    /// What a tunnel holds of this connection, or of its stream of it.
    pub fn tunnel_guard(&self) -> TunnelGuard {
        self.tunnels.begin(self.monitor.begin())
    }

    pub(super) fn monitor(&self) -> &Rc<ConnectionMonitor> {
        &self.monitor
    }

    /// How many of its streams may be WebSockets and streams of events. A client that has none left opens no further one and
    /// waits without a word (RFC 9113 §5.1.2), its pages included.
    pub fn most_lasting(&self) -> u32 {
        self.streams().map_or(u32::MAX, |streams| streams - streams.div_ceil(SHORT_STREAMS))
    }

    /// Streams at once; none on HTTP/1.
    pub(super) fn streams(&self) -> Option<u32> {
        self.streams
    }

    /// A way to send interim answers ahead of the final one; HTTP/2 has none here.
    pub fn interim(&self) -> Option<Interim> {
        let interim = || Interim { waits: Rc::clone(&self.interim), monitor: Rc::clone(&self.monitor) };
        self.streams.is_none().then(interim)
    }

    /// Takes what [`Interim::send`] left to be written.
    pub(super) fn take_interim(&self) -> Vec<u8> {
        self.interim.take()
    }
}

/// Sends interim answers (RFC 9110 §15.2) on an HTTP/1.1 connection.
#[derive(Clone, Debug)]
pub struct Interim {
    waits: Rc<RefCell<Vec<u8>>>,
    monitor: Rc<ConnectionMonitor>,
}

impl Interim {
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        let mut wire =
            format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or(""));
        for (name, value) in headers {
            if let Ok(value) = value.to_str() {
                wire.push_str(name.as_str());
                wire.push_str(": ");
                wire.push_str(value);
                wire.push_str("\r\n");
            }
        }
        wire.push_str("\r\n");
        self.waits.borrow_mut().extend_from_slice(wire.as_bytes());
        self.monitor.wake();
    }
}
