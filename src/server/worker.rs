//! One worker: a thread with its own runtime, listeners and connections. Workers share nothing on the way of a request.

use std::{
    cell::RefCell,
    io,
    net::TcpListener as StdListener,
    rc::Rc,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::{
    net::TcpListener,
    runtime::LocalRuntime,
    sync::Semaphore,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Config, Service,
    connection::serve,
    flow::Flows,
    watch::{Patience, Ticks, Watch},
};

/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_millis(250);
/// How long to wait after the machine had no descriptor left.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// What the connections of one worker share.
pub(super) struct Worker<S> {
    pub(super) config: Arc<Config>,
    pub(super) service: Rc<S>,
    pub(super) drain: CancellationToken,
    tls: Arc<ArcSwap<ServerConfig>>,
    ticks: Arc<Ticks>,
    watches: RefCell<Vec<Weak<Watch>>>,
    pub(super) flows: Rc<Flows>,
    pub(super) tasks: TaskTracker,
}

/// What a worker is started with.
pub(super) struct Start {
    pub(super) config: Arc<Config>,
    pub(super) listeners: Vec<StdListener>,
    pub(super) tls: Arc<ArcSwap<ServerConfig>>,
    pub(super) drain: CancellationToken,
}

/// Serves until the drain is over. Runs on the calling thread.
pub(super) fn run<S: Service>(start: Start, service: impl FnOnce() -> S) -> io::Result<()> {
    let runtime = LocalRuntime::new()?;
    runtime.block_on(async {
        let ticks = Arc::new(Ticks::new());
        let worker = Rc::new(Worker {
            config: start.config,
            service: Rc::new(service()),
            drain: start.drain,
            tls: start.tls,
            flows: Flows::new(Arc::clone(&ticks)),
            ticks,
            watches: RefCell::new(Vec::new()),
            tasks: TaskTracker::new(),
        });
        let sweep = tokio::task::spawn_local(sweep(Rc::clone(&worker)));
        let places = Arc::new(Semaphore::new(worker.config.connections_per_worker()));
        let mut accepting = Vec::new();
        for listener in start.listeners {
            let listener = TcpListener::from_std(listener)?;
            accepting.push(tokio::task::spawn_local(accept(
                Rc::clone(&worker),
                listener,
                Arc::clone(&places),
            )));
        }
        worker.drain.cancelled().await;
        worker.watches.borrow().iter().filter_map(Weak::upgrade).for_each(|watch| watch.drain());
        for task in accepting {
            // It ends on the drain by itself; waiting frees the port before anything else.
            let _ = task.await;
        }
        worker.tasks.close();
        let _ = tokio::time::timeout(worker.config.drain_timeout, worker.tasks.wait()).await;
        sweep.abort();
        Ok(())
    })
}

impl<S: Service> Worker<S> {
    /// The certificate in force now.
    pub(super) fn tls(&self) -> Arc<ServerConfig> {
        self.tls.load_full()
    }

    /// Starts watching a connection.
    pub(super) fn register(&self) -> Arc<Watch> {
        let watch = Watch::new(Arc::clone(&self.ticks));
        if self.drain.is_cancelled() {
            watch.drain();
        }
        self.watches.borrow_mut().push(Arc::downgrade(&watch));
        watch
    }
}

async fn accept<S: Service>(worker: Rc<Worker<S>>, listener: TcpListener, places: Arc<Semaphore>) {
    loop {
        // The place is taken before the socket: at the limit, clients wait in the kernel's queue.
        let accepted = tokio::select! {
            biased;
            () = worker.drain.cancelled() => return,
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (Ok(place), Ok((socket, peer))) => {
                worker.tasks.spawn_local(serve(Rc::clone(&worker), socket, peer, place));
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

async fn sweep<S: Service>(worker: Rc<Worker<S>>) {
    let patience = Patience::new(&worker.config);
    let start = Instant::now();
    let mut interval = tokio::time::interval(SWEEP);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        worker.ticks.advance_to(u32::try_from(start.elapsed().as_millis()).unwrap_or(u32::MAX));
        worker.watches.borrow_mut().retain(|watch| {
            watch.upgrade().is_some_and(|watch| {
                watch.check(patience);
                true
            })
        });
        worker.flows.check(patience.stall);
    }
}
