//! One time for all gateways: compares the machine's clock with those of the stores.
//!
//! A gateway whose clock is wrong uses the database's time, so that sessions, announcements and assertions of all
//! gateways agree. Redis's clock is only compared: its expiries are durations, never instants.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout};

use crate::{
    background::{BEAT, regularly},
    clock::{Clock, Timestamp},
};

/// The tolerated difference of two clocks. A busy network path may cause less than that.
pub const TOLERANCE: Duration = Duration::from_secs(2);
/// How often they are compared.
const PERIOD: Duration = Duration::from_mins(1);
/// A reply that takes longer says nothing about clocks.
const PATIENCE: Duration = Duration::from_secs(1);
/// The difference to a clock that has not been read yet.
const UNKNOWN: i64 = i64::MIN;

/// Asks a store for its time. `None` if it has no clock of its own, or does not answer.
pub type Asked = Box<dyn Fn() -> BoxFuture<'static, Option<Timestamp>> + Send + Sync>;

/// The gateway's latest comparison.
pub struct Agreement {
    clock: Arc<dyn Clock>,
    /// The first one is the reference.
    stores: Vec<(&'static str, Asked, AtomicI64)>,
}

impl Agreement {
    /// With the database's clock as the reference.
    pub fn new(clock: Arc<dyn Clock>, database: Asked) -> Self {
        Self { clock, stores: vec![("database", database, AtomicI64::new(UNKNOWN))] }
    }

    /// Adds another store's clock to the comparison.
    pub fn add(&mut self, store: &'static str, asked: Asked) {
        self.stores.push((store, asked, AtomicI64::new(UNKNOWN)));
    }

    /// Compares now, and uses the database's time from here on if ours is wrong. False if the database has a clock and
    /// did not answer.
    pub async fn compare(&self) -> bool {
        let mut answered = true;
        for (at, (store, asked, difference)) in self.stores.iter().enumerate() {
            let Some(behind) = self.behind(asked).await else {
                answered &= at > 0 || difference.load(Ordering::Relaxed) == UNKNOWN;
                continue;
            };
            let before = difference.swap(behind, Ordering::Relaxed);
            let (was_off, is_off) = (before != UNKNOWN && is_off(before), is_off(behind));
            if is_off && !was_off {
                tracing::warn!(store, difference = %said(behind, store), "the clocks differ: set this machine's by NTP, or the store's");
            } else if was_off && !is_off {
                tracing::info!(store, "the clocks agree again");
            }
            if at == 0 {
                self.clock.agree(if is_off { behind } else { 0 });
            }
        }
        answered
    }

    /// By how many milliseconds the machine's clock is behind a store's.
    async fn behind(&self, asked: &Asked) -> Option<i64> {
        let start = Instant::now();
        let theirs = timeout(PATIENCE, asked()).await.ok()??;
        let way = i64::try_from(start.elapsed().as_millis()).unwrap_or(0);
        let ours = self.clock.now().unix_millis() - self.clock.ahead();
        // The store read its clock after about half the time.
        Some(theirs.unix_millis() + way / 2 - ours)
    }

    /// Compares for ever: at intervals, and as soon as the machine's clock has been set. After a suspension the clock
    /// has jumped and the connections are dead: then it repeats until the database answers.
    pub async fn keep(self: Arc<Self>) {
        let mut beats = regularly(BEAT);
        let (mut lead, mut next) = (self.lead(), Instant::now());
        loop {
            beats.tick().await;
            if self.look(&mut lead, Instant::now() >= next).await {
                next = Instant::now() + PERIOD;
            }
        }
    }

    /// Compares if it is due, or if the machine's clock has been set since it had this lead. Returns whether it has.
    async fn look(&self, lead: &mut i64, is_due: bool) -> bool {
        let now = self.lead();
        let compares = is_due || is_off(now.saturating_sub(*lead));
        if compares && self.compare().await {
            *lead = now;
        }
        compares
    }

    /// The lead of the machine's clock over the time this process has run, in milliseconds.
    fn lead(&self) -> i64 {
        let moment = self.clock.moment();
        let passed = i64::try_from(moment.elapsed.as_millis()).unwrap_or(i64::MAX);
        moment.wall.unix_millis().saturating_sub(self.clock.ahead()).saturating_sub(passed)
    }

