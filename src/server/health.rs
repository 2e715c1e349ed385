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

use super::load::Load;

/// How often the watchdog looks, and how often each thread gives a sign of life.
const LOOK: Duration = Duration::from_millis(250);
/// A gateway without connections does so every so many looks.
const IDLE_LOOKS: u32 = 4;
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
    fn look(&self, looks: u32) {
        let turns = self.turns.load(Relaxed);
        let was_hung = self.is_hung();
        if self.turns_seen.swap(turns, Relaxed) == turns {
            self.silent_looks.store(self.silent_looks.load(Relaxed).saturating_add(looks), Relaxed);
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

/// In how many looks, and how much time, it is time for the next one.
pub(super) fn next_look(load: &Load) -> (u32, Duration) {
    let looks = if load.is_idle() { IDLE_LOOKS } else { 1 };
    (looks, LOOK * looks)
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

    /// Looks at every thread, after the time of so many looks.
    pub(super) fn look(&self, looks: u32) {
        self.workers.iter().chain([&self.control]).for_each(|heartbeat| heartbeat.look(looks));
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
    use crate::server::tests::config;

    fn looks(health: &Health, count: u32) {
        (0..count).for_each(|_| health.look(1));
    }

    #[test]
    fn a_thread_that_does_not_turn_is_named_until_it_turns_again() {
        let health = Health::new(2);
        let [first, worker] = health.workers() else { panic!("two were asked for") };
        for _ in 0..100 {
            first.beat();
            health.control().beat();
            worker.beat();
            health.look(1);
        }
        assert_eq!(health.hung(), []);
        for _ in 0..24 {
            first.beat();
            health.control().beat();
            health.look(1);
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

    #[test]
    fn a_gateway_without_connections_is_looked_at_less_often_and_its_silence_counts_the_same() {
        let load = Arc::new(Load::new(&config(1)));
        assert_eq!(next_look(&load), (4, Duration::from_secs(1)));
        let open = load.open();
        assert_eq!(next_look(&load), (1, Duration::from_millis(250)));
        drop(open);
        let health = Health::new(1);
        (0..4).for_each(|_| health.look(next_look(&load).0));
        assert_eq!(health.hung(), []);
        health.look(next_look(&load).0);
        assert_eq!(health.hung().len(), 2);
        assert_eq!(health.control().silence(), Duration::from_secs(5));
    }
}
