//! The roll-out: from "nobody has a device" to "nobody gets in without one". Pure: takes the instant as an argument.

use jiff::tz::Offset;

use crate::clock::Timestamp;

/// From when a second factor is mandatory.
#[derive(Clone, Debug)]
pub struct Config {
    /// `None`: it already is.
    pub mandatory_from: Option<Timestamp>,
    /// The UTC offset that the operator wrote. It decides which day the instant is on, for every reader.
    pub offset: Offset,
}

impl Default for Config {
    fn default() -> Self {
        Self { mandatory_from: None, offset: Offset::UTC }
    }
}

/// What the roll-out requires of a user at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Nobody gets in without a device.
    Demand,
    /// A user without a device is invited to enrol one, and may skip that until the date.
    Invite {
        mandatory_from: Timestamp,
        offset: Offset,
        /// Midnights until then, in that UTC offset. Zero on the day itself.
        days_left: u32,
    },
}

impl Config {
    /// The requirement at `now`. From the instant on, a device is demanded.
    pub fn requirement(&self, now: Timestamp) -> Requirement {
        match self.mandatory_from {
            Some(mandatory_from) if now < mandatory_from => Requirement::Invite {
                mandatory_from,
                offset: self.offset,
                days_left: self.day(mandatory_from).abs_diff(self.day(now)),
            },
            Some(_) | None => Requirement::Demand,
        }
    }

    /// The instant as written, in RFC 3339.
    pub fn written(&self) -> Option<String> {
        let instant = jiff::Timestamp::from_millisecond(self.mandatory_from?.unix_millis()).ok()?;
        Some(instant.display_with_offset(self.offset).to_string())
    }

    /// The day of an instant, counted from the epoch.
    fn day(&self, instant: Timestamp) -> i32 {
        const DAY: i64 = 24 * 3600;
        let local = instant.unix_seconds().saturating_add(i64::from(self.offset.seconds()));
        i32::try_from(local.div_euclid(DAY)).unwrap_or(i32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_instant_itself_is_already_mandatory() {
        let from = Timestamp::from_unix_seconds(1000);
        let rollout = Config { mandatory_from: Some(from), offset: Offset::UTC };
        let before = from.minus(Duration::from_millis(1));
        let invite = Requirement::Invite { mandatory_from: from, offset: Offset::UTC, days_left: 0 };
        assert_eq!(rollout.requirement(before), invite);
        assert_eq!(rollout.requirement(from), Requirement::Demand);
        assert_eq!(Config::default().requirement(before), Requirement::Demand);
    }

    #[test]
    fn days_are_those_of_the_calendar_where_the_date_was_written() {
        let at = |text: &str| {
            Timestamp::from_unix_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
        };
        for (hours, from, now, days) in [
            (1, "2027-03-02T00:00:00+01:00", "2026-12-01T00:00:00+01:00", 91),
            (1, "2027-03-02T00:00:00+01:00", "2026-12-01T23:59:59+01:00", 91),
            // In UTC it is still the day before.
            (1, "2027-03-02T00:00:00+01:00", "2026-11-30T23:30:00Z", 91),
            (1, "2027-03-02T00:00:00+01:00", "2027-03-01T22:59:59Z", 1),
            (-10, "2027-03-02T00:00:00-10:00", "2027-03-01T23:00:00Z", 1),
            (-10, "2027-03-02T00:00:00-10:00", "2027-03-02T09:59:59Z", 1),
            (14, "2027-03-02T00:00:00+14:00", "2027-02-28T09:59:59Z", 2),
            (0, "2027-03-02T09:00:00Z", "2027-03-02T00:00:00Z", 0),
            (0, "2027-03-02T09:00:00Z", "2027-03-01T23:59:59Z", 1),
            (0, "2028-03-01T00:00:00Z", "2028-02-28T12:00:00Z", 2),
        ] {
            let rollout = Config { mandatory_from: Some(at(from)), offset: jiff::tz::offset(hours) };
            let Requirement::Invite { days_left, .. } = rollout.requirement(at(now)) else {
                panic!("{from} {now}")
            };
            assert_eq!(days_left, days, "{from} {now}");
        }
    }
}
