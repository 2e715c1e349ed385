//! One request and its response, from the first byte written to the last byte read.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, timeout},
};

use super::{
    answer,
    io::Transport,
    request_writer::{RequestWriter, WriteError},
};
use crate::{
    http1::{answer_head::MalformedAnswer, body_part::Part, framing::Framing},
    upstream::{ConnectionOwner, Lease},
    web::{portal_fields::PortalFields, socket::give_ahead},
};

/// Most interim responses (1xx) to one request.
const MOST_INTERIM: u32 = 100;
/// How long a server may stop reading a request that it has already answered.
const FINISH: Duration = Duration::from_secs(30);

/// Why a response is missing or incomplete.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError<E> {
    #[error("the connection closed before a response")]
    Lost(#[source] io::Error),
    #[error("the connection closed in the middle of the response")]
    Cut(#[source] io::Error),
    #[error(
        "the portal closed the connection without the close_notify of TLS, and nothing else says how long the answer was: \
         some of it may be missing"
    )]
    NoCloseNotify,
    #[error("malformed response")]
    Malformed(#[from] MalformedAnswer),
    #[error("the request's body ended early")]
    RequestBody(#[source] E),
    #[error("the request's body was not as long as announced")]
    RequestLength,
}

/// A request and its response on a leased connection. It is the body of the response.
///
/// After the last byte of the response, the connection goes back to the pool if both sides keep it alive. Otherwise it is
/// closed.
#[derive(Debug)]
pub struct Exchange<B: Body<Data = Bytes> + Unpin + 'static> {
    /// Absent after the end of the response.
    lease: Option<Lease>,
    server: Rc<str>,
    writer: RequestWriter<B>,
    /// The server has stopped reading the request.
    refuses: Option<io::Error>,
    bodiless: bool,
    framing: Framing,
    keep_alive: bool,
    /// The owner of the connection, should it become tied.
    owner: ConnectionOwner,
    /// Bytes of a response have arrived.
    has_begun: bool,
    interim: u32,
}

impl<B> Exchange<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
{
    /// `bodiless`: the response has no body, whatever it announces (HEAD).
    pub fn new(
        mut lease: Lease,
        mut writer: RequestWriter<B>,
        owner: ConnectionOwner,
        bodiless: bool,
    ) -> Self {
        if writer.binds() {
            lease.tie();
        }
        if let Some((scheme, named)) = lease.named() {
            writer.address_to(scheme, named.as_str());
        }
        Self {
            owner,
            server: lease.label(),
            lease: Some(lease),
            writer,
            refuses: None,
            bodiless,
            framing: Framing::Length(0),
            keep_alive: false,
            has_begun: false,
            interim: 0,
        }
    }

    /// The connection's timer; `None` after the end of the response.
    pub fn timer(&mut self) -> Option<&mut Pin<Box<Sleep>>> {
        self.lease.as_mut().map(|lease| &mut lease.pooled.timer)
    }

    /// The server's name in logs.
    pub fn server(&self) -> Rc<str> {
        Rc::clone(&self.server)
    }

