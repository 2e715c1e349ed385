//! One request at work: its answer is waited for and sent, while its body comes in as far as somebody reads it.

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

/// One request at work. `B` is the body of its answer.
pub(super) struct Work<B> {
    _active: ActiveRequest,
    context: ResponseContext,
    /// Absent once the body has ended, or when there is none.
    upload: Option<BodyReader>,
    /// What is left of the body is nothing that anybody can read.
    broken: bool,
    /// The client has offered another protocol. It does not know that the connection ends if nobody takes the offer, and may be
    /// sending on.
    offers_upgrade: bool,
    /// Who gets the connection if the protocol is switched.
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
    /// Begins with a request, for which `service` is asked. `read` is what has come behind its head.
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
            let (sender, switching) = OnUpgrade::of_http1();
            switch = Some(sender);
            head.request.body_mut().may_switch(switching);
        }
        let answer = Answer::Awaited(service(head.request));
        Self { _active: active, context, upload, broken, offers_upgrade, switch, answer }
    }

    /// Begins with the answer to what is no request.
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

    /// Ready when the answer has been sent. An error ends the connection at once: what is cut must not look whole.
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
                        // Somebody may read on although it has been answered.
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

    /// Whether somebody reads the body.
    fn is_read(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| !upload.is_given_up())
    }

    /// Looks after the client meanwhile: ready when a part of the body has been handed on, an error when nobody is there any
    /// more.
    fn poll_client(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(upload) = self.upload.as_mut().filter(|upload| !upload.is_given_up()) else {
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
        if self.upload.as_mut().is_some_and(|upload| upload.is_given_up() && upload.skip(&mut wire.read)) {
            self.upload = None;
        }
        self.context.size = body.size_hint().exact();
        self.context.last |= self.broken
            || connection.monitor().is_draining()
            || self.upload.as_ref().is_some_and(BodyReader::is_given_up);
        write_interim(connection, wire);
        let coding = answer_head::write(wire.front(), status, &head, self.context, date);
        let follows = coding != Coding::Nothing;
        self.answer = Answer::Sent { status, body: follows.then_some(body), coding };
    }

    /// Ends the work on a request that has been answered. `read` is what has come behind it, or is left of it.
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

/// Writes the interim answers that have been left for the client.
fn write_interim(connection: &ConnectionHandle, wire: &mut Wire) {
    let interim = connection.take_interim();
    if !interim.is_empty() {
        wire.front().extend_from_slice(&interim);
    }
}

/// Sends what there is of the answer. Ready when all of it has gone out.
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
        // Asked for more, a body that has ended would be an error to some.
        if parts.is_end_stream() {
            *body = None;
            end(coding, None, wire)?;
            continue;
        }
        let Poll::Ready(part) = Pin::new(&mut *parts).poll_frame(cx) else {
            // What there is goes out at once.
            ready!(wire.poll_out(cx))?;
            return Poll::Pending;
        };
        let ends = part.is_none() || parts.is_end_stream();
        let mut trailers = None;
        match part.transpose().map_err(io::Error::other)?.map(Frame::into_data) {
            // As a chunk an empty one would be the last.
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

/// Sends a part of the body, which may be the last.
fn put(coding: &mut Coding, data: Bytes, ends: bool, wire: &mut Wire) -> io::Result<()> {
    coding.begin_part(data.len(), wire.front()).map_err(|_| io::ErrorKind::InvalidData)?;
    if ends && coding.is_short() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    wire.put(data, coding.end_of_part(ends));
    Ok(())
}

/// Sends what ends the body behind its last part.
fn end(coding: &Coding, trailers: Option<&HeaderMap>, wire: &mut Wire) -> io::Result<()> {
    if coding.is_short() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if let Some(last) = coding.end(trailers) {
        wire.put(last, b"");
    }
    Ok(())
}
