//! Guards for tunnels: a tunnel takes over its HTTP/1 connection, or one stream of an HTTP/2 connection. Carries no bytes.

use std::rc::Rc;

use tokio::task::AbortHandle;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use super::{
    flow::{Flow, Flows, Newest},
    monitor::ActiveRequest,
    state::{ConnectionPermit, Worker},
};

/// Makes guards for the tunnels of one connection.
#[derive(Debug)]
pub(super) struct Tunnels {
    flows: Rc<Flows>,
    tasks: TaskTracker,
    permit: Rc<ConnectionPermit>,
    /// Present on HTTP/2.
    newest: Option<Newest>,
}

impl Tunnels {
    pub(super) fn new<S>(worker: &Worker<S>, newest: Option<Newest>, permit: ConnectionPermit) -> Self {
        let (flows, tasks) = (Rc::clone(&worker.flows), worker.tasks.clone());
        Self { flows, tasks, permit: Rc::new(permit), newest }
    }

    pub(super) fn begin(&self, request: ActiveRequest) -> TunnelGuard {
        let flow = self.flows.begin();
        if let Some(newest) = &self.newest {
            newest.tunnel(Rc::clone(&flow));
        }
        let permit = Rc::clone(&self.permit);
        TunnelGuard(Rc::new(Permits { flow, _request: request, _task: self.tasks.token(), _permit: permit }))
    }
}

/// As long as a tunnel has its guard, its connection counts as busy, a drain waits for it, and its client must keep reading.
/// When the last clone is dropped, unsent bytes are dropped as well.
///
/// On HTTP/2, make it right before the response that turns the stream into a tunnel.
#[derive(Clone, Debug)]
pub struct TunnelGuard(Rc<Permits>);

#[derive(Debug)]
struct Permits {
    flow: Rc<Flow>,
    _request: ActiveRequest,
    _task: TaskTrackerToken,
    _permit: Rc<ConnectionPermit>,
}

impl TunnelGuard {
    /// The task to abort when the client does not read. On HTTP/2, hyper's task for the stream replaces it.
    pub fn runs_in(&self, task: AbortHandle) {
        self.0.flow.runs_in(task);
    }

    /// The client is not reading. Its time started at the first such call.
    pub fn waits(&self) {
        self.0.flow.waits();
    }

    /// The client has data to read; its time starts now.
    pub fn expects(&self) {
        self.0.flow.gave();
    }

    /// There is nothing for the client to read.
    pub fn rests(&self) {
        self.0.flow.rests();
    }

    /// Whether nothing can be sent to the client any more.
    pub fn is_gone(&self) -> bool {
        self.0.flow.has_ended()
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        self.flow.cut();
    }
}
