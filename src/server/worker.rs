//! One worker: a thread with its own runtime, listeners and connections. Workers share no lock on the path of a request.

use std::{
    io,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::LocalRuntime,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    Config, Door, Refused, Service,
    connection::{self, Front},
    health::{Heartbeat, next_look},
    listener::{Accepting, Listening},
    load::{Load, LoadLevel},
    monitor::ConnectionMonitor,
    networks::{NetworkLimits, TooMany},
    plain,
    state::{ConnectionPermit, Worker},
    timeouts::Timeouts,
};
use crate::{
    background::{BEAT, next_tick},
    tls::Acceptance,
    web::socket::Socket,
};

/// The pause after running out of file descriptors.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// One in this many connections may be of plain HTTP.
const PLAIN_SHARE: usize = 8;

/// The parameters of a worker.
pub(super) struct Start {
    pub(super) config: Arc<Config>,
    pub(super) listeners: Vec<(Door, Listening)>,
    pub(super) tls: Arc<ArcSwap<Acceptance>>,
    pub(super) drain: CancellationToken,
    pub(super) heartbeat: Arc<Heartbeat>,
    pub(super) networks: Arc<NetworkLimits>,
    pub(super) load: Arc<Load>,
}

/// Serves on the calling thread until the drain is over.
pub(super) fn run<S: Service>(start: Start, service: impl FnOnce() -> S) -> io::Result<()> {
    let runtime = LocalRuntime::new()?;
    runtime.block_on(async {
        let Start { config, listeners, tls, drain, heartbeat, networks, load } = start;
        let worker = Worker::new(config, service(), drain, load, networks, tls);
        let mut sweep = tokio::task::spawn_local(sweep(Rc::clone(&worker), heartbeat));
        let mut accepting = JoinSet::new();
        let most = worker.config.connections_per_worker();
        let permits = Arc::new(Semaphore::new(most));
        // A flood of plain HTTP takes no places from HTTPS.
        let permits_of_plain = Arc::new(Semaphore::new(most.div_ceil(PLAIN_SHARE)));
        for (door, listener) in listeners {
            let listener = listener.begin()?;
            let permits = Arc::clone(if door == Door::Redirect { &permits_of_plain } else { &permits });
            accepting.spawn_local(accept(Rc::clone(&worker), (door, listener), permits));
        }
        tokio::select! {
            biased;
            () = worker.drain.cancelled() => {}
            // A worker that lost one of them would accept connections without checking their deadlines, or the reverse.
            _ = accepting.join_next() => return Err(io::Error::other("a listener's task ended")),
            _ = &mut sweep => return Err(io::Error::other("the sweep ended")),
        }
        worker.monitors.borrow().iter().filter_map(Weak::upgrade).for_each(|monitor| monitor.drain());
        // They end with the drain; waiting for them frees the port first.
        while accepting.join_next().await.is_some() {}
        worker.tasks.close();
        let _ = tokio::time::timeout(worker.config.drain_timeout, worker.tasks.wait()).await;
        sweep.abort();
        Ok(())
    })
}

async fn accept<S: Service>(
    worker: Rc<Worker<S>>,
    (door, listener): (Door, Accepting),
    permits: Arc<Semaphore>,
) {
    loop {
        // The permit comes before the socket: at the limit, clients wait in the kernel's queue.
        let accepted = tokio::select! {
            biased;
            () = worker.drain.cancelled() => return,
            accepted = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (permit, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (Ok(permit), Ok((Some(socket), peer))) => {
                take(&worker, door, socket, peer, permit);
            }
            // The client has gone.
            (Ok(_), Ok((None, _))) => {}
            // Out of file descriptors, or the client has gone: neither ends the worker.
            (Ok(_), Err(error)) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_BACK_OFF).await;
            }
            // The semaphore is never closed.
            (Err(_), _) => return,
        }
    }
}

/// Starts serving a connection, unless there is no room for it.
fn take<S: Service>(
    worker: &Rc<Worker<S>>,
    door: Door,
    socket: Socket,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    if worker.load.level() == LoadLevel::Full {
        return worker.service.refused(Refused::Overload);
    }
    let front = Front::of(worker, door, peer);
    let network = match front {
        // Whose connection it is has yet to be read.
        Front::Tells => None,
        Front::Client | Front::Asks => match worker.admit(peer) {
            Ok(network) => network,
            Err(TooMany) => return,
        },
    };
    let permit = ConnectionPermit::new(permit, network, worker.load.open());
    let its_worker = Rc::clone(worker);
    match door {
        Door::Public | Door::Proxies => {
            worker.tasks.spawn_local(connection::serve(its_worker, socket, peer, front, permit));
        }
        Door::Redirect => {
            worker.tasks.spawn_local(plain::serve(its_worker, socket, peer, front, permit));
        }
    }
}

/// Checks deadlines, and shows that the worker is alive.
async fn sweep<S: Service>(worker: Rc<Worker<S>>, heartbeat: Arc<Heartbeat>) {
    let timeouts = Timeouts::new(&worker.config);
    loop {
        heartbeat.beat();
        worker.advance_ticks();
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
        let next = next_tick(next_look(&worker.load).1.min(BEAT));
        // A first connection ends the long pause of a gateway without any.
        let _ = tokio::time::timeout_at(next, worker.first_connection()).await;
    }
}

/// Closes some idle connections, the longest idle first.
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
