//! One request in progress: polls the service, sends its response, and reads the body as far as the service does.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use http_body::{Body, Frame};
use tokio::sync::oneshot;

use super::{
    answer_head::{self, ResponseContext},
    body_reader::{BodyReader, Given},
    wire::Wire,
};
use crate::{
    http1::{encode::Coding, request_head::RequestHead},
    server::{client::ConnectionHandle, monitor::ActiveRequest},
    web::{
        incoming::Incoming,
        reply::Reply,
        upgraded::{OnUpgrade, Upgraded},
    },
};

/// One request in progress. `B` is the body of its response.
pub(super) struct Work<B> {
    _active: ActiveRequest,
    context: ResponseContext,
    /// Absent once the body has ended, or when there is none.
    upload: Option<BodyReader>,
    /// The rest of the body is malformed.
    broken: bool,
    /// The request has an `Upgrade`. Without one the connection closes, which the client does not know: it may go on sending.
    offers_upgrade: bool,
    /// Receives the connection after an upgrade.
    switch: Option<oneshot::Sender<Upgraded>>,
    answer: Answer<B>,
}

enum Answer<B> {
    Awaited(Pin<Box<dyn Future<Output = Reply<B>>>>),
    /// The body is absent once it has ended.
    Sent {
        status: StatusCode,
        body: Option<B>,
        coding: Coding,
    },
}

/// How the connection goes on.
pub(super) struct End {
    pub(super) switch: Option<oneshot::Sender<Upgraded>>,
    pub(super) last: bool,
    /// The client may still be sending.
    pub(super) hears_out: bool,
}

impl<B> Work<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static,
{
    /// Starts with a request. `read` has the bytes after its head.
    pub(super) fn ask(
        mut head: RequestHead<Incoming>,
        read: &mut BytesMut,
        active: ActiveRequest,
        service: impl FnOnce(Box<Request<Incoming>>) -> Pin<Box<dyn Future<Output = Reply<B>>>>,
    ) -> Self {
        let context = ResponseContext {
            version: head.request.version(),
            is_head: *head.request.method() == Method::HEAD,
            takes_trailers: head.takes_trailers,
            size: None,
            last: !head.keep_alive,
        };
        let offers_upgrade = head.offers_upgrade;
        let (mut upload, mut broken, mut switch) = (None, false, None);
        if let Some(announced) = head.announced {
            let (reading, given, body) = BodyReader::begin(announced, read);
            broken = given == Some(Given::Broken);
            upload = Some(reading).filter(|_| matches!(given, None | Some(Given::Part)));
            head.request.body_mut().follows(body);
        } else if offers_upgrade {
            let (sender, on_upgrade) = OnUpgrade::of_http1();
            switch = Some(sender);
            head.request.body_mut().may_upgrade(on_upgrade);
        }
        let answer = Answer::Awaited(service(head.request));
        Self { _active: active, context, upload, broken, offers_upgrade, switch, answer }
    }

    /// Starts with the response to an invalid request.
    pub(super) fn refuse(answer: Reply<B>, active: ActiveRequest) -> Self {
        let context = ResponseContext {
            version: Version::HTTP_11,
            is_head: false,
            takes_trailers: false,
            size: None,
            last: true,
        };
        let answer = Answer::Awaited(Box::pin(std::future::ready(answer)));
        Self {
            _active: active,
            context,
            upload: None,
            broken: true,
            offers_upgrade: false,
            switch: None,
            answer,
        }
    }