    /// Whether the connection was reused: the server may have closed it at the same moment.
    pub fn was_reused(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.reused)
    }

    /// Reports that the server closed a kept-alive connection.
    pub fn was_lost(&self) {
        self.lease.as_ref().into_iter().for_each(Lease::lost);
    }

    /// Gives the request back, to be sent over another connection, if the server cannot have seen it or it may be repeated.
    pub fn again(mut self, repeatable: bool) -> Option<(RequestWriter<B>, ConnectionOwner)> {
        if self.has_begun || !(self.writer.is_unsent() || repeatable) {
            return None;
        }
        self.writer.rewind();
        Some((self.writer, self.owner))
    }

    /// Sends the request and reads the head of its response. Interim responses (1xx) go to `interim`.
    pub fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        mut interim: impl FnMut(StatusCode, PortalFields),
    ) -> Poll<Result<(StatusCode, PortalFields), AnswerError<B::Error>>> {
        self.poll_upload(cx)?;
        loop {
            if let Some(head) = self.parse_head()? {
                if head.binds {
                    self.lease.as_mut().into_iter().for_each(Lease::tie);
                }
                let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
                if head.status.is_informational() && !switches {
                    self.interim += 1;
                    if self.interim > MOST_INTERIM {
                        return Poll::Ready(Err(MalformedAnswer::Interim(MOST_INTERIM).into()));
                    }
                    interim(head.status, head.fields);
                    continue;
                }
                self.framing = head.framing;
                // A server that responds early may never read the rest of the request.
                self.keep_alive = head.keep_alive && self.writer.is_done() && !self.writer.is_last();
                // After an upgrade the connection no longer speaks HTTP.
                if self.framing.is_end() && !switches {
                    self.finish();
                }
                return Poll::Ready(Ok((head.status, head.fields)));
            }
            ready!(self.poll_more(cx))?;
        }
    }

    /// Counts the response as an event stream or a tunnel, see [`Lease::becomes_stream`].
    pub fn becomes_stream(&mut self) -> bool {
        self.lease.as_mut().is_none_or(Lease::becomes_stream)
    }

    /// The connection as a byte stream after an upgrade (101). It starts with the bytes that came after the head.
    pub fn into_upgraded(mut self) -> Option<PortalStream> {
        self.lease.take().map(PortalStream)
    }

    fn parse_head(&mut self) -> Result<Option<answer::PortalHead>, MalformedAnswer> {
        let Some(lease) = &mut self.lease else { return Ok(None) };
        let read = &mut lease.pooled.connection.read.bytes;
        if read.is_empty() { Ok(None) } else { answer::parse(read, self.bodiless) }
    }

    /// Sends what the socket takes. A write error is not reported here: the server may have responded, which reading will tell.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), AnswerError<B::Error>> {
        if self.writer.is_done() || self.refuses.is_some() {
            return Ok(());
        }
        let Some(lease) = &mut self.lease else { return Ok(()) };
        match self.writer.poll_send(&mut lease.pooled.connection.transport, cx) {
            Poll::Ready(Err(WriteError::Body(error))) => Err(AnswerError::RequestBody(error)),
            Poll::Ready(Err(WriteError::Length)) => Err(AnswerError::RequestLength),
            Poll::Ready(Err(WriteError::Write(error))) => {
                self.refuses = Some(error);
                Ok(())
            }
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Reads more of the response; the end of the connection is an error.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), AnswerError<B::Error>>> {
        let Some(lease) = &mut self.lease else {
            return Poll::Ready(Err(AnswerError::Cut(io::ErrorKind::NotConnected.into())));
        };
        let error = match ready!(lease.pooled.connection.poll_more(cx)) {
            Ok(0) => io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => {
                self.has_begun = true;
                return Poll::Ready(Ok(()));
            }
            Err(error) => error,
        };
        let error = self.refuses.take().unwrap_or(error);
        Poll::Ready(Err(if self.has_begun { AnswerError::Cut(error) } else { AnswerError::Lost(error) }))
    }

    /// Releases the connection. If the request has not been sent completely, that is finished in the background and the
    /// connection closed: another request would have to wait for this upload.
    fn finish(&mut self) {
        let Some(mut lease) = self.lease.take() else { return };
        if !self.writer.is_done() {
            if self.refuses.is_none() {
                tokio::task::spawn_local(finish_alone(lease, self.writer.take()));
            }
        } else if !lease.pooled.connection.read.bytes.is_empty() {
            if lease.pooled.connection.has_spoken() {
                lease.spoke();
            }
        } else if self.keep_alive {
            lease.pooled.connection.rest();
            if lease.is_tied() { lease.give_to(self.owner.clone()) } else { lease.give_back() }
        }
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Part>, AnswerError<B::Error>>> {
        self.poll_upload(cx)?;
        loop {
            let Some(lease) = &mut self.lease else { return Poll::Ready(Ok(None)) };
            let read = &mut lease.pooled.connection.read.bytes;
            if let Some(part) = self.framing.next(read).map_err(MalformedAnswer::from)? {
                return Poll::Ready(Ok(Some(part)));
            }
            let ends = matches!(self.framing, Framing::UntilClose);
            let more = ready!(lease.pooled.connection.poll_more(cx)).map_err(|error| match error.kind() {
                // This is how rustls reports an end without `close_notify`.
                io::ErrorKind::UnexpectedEof if ends => AnswerError::NoCloseNotify,
                _ => AnswerError::Cut(error),
            })?;
            if more == 0 {
                let cut = || Err(AnswerError::Cut(io::ErrorKind::UnexpectedEof.into()));
                return Poll::Ready(if ends { Ok(Some(Part::End)) } else { cut() });
            }
        }
    }
}

impl<B> Body for Exchange<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
{
    type Data = Bytes;
    type Error = AnswerError<B::Error>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let part = match ready!(this.poll_part(cx)) {
            Ok(part) => part,
            Err(error) => {
                // Dropping the lease closes the connection.
                this.lease = None;
                return Poll::Ready(Some(Err(error)));
            }
        };
        if matches!(part, Some(Part::End)) || this.framing.is_end() {
            this.finish();
        }
        Poll::Ready(match part {
            Some(Part::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Part::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Part::End) | None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.lease.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.framing {
            Framing::Length(left) => SizeHint::with_exact(*left),
            Framing::Chunked(_) | Framing::UntilClose => SizeHint::default(),
        }
    }
}

/// Sends the rest of a request that has been answered, as long as the server reads it, and closes the connection.
async fn finish_alone<B>(mut lease: Lease, mut writer: RequestWriter<B>)
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        let before = writer.sent();
        let sending = poll_fn(|cx| writer.poll_send(&mut lease.pooled.connection.transport, cx).map(drop));
        if timeout(FINISH, sending).await.is_ok() || writer.sent() == before {
            return;
        }
    }
}

/// A connection after an upgrade. It is closed when dropped.
#[derive(Debug)]
pub struct PortalStream(Lease);

impl PortalStream {
    fn transport(self: Pin<&mut Self>) -> Pin<&mut Transport> {
        Pin::new(&mut self.get_mut().0.pooled.connection.transport)
    }
}

impl AsyncRead for PortalStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if give_ahead(&mut self.0.pooled.connection.read.bytes, buffer) {
            return Poll::Ready(Ok(()));
        }
        self.transport().poll_read(cx, buffer)
    }
}

impl AsyncWrite for PortalStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.transport().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport().poll_shutdown(cx)
    }
}
