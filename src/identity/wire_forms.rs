//! What the portal is told of one session, ready for the wire: kept with the session, made at the first request.

use std::sync::OnceLock;

use arc_swap::ArcSwapOption;
use http::HeaderValue;

use crate::{clock::Timestamp, http1::fields::Block, sessions::Live};

/// The wire forms of one session.
#[derive(Debug, Default)]
pub(super) struct WireForms {
    /// The plain headers, made once and then shared.
    pub(super) headers: OnceLock<Block>,
    /// The assertion, which does not last as long as the session.
    pub(super) assertion: ArcSwapOption<Perishable>,
}

impl WireForms {
    /// Those that are kept with a session. None: something else has their place, which nothing does.
    pub(super) fn of(live: &Live) -> Option<&Self> {
        live.extension.get()
    }
}

/// The value of a header that is good for a while.
#[derive(Debug)]
pub(super) struct Perishable {
    pub(super) value: HeaderValue,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    /// Of the keys it was signed with.
    pub(super) generation: u64,
}

impl Perishable {
    /// A clock that was set back makes it bad as well: it would last longer than it was meant to.
    pub(super) fn is_good(&self, now: Timestamp, generation: u64) -> bool {
        self.from <= now && now < self.until && self.generation == generation
    }
}
