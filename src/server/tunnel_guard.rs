//! What a tunnel holds of the connection that it began on: a connection of HTTP/1 is its alone from then on, one of HTTP/2
//! goes on with other streams. Carries no bytes.

use std::rc::Rc;

use tokio::task::AbortHandle;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use super::{
    flow::{Flow, Flows, Newest},
    monitor::ActiveRequest,
    state::{ConnectionPermit, Worker},
};

/// Makes the guards of the tunnels of one connection.
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

/// Keeps a tunnel's connection from counting as idle or not at all, a drain from ending before the tunnel, and a client
/// from taking nothing for ever. With the last copy of it goes what has not been sent.
///
/// On HTTP/2 it is to be made right before the answer is given that makes a tunnel of the stream.
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
    /// The task to end when the client takes nothing. On HTTP/2 it is the protocol's own, as soon as there is one.
    pub fn runs_in(&self, task: AbortHandle) {
        self.0.flow.runs_in(task);
    }

    /// The client takes nothing at the moment. Its time runs on from the first such moment.
    pub fn waits(&self) {
        self.0.flow.waits();
    }

    /// The client is to do something; its time runs from now.
    pub fn expects(&self) {
        self.0.flow.gave();
    }

    /// Nothing is asked of the client.
    pub fn rests(&self) {
        self.0.flow.rests();
    }

    /// Whether the client can be sent nothing any more.
    pub fn is_gone(&self) -> bool {
        self.0.flow.has_ended()
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        self.flow.cut();
    }
}
