//! The way from "nobody has a device" to "nobody gets in without one". Pure: takes the instant as an argument.

use std::time::Duration;

use crate::clock::Timestamp;

/// From when a second factor is mandatory.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Absent: it already is.
    pub mandatory_from: Option<Timestamp>,
}

/// What the roll-out asks of a user at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Nobody gets in without a device.
    Demand,
    /// A user without a device is invited to enrol one, and may put it off until the date.
    Invite { mandatory_from: Timestamp, left: Duration },
}

impl Config {
    /// What holds at `now`. From the very instant on, a device is demanded.
    pub fn requirement(&self, now: Timestamp) -> Requirement {
        match self.mandatory_from {
            Some(mandatory_from) if now < mandatory_from => {
                Requirement::Invite { mandatory_from, left: mandatory_from.since(now) }
            }
            Some(_) | None => Requirement::Demand,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instant_itself_is_already_mandatory() {
        let from = Timestamp::from_unix_seconds(1000);
        let rollout = Config { mandatory_from: Some(from) };
        let before = from.minus(Duration::from_millis(1));
        let left = Duration::from_millis(1);
        assert_eq!(rollout.requirement(before), Requirement::Invite { mandatory_from: from, left });
        assert_eq!(rollout.requirement(from), Requirement::Demand);
        assert_eq!(Config::default().requirement(before), Requirement::Demand);
    }
}
