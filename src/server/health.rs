//! Detects threads that hang. Only reports them; others decide what to do about it.
//!
//! Silence is counted in looks of the watchdog, not in clock time: a process that was paused is not hung.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

/// How often the watchdog looks.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// Looks without a heartbeat after which a thread counts as hung: five seconds.
const HUNG: u32 = 20;

/// The heartbeat of one thread.
#[derive(Debug)]
pub(super) struct Heartbeat {
    name: String,
    turns: AtomicU32,
    turns_seen: AtomicU32,
    silent_looks: AtomicU32,
    has_ended: AtomicBool,
}

/// A thread that hangs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hung {
    pub name: String,
    pub silence: Duration,
}

impl fmt::Display for Hung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has not turned for {} s", self.name, self.silence.as_secs())
    }
}

impl Heartbeat {
    fn new(name: String) -> Arc<Self> {
        Arc::new(Self {
            name,
            turns: AtomicU32::new(0),
            turns_seen: AtomicU32::new(0),
            silent_looks: AtomicU32::new(0),
            has_ended: AtomicBool::new(false),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Called by the thread on each turn of its event loop.
    pub(super) fn beat(&self) {
        self.turns.fetch_add(1, Relaxed);
    }

    /// The thread has ended. Whether that was intended is reported elsewhere.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Relaxed);
    }

    pub(super) fn silence(&self) -> Duration {
        LOOK * self.silent_looks.load(Relaxed)
    }

    fn is_hung(&self) -> bool {
        self.silent_looks.load(Relaxed) >= HUNG && !self.has_ended.load(Relaxed)
    }

    /// Logs when the thread starts to hang, and when it recovers.
    fn look(&self) {
        let turns = self.turns.load(Relaxed);
        let was_hung = self.is_hung();
        if self.turns_seen.swap(turns, Relaxed) == turns {
            self.silent_looks.store(self.silent_looks.load(Relaxed).saturating_add(1), Relaxed);
        } else {
            self.silent_looks.store(0, Relaxed);
        }
        match (was_hung, self.is_hung()) {
            (false, true) => {
                tracing::error!(
                    thread = self.name,
                    "a thread hangs: what it serves stands still; if it stays so, restart the gateway"
                );
            }
            (true, false) => tracing::warn!(thread = self.name, "a thread that hung turns again"),
            _ => {}
        }
    }
}

/// The heartbeats of all threads of a gateway.
#[derive(Debug)]
pub struct Health {
    workers: Vec<Arc<Heartbeat>>,
    control: Arc<Heartbeat>,
}

impl Health {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|number| Heartbeat::new(format!("worker-{number}"))).collect(),
            control: Heartbeat::new("control".to_owned()),
        }
    }

    pub(super) fn workers(&self) -> &[Arc<Heartbeat>] {
        &self.workers
    }

    /// The runtime of our own pages and the stores.
    pub(super) fn control(&self) -> &Arc<Heartbeat> {
        &self.control
    }

    /// Looks at every thread once. Call it every [`LOOK`].
    pub(super) fn look(&self) {
        self.workers.iter().chain([&self.control]).for_each(|heartbeat| heartbeat.look());
    }

    /// Threads without a heartbeat for five seconds or more.
    pub fn hung(&self) -> Vec<Hung> {
        let heartbeats = self.workers.iter().chain([&self.control]).filter(|heartbeat| heartbeat.is_hung());
        heartbeats
            .map(|heartbeat| Hung { name: heartbeat.name.clone(), silence: heartbeat.silence() })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(health: &Health, count: u32) {
        (0..count).for_each(|_| health.look());
    }

    #[test]
    fn a_thread_that_does_not_turn_is_named_until_it_turns_again() {
        let health = Health::new(2);
        let [first, worker] = health.workers() else { panic!("two were asked for") };
        for _ in 0..100 {
            first.beat();
            health.control().beat();
            worker.beat();
            health.look();
        }
        assert_eq!(health.hung(), []);
        for _ in 0..24 {
            first.beat();
            health.control().beat();
            health.look();
        }
        let hung = Hung { name: "worker-1".into(), silence: Duration::from_secs(6) };
        assert_eq!(health.hung(), std::slice::from_ref(&hung));
        assert_eq!(hung.to_string(), "worker-1 has not turned for 6 s");
        worker.beat();
        looks(&health, 1);
        assert_eq!(health.hung(), []);
    }

    #[test]
    fn a_thread_that_has_ended_does_not_hang() {
        let health = Health::new(1);
        health.workers()[0].end();
        looks(&health, 19);
        health.control().beat();
        looks(&health, 20);
        assert_eq!(health.hung(), []);
        looks(&health, 1);
        assert_eq!(health.hung().len(), 1, "the other one still counts");
    }
}