    /// `ok`, or by how much the machine's clock is wrong.
    pub fn state(&self) -> String {
        let off: Vec<_> = self.differences().filter(|&(_, behind)| is_off(behind)).collect();
        if off.is_empty() {
            return "ok".into();
        }
        off.into_iter().map(|(store, behind)| said(behind, store)).collect::<Vec<_>>().join(", ")
    }

    /// By how many milliseconds the machine's clock is behind each store that has one.
    pub fn differences(&self) -> impl Iterator<Item = (&'static str, i64)> {
        let known = |&(store, _, ref behind): &(&'static str, Asked, AtomicI64)| {
            (store, behind.load(Ordering::Relaxed))
        };
        self.stores.iter().map(known).filter(|&(_, behind)| behind != UNKNOWN)
    }
}

fn is_off(behind: i64) -> bool {
    Duration::from_millis(behind.unsigned_abs()) > TOLERANCE
}

fn said(behind: i64, store: &str) -> String {
    let way = if behind > 0 { "behind" } else { "ahead of" };
    format!("{} s {way} the {store}'s", behind.unsigned_abs() / 1000)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::clock::{ManualClock, SharedClock};

    fn at(ahead: Arc<AtomicI64>) -> Asked {
        let machine = crate::clock::SystemClock;
        Box::new(move || {
            let time = machine.now().unix_millis() + ahead.load(Ordering::Relaxed);
            Box::pin(std::future::ready(Some(Timestamp::from_unix_millis(time))))
        })
    }

    #[tokio::test]
    async fn a_clock_that_is_off_is_said_to_be_and_the_stores_counts() {
        let (clock, theirs) = (Arc::new(SharedClock::default()), Arc::new(AtomicI64::new(0)));
        let mut agreement = Agreement::new(clock.clone(), at(Arc::clone(&theirs)));
        agreement.add("other", at(Arc::new(AtomicI64::new(-9_500))));
        assert_eq!(agreement.state(), "ok");
        for (ahead, state, counts) in [
            (0, "9 s ahead of the other's", false),
            (1_500, "9 s ahead of the other's", false),
            (120_500, "120 s behind the database's, 9 s ahead of the other's", true),
            (-120_500, "120 s ahead of the database's, 9 s ahead of the other's", true),
            (0, "9 s ahead of the other's", false),
        ] {
            theirs.store(ahead, Ordering::Relaxed);
            agreement.compare().await;
            assert_eq!(agreement.state(), state);
            let by = clock.ahead();
            assert!((by - if counts { ahead } else { 0 }).abs() < 400, "{by} for {ahead}");
        }
    }

    #[tokio::test]
    async fn a_store_that_does_not_say_changes_nothing() {
        let clock = Arc::new(SharedClock::default());
        let agreement = Agreement::new(clock.clone(), Box::new(|| Box::pin(std::future::ready(None))));
        clock.agree(7_000);
        agreement.compare().await;
        assert_eq!(agreement.state(), "ok");
        assert!((clock.ahead() - 7_000).abs() < 400);
    }

    #[tokio::test]
    async fn a_clock_that_was_set_is_compared_until_the_database_answers() {
        let start = Timestamp::from_unix_seconds(1_000_000);
        let (clock, answers) = (Arc::new(ManualClock::at(start)), Arc::new(AtomicBool::new(false)));
        let asked: Asked = {
            let (clock, answers) = (clock.clone(), answers.clone());
            Box::new(move || {
                let time = answers.load(Ordering::Relaxed).then(|| clock.now());
                Box::pin(std::future::ready(time))
            })
        };
        let agreement = Agreement::new(clock.clone(), asked);
        let mut lead = agreement.lead();
        clock.set(start.minus(Duration::from_hours(1)));
        assert!(agreement.look(&mut lead, false).await);
        assert!(!agreement.look(&mut lead, false).await, "it may have no clock");
        answers.store(true, Ordering::Relaxed);
        assert!(agreement.look(&mut lead, true).await);
        answers.store(false, Ordering::Relaxed);
        assert!(!agreement.look(&mut lead, false).await);
        clock.set(start.minus(Duration::from_hours(2)));
        for _ in 0..3 {
            assert!(agreement.look(&mut lead, false).await);
        }
        answers.store(true, Ordering::Relaxed);
        assert!(agreement.look(&mut lead, false).await);
        assert!(!agreement.look(&mut lead, false).await);
    }
}
