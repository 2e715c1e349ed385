//! The watchdog thread, which depends on no runtime. It drives [`Health`](super::Health) and [`Load`](super::Load).

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
};

use tokio::time::MissedTickBehavior;

use super::{
    health::{Health, LOOK},
    load::Load,
};

/// Runs until it is dropped.
pub(super) struct Watchdog {
    _stop: mpsc::Sender<()>,
    control: tokio::task::JoinHandle<()>,
}

impl Watchdog {
    /// Starts the thread. The calling runtime is watched as the control runtime.
    pub(super) fn start(health: Arc<Health>, load: Arc<Load>) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let control = tokio::spawn(beat(Arc::clone(&health)));
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK) {
                health.look();
                load.measure(health.control().silence());
            }
        })?;
        Ok(Self { _stop: stop, control })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.control.abort();
    }
}

async fn beat(health: Arc<Health>) {
    let mut interval = tokio::time::interval(LOOK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        health.control().beat();
    }
}
