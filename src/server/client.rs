//! The client's connection as a service sees it.

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use http::{HeaderMap, StatusCode};
use tokio_util::sync::CancellationToken;

use super::{
    monitor::ConnectionMonitor,
    tunnel_guard::{TunnelGuard, Tunnels},
};

/// One in this many streams is reserved for short requests.
const SHORT_STREAMS: u32 = 8;

/// The connection that a request came on.
#[derive(Debug)]
pub struct ConnectionHandle {
    peer: SocketAddr,
    /// Concurrent streams; absent on HTTP/1.
    streams: Option<u32>,
    monitor: Rc<ConnectionMonitor>,
    drain: CancellationToken,
    tunnels: Tunnels,
    /// Interim responses to be written on HTTP/1.
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

    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Closes the connection after the requests in progress.
    pub fn finish(&self) {
        self.monitor.drain();
    }

    /// Cancelled when the gateway stops; long-lived responses should end then.
    pub fn drain(&self) -> &CancellationToken {
        &self.drain
    }

    /// The guard for a tunnel on this connection, or on one of its streams.
    pub fn tunnel_guard(&self) -> TunnelGuard {
        self.tunnels.begin(self.monitor.begin())
    }

    pub(super) fn monitor(&self) -> &Rc<ConnectionMonitor> {
        &self.monitor
    }

    /// How many streams may be WebSockets and event streams. A client without a free stream waits silently (RFC 9113 §5.1.2),
    /// even for a page.
    pub fn most_lasting(&self) -> u32 {
        self.streams().map_or(u32::MAX, |streams| streams - streams.div_ceil(SHORT_STREAMS))
    }

    /// Concurrent streams; `None` on HTTP/1.
    pub(super) fn streams(&self) -> Option<u32> {
        self.streams
    }

    /// A sender for interim responses; `None` on HTTP/2, where we send none.
    pub fn interim(&self) -> Option<Interim> {
        let interim = || Interim { waits: Rc::clone(&self.interim), monitor: Rc::clone(&self.monitor) };
        self.streams.is_none().then(interim)
    }

    /// Takes the bytes queued by [`Interim::send`].
    pub(super) fn take_interim(&self) -> Vec<u8> {
        self.interim.take()
    }
}

/// Sends interim responses (RFC 9110 §15.2) on an HTTP/1.1 connection.
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
