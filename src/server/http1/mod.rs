//! HTTP/1.1 towards clients (RFC 9112): one request and its answer at a time on a connection.
//!
//! The connection's task polls the service, and reads a body only as fast as the service does. Heads are parsed in
//! `http1::request_head`.

mod answer_head;
mod body_reader;
mod wire;
mod work;

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use self::{wire::Wire, work::Work};
use super::{Service, client::ConnectionHandle, monitor::ConnectionMonitor, state::Worker};
use crate::{
    http1::request_head::{self, RequestHead},
    web::{gate::Refusal, incoming::Incoming, socket::ClientStream, upgraded::Upgraded},
};

/// Most stages in one poll, for fairness towards other connections; a request takes two.
const MOST_A_TURN: usize = 32;

/// One connection, until it closes or is upgraded.
pub(super) struct Http1<S: Service> {
    worker: Rc<Worker<S>>,
    connection: Rc<ConnectionHandle>,
    context: Rc<S::Context>,
    monitor: Rc<ConnectionMonitor>,
    /// Absent after an upgrade.
    wire: Option<Wire>,
    stage: Stage<S::Body>,
}

enum Stage<B> {
    /// Waits for a head.
    Head,
    /// A request is being answered.
    Work(Work<B>),
    /// Closing, while the client may still be sending.
    End { hears_out: bool },
}

impl<S: Service> Http1<S> {
    pub(super) fn new(
        worker: Rc<Worker<S>>,
        connection: Rc<ConnectionHandle>,
        context: Rc<S::Context>,
        stream: ClientStream,
    ) -> Self {
        let monitor = Rc::clone(connection.monitor());
        let wire = Some(Wire::new(stream, Rc::clone(&monitor)));
        Self { worker, connection, context, monitor, wire, stage: Stage::Head }
    }

    fn poll_stage(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..MOST_A_TURN {
            let Some(wire) = &mut self.wire else { return Poll::Ready(Ok(())) };
            self.stage = match &mut self.stage {
                Stage::Head => {
                    match ready!(poll_head(wire, self.worker.config.max_header_size, &self.monitor, cx))? {
                        Some(Ok(head)) => {
                            let read = &mut wire.read.bytes;
                            let (connection, context) =
                                (Rc::clone(&self.connection), Rc::clone(&self.context));
                            let service = Rc::clone(&self.worker.service);
                            Stage::Work(Work::ask(head, read, self.monitor.begin(), |request| {
                                Box::pin(service.call(request, connection, context))
                            }))
                        }
                        Some(Err(refusal)) => {
                            let (service, peer) = (Rc::clone(&self.worker.service), self.connection.peer());
                            Stage::Work(Work::refuse(
                                service.refuse(refusal, &wire.read.bytes, peer),
                                self.monitor.begin(),
                            ))
                        }
                        None => Stage::End { hears_out: false },
                    }
                }
                Stage::Work(work) => {
                    ready!(work.poll(wire, &self.connection, || self.worker.date(), cx))?;
                    self.conclude()
                }
                Stage::End { hears_out } => return wire.poll_close(*hears_out, cx),
            };
        }
        // Pipelined requests must not keep other connections waiting.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The stage after a request that has been answered.
    fn conclude(&mut self) -> Stage<S::Body> {
        let next = Stage::End { hears_out: false };
        let Stage::Work(work) = std::mem::replace(&mut self.stage, next) else { return Stage::Head };
        let Some(wire) = &mut self.wire else { return Stage::Head };
        let end = work.conclude(&mut wire.read.bytes);
        if let Some(switch) = end.switch {
            if let Some(wire) = self.wire.take() {
                let (stream, ahead) = wire.into_parts();
                // If the receiver is gone, the connection is dropped here.
                let _ = switch.send(Upgraded::Http1 { stream, ahead });
            }
            return Stage::Head;
        }
        if end.last {
            self.monitor.received(true);
            // Under strain, idle connections are not kept.
            return Stage::End { hears_out: end.hears_out && !self.worker.load.is_strained() };
        }
        wire.begin();
        if !wire.read.bytes.is_empty() {
            self.monitor.received(true);
        }
        Stage::Head
    }
}

impl<S: Service> Future for Http1<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.monitor.wakes(cx.waker());
        if this.monitor.is_expired() {
            return Poll::Ready(());
        }
        // Errors on a client's connection are not logged: the access log has what it received.
        this.poll_stage(cx).map(drop)
    }
}

/// Waits for the next head; `None` at the end of the connection.
fn poll_head(
    wire: &mut Wire,
    most: usize,
    monitor: &ConnectionMonitor,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<Result<RequestHead<Incoming>, Refusal>>>> {
    loop {
        if !wire.read.bytes.is_empty()
            && let Some(head) =
                request_head::parse_within(&mut wire.read.bytes, most, Incoming::of_head).transpose()
        {
            return Poll::Ready(Ok(Some(head.map_err(Refusal::from))));
        }
        let Poll::Ready(more) = wire.poll_more(cx) else {
            if monitor.is_draining() && wire.read.bytes.is_empty() {
                return Poll::Ready(Ok(None));
            }
            if monitor.rests() {
                wire.rest();
            }
            return Poll::Pending;
        };
        if more? == 0 {
            return Poll::Ready(Ok(None));
        }
    }
}
