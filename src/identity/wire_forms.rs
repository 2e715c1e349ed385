//! The headers and the assertion of one session, ready to be sent: cached with the session, made at the first request.

use std::sync::OnceLock;

use arc_swap::ArcSwapOption;
use http::HeaderValue;

use crate::{clock::Timestamp, http1::fields::Block, sessions::Live};

/// The cached values of one session, by site: names, issuer and audience differ between sites.
#[derive(Debug, Default)]
pub(super) struct WireForms {
    first: SiteForms,
    others: OnceLock<Box<[SiteForms]>>,
}

/// The values for one site.
#[derive(Debug, Default)]
pub(super) struct SiteForms {
    /// The plain headers, made once and then shared.
    pub(super) headers: OnceLock<Block>,
    /// The assertion, which expires before the session.
    pub(super) assertion: ArcSwapOption<Perishable>,
}

/// The index of a site, and the number of sites.
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
    /// The values that are cached with a session. `None` if another type has taken their place, which does not happen.
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

/// A header value with an expiry.
#[derive(Debug)]
pub(super) struct Perishable {
    pub(super) value: HeaderValue,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    /// Of the keys that signed it.
    pub(super) generation: u64,
}

impl Perishable {
    /// Also false after the clock was set back: the value would last longer than intended.
    pub(super) fn is_good(&self, now: Timestamp, generation: u64) -> bool {
        self.from <= now && now < self.until && self.generation == generation
    }
}
