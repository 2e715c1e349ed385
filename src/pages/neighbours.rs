//! The sites of a gateway, from the view of one of them.

use std::sync::Arc;

use crate::hand_overs::HandOvers;

/// The position of a site among those of its gateway.
#[derive(Clone, Debug)]
pub struct Neighbours {
    origins: Arc<[String]>,
    own: usize,
}

impl Neighbours {
    /// `origins` are those of all sites, the first one first.
    pub fn new(origins: Arc<[String]>, own: usize) -> Self {
        Self { origins, own }
    }

    pub(super) fn first(&self) -> &str {
        self.origins.first().map_or("", String::as_str)
    }

    pub(super) fn is_first(&self) -> bool {
        self.own == 0
    }

    pub(super) fn are_several(&self) -> bool {
        self.origins.len() > 1
    }

    pub(super) fn own_name(&self) -> &str {
        name(self.origins.get(self.own).map_or("", String::as_str))
    }

    pub(super) fn first_name(&self) -> &str {
        name(self.first())
    }

    /// The origin of another site than the first, by its name.
    pub(super) fn find(&self, named: &str) -> Option<&str> {
        self.origins.iter().skip(1).map(String::as_str).find(|origin| name(origin) == named)
    }
}

/// The host of a site, with its port if it is not the default.
fn name(origin: &str) -> &str {
    origin.strip_prefix("https://").unwrap_or(origin)
}

/// What the pages need for hand-overs between sites.
#[derive(Clone)]
pub struct Crossing {
    pub neighbours: Neighbours,
    pub hand_overs: HandOvers,
}
