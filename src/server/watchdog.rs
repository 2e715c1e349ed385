//! The watchdog thread, which depends on no runtime. It drives [`Health`](super::Health) and [`Load`](super::Load).

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
};

use super::{
    health::{Health, next_look},
    load::Load,
};
use crate::background::{BEAT, next_tick};

/// Runs until it is dropped.
pub(super) struct Watchdog {
    _stop: mpsc::Sender<()>,
    control: tokio::task::JoinHandle<()>,
}

impl Watchdog {
    /// Starts the thread. The calling runtime is watched as the control runtime.
    pub(super) fn start(health: Arc<Health>, load: Arc<Load>) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let control = tokio::spawn(beat(Arc::clone(&health), Arc::clone(&load)));
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            let (mut looks, mut pause) = next_look(&load);
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(pause) {
                health.look(looks);
                load.measure(health.control().silence());
                (looks, pause) = next_look(&load);
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

async fn beat(health: Arc<Health>, load: Arc<Load>) {
    loop {
        health.control().beat();
        tokio::time::sleep_until(next_tick(next_look(&load).1.min(BEAT))).await;
    }
}
