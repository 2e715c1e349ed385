//! `[second_factor]`: the name in authenticator apps, and from when users need one.

use std::time::Duration;

use serde::Deserialize;

use super::{
    layers::Layers,
    values::{ConfigValue, GroupName, Instant, OneOrMore, Parsed},
};
use crate::{
    clock::Timestamp,
    rollout::{self, Wave, WaveUsers},
};

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
    /// Users who need a device earlier.
    waves: Vec<Option<WaveSection>>,
    /// How long a user may do without a device after the first login, at most until the date. Absent: until the date.
    grace: Option<Parsed<Duration>>,
    /// How often a user may put off the first device. Absent: any number of times.
    skips: Option<u32>,
}

/// `[[second_factor.waves]]`
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WaveSection {
    groups: Option<OneOrMore<GroupName>>,
    /// A share of all users, 1 to 99.
    percent: Option<u8>,
    from: Option<Parsed<Instant>>,
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
        let rollout = rollout_of(self.mandatory_from.as_ref(), self.waves, self.grace, self.skips, layers);
        SecondFactorSettings { issuer: issuer.unwrap_or_default(), rollout }
    }
}

fn rollout_of(
    mandatory_from: Option<&Parsed<Instant>>,
    waves: Vec<Option<WaveSection>>,
    grace: Option<Parsed<Duration>>,
    skips: Option<u32>,
    layers: &mut Layers,
) -> rollout::Config {
    let (date, offset) = match mandatory_from {
        Some(Parsed(Instant { instant, offset })) => (Some(*instant), *offset),
        None => (None, rollout::Config::default().offset),
    };
    let is_open = layers.sound(&["second_factor.mandatory_from"]) && date.is_none();
    for (key, needs_date) in
        [("second_factor.waves", grace.is_none()), ("second_factor.skips", grace.is_none())]
    {
        if is_open && needs_date && layers.says(key) {
            layers.fault(
                key,
                "needs `second_factor.mandatory_from`, without which everybody needs a device already",
            );
        }
    }
    let waves = waves.into_iter().enumerate();
    let waves = waves.filter_map(|(index, wave)| wave?.validate(index, date, layers)).collect();
    rollout::Config { mandatory_from: date, offset, waves, grace: grace.map(|Parsed(grace)| grace), skips }
}

impl WaveSection {
    /// `date` is that of everybody.
    fn validate(self, index: usize, date: Option<Timestamp>, layers: &mut Layers) -> Option<Wave> {
        let key = format!("second_factor.waves.{index}");
        let is_sound = layers.sound(&[&format!("second_factor.waves[{index}]")]);
        let mut fault = |key: &str, message: &str| {
            if is_sound {
                layers.fault(key, message);
            }
            None
        };
        let of = match (self.groups, self.percent) {
            (Some(OneOrMore(groups)), None) if groups.is_empty() => {
                return fault(&format!("{key}.groups"), "is empty; name at least one group");
            }
            (Some(OneOrMore(groups)), None) => {
                WaveUsers::Groups(groups.into_iter().map(|GroupName(group)| group).collect())
            }
            (None, Some(share @ 1..=99)) => WaveUsers::Percent(share),
            (None, Some(_)) => {
                return fault(
                    &format!("{key}.percent"),
                    "must be from 1 to 99; `second_factor.mandatory_from` is for everybody",
                );
            }
            _ => return fault(&key, "needs either `groups` or `percent`: whose date this is"),
        };
        let Some(Parsed(Instant { instant, offset })) = self.from else {
            return fault(&key, "needs `from`: the instant from which these users need a device");
        };
        if date.is_some_and(|date| instant >= date) {
            let late = "is not before `second_factor.mandatory_from`, which is for everybody: this wave would change nothing";
            return fault(&format!("{key}.from"), late);
        }
        Some(Wave { of, from: instant, offset })
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
