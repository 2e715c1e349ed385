//! The load of the gateway, in three levels. Only measures; others decide what to refuse.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{Config, memory};

/// Percentage of memory or connections from which the gateway is strained, and of memory from which it is full.
const STRAINED: u64 = 80;
const FULL: u64 = 95;
/// Hysteresis: how far below its threshold a level ends.
const RELIEF: u64 = 5;
/// Silence of the control runtime above which it gets no more requests without a session.
const LATE: Duration = Duration::from_secs(2);

/// The load level of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LoadLevel {
    Normal = 0,
    /// Requests without a session are refused, and idle connections are closed.
    Strained = 1,
    /// New connections are refused.
    Full = 2,
}

impl fmt::Display for LoadLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "normal",
            Self::Strained => "strained",
            Self::Full => "full",
        })
    }
}

/// The load of one gateway.
#[derive(Debug)]
pub struct Load {
    level: AtomicU8,
    memory: AtomicU64,
    max_memory: u64,
    connections: AtomicUsize,
    max_connections: usize,
}

/// One open connection; counts until it is dropped.
#[derive(Debug)]
pub(super) struct Open(Arc<Load>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

impl Load {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            level: AtomicU8::new(LoadLevel::Normal as u8),
            memory: AtomicU64::new(0),
            max_memory: config.max_memory.unwrap_or_else(memory::budget),
            connections: AtomicUsize::new(0),
            max_connections: config.max_connections,
        }
    }

    pub fn level(&self) -> LoadLevel {
        match self.level.load(Relaxed) {
            0 => LoadLevel::Normal,
            1 => LoadLevel::Strained,
            _ => LoadLevel::Full,
        }
    }

    /// Whether requests without a session are refused.
    pub fn is_strained(&self) -> bool {
        self.level.load(Relaxed) >= LoadLevel::Strained as u8
    }

    /// Resident bytes at the last measurement.
    pub fn memory(&self) -> u64 {
        self.memory.load(Relaxed)
    }

    /// The memory limit, in bytes.
    pub fn max_memory(&self) -> u64 {
        self.max_memory
    }

    /// Whether no client has a connection open.
    pub(super) fn is_idle(&self) -> bool {
        self.connections.load(Relaxed) == 0
    }

    /// Counts a connection.
    pub(super) fn open(self: &Arc<Self>) -> Open {
        self.connections.fetch_add(1, Relaxed);
        Open(Arc::clone(self))
    }

    /// Measures the load. Call it a few times per second while there are connections.
    pub(super) fn measure(&self, control_silence: Duration) {
        let memory = memory::resident().unwrap_or(0);
        self.memory.store(memory, Relaxed);
        self.judge(memory, self.connections.load(Relaxed), control_silence);
    }

    fn judge(&self, memory: u64, connections: usize, control_silence: Duration) {
        let before = self.level();
        let of_memory = percent(memory, self.max_memory);
        let of_connections = percent(count(connections), count(self.max_connections));
        let held = |level: LoadLevel, threshold| if before >= level { threshold - RELIEF } else { threshold };
        let level = if of_memory >= held(LoadLevel::Full, FULL) {
            LoadLevel::Full
        } else if of_memory.max(of_connections) >= held(LoadLevel::Strained, STRAINED)
            || control_silence >= LATE
        {
            LoadLevel::Strained
        } else {
            LoadLevel::Normal
        };
        if level == before {
            return;
        }
        self.level.store(level as u8, Relaxed);
        let (memory_percent, connections_percent) = (of_memory, of_connections);
        match level {
            LoadLevel::Normal => tracing::info!(memory_percent, connections_percent, "the strain is over"),
            LoadLevel::Strained => tracing::warn!(
                memory_percent,
                connections_percent,
                late_ms = control_silence.as_millis(),
                "under strain: requests without a session are turned away, idle connections closed"
            ),
            LoadLevel::Full => tracing::error!(
                memory_percent,
                connections_percent,
                "full: new connections are closed until memory is free again (server.max_memory)"
            ),
        }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100) / whole.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Duration = Duration::ZERO;

    fn load() -> Load {
        Load {
            level: AtomicU8::new(0),
            memory: AtomicU64::new(0),
            max_memory: 1000,
            connections: AtomicUsize::new(0),
            max_connections: 100,
        }
    }

    #[test]
    fn memory_strains_at_80_per_cent_fills_at_95_and_is_relieved_5_below() {
        let load = load();
        let mut level = |memory| {
            load.judge(memory, 0, NONE);
            load.level()
        };
        assert_eq!(
            [799, 800, 949].map(&mut level),
            [LoadLevel::Normal, LoadLevel::Strained, LoadLevel::Strained]
        );
        assert_eq!([950, 900, 899].map(&mut level), [LoadLevel::Full, LoadLevel::Full, LoadLevel::Strained]);
        assert_eq!(
            [750, 749, 799].map(&mut level),
            [LoadLevel::Strained, LoadLevel::Normal, LoadLevel::Normal]
        );
        assert_eq!(level(5000), LoadLevel::Full);
        assert_eq!(level(10), LoadLevel::Normal);
    }

    #[test]
    fn connections_and_a_late_control_runtime_strain_and_never_fill() {
        let load = load();
        load.judge(0, 79, NONE);
        assert!(!load.is_strained());
        load.judge(0, 100, NONE);
        assert_eq!(load.level(), LoadLevel::Strained);
        load.judge(0, 74, NONE);
        assert_eq!(load.level(), LoadLevel::Normal);
        load.judge(0, 0, LATE);
        assert!(load.is_strained());
    }

    #[test]
    fn a_connection_counts_until_it_is_closed() {
        let load = Arc::new(load());
        let open = [load.open(), load.open()];
        assert_eq!(load.connections.load(Relaxed), 2);
        drop(open);
        assert_eq!(load.connections.load(Relaxed), 0);
    }
}
