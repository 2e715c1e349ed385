//! What the portal is told of one session, ready for the wire: kept with the session, made at the first request.

use std::sync::OnceLock;

use arc_swap::ArcSwapOption;
use http::HeaderValue;

use crate::{clock::Timestamp, http1::fields::Block, sessions::Live};

/// The wire forms of one session, for each site apart: names, issuer and audience are each site's own.
#[derive(Debug, Default)]
pub(super) struct WireForms {
    first: SiteForms,
    others: OnceLock<Box<[SiteForms]>>,
}

/// Those of one site.
#[derive(Debug, Default)]
pub(super) struct SiteForms {
    /// The plain headers, made once and then shared.
    pub(super) headers: OnceLock<Block>,
    /// The assertion, which does not last as long as the session.
    pub(super) assertion: ArcSwapOption<Perishable>,
}

/// Which of how many sites something is for.
#[derive(Clone, Copy, Debug)]
pub struct SiteSlot {
    index: usize,
    of: usize,
}

impl SiteSlot {
    /// `index` is less than `of`.
    pub const fn new(index: usize, of: usize) -> Self {
        Self { index, of }
    }
}

impl WireForms {
    /// Those that are kept with a session. None: something else has their place, which nothing does.
    pub(super) fn of(live: &Live, site: SiteSlot) -> Option<&SiteForms> {
        let forms: &Self = live.extension.get()?;
        match site.index.checked_sub(1) {
            None => Some(&forms.first),
            Some(other) => {
                let others =
                    forms.others.get_or_init(|| (1..site.of).map(|_| SiteForms::default()).collect());
                others.get(other)
            }
        }
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
