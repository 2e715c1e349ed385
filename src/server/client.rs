//! What a service may know of the connection that a request came on, and what it may say to it.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, StatusCode};
use tokio_util::sync::CancellationToken;

use super::{
    passage::{Passage, Tunnels},
    watch::Watch,
};

/// One in so many streams is for what is answered soon.
const SHORT_STREAMS: u32 = 8;

/// What a service may know of the connection a request came on.
#[derive(Debug)]
pub struct Connection {
    peer: SocketAddr,
    /// Streams at once; absent on HTTP/1.
    streams: Option<u32>,
    watch: Arc<Watch>,
    drain: CancellationToken,
    tunnels: Tunnels,
}

impl Connection {
    pub(super) fn new(
        peer: SocketAddr,
        streams: Option<u32>,
        watch: Arc<Watch>,
        drain: CancellationToken,
        tunnels: Tunnels,
    ) -> Self {
        Self { peer, streams, watch, drain, tunnels }
    }

    /// The other end of the socket.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Lets what is in progress end, and takes no further request.
    pub fn finish(&self) {
        self.watch.drain();
    }

    /// Cancelled when the gateway stops: what is long-lived should end.
    pub fn drain(&self) -> &CancellationToken {
        &self.drain
    }

    /// What a tunnel holds of this connection, or of its stream of it.
    pub fn passage(&self) -> Passage {
        self.tunnels.begin(self.watch.begin())
    }

    pub(super) fn watch(&self) -> &Arc<Watch> {
        &self.watch
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
        self.streams.is_none().then(|| Interim(Arc::clone(&self.watch)))
    }
}

/// Sends interim answers (RFC 9110 §15.2) on an HTTP/1.1 connection.
#[derive(Clone, Debug)]
pub struct Interim(Arc<Watch>);

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
        self.0.leave_interim(wire.as_bytes());
    }
}
