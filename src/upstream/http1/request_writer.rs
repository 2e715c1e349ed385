//! Writes a request to the portal: the head, then the body in its framing (RFC 9112 §6).

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    iter, mem,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use crate::http1::encode::{Coding, TooLong};

/// Most slices in one vectored write.
const PIECES: usize = 8;

/// The head of a request in wire form, and what it means for the connection.
#[derive(Debug)]
pub struct Outgoing {
    /// Including the empty line at its end.
    pub head: Vec<u8>,
    pub names: PortalSpans,
    /// The coding of the body, as announced in the head.
    pub coding: Coding,
    /// The connection closes after this request.
    pub last: bool,
    /// It authenticates the connection (NTLM, Negotiate).
    pub binds: bool,
}

/// Where the head contains the portal's name, in order.
#[derive(Clone, Debug, Default)]
pub struct PortalSpans {
    /// The value of `Host`, which comes first.
    pub host: Range<usize>,
    /// The portal's origin, including the scheme.
    pub origins: Vec<Range<usize>>,
}

/// Why a request could not be sent completely.
#[derive(Debug)]
pub(super) enum WriteError<E> {
    /// The server has stopped reading; it may have responded nevertheless.
    Write(io::Error),
    /// The body ended early.
    Body(E),
    /// The body does not have the announced length.
    Length,
}

/// A request being sent. `B` is its body.
#[derive(Debug)]
pub struct RequestWriter<B> {
    head: Vec<u8>,
    names: PortalSpans,
    /// Bytes that have been sent.
    sent: u64,
    /// Bytes of the head that have been sent.
    head_sent: usize,
    /// Absent after its end.
    body: Option<B>,
    coding: Coding,
    /// Encoded parts of the body that have not been sent.
    queue: VecDeque<Bytes>,
    flushed: bool,
    last: bool,
    binds: bool,
}

impl<E> From<TooLong> for WriteError<E> {
    fn from(_: TooLong) -> Self {
        Self::Length
    }
}

impl<B: Body<Data = Bytes> + Unpin> RequestWriter<B> {
    pub fn new(Outgoing { head, names, coding, last, binds }: Outgoing, body: B) -> Self {
        let body = (!body.is_end_stream()).then_some(body);
        Self {
            head,
            names,
            sent: 0,
            head_sent: 0,
            body,
            coding,
            queue: VecDeque::new(),
            flushed: false,
            last,
            binds,
        }
    }

    /// The connection closes after this request.
    pub(super) fn is_last(&self) -> bool {
        self.last
    }

    /// It authenticates the connection (NTLM, Negotiate).
    pub(super) fn binds(&self) -> bool {
        self.binds
    }

    /// Replaces the portal's name in the head by `host`.
    pub(super) fn address_to(&mut self, scheme: &str, host: &str) {
        let origin = format!("{scheme}://{host}");
        let old = mem::take(&mut self.head);
        let mut done = 0;
        let PortalSpans { host: span, origins } = &mut self.names;
        let spans = iter::once((span, host)).chain(origins.iter_mut().map(|span| (span, &*origin)));
        for (span, name) in spans {
            self.head.extend_from_slice(old.get(done..span.start).unwrap_or_default());
            done = span.end;
            span.start = self.head.len();
            self.head.extend_from_slice(name.as_bytes());
            span.end = self.head.len();
        }
        self.head.extend_from_slice(old.get(done..).unwrap_or_default());
    }

    /// Takes the request; a completed one stays.
    pub(super) fn take(&mut self) -> Self {
        let coding = Coding::Nothing;
        let done = Self {
            head: Vec::new(),
            names: PortalSpans::default(),
            sent: 0,
            head_sent: 0,
            body: None,
            coding,
            queue: VecDeque::new(),
            flushed: true,
            last: true,
            binds: false,
        };
        mem::replace(self, done)
    }

    /// Bytes that have been sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether everything has been sent.
    pub(super) fn is_done(&self) -> bool {
        self.flushed
    }

    /// Whether no byte has been sent, so that the request can go over another connection.
    pub(super) fn is_unsent(&self) -> bool {
        self.sent == 0
    }

    /// Starts again from the head. Only for requests without a body.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
        self.head_sent = 0;
        self.flushed = false;
    }

    /// Sends what the socket takes.
    pub(super) fn poll_send(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError<B::Error>>> {
        if self.flushed {
            return Poll::Ready(Ok(()));
        }
        let mut waits_for_body = false;
        loop {
            // Before the head is sent, so that a short body goes into the same write.
            if self.queue.is_empty() && !waits_for_body && self.body.is_some() {
                waits_for_body = self.poll_body(cx)?.is_pending();
                continue;
            }
            if self.head_sent < self.head.len() || !self.queue.is_empty() {
                ready!(self.poll_write(io, cx))?;
                waits_for_body = false;
                continue;
            }
            ready!(Pin::new(&mut *io).poll_flush(cx)).map_err(WriteError::Write)?;
            if self.body.is_some() {
                return Poll::Pending;
            }
            if self.coding.is_short() {
                return Poll::Ready(Err(WriteError::Length));
            }
            self.flushed = true;
            return Poll::Ready(Ok(()));
        }
    }

    /// Polls the body for its next part.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError<B::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        let frame = ready!(Pin::new(body).poll_frame(cx)).transpose().map_err(WriteError::Body)?;
        let ends = frame.is_none() || self.body.as_ref().is_some_and(Body::is_end_stream);
        let mut trailers = None;
        match frame.map(Frame::into_data) {
            Some(Ok(data)) => self.enqueue(data)?,
            Some(Err(frame)) => trailers = frame.into_trailers().ok(),
            None => {}
        }
        if ends || trailers.is_some() {
            self.body = None;
            self.queue.extend(self.coding.end(trailers.as_ref()));
        }
        Poll::Ready(Ok(()))
    }

    fn enqueue(&mut self, data: Bytes) -> Result<(), WriteError<B::Error>> {
        if data.is_empty() {
            // An empty chunk would end the body.
            return Ok(());
        }
        let mut ahead = Vec::new();
        self.coding.begin_part(data.len(), &mut ahead)?;
        let behind = Bytes::from_static(self.coding.end_of_part(false));
        let pieces = [ahead.into(), data, behind];
        self.queue.extend(pieces.into_iter().filter(|piece| !piece.is_empty()));
        Ok(())
    }

    /// Writes once.
    fn poll_write(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError<B::Error>>> {
        let head = self.head.get(self.head_sent..).unwrap_or_default();
        let written = if self.queue.is_empty() {
            Pin::new(io).poll_write(cx, head)
        } else {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let queued = self.queue.iter().map(|piece| &piece[..]);
            let mut count = 0;
            for (slot, piece) in
                pieces.iter_mut().zip([head].into_iter().chain(queued).filter(|p| !p.is_empty()))
            {
                *slot = IoSlice::new(piece);
                count += 1;
            }
            Pin::new(io).poll_write_vectored(cx, pieces.get(..count).unwrap_or_default())
        };
        let mut written = ready!(written).map_err(WriteError::Write)?;
        if written == 0 {
            return Poll::Ready(Err(WriteError::Write(io::ErrorKind::WriteZero.into())));
        }
        self.sent += u64::try_from(written).unwrap_or(0);
        let of_head = written.min(head.len());
        self.head_sent += of_head;
        written -= of_head;
        while let Some(piece) = self.queue.front_mut().filter(|_| written > 0) {
            let of_piece = written.min(piece.len());
            piece.advance(of_piece);
            written -= of_piece;
            if piece.is_empty() {
                self.queue.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}