    /// Ready when the response has been sent. An error closes the connection at once, so that a truncated response does not
    /// look complete.
    pub(super) fn poll(
        &mut self,
        wire: &mut Wire,
        connection: &ConnectionHandle,
        date: impl Fn() -> HeaderValue,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match &mut self.answer {
                Answer::Awaited(answer) => match answer.as_mut().poll(cx) {
                    Poll::Ready(answer) => {
                        self.begin_answer(answer, wire, connection, &date);
                        continue;
                    }
                    Poll::Pending => {
                        write_interim(connection, wire);
                        let _ = wire.poll_out(cx)?;
                    }
                },
                Answer::Sent { body, coding, .. } => {
                    if poll_send(body, coding, wire, cx)?.is_ready() {
                        // The service may go on reading the body.
                        if !self.is_read() {
                            return Poll::Ready(Ok(()));
                        }
                        connection.monitor().answered();
                    }
                }
            }
            ready!(self.poll_client(wire, cx))?;
        }
    }

    /// Whether the service still reads the body.
    fn is_read(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| !upload.is_closed())
    }

    /// Polls the client meanwhile: ready when a part of the body has been passed on; an error when the client has gone.
    fn poll_client(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(upload) = self.upload.as_mut().filter(|upload| !upload.is_closed()) else {
            ready!(wire.poll_left(cx))?;
            return Poll::Pending;
        };
        let answers = matches!(self.answer, Answer::Sent { .. });
        match ready!(upload.poll(wire, answers, cx))? {
            Given::Part | Given::Unwanted => {}
            end => {
                self.upload = None;
                self.broken = end == Given::Broken;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn begin_answer(
        &mut self,
        answer: Reply<B>,
        wire: &mut Wire,
        connection: &ConnectionHandle,
        date: impl Fn() -> HeaderValue,
    ) {
        let Reply { status, head, body } = answer;
        if self.upload.as_mut().is_some_and(|upload| upload.is_closed() && upload.skip(&mut wire.read.bytes))
        {
            self.upload = None;
        }
        self.context.size = body.size_hint().exact();
        self.context.last |= self.broken
            || connection.monitor().is_draining()
            || self.upload.as_ref().is_some_and(BodyReader::is_closed);
        write_interim(connection, wire);
        let coding = answer_head::write(wire.front(), status, &head, self.context, date);
        let follows = coding != Coding::Nothing;
        self.answer = Answer::Sent { status, body: follows.then_some(body), coding };
    }

    /// Ends a request that has been answered. `read` has the rest of its body and what came after it.
    pub(super) fn conclude(mut self, read: &mut BytesMut) -> End {
        let switches = matches!(self.answer, Answer::Sent { status: StatusCode::SWITCHING_PROTOCOLS, .. });
        let unread = self.broken || self.upload.as_mut().is_some_and(|upload| !upload.skip(read));
        let until_close = matches!(self.answer, Answer::Sent { coding: Coding::UntilClose, .. });
        End {
            switch: self.switch.take().filter(|_| switches),
            last: self.context.last || unread || until_close || switches,
            hears_out: unread || !read.is_empty() || self.offers_upgrade,
        }
    }
}

/// Writes the queued interim responses.
fn write_interim(connection: &ConnectionHandle, wire: &mut Wire) {
    let interim = connection.take_interim();
    if !interim.is_empty() {
        wire.front().extend_from_slice(&interim);
    }
}

/// Sends the response. Ready when all of it has been sent.
fn poll_send<B>(
    body: &mut Option<B>,
    coding: &mut Coding,
    wire: &mut Wire,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin,
{
    loop {
        if body.is_none() || !wire.takes_more() {
            ready!(wire.poll_out(cx))?;
        }
        let Some(parts) = body else { return Poll::Ready(Ok(())) };
        // Some bodies fail when they are polled after their end.
        if parts.is_end_stream() {
            *body = None;
            end(coding, None, wire)?;
            continue;
        }
        let Poll::Ready(part) = Pin::new(&mut *parts).poll_frame(cx) else {
            // What is ready is sent without waiting for more.
            ready!(wire.poll_out(cx))?;
            return Poll::Pending;
        };
        let ends = part.is_none() || parts.is_end_stream();
        let mut trailers = None;
        match part.transpose().map_err(io::Error::other)?.map(Frame::into_data) {
            // An empty chunk would end the body.
            Some(Ok(data)) if !data.is_empty() => {
                put(coding, data, ends, wire)?;
                *body = body.take().filter(|_| !ends);
                continue;
            }
            Some(Err(frame)) => trailers = frame.into_trailers().ok(),
            Some(Ok(_)) | None => {}
        }
        if ends || trailers.is_some() {
            *body = None;
            end(coding, trailers.as_ref(), wire)?;
        }
    }
}

/// Sends a part of the body; `ends`: it is the last.
fn put(coding: &mut Coding, data: Bytes, ends: bool, wire: &mut Wire) -> io::Result<()> {
    coding.begin_part(data.len(), wire.front()).map_err(|_| io::ErrorKind::InvalidData)?;
    if ends && coding.is_short() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    wire.put(data, coding.end_of_part(ends));
    Ok(())
}

/// Sends the end of the body.
fn end(coding: &Coding, trailers: Option<&HeaderMap>, wire: &mut Wire) -> io::Result<()> {
    if coding.is_short() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if let Some(last) = coding.end(trailers) {
        wire.put(last, b"");
    }
    Ok(())
}
