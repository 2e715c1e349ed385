//! `[tokens]`: what users may do with their own tokens.

use std::time::Duration;

use serde::Deserialize;

use super::{layers::Layers, values::Parsed};
use crate::tokens;

/// Shorter lifetimes are useless for scripts.
const SHORTEST: Duration = Duration::from_hours(1);

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    /// Whether users make, see and revoke tokens of their own on the account page.
    self_service: bool,
    /// The maximum lifetime of such a token; at least 1h.
    max_lifetime: Parsed<Duration>,
}

impl Default for Section {
    fn default() -> Self {
        Self { self_service: false, max_lifetime: Parsed(Duration::from_hours(90 * 24)) }
    }
}

impl Section {
    pub(super) fn validate(self, layers: &mut Layers) -> tokens::Config {
        let Parsed(max_lifetime) = self.max_lifetime;
        if max_lifetime < SHORTEST {
            layers.fault("tokens.max_lifetime", "must be at least 1h");
        }
        tokens::Config { self_service: self.self_service, max_lifetime }
    }
}
