//! Time as an argument: the wall clock of a gateway, and a manual one for tests.
//!
//! Does not measure durations; deadlines use tokio's monotonic clock.

use std::{
    fmt,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// An instant as milliseconds since the Unix epoch (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const fn from_unix_millis(millis: i64) -> Self {
        Self(millis)
    }

    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    pub const fn unix_millis(self) -> i64 {
        self.0
    }

    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The time since `earlier`; zero if that is in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This instant moved forward, saturating.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This instant moved backward, saturating.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, to the second.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.unix_seconds()) {
            Ok(instant) => instant.fmt(f),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

/// A source of the current wall-clock time. It need not be monotonic.
pub trait Clock: Send + Sync + fmt::Debug {
    fn now(&self) -> Timestamp;

    /// How long this process has been running, unaffected by changes of the clock.
    fn elapsed(&self) -> Duration;

    /// Adopts the gateways' shared time, `ahead` milliseconds ahead of this clock. A clock with a fixed time ignores
    /// it.
    fn agree(&self, ahead: i64) {
        let _ = ahead;
    }

    /// How far it is ahead of the machine's clock because of that.
    fn ahead(&self) -> i64 {
        0
    }

    /// All readings of one moment.
    fn moment(&self) -> Moment {
        // A pause between the readings must not look like a lead of the wall clock.
        let wall = self.now();
        Moment { wall, elapsed: self.elapsed(), instant: tokio::time::Instant::now() }
    }
}

/// One reading of a clock, to be shared: a reading costs as much as a look-up.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub wall: Timestamp,
    /// How long the process had been running.
    pub elapsed: Duration,
    /// For deadlines.
    pub instant: tokio::time::Instant,
}

/// The machine's clock.
#[derive(Debug, Default)]
pub struct SystemClock;

/// The shared time of the gateways: the store's time at the last comparison, plus the time that has passed since, so
/// that setting the machine's clock has no effect. Before that, and if the store has no clock, the machine's time.
#[derive(Debug)]
pub struct SharedClock<M = SystemClock> {
    machine: M,
    /// The lead over the time this process has run, in milliseconds.
    lead: AtomicI64,
}

/// No time has been agreed yet.
const NO_LEAD: i64 = i64::MIN;

impl<M: Clock> SharedClock<M> {
    pub const fn on(machine: M) -> Self {
        Self { machine, lead: AtomicI64::new(NO_LEAD) }
    }

    fn shown(&self, machine: &Moment) -> Timestamp {
        match self.lead.load(Ordering::Relaxed) {
            NO_LEAD => machine.wall,
            lead => Timestamp(lead.saturating_add(millis(machine.elapsed))),
        }
    }
}

impl Default for SharedClock {
    fn default() -> Self {
        Self::on(SystemClock)
    }
}

impl<M: Clock> Clock for SharedClock<M> {
    fn now(&self) -> Timestamp {
        self.moment().wall
    }

    fn elapsed(&self) -> Duration {
        self.machine.elapsed()
    }

    fn agree(&self, ahead: i64) {
        let machine = self.machine.moment();
        let lead = machine.wall.0.saturating_add(ahead).saturating_sub(millis(machine.elapsed));
        self.lead.store(lead, Ordering::Relaxed);
    }

    fn ahead(&self) -> i64 {
        let machine = self.machine.moment();
        self.shown(&machine).0.saturating_sub(machine.wall.0)
    }

    fn moment(&self) -> Moment {
        let machine = self.machine.moment();
        Moment { wall: self.shown(&machine), ..machine }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        };
        Timestamp(millis)
    }

    fn elapsed(&self) -> Duration {
        self.moment().elapsed
    }

    fn moment(&self) -> Moment {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let wall = self.now();
        // Before the first reading, which would otherwise be ahead of it.
        let start = *START;
        let instant = Instant::now();
        Moment { wall, elapsed: instant.saturating_duration_since(start), instant: instant.into() }
    }
}

/// The latest time that a clock has shown for long: while it shows an earlier one, expired things could happen again.
///
/// Follows a clock that was set forward at twice the pace of time, so that a quickly corrected mistake leaves little
/// behind. Has to be read at intervals.
#[derive(Debug)]
pub struct Watermark {
    clock: Arc<dyn Clock>,
    /// The mark, and how long the process had been running then.
    mark: Mutex<(Timestamp, Duration)>,
}

impl Watermark {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let mark = Mutex::new((clock.now(), clock.elapsed()));
        Self { clock, mark }
    }

    /// By how much the clock is behind the mark because it was set back.
    pub fn behind(&self) -> Duration {
        // Two numbers, which a panic leaves consistent.
        let mut mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, elapsed) = (self.clock.now(), self.clock.elapsed());
        let (latest, counted) = *mark;
        let reached = latest.plus(2 * elapsed.saturating_sub(counted));
        let latest = latest.max(now.min(reached));
        *mark = (latest, elapsed);
        latest.since(now)
    }
}

