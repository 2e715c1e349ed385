//! Flows to a client that may stop reading while its connection stays busy: a response on HTTP/2, or a tunnel.
//!
//! When a flow-control window stays closed, hyper merely stops polling the body, so that is what is watched here.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

use tokio::task::AbortHandle;

use super::{
    slow_reader::SlowReader,
    timeouts::{Ticks, Timeouts},
};

/// The account of one flow.
#[derive(Debug)]
pub(super) struct Flow {
    ticks: Rc<Ticks>,
    slow_reader: SlowReader,
    task: RefCell<Option<AbortHandle>>,
}

impl Flow {
    pub(super) fn new(ticks: Rc<Ticks>) -> Rc<Self> {
        Rc::new(Self { ticks, slow_reader: SlowReader::default(), task: RefCell::new(None) })
    }

    /// The task of the stream; aborting it resets the stream.
    pub(super) fn runs_in(&self, task: AbortHandle) {
        self.task.replace(Some(task));
    }

    /// hyper polls for more, having sent `bytes`.
    pub(super) fn asked(&self, bytes: u32) {
        self.slow_reader.take(bytes, &self.ticks);
    }

    /// There is nothing for the client to read; its account starts afresh.
    pub(super) fn rests(&self) {
        self.slow_reader.rest();
    }

    /// hyper got a part, and will poll again once the client has read it.
    pub(super) fn gave(&self) {
        self.slow_reader.expect(&self.ticks);
    }

    /// The client is not reading. Its time started at the first such call.
    pub(super) fn waits(&self) {
        self.slow_reader.block(&self.ticks);
    }

    /// Whether the task has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.task.borrow().as_ref().is_some_and(AbortHandle::is_finished)
    }

    /// Aborts the task, which resets the stream.
    pub(super) fn cut(&self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Resets the stream when the client reads too slowly.
    pub(super) fn check(&self, timeouts: Timeouts) {
        if self.slow_reader.is_too_slow(timeouts, &self.ticks) {
            self.cut();
        }
    }
}

/// The flows of a worker.
#[derive(Debug)]
pub(super) struct Flows {
    ticks: Rc<Ticks>,
    flows: RefCell<Vec<Weak<Flow>>>,
}

impl Flows {
    pub(super) fn new(ticks: Rc<Ticks>) -> Rc<Self> {
        Rc::new(Self { ticks, flows: RefCell::new(Vec::new()) })
    }

    /// Starts a flow.
    pub(super) fn begin(&self) -> Rc<Flow> {
        let flow = Flow::new(Rc::clone(&self.ticks));
        self.flows.borrow_mut().push(Rc::downgrade(&flow));
        flow
    }

    /// Resets all whose clients read too slowly.
    pub(super) fn check(&self, timeouts: Timeouts) {
        self.flows.borrow_mut().retain(|flow| {
            flow.upgrade().is_some_and(|flow| {
                flow.check(timeouts);
                true
            })
        });
    }
}

/// The flow that hyper is about to start a task for. hyper does not tell its executor which stream a task is for, so this
/// rests on the order of its calls, which is no promise of its interface: `Cargo.toml` pins the version that was read for it.
///
/// - `proto::h2::server::Server::poll_server` calls the service for a stream and hands the stream's task to the executor
///   right after, before it accepts another stream.
/// - `proto::h2::server::H2Stream::poll2` hands the task of a tunnel to the executor in the same poll in which the service's
///   future was ready.
#[derive(Clone, Debug, Default)]
pub(super) struct Newest(Rc<RefCell<Option<Awaited>>>);

#[derive(Debug)]
enum Awaited {
    Stream(Rc<Flow>),
    Tunnel(Rc<Flow>),
}

impl Newest {
    /// The service has been called for a stream.
    pub(super) fn stream(&self, flow: Rc<Flow>) {
        let before = self.0.replace(Some(Awaited::Stream(flow)));
        // A tunnel's may be left: if its client has reset the stream meanwhile, no task is started.
        debug_assert!(!matches!(before, Some(Awaited::Stream(_))), "a stream's task has not been started");
    }

    /// A stream is about to become a tunnel.
    pub(super) fn tunnel(&self, flow: Rc<Flow>) {
        let before = self.0.replace(Some(Awaited::Tunnel(flow)));
        debug_assert!(!matches!(before, Some(Awaited::Stream(_))), "a stream's task has not been started");
    }

    /// A task is started.
    pub(super) fn take(&self) -> Option<Rc<Flow>> {
        self.0.take().map(|(Awaited::Stream(flow) | Awaited::Tunnel(flow))| flow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts = Timeouts::with(300, 1000);

    fn flow() -> (Rc<Ticks>, Rc<Flow>, tokio::task::JoinHandle<()>) {
        let ticks = Rc::new(Ticks::new());
        let flow = Flow::new(Rc::clone(&ticks));
        let task = tokio::spawn(std::future::pending());
        flow.runs_in(task.abort_handle());
        (ticks, flow, task)
    }

    #[tokio::test]
    async fn an_answer_that_is_not_taken_is_given_up_and_one_that_waits_for_us_is_not() {
        let (ticks, flow, task) = flow();
        ticks.advance_to(10_000);
        flow.check(TIMEOUTS);
        flow.gave();
        ticks.advance_to(10_299);
        flow.check(TIMEOUTS);
        flow.asked(1000);
        ticks.advance_to(20_000);
        flow.check(TIMEOUTS);
        tokio::task::yield_now().await;
        assert!(!task.is_finished());

        flow.gave();
        ticks.advance_to(20_300);
        flow.check(TIMEOUTS);
        assert!(task.await.unwrap_err().is_cancelled());
    }

    #[tokio::test]
    async fn an_answer_that_is_taken_in_crumbs_is_given_up_too() {
        let (ticks, flow, task) = flow();
        for crumb in 0..3 {
            flow.gave();
            ticks.advance_to(1 + (crumb + 1) * 99);
            flow.asked(1);
            flow.check(TIMEOUTS);
        }
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        flow.gave();
        ticks.advance_to(301);
        flow.check(TIMEOUTS);
        assert!(task.await.unwrap_err().is_cancelled());
    }
}
