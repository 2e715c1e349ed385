//! The server of a key: the only one, or in a cluster the master of the key's slot.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwapOption;

use super::{connection::RedisConnection, url::Address};

const SLOTS: u16 = 16_384;

/// A master, and its current connection.
#[derive(Debug)]
pub(super) struct Server {
    /// The address that we use.
    pub(super) address: Address,
    /// The addresses that other servers use.
    pub(super) names: Vec<Address>,
    connection: ArcSwapOption<RedisConnection>,
    had_replicas: AtomicBool,
}

impl Server {
    pub(super) fn new(address: Address, names: Vec<Address>) -> Self {
        Self { address, names, connection: ArcSwapOption::empty(), had_replicas: AtomicBool::new(false) }
    }

    pub(super) fn connection(&self) -> Option<Arc<RedisConnection>> {
        self.connection.load_full().filter(|connection| !connection.is_cut())
    }

    pub(super) fn switch_on(&self, connection: Arc<RedisConnection>) {
        self.connection.store(Some(connection));
    }

    /// Takes the server out of use.
    pub(super) fn switch_off(&self) {
        if let Some(connection) = self.connection.swap(None) {
            connection.cut();
        }
    }

    /// Whether it used to have replicas and has none now.
    pub(super) fn notes_replicas(&self, replicas: usize) -> bool {
        if replicas > 0 {
            self.had_replicas.store(true, Ordering::Relaxed);
        }
        replicas == 0 && self.had_replicas.load(Ordering::Relaxed)
    }
}

/// The masters, and the slots of each.
#[derive(Debug, Default)]
pub(super) struct Routes {
    pub(super) servers: Vec<Arc<Server>>,
    /// By slot: the index in `servers` plus one, or 0. Empty: the first server has all keys.
    slots: Vec<u16>,
}

impl Routes {
    pub(super) fn to_one(server: Arc<Server>) -> Self {
        Self { servers: vec![server], slots: Vec::new() }
    }

    /// Each server with its ranges of slots.
    pub(super) fn to_many(servers: Vec<(Arc<Server>, Vec<(u16, u16)>)>) -> Self {
        let mut slots = vec![0; SLOTS.into()];
        let mut all = Vec::new();
        for (place, (server, ranges)) in (1..).zip(servers) {
            for (first, last) in ranges {
                if let Some(range) = slots.get_mut(first.into()..=last.into()) {
                    range.fill(place);
                }
            }
            all.push(server);
        }
        Self { servers: all, slots }
    }

    pub(super) fn server_of(&self, key: &str) -> Option<&Arc<Server>> {
        if self.slots.is_empty() {
            return self.servers.first();
        }
        let place = *self.slots.get(usize::from(slot(key)))?;
        self.servers.get(usize::from(place).checked_sub(1)?)
    }

    pub(super) fn named(&self, name: &Address) -> Option<&Arc<Server>> {
        self.servers.iter().find(|server| server.address == *name || server.names.contains(name))
    }

    /// Whether every key has a server.
    pub(super) fn complete(&self) -> bool {
        !self.servers.is_empty() && !self.slots.contains(&0)
    }
}

/// The slot of a key, as in every cluster: computed from the part between braces, if there is one.
fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    // CRC-16/XMODEM.
    let crc = hashed.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot("123456789"), 0x31c3);
        assert_eq!(slot("foo"), 12_182);
        assert_eq!(slot("{foo}bar"), 12_182);
        assert_eq!(slot("a{foo}{bar}"), 12_182);
        assert_eq!(slot("{}foo"), slot("{}foo"));
        assert_ne!(slot("{}foo"), slot("{}bar"));
    }

    #[test]
    fn a_key_goes_to_the_master_of_its_slot_and_nowhere_while_there_is_none() {
        let server = |port| {
            let address = Address { host: "h".into(), port };
            Arc::new(Server::new(address.clone(), vec![address]))
        };
        let routes =
            Routes::to_many(vec![(server(1), vec![(0, 12_181)]), (server(2), vec![(12_182, 12_182)])]);
        assert_eq!(routes.server_of("foo").unwrap().address.port, 2);
        assert_eq!(routes.server_of("{foo}x").unwrap().address.port, 2);
        assert_eq!(routes.server_of("bar").unwrap().address.port, 1);
        assert!(!routes.complete() && !Routes::default().complete());
        assert!(Routes::default().server_of("foo").is_none());
        let gap = Routes::to_many(vec![(server(1), vec![(0, 12_181), (12_183, 16_383), (16_384, 16_390)])]);
        assert!(gap.server_of("foo").is_none());
        assert!(Routes::to_many(vec![(server(1), vec![(0, 16_383)])]).complete());
        assert!(Routes::to_one(server(1)).complete());
    }
}
