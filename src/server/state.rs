//! The state that a worker's connections share, and a connection's permits.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use jiff::fmt::rfc2822::DateTimePrinter;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Config, Refused, Service,
    flow::Flows,
    load::{Load, Open},
    monitor::ConnectionMonitor,
    networks::{NetworkLimits, NetworkPermit, TooMany},
    timeouts::Ticks,
};
use crate::{
    clock::{Clock as _, SystemClock, Timestamp},
    tls::Acceptance,
};

/// The state that a worker's connections share.
pub(super) struct Worker<S> {
    pub(super) config: Arc<Config>,
    pub(super) service: Rc<S>,
    pub(super) drain: CancellationToken,
    pub(super) load: Arc<Load>,
    pub(super) networks: Arc<NetworkLimits>,
    tls: Arc<ArcSwap<Acceptance>>,
    start: Instant,
    pub(super) ticks: Rc<Ticks>,
    /// The tick of the last update, and the date.
    date: RefCell<(u32, HeaderValue)>,
    pub(super) monitors: RefCell<Vec<Weak<ConnectionMonitor>>>,
    first_connection: Notify,
    pub(super) flows: Rc<Flows>,
    /// One permit: one key exchange per turn of the runtime, so that a burst of new connections does not delay requests.
    pub(super) handshake: Semaphore,
    pub(super) tasks: TaskTracker,
    /// When the log last had a connection whose header was refused.
    pub(super) complained_at: Cell<Option<Instant>>,
}

/// A connection's permits: its worker's, its network's, and its share of the load.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    _worker: OwnedSemaphorePermit,
    network: Option<NetworkPermit>,
    is_trusted: bool,
    _load: Open,
}

impl ConnectionPermit {
    pub(super) fn new(worker: OwnedSemaphorePermit, network: Option<NetworkPermit>, load: Open) -> Self {
        Self { _worker: worker, is_trusted: network.is_none(), network, _load: load }
    }

    /// The network of the client, which is known only now.
    pub(super) fn is_of(&mut self, network: Option<NetworkPermit>) {
        (self.is_trusted, self.network) = (network.is_none(), network);
    }

    /// The connection is a balancer's own, which is counted for no network. That alone does not make it a trusted proxy's.
    pub(super) fn is_uncounted(&mut self, is_trusted: bool) {
        (self.is_trusted, self.network) = (is_trusted, None);
    }

    /// Whether the peer is a trusted proxy, whose connections are not counted per network.
    pub(super) fn is_trusted(&self) -> bool {
        self.is_trusted
    }
}

impl<S: Service> Worker<S> {
    /// Counts a client's connection, or reports that its network has too many.
    pub(super) fn admit(&self, client: SocketAddr) -> Result<Option<NetworkPermit>, TooMany> {
        let admitted = self.networks.admit(client.ip(), Instant::now());
        admitted.inspect_err(|TooMany| self.service.refused(Refused::Network))
    }
}

impl<S> Worker<S> {
    pub(super) fn new(
        config: Arc<Config>,
        service: S,
        drain: CancellationToken,
        load: Arc<Load>,
        networks: Arc<NetworkLimits>,
        tls: Arc<ArcSwap<Acceptance>>,
    ) -> Rc<Self> {
        let ticks = Rc::new(Ticks::new());
        Rc::new(Self {
            config,
            service: Rc::new(service),
            drain,
            load,
            networks,
            tls,
            flows: Flows::new(Rc::clone(&ticks)),
            start: Instant::now(),
            ticks,
            date: RefCell::new((0, HeaderValue::from_static(""))),
            monitors: RefCell::new(Vec::new()),
            first_connection: Notify::new(),
            handshake: Semaphore::new(1),
            tasks: TaskTracker::new(),
            complained_at: Cell::new(None),
        })
    }

    /// The current certificates.
    pub(super) fn tls(&self) -> Arc<Acceptance> {
        self.tls.load_full()
    }

    /// The value of `Date`, at most one sweep old.
    pub(super) fn date(&self) -> HeaderValue {
        let mut date = self.date.borrow_mut();
        let now = self.ticks.now();
        if date.0 != now {
            *date = (now, http_date(SystemClock.now()));
        }
        date.1.clone()
    }

    pub(super) fn advance_ticks(&self) {
        self.ticks.advance_to(u32::try_from(self.start.elapsed().as_millis()).unwrap_or(u32::MAX));
    }

    /// Waits for a connection while none is monitored.
    pub(super) async fn first_connection(&self) {
        self.first_connection.notified().await;
    }

    /// Starts monitoring a connection.
    pub(super) fn register(&self) -> Rc<ConnectionMonitor> {
        if self.monitors.borrow().is_empty() {
            // Without connections, the last sweep may be a while ago.
            self.advance_ticks();
            self.first_connection.notify_one();
        }
        let monitor = ConnectionMonitor::new(Rc::clone(&self.ticks));
        if self.drain.is_cancelled() {
            monitor.drain();
        }
        self.monitors.borrow_mut().push(Rc::downgrade(&monitor));
        monitor
    }
}

/// The date format of RFC 9110 §5.6.7.
fn http_date(now: Timestamp) -> HeaderValue {
    let instant = jiff::Timestamp::from_second(now.unix_seconds()).unwrap_or_default();
    let text = DateTimePrinter::new().timestamp_to_rfc9110_string(&instant);
    text.ok().and_then(|text| text.try_into().ok()).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_as_the_standard_says() {
        assert_eq!(http_date(Timestamp::from_unix_seconds(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
