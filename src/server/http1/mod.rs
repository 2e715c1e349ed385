//! HTTP/1.1 towards clients (RFC 9112): one request and its answer at a time on a connection.
//!
//! No task of its own and no channel: the connection's task polls the service, and reads a body only as fast as somebody
//! asks for it. What a head may be is for `http1::request_head` to say.

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

use tokio_rustls::server::TlsStream;

use self::{wire::Wire, work::Work};
use super::{Service, client::ConnectionHandle, monitor::ConnectionMonitor, state::Worker};
use crate::{
    http1::request_head::{self, RequestHead},
    web::{gate::Refusal, incoming::Incoming, socket::Socket, upgraded::Upgraded},
};

/// Most stages that a connection goes through before others have their turn; a request goes through two.
const MOST_A_TURN: usize = 32;

/// One connection. Done when it has ended, or when another protocol has it.
pub(super) struct Http1<S: Service> {
    worker: Rc<Worker<S>>,
    connection: Rc<ConnectionHandle>,
    context: Rc<S::Context>,
    monitor: Rc<ConnectionMonitor>,
    /// Absent once another protocol has it.
    wire: Option<Wire>,
    stage: Stage<S::Body>,
}

enum Stage<B> {
    /// Waits for a head.
    Head,
    /// A request is being answered.
    Work(Work<B>),
    /// Serves nothing more. The client may still be sending what nobody reads.
    End { hears_out: bool },
}

impl<S: Service> Http1<S> {
    pub(super) fn new(
        worker: Rc<Worker<S>>,
        connection: Rc<ConnectionHandle>,
        context: Rc<S::Context>,
        stream: Box<TlsStream<Socket>>,
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
                            let read = &mut wire.read;
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
                                service.refuse(refusal, &wire.read, peer),
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
        // Others have waited for long enough while requests that came all at once were answered.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What comes after a request that has been answered.
    fn conclude(&mut self) -> Stage<S::Body> {
        let next = Stage::End { hears_out: false };
        let Stage::Work(work) = std::mem::replace(&mut self.stage, next) else { return Stage::Head };
        let Some(wire) = &mut self.wire else { return Stage::Head };
        let end = work.conclude(&mut wire.read);
        if let Some(switch) = end.switch {
            if let Some(wire) = self.wire.take() {
                let (stream, ahead) = wire.into_parts();
                // Whoever asked for it may be gone by now, and the connection with them.
                let _ = switch.send(Upgraded::Http1 { stream, ahead });
            }
            return Stage::Head;
        }
        if end.last {
            self.monitor.received(true);
            // Under strain it is not worth a place.
            return Stage::End { hears_out: end.hears_out && !self.worker.load.is_strained() };
        }
        wire.begin();
        if !wire.read.is_empty() {
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
        // How a client's connection ends is the client's affair: the access log has told what it got.
        this.poll_stage(cx).map(drop)
    }
}

/// Waits for the next head; `None` is the end of the connection.
fn poll_head(
    wire: &mut Wire,
    most: usize,
    monitor: &ConnectionMonitor,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<Result<RequestHead<Incoming>, Refusal>>>> {
    loop {
        if !wire.read.is_empty()
            && let Some(head) =
                request_head::parse_within(&mut wire.read, most, Incoming::of_head).transpose()
        {
            return Poll::Ready(Ok(Some(head.map_err(Refusal::from))));
        }
        let Poll::Ready(more) = wire.poll_more(cx) else {
            if monitor.is_draining() && wire.read.is_empty() {
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
