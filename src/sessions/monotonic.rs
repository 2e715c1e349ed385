//! The time of sessions: the wall clock, but never slower than real time.
//!
//! If the wall clock is set back, this clock goes on. If it is set forward (or the machine was asleep), this clock
//! follows, and a mistake in that direction ends sessions early until the process is restarted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use crate::clock::{Clock, Moment, Timestamp};

#[derive(Debug)]
pub(super) struct MonotonicWallClock {
    clock: Arc<dyn Clock>,
    /// The maximum lead of the wall clock over the time that this process has run, in milliseconds.
    lead: AtomicI64,
}

impl MonotonicWallClock {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, lead: AtomicI64::new(i64::MIN) }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.at(&self.clock.moment())
    }

    pub(super) fn moment(&self) -> Moment {
        self.clock.moment()
    }

    pub(super) fn at(&self, moment: &Moment) -> Timestamp {
        let elapsed = i64::try_from(moment.elapsed.as_millis()).unwrap_or(i64::MAX);
        let lead = moment.wall.unix_millis().saturating_sub(elapsed);
        let mut most = self.lead.load(Ordering::Relaxed);
        // Only written after the clock was set forward.
        if lead > most {
            most = self.lead.fetch_max(lead, Ordering::Relaxed).max(lead);
        }
        Timestamp::from_unix_millis(elapsed.saturating_add(most))
    }

    /// By how much the wall clock is behind because it was set back.
    pub(super) fn set_back(&self) -> Duration {
        self.now().since(self.clock.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const START: Timestamp = Timestamp::from_unix_seconds(1_000_000);
    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_clock_that_is_set_back_goes_on_all_the_same() {
        let clock = Arc::new(ManualClock::at(START));
        let steady = MonotonicWallClock::new(clock.clone());
        assert_eq!((steady.now(), steady.set_back()), (START, Duration::ZERO));
        clock.set(START.minus(HOUR));
        assert_eq!((steady.now(), steady.set_back()), (START, HOUR));
        clock.advance(HOUR / 2);
        assert_eq!(steady.now(), START.plus(HOUR / 2));
    }

    #[test]
    fn a_clock_that_is_set_forward_is_followed() {
        #[derive(Debug)]
        struct Jumped(AtomicI64);
        impl Clock for Jumped {
            fn now(&self) -> Timestamp {
                START.plus(HOUR * u32::try_from(self.0.load(Ordering::Relaxed)).unwrap())
            }
            fn elapsed(&self) -> Duration {
                Duration::from_secs(1)
            }
        }
        let clock = Arc::new(Jumped(AtomicI64::new(0)));
        let steady = MonotonicWallClock::new(clock.clone());
        assert_eq!(steady.now(), START);
        clock.0.store(2, Ordering::Relaxed);
        assert_eq!(steady.now(), START.plus(2 * HOUR));
        clock.0.store(1, Ordering::Relaxed);
        assert_eq!(steady.now(), START.plus(2 * HOUR));
    }
}
