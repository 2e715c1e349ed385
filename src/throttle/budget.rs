//! Budgets of failures: how many are too many, and how long to wait after the last.

use std::time::Duration;

use crate::clock::Timestamp;

/// How many failures are too many.
#[derive(Clone, Copy, Debug)]
pub enum Budget {
    /// A number of failures within a time that begins with the first; the ban after the last forgives all.
    Window { failures: u32, find_time: Duration, ban_time: Duration },
    /// A wait after each failure, longer the more there are. None is forgiven during a wait.
    Rising(&'static Ladder),
}

/// Waits that rise.
#[derive(Debug)]
pub struct Ladder {
    /// The wait after the last failure, from this number of failures on; ascending.
    pub(super) steps: &'static [(u32, Duration)],
    /// How long after the last failure all are forgotten: before the first step, and from it on.
    pub(super) few: Duration,
    pub(super) many: Duration,
}

/// The counted failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Identifies the window.
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) failures: u32,
}

impl Ladder {
    fn wait(&self, failures: u32) -> Option<Duration> {
        self.steps.iter().rev().find(|(from, _)| failures >= *from).map(|(_, wait)| *wait)
    }
}

impl Budget {
    /// The time until the next attempt may be made.
    pub(super) fn wait(self, record: &Record, now: Timestamp) -> Option<Duration> {
        let wait = match self {
            Self::Window { failures, ban_time, .. } => (record.failures >= failures).then_some(ban_time),
            Self::Rising(ladder) => ladder.wait(record.failures),
        };
        wait.map(|wait| wait.saturating_sub(now.since(record.last))).filter(|wait| !wait.is_zero())
    }

    /// `record` after one more failure, and the time of the one before.
    pub(super) fn count(self, record: Option<Record>, now: Timestamp) -> (Record, Timestamp) {
        let record = record.filter(|record| record.failures > 0 && !self.is_over(record, now));
        let before = record.unwrap_or(Record { first: now, last: now, failures: 0 });
        (Record { last: now, failures: before.failures.saturating_add(1), ..before }, before.last)
    }

    fn is_over(self, record: &Record, now: Timestamp) -> bool {
        match self {
            Self::Window { failures, ban_time, .. } if record.failures >= failures => {
                now.since(record.last) >= ban_time
            }
            Self::Window { find_time, .. } => now.since(record.first) > find_time,
            Self::Rising(_) => now.since(record.last) >= self.lasts(record.failures),
        }
    }

    /// How long a number of failures matters after the last.
    pub(super) fn lasts(self, failures: u32) -> Duration {
        match self {
            Self::Window { find_time, ban_time, .. } => find_time.max(ban_time),
            Self::Rising(ladder) if ladder.wait(failures).is_none() => ladder.few,
            Self::Rising(ladder) => ladder.many,
        }
    }
}
