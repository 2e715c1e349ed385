//! `[second_factor]`: the name in authenticator apps, and the date from which everybody needs one.

use serde::Deserialize;

use super::{
    layers::Layers,
    values::{ConfigValue, Instant, Parsed},
};
use crate::rollout;

/// `[second_factor]`, validated.
pub(super) struct SecondFactorSettings {
    pub(super) issuer: String,
    pub(super) rollout: rollout::Config,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    /// The name that authenticator apps show above the code. No colon. Absent: `portal.name`.
    issuer: Option<Parsed<Issuer>>,
    /// From this instant on nobody gets in without a device. With a UTC offset. Absent: from now on.
    mandatory_from: Option<Parsed<Instant>>,
}

impl Section {
    /// `portal_name` is `None` if it is missing, which is a fault already.
    pub(super) fn validate(self, portal_name: Option<&str>, layers: &mut Layers) -> SecondFactorSettings {
        let issuer = self.issuer.map(|Parsed(Issuer(issuer))| issuer).or_else(|| {
            let name = portal_name?;
            if name.contains(':') && layers.sound(&["second_factor.issuer"]) {
                layers.fault(
                    "portal.name",
                    "holds a colon, which authenticator apps cannot show; give `second_factor.issuer` one without",
                );
            }
            Some(name.to_owned())
        });
        SecondFactorSettings {
            issuer: issuer.unwrap_or_default(),
            rollout: match self.mandatory_from {
                Some(Parsed(Instant { instant, offset })) => {
                    rollout::Config { mandatory_from: Some(instant), offset }
                }
                None => rollout::Config::default(),
            },
        }
    }
}

/// A name that is valid in an `otpauth` URI.
struct Issuer(String);

impl ConfigValue for Issuer {
    const EXPECTED: &'static str = "a name in quotes";

    fn read(text: &str) -> Result<Self, String> {
        let issuer = text.trim();
        if issuer.is_empty() {
            return Err("is empty; expected a name, or leave it out for `portal.name`".into());
        }
        if issuer.contains(':') {
            return Err("must not hold a colon: authenticator apps take it for the end of the name".into());
        }
        if issuer.chars().count() > 64 || issuer.chars().any(char::is_control) {
            return Err("must be at most 64 characters, on one line".into());
        }
        Ok(Self(issuer.to_owned()))
    }
}
