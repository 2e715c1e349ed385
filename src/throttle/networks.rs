//! The networks of an address: what one client can choose from, what a household has, what an organisation has.

use std::net::{IpAddr, Ipv6Addr};

use super::store::{Key, Kind};
use crate::secret::sha256;

/// The networks that an address belongs to, the smallest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Networks {
    smallest: IpAddr,
}

impl Networks {
    /// An IPv4 address is its own network; for an IPv6 address the smallest is the /64.
    pub fn of(address: IpAddr) -> Self {
        Self {
            smallest: match address.to_canonical() {
                address @ IpAddr::V4(_) => address,
                IpAddr::V6(address) => IpAddr::V6(prefix(address, 64)),
            },
        }
    }

    /// The smallest.
    pub const fn smallest(self) -> IpAddr {
        self.smallest
    }

    /// The smallest as text; for IPv6 with the length of its prefix.
    pub fn name(self) -> String {
        match self.smallest {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("{address}/64"),
        }
    }

    /// The key of each network where it is limited, and its budget relative to the smallest.
    pub(crate) fn keys(self) -> impl Iterator<Item = (Kind, Key, u32)> {
        let wider = match self.smallest {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some([
                (Kind::Site, sha256(&prefix(address, 56).octets()), 2),
                (Kind::Organisation, sha256(&prefix(address, 48).octets()), 4),
            ]),
        };
        std::iter::once((Kind::Network, self.key(), 1)).chain(wider.into_iter().flatten())
    }

    pub(crate) fn key(self) -> Key {
        match self.smallest {
            IpAddr::V4(address) => sha256(&address.octets()),
            IpAddr::V6(address) => sha256(&address.octets()),
        }
    }
}

fn prefix(address: Ipv6Addr, length: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - length)))
}