/// A clock that stands still until a test moves it. Moving it forward lets time pass; moving it back does not.
#[derive(Debug)]
pub struct ManualClock {
    now: AtomicI64,
    elapsed: AtomicI64,
}

impl ManualClock {
    pub fn at(start: Timestamp) -> Self {
        Self { now: AtomicI64::new(start.0), elapsed: AtomicI64::new(0) }
    }

    pub fn set(&self, to: Timestamp) {
        let from = self.now.swap(to.0, Ordering::SeqCst);
        self.elapsed.fetch_add(to.0.saturating_sub(from).max(0), Ordering::SeqCst);
    }

    pub fn advance(&self, by: Duration) {
        self.set(self.now().plus(by));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.elapsed.load(Ordering::SeqCst)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_never_goes_negative() {
        let (early, late) = (Timestamp::from_unix_seconds(10), Timestamp::from_unix_seconds(12));
        assert_eq!(late.since(early), Duration::from_secs(2));
        assert_eq!(early.since(late), Duration::ZERO);
    }

    #[test]
    fn displays_as_rfc_3339() {
        assert_eq!(Timestamp::from_unix_seconds(1_772_409_600).to_string(), "2026-03-02T00:00:00Z");
    }

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let clock = ManualClock::at(Timestamp::from_unix_seconds(5));
        clock.advance(Duration::from_secs(3));
        assert_eq!(clock.now(), Timestamp::from_unix_seconds(8));
    }

    #[test]
    fn what_is_agreed_goes_on_whatever_the_machine_is_set_to() {
        let hour = Duration::from_hours(1);
        let start = Timestamp::from_unix_seconds(1_000_000);
        let clock = SharedClock::on(ManualClock::at(start));
        clock.machine.advance(hour);
        assert_eq!((clock.now(), clock.ahead()), (start.plus(hour), 0));
        clock.agree(-5_000);
        let agreed = clock.now();
        assert_eq!((agreed, clock.ahead()), (start.plus(hour).minus(Duration::from_secs(5)), -5_000));
        // First the clock is set back, which lets no time pass; then time passes.
        clock.machine.set(start);
        assert_eq!((clock.now(), clock.ahead()), (agreed, 3_595_000));
        clock.machine.advance(hour);
        assert_eq!((clock.now(), clock.moment().wall), (agreed.plus(hour), agreed.plus(hour)));
        clock.agree(0);
        assert_eq!((clock.now(), clock.ahead()), (clock.machine.now(), 0));
    }

    #[test]
    fn a_clock_that_is_set_back_is_behind_until_it_has_caught_up() {
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(10_000)));
        let watermark = Watermark::new(clock.clone());
        let second = Duration::from_secs(1);
        for _ in 0..100 {
            clock.advance(second);
            assert_eq!(watermark.behind(), Duration::ZERO);
        }
        clock.set(clock.now().minus(60 * second));
        assert_eq!(watermark.behind(), 60 * second);
        clock.advance(40 * second);
        assert_eq!(watermark.behind(), 20 * second);
        clock.advance(20 * second);
        assert_eq!(watermark.behind(), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_was_set_forward_by_mistake_is_soon_right_again() {
        #[derive(Debug)]
        struct Jumping(AtomicI64, AtomicI64);
        impl Clock for Jumping {
            fn now(&self) -> Timestamp {
                Timestamp(self.0.load(Ordering::SeqCst) + self.1.load(Ordering::SeqCst))
            }
            fn elapsed(&self) -> Duration {
                Duration::from_millis(self.0.load(Ordering::SeqCst).try_into().unwrap())
            }
        }
        let clock = Arc::new(Jumping(AtomicI64::new(0), AtomicI64::new(0)));
        let watermark = Watermark::new(clock.clone());
        let after = |millis, offset| {
            clock.0.fetch_add(millis, Ordering::SeqCst);
            clock.1.store(offset, Ordering::SeqCst);
            watermark.behind().as_millis()
        };
        assert_eq!(after(1000, 3_600_000), 0);
        assert_eq!(after(9000, 3_600_000), 0);
        assert_eq!(after(1000, 0), 9000, "for what it was taken for true");
        // After an hour the lead of an hour is accepted, and going back is a step back.
        assert_eq!(after(3_600_000, 3_600_000), 0);
        assert_eq!(after(3_600_000, 3_600_000), 0);
        assert_eq!(after(0, 0), 3_600_000);
    }

    #[test]
    fn time_that_has_passed_stays_passed_when_the_clock_is_set_back() {
        let clock = ManualClock::at(Timestamp::from_unix_seconds(100));
        clock.advance(Duration::from_secs(3));
        clock.set(Timestamp::from_unix_seconds(50));
        assert_eq!(clock.elapsed(), Duration::from_secs(3));
        clock.advance(Duration::from_secs(4));
        assert_eq!(clock.elapsed(), Duration::from_secs(7));

        let system = SystemClock;
        let before = system.elapsed();
        assert!(system.elapsed() >= before);
    }
}
