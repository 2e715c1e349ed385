//! One worker: a thread with its own runtime, listeners and connections. Workers share nothing on the way of a request.

use std::{
    io,
    net::TcpListener as StdListener,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::{
    net::TcpListener,
    runtime::LocalRuntime,
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    Config, Refused, Service,
    connection::serve,
    health::Heartbeat,
    load::{Load, LoadLevel},
    monitor::ConnectionMonitor,
    networks::NetworkLimits,
    state::{ConnectionPermit, Worker},
    timeouts::Timeouts,
};

/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_millis(250);
/// How long to wait after the machine had no descriptor left.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// What a worker is started with.
pub(super) struct Start {
    pub(super) config: Arc<Config>,
    pub(super) listeners: Vec<StdListener>,
    pub(super) tls: Arc<ArcSwap<ServerConfig>>,
    pub(super) drain: CancellationToken,
    pub(super) heartbeat: Arc<Heartbeat>,
    pub(super) networks: Arc<NetworkLimits>,
    pub(super) load: Arc<Load>,
}

/// Serves until the drain is over. Runs on the calling thread.
pub(super) fn run<S: Service>(start: Start, service: impl FnOnce() -> S) -> io::Result<()> {
    let runtime = LocalRuntime::new()?;
    runtime.block_on(async {
        let Start { config, listeners, tls, drain, heartbeat, networks, load } = start;
        let worker = Worker::new(config, service(), drain, load, networks, tls);
        let mut sweep = tokio::task::spawn_local(sweep(Rc::clone(&worker), heartbeat));
        let mut accepting = JoinSet::new();
        let permits = Arc::new(Semaphore::new(worker.config.connections_per_worker()));
        for listener in listeners {
            let listener = TcpListener::from_std(listener)?;
            accepting.spawn_local(accept(Rc::clone(&worker), listener, Arc::clone(&permits)));
        }
        tokio::select! {
            biased;
            () = worker.drain.cancelled() => {}
            // Without one of them the worker would take connections and not look after them, or the reverse.
            _ = accepting.join_next() => return Err(io::Error::other("a listener's task ended")),
            _ = &mut sweep => return Err(io::Error::other("the sweep ended")),
        }
        worker.monitors.borrow().iter().filter_map(Weak::upgrade).for_each(|monitor| monitor.drain());
        // They end on the drain by themselves; waiting frees the port before anything else.
        while accepting.join_next().await.is_some() {}
        worker.tasks.close();
        let _ = tokio::time::timeout(worker.config.drain_timeout, worker.tasks.wait()).await;
        sweep.abort();
        Ok(())
    })
}

async fn accept<S: Service>(worker: Rc<Worker<S>>, listener: TcpListener, permits: Arc<Semaphore>) {
    loop {
        // The place is taken before the socket: at the limit, clients wait in the kernel's queue.
        let accepted = tokio::select! {
            biased;
            () = worker.drain.cancelled() => return,
            accepted = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (permit, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (Ok(permit), Ok((socket, peer))) => {
                if worker.load.level() == LoadLevel::Full {
                    worker.service.refused(Refused::Overload);
                    continue;
                }
                let Ok(network) = worker.networks.admit(peer.ip(), Instant::now()) else {
                    worker.service.refused(Refused::Network);
                    continue;
                };
                let permit = ConnectionPermit::new(permit, network, worker.load.open());
                worker.tasks.spawn_local(serve(Rc::clone(&worker), socket, peer, permit));
            }
            // Out of descriptors, or a client gone before it was accepted: neither ends the worker.
            (Ok(_), Err(error)) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_BACK_OFF).await;
            }
            // The semaphore is never closed.
            (Err(_), _) => return,
        }
    }
}

async fn sweep<S: Service>(worker: Rc<Worker<S>>, heartbeat: Arc<Heartbeat>) {
    let timeouts = Timeouts::new(&worker.config);
    let start = Instant::now();
    let mut interval = tokio::time::interval(SWEEP);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        heartbeat.beat();
        worker.ticks.advance_to(u32::try_from(start.elapsed().as_millis()).unwrap_or(u32::MAX));
        worker.monitors.borrow_mut().retain(|monitor| {
            monitor.upgrade().is_some_and(|monitor| {
                monitor.check(timeouts);
                true
            })
        });
        if worker.load.is_strained() {
            close_idle(&worker.monitors.borrow());
        }
        worker.flows.check(timeouts);
    }
}

/// Closes some of the connections that do nothing, those first that have done nothing for longest.
fn close_idle(monitors: &[Weak<ConnectionMonitor>]) {
    let idle = monitors.iter().filter_map(Weak::upgrade);
    let mut idle: Vec<_> = idle.filter_map(|monitor| Some((monitor.idle_since()?, monitor))).collect();
    idle.sort_unstable_by_key(|(since, _)| *since);
    let some = idle.len().div_ceil(4);
    idle.iter().take(some).for_each(|(_, monitor)| monitor.expire());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::timeouts::Ticks;

    #[test]
    fn under_strain_the_connections_idle_for_longest_are_closed_first() {
        let ticks = Rc::new(Ticks::new());
        let monitors: Vec<_> = (1..=8)
            .map(|number| {
                ticks.advance_to(number * 10);
                let monitor = ConnectionMonitor::new(Rc::clone(&ticks));
                monitor.received(false);
                monitor
            })
            .rev()
            .collect();
        let _busy = monitors[7].begin();
        let weak: Vec<_> = monitors.iter().map(Rc::downgrade).collect();
        let closed = || monitors.iter().map(|monitor| u8::from(monitor.is_expired())).collect::<Vec<_>>();
        close_idle(&weak);
        assert_eq!(closed(), [0, 0, 0, 0, 0, 1, 1, 0], "the oldest of all is at work");
        close_idle(&weak);
        assert_eq!(closed(), [0, 0, 0, 1, 1, 1, 1, 0]);
        (0..8).for_each(|_| close_idle(&weak));
        assert_eq!(closed(), [1, 1, 1, 1, 1, 1, 1, 0]);
    }
}
