//! Limits connections per client network, over all workers. Only counts; the worker closes what is refused.
//!
//! A network is one IPv4 address or an IPv6 /64, as for nginx's `$binary_remote_addr` and HAProxy's `src` counted as they
//! are usually set up: behind one address there may be a whole office, but an IPv4 /24 is many customers' and a /64 one.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use tokio::time::Instant;

/// Log at most one line per network in this time.
const QUIET: Duration = Duration::from_secs(1);

/// The open connections of each client network.
#[derive(Debug)]
pub(super) struct NetworkLimits {
    limit: usize,
    /// Proxies, whose connections carry many clients.
    trusted: Vec<IpNet>,
    counts: Mutex<HashMap<IpAddr, Count>>,
}

#[derive(Debug, Default)]
struct Count {
    open: usize,
    refused: u64,
    logged_at: Option<Instant>,
}

/// One connection of a network; counts until it is dropped.
#[derive(Debug)]
pub(super) struct NetworkPermit {
    network: IpAddr,
    networks: Arc<NetworkLimits>,
}

/// The network has reached its limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl NetworkLimits {
    pub(super) fn new(limit: usize, trusted: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self { limit, trusted, counts: Mutex::new(HashMap::new()) })
    }

    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|network| network.contains(&peer))
    }

    /// Counts a connection from `peer`; those of trusted proxies are not counted.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        now: Instant,
    ) -> Result<Option<NetworkPermit>, TooMany> {
        let peer = peer.to_canonical();
        if self.trusts(peer) {
            return Ok(None);
        }
        let network = network(peer);
        let mut counts = self.counts();
        let count = counts.entry(network).or_default();
        if count.open < self.limit {
            count.open += 1;
            return Ok(Some(NetworkPermit { network, networks: Arc::clone(self) }));
        }
        count.refused += 1;
        if count.logged_at.is_none_or(|at| now.duration_since(at) >= QUIET) {
            count.logged_at = Some(now);
            let refused = std::mem::take(&mut count.refused);
            drop(counts);
            tracing::warn!(
                %network,
                refused,
                limit = self.limit,
                "closed connections of a client that has too many (server.max_connections_per_network); \
                 if it is a load balancer, list it in server.trusted_proxies or server.proxy_protocol"
            );
        }
        Err(TooMany)
    }

    /// The counts are consistent after every step, even if a thread panicked.
    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for NetworkPermit {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.networks.counts().entry(self.network) {
            count.get_mut().open -= 1;
            if count.get().open == 0 {
                count.remove();
            }
        }
    }
}

/// The network of an address.
fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_network_has_its_own_count_and_gets_places_back() {
        let networks = NetworkLimits::new(2, vec!["10.0.0.0/8".parse().unwrap()]);
        let admit = |text| networks.admit(address(text), Instant::now());
        let held = [admit("192.0.2.1").unwrap(), admit("::ffff:192.0.2.1").unwrap()];
        assert_eq!(admit("192.0.2.1").unwrap_err(), TooMany);
        let [a, b, c] = ["192.0.2.2", "2001:db8::1", "2001:db8::ffff:2"].map(|text| admit(text).unwrap());
        assert_eq!(admit("2001:db8:0:0:1::").unwrap_err(), TooMany, "it is the same /64");
        assert!(admit("2001:db8:0:1::").is_ok());
        let proxied: Vec<_> = (0..10).map(|_| admit("10.1.2.3").unwrap()).collect();
        assert!(proxied.iter().all(Option::is_none));
        drop(held);
        drop((a, b, c));
        assert!(admit("192.0.2.1").is_ok());
        assert!(networks.counts().is_empty(), "nothing is kept of networks that have gone");
    }

    #[test]
    fn a_network_is_logged_about_once_a_second() {
        let networks = NetworkLimits::new(1, Vec::new());
        let start = Instant::now();
        let _held = networks.admit(address("192.0.2.1"), start).unwrap();
        let refuse = |millis| {
            let now = start + Duration::from_millis(millis);
            networks.admit(address("192.0.2.1"), now).unwrap_err();
            networks.counts()[&address("192.0.2.1")].refused
        };
        // What has been counted since the last line is what the next one tells.
        assert_eq!([refuse(0), refuse(1), refuse(999), refuse(1000), refuse(1001)], [0, 1, 2, 0, 1]);
    }
}
