//! The roll-out: from "nobody has a device" to "nobody gets in without one". Pure: takes the instant as an argument.

mod report;

use std::time::Duration;

use jiff::{civil::Time, tz::Offset};

pub use self::report::{Stage, StageCounts, Standing};
use crate::{
    clock::Timestamp,
    secret::sha256,
    users::{User, UserId},
};

/// From when a second factor is mandatory, and for whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// For everybody; `None`: it already is, unless there is a grace.
    pub mandatory_from: Option<Timestamp>,
    /// The UTC offset that the operator wrote. It decides which day the instant is on, for every reader.
    pub offset: Offset,
    /// For some earlier than for everybody.
    pub waves: Vec<Wave>,
    /// How long a user may do without a device after the first login, at most until the date. It never starts again.
    pub grace: Option<Duration>,
    /// How often a user may put off the first device; `None`: any number of times.
    pub skips: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self { mandatory_from: None, offset: Offset::UTC, waves: Vec::new(), grace: None, skips: None }
    }
}

/// Some users for whom a second factor is mandatory earlier.
#[derive(Clone, Debug)]
pub struct Wave {
    pub of: WaveUsers,
    pub from: Timestamp,
    /// As [`Config::offset`].
    pub offset: Offset,
}

/// The users of a wave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaveUsers {
    /// The members of any of these groups.
    Groups(Vec<String>),
    /// This share of all users, chosen by their ids: those of 10 are among those of 30.
    Percent(u8),
}

impl WaveUsers {
    fn has(&self, user: &UserId, groups: &[String]) -> bool {
        match self {
            Self::Groups(named) => named.iter().any(|group| groups.contains(group)),
            Self::Percent(share) => place_in_a_hundred(user) < u32::from(*share),
        }
    }
}

/// From 0 to 99, the same for a user whenever and wherever it is asked.
fn place_in_a_hundred(user: &UserId) -> u32 {
    let [a, b, c, d, ..] = sha256(user.as_str().as_bytes());
    u32::from_be_bytes([a, b, c, d]) % 100
}

/// An instant from which a user needs a device, and the UTC offset that it was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueDate {
    pub at: Timestamp,
    pub offset: Offset,
}

impl DueDate {
    /// For people, where it was written: only the day if it begins at midnight.
    pub fn in_words(self) -> String {
        let Ok(utc) = jiff::Timestamp::from_millisecond(self.at.unix_millis()) else {
            return self.at.to_string();
        };
        let there = self.offset.to_datetime(utc);
        if there.time() == Time::midnight() {
            return there.strftime("%-d %B %Y").to_string();
        }
        let minutes = self.offset.seconds() / 60;
        let sign = if minutes < 0 { '−' } else { '+' };
        let zone = match (minutes.abs() / 60, minutes.abs() % 60) {
            (0, 0) => "UTC".to_owned(),
            (hours, 0) => format!("UTC{sign}{hours}"),
            (hours, minutes) => format!("UTC{sign}{hours}:{minutes:02}"),
        };
        format!("{} ({zone})", there.strftime("%-d %B %Y at %H:%M"))
    }
}

/// What the roll-out requires of a user at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Not without a device.
    Demand,
    /// A user without a device is invited to enrol one, and may skip that until the date.
    Invite {
        due: DueDate,
        /// Midnights until then, where the date was written. Zero on the day itself.
        days_left: u32,
        /// How often, from now on; `None`: any number of times.
        skips_left: Option<u32>,
    },
}

impl Config {
    /// From when a user needs a device, who first logged in at `first_login`. `None`: from the beginning on.
    pub fn due(&self, user: &UserId, groups: &[String], first_login: Timestamp) -> Option<DueDate> {
        let everybody = self.mandatory_from.map(|at| DueDate { at, offset: self.offset });
        let waves = self.waves.iter().filter(|wave| wave.of.has(user, groups));
        let waves = waves.map(|wave| DueDate { at: wave.from, offset: wave.offset });
        let grace = self.grace.map(|grace| DueDate { at: first_login.plus(grace), offset: self.offset });
        everybody.into_iter().chain(waves).chain(grace).min_by_key(|due| due.at)
    }

    /// What a user without a device meets at a login at `now`. From the instant on, a device is demanded.
    pub fn requirement(&self, user: &User, now: Timestamp) -> Requirement {
        let due = self.due(&user.id, &user.groups, user.first_login_at.unwrap_or(now));
        let skips_left = self.skips.map(|most| most.saturating_sub(user.skips));
        match due {
            Some(due) if now < due.at && skips_left != Some(0) => Requirement::Invite {
                due,
                days_left: day(due.at, due.offset).abs_diff(day(now, due.offset)),
                skips_left,
            },
            Some(_) | None => Requirement::Demand,
        }
    }

    /// The instant for everybody as written, in RFC 3339.
    pub fn written(&self) -> Option<String> {
        let instant = jiff::Timestamp::from_millisecond(self.mandatory_from?.unix_millis()).ok()?;
        Some(instant.display_with_offset(self.offset).to_string())
    }
}

/// The day of an instant, counted from the epoch.
fn day(instant: Timestamp, offset: Offset) -> i32 {
    const DAY: i64 = 24 * 3600;
    let local = instant.unix_seconds().saturating_add(i64::from(offset.seconds()));
    i32::try_from(local.div_euclid(DAY)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
