//! Forwards a request to the portal and streams the answer back. Decides nothing about who may pass.

mod call;
mod call_body;
mod frames;
mod request;
mod request_body;
mod response_body;
mod session_bound_body;
mod trailers;
mod tunnel;
mod websocket;

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body::{Body as _, Frame};
use tokio::time::Instant;

use self::{
    request_body::Progress, session_bound_body::SessionBoundBody, tunnel::Tunnel, websocket::Handshake,
};
use crate::{
    gate::Identity,
    identity::IdentityHeaders,
    random::Random,
    server::{ConnectionHandle, Interim},
    sessions::{Sessions, Use},
    upstream::{
        Ask, ConnectError, ConnectionOwner, Lease, Pool, Sharing, Tie,
        http1::{AnswerError, Exchange, RequestWriter},
        http2::Http2,
    },
    web::{
        body::{BodyError, Stream},
        gate::CanonicalRequest,
        grpc,
        incoming::Incoming,
        portal_fields::{PortalFields, Topics},
        upgraded::OnUpgrade,
    },
};

pub use call_body::CallBody;
pub use request::{Additions, ForwardedFields, X_PORTCULLIS_JWT_ASSERTION};
pub use request_body::RequestBody;
pub use response_body::PortalBody;
pub use tunnel::Tally;

/// How often a request that waits for its answer looks whether its session still lasts.
const LOOK: Duration = Duration::from_millis(50);

/// Why the portal's answer cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("the portal cannot be reached")]
    Connect(#[from] ConnectError),
    #[error("the portal's answer cannot be read")]
    Answer(#[source] AnswerError<BodyError>),
    #[error("cannot read the portal's answer to a gRPC call")]
    Call(#[source] hyper::Error),
    #[error("the portal closed a kept-alive connection, and the request is not safe to repeat")]
    Lost,
    #[error("the request's body did not arrive")]
    RequestBody(#[source] AnswerError<BodyError>),
    #[error("too many WebSockets and event streams are open (`portal.max_streams`)")]
    Streams,
    #[error("the portal did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("the portal switched to a protocol that was not offered")]
    Switch,
    #[error("malformed answer from the portal to a WebSocket handshake")]
    Handshake,
    #[error("the session ended before the answer came")]
    SessionEnded,
}

/// Longer than any session.
const FOR_EVER: Duration = Duration::from_hours(24 * 365);

/// How long forwarding waits.
#[derive(Clone, Copy, Debug)]
pub struct ForwardTimeouts {
    /// From the end of the request to the head of the answer.
    pub response: Duration,
    /// Without progress of a body.
    pub stall: Duration,
    /// Least bytes a second of a request's body, of the time that is spent waiting for it.
    pub min_rate: u32,
}

/// One worker's way to the portal.
pub struct Proxy {
    pool: Rc<Pool>,
    http2: Rc<Http2<CallBody>>,
    reserved: Rc<IdentityHeaders>,
    sessions: Arc<Sessions>,
    random: Arc<dyn Random>,
    timeouts: ForwardTimeouts,
}

/// Where a request comes from.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    pub connection: &'a ConnectionHandle,
    /// What this connection has at the portal for itself.
    pub tie: &'a Rc<Tie>,
}

/// How an answer begins: its status and its fields.
type Head = (StatusCode, PortalFields);

/// What follows the head of the portal's answer.
#[derive(Debug)]
pub enum Followed {
    Body(PortalBody),
    /// Another protocol: a tunnel has been opened.
    Tunnel {
        /// Which of the portal's servers it leads to.
        server: Rc<str>,
        tally: Rc<Tally>,
    },
}

/// The portal's answer, as it was said.
#[derive(Debug)]
pub struct Forwarded {
    pub status: StatusCode,
    pub fields: PortalFields,
    pub followed: Followed,
    /// It is a WebSocket, another protocol, or a stream of events.
    pub is_stream: bool,
}

impl Proxy {
    /// `sessions` hears of what tunnels carry; keys of handshakes are made of `random`.
    pub fn new(
        pool: Rc<Pool>,
        http2: Rc<Http2<CallBody>>,
        reserved: Rc<IdentityHeaders>,
        sessions: Arc<Sessions>,
        random: Arc<dyn Random>,
        timeouts: ForwardTimeouts,
    ) -> Self {
        Self { pool, http2, reserved, sessions, random, timeouts }
    }

    /// Sends one request to the portal, at most once: a second try happens only when the first cannot have been seen,
    /// or when repeating is harmless (RFC 9110 §9.2.2).
    ///
    /// The [`Identity`] is the proof that the gate was passed. `whole` is the request's body when it does not come with it,
    /// `counts` says whether a tunnel that follows keeps the session.
    #[expect(clippy::too_many_arguments, reason = "a request, who sent it, and all that goes with it")]
    pub fn forward<'a>(
        &'a self,
        request: CanonicalRequest<Incoming>,
        whole: Option<Bytes>,
        identity: &'a Identity,
        additions: &Additions<'_>,
        client: Client<'a>,
        counts: Use,
    ) -> impl Future<Output = Result<Forwarded, ForwardError>> + use<'a> {
        // The head is written at once: what is held until the answer comes is little.
        let begun = if grpc::needs_http2(request.method(), request.headers()) {
            Begun::Call(Box::pin(self.call(request, identity, additions)))
        } else {
            Begun::Exchange(self.begin(request, whole, identity, additions, client))
        };
        async move {
            let outgoing = match begun {
                Begun::Call(call) => return call.await,
                Begun::Exchange(outgoing) => outgoing?,
            };
            let send = Sending {
                is_head: outgoing.is_head,
                repeatable: outgoing.repeatable,
                interim: outgoing.interim.as_ref(),
                timeout: self.timeouts.response,
                identity,
                progress: outgoing.progress.as_deref(),
            };
            let ((status, fields), exchange) = self.send(outgoing.message, send).await?;
            if status == StatusCode::SWITCHING_PROTOCOLS {
                let offer = outgoing.offer.ok_or(ForwardError::Switch)?;
                let (status, fields) = offer.accepted(fields)?;
                let mut exchange = *exchange;
                if !exchange.becomes_stream() {
                    return Err(ForwardError::Streams);
                }
                let (server, tally) = (exchange.server(), Rc::<Tally>::default());
                let tunnel = Tunnel {
                    client: offer.client,
                    portal: exchange.into_upgraded().ok_or(ForwardError::Switch)?,
                    sessions: Arc::clone(&self.sessions),
                    session: identity.session().cloned(),
                    ended: identity.ended(),
                    counts,
                    drain: client.connection.drain().clone(),
                    guard: client.connection.tunnel_guard(),
                    is_websocket: offer.protocol.as_bytes().eq_ignore_ascii_case(b"websocket"),
                    tally: Rc::clone(&tally),
                };
                tunnel.start();
                let followed = Followed::Tunnel { server, tally };
                return Ok(Forwarded { status, fields, followed, is_stream: true });
            }
            // On HTTP/2 it would be the word for a tunnel.
            if status.is_success() && outgoing.offer.is_some_and(|offer| offer.handshake.is_some()) {
                return Err(ForwardError::Handshake);
            }
            self.answer(status, fields, exchange, identity, outgoing.progress)
        }
    }

    /// How long the portal may take to answer.
    pub fn response_timeout(&self) -> Duration {
        self.timeouts.response
    }

    /// Waits for the first part of a body where none is usual: an empty one does not count as a body, and its request is an
    /// ordinary one.
    pub async fn await_body(
        &self,
        request: &mut CanonicalRequest<Incoming>,
        identity: &Identity,
    ) -> Result<(), ForwardError> {
        if !request.has_body() || request::takes_body(request.method()) {
            return Ok(());
        }
        let body = request.body_mut();
        let mut stream = Stream::new(&mut *body, self.timeouts.stall).at_rate(self.timeouts.min_rate);
        let first = async {
            loop {
                let first = poll_fn(|cx| Pin::new(&mut stream).poll_frame(cx)).await.transpose()?;
                if first.as_ref().and_then(Frame::data_ref).is_none_or(|data| !data.is_empty()) {
                    return Ok(first);
                }
            }
        };
        let first = tokio::select! {
            biased;
            () = identity.end() => return Err(ForwardError::SessionEnded),
            first = first => first.map_err(|error| classify(AnswerError::RequestBody(error)))?,
        };
        drop(stream);
        body.begins_with(first);
        Ok(())
    }

    /// Writes a request's head, and takes a connection for it if one is idle.
    fn begin(
        &self,
        mut request: CanonicalRequest<Incoming>,
        whole: Option<Bytes>,
        identity: &Identity,
        additions: &Additions<'_>,
        client: Client<'_>,
    ) -> Result<Outgoing, ForwardError> {
        let offer = match request.upgrade().cloned() {
            None => None,
            Some(_) if !self.pool.has_room_for_a_stream() => return Err(ForwardError::Streams),
            Some(protocol) => {
                let client = request.on_upgrade();
                let handshake = Handshake::begin(&mut request, &*self.random);
                Some(Box::new(Offer { protocol, client, handshake }))
            }
        };
        let interim =
            (request.version() == http::Version::HTTP_11).then(|| client.connection.interim()).flatten();
        let head = request::write(&request, &self.reserved, additions, self.pool.sharing() == Sharing::Once);
        let is_head = *request.method() == Method::HEAD;
        let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let (body, progress) = self.body(request, whole, identity);
        let upload = RequestWriter::new(head, body);
        let repeatable = is_safe && progress.is_none();
        let owner = ConnectionOwner {
            tie: Rc::clone(client.tie),
            session: identity.subject().map(|live| live.session.id),
        };
        let message = match owner.lease(&self.pool).or_else(|| self.pool.idle(ask(identity, repeatable))) {
            Some(lease) => Message::Leased(Box::new(Exchange::new(lease, upload, owner, is_head))),
            None => Message::Waiting(Box::new(upload), owner),
        };
        Ok(Outgoing { message, is_head, repeatable, interim, progress, offer })
    }

    /// The portal's answer, whose body is still to come.
    fn answer(
        &self,
        status: StatusCode,
        fields: PortalFields,
        mut exchange: Box<Exchange<RequestBody>>,
        identity: &Identity,
        progress: Option<Rc<Progress>>,
    ) -> Result<Forwarded, ForwardError> {
        let mut timeout = self.timeouts.stall.max(self.timeouts.response);
        let is_stream = is_events(&fields);
        if is_stream {
            if !exchange.becomes_stream() {
                return Err(ForwardError::Streams);
            }
            // It says nothing while there is nothing to say.
            timeout = FOR_EVER;
        }
        let server = exchange.server();
        let body = SessionBoundBody::new(Stream::new(exchange, timeout), identity.clone());
        let followed = Followed::Body(PortalBody::new(body, server, progress));
        Ok(Forwarded { status, fields, followed, is_stream })
    }

    /// What follows the head, and how far its sending has come; absent when nothing does.
    fn body(
        &self,
        request: CanonicalRequest<Incoming>,
        whole: Option<Bytes>,
        identity: &Identity,
    ) -> (RequestBody, Option<Rc<Progress>>) {
        let follows = whole.is_some() || request.has_body();
        let Some(progress) = follows.then(Progress::begin) else { return (RequestBody::Empty, None) };
        let shared = Rc::clone(&progress);
        let body = match whole {
            Some(bytes) => RequestBody::Whole { bytes: Some(bytes), progress: shared },
            None => {
                let incoming = request.into_request().into_body().without_head();
                let stream = Stream::new(incoming, self.timeouts.stall).at_rate(self.timeouts.min_rate);
                RequestBody::Stream {
                    body: SessionBoundBody::new(stream, identity.clone()),
                    reserved: Rc::clone(&self.reserved),
                    progress: shared,
                }
            }
        };
        (body, Some(progress))
    }

    async fn send(
        &self,
        message: Message,
        send: Sending<'_>,
    ) -> Result<(Head, Box<Exchange<RequestBody>>), ForwardError> {
        let mut exchange = match message {
            Message::Leased(exchange) => exchange,
            Message::Waiting(upload, owner) => {
                let lease = Box::pin(self.connect(false, send)).await?;
                Box::new(Exchange::new(lease, *upload, owner, send.is_head))
            }
        };
        match send.answer(&mut exchange).await? {
            Ok(answer) => Ok((answer, exchange)),
            Err(AnswerError::Lost(_)) if exchange.was_reused() => {
                exchange.was_lost();
                Box::pin(self.send_again(exchange, send)).await
            }
            Err(error) => Err(classify(error)),
        }
    }

    /// A connection that was waited for, long enough perhaps for the session to have ended.
    async fn connect(&self, fresh: bool, send: Sending<'_>) -> Result<Lease, ForwardError> {
        let lease = self.pool.lease(fresh, ask(send.identity, send.repeatable)).await?;
        if send.identity.has_ended() { Err(ForwardError::SessionEnded) } else { Ok(lease) }
    }

    /// Sends a request once more, on a new connection: one that died while idle, this one cannot have.
    async fn send_again(
        &self,
        lost: Box<Exchange<RequestBody>>,
        send: Sending<'_>,
    ) -> Result<(Head, Box<Exchange<RequestBody>>), ForwardError> {
        let (upload, owner) = lost.again(send.repeatable).ok_or(ForwardError::Lost)?;
        let lease = self.connect(true, send).await?;
        let mut exchange = Box::new(Exchange::new(lease, upload, owner, send.is_head));
        let answer = send.answer(&mut exchange).await?.map_err(classify)?;
        Ok((answer, exchange))
    }
}

/// A request that is on its way, or about to be.
enum Begun<C> {
    /// Over HTTP/2.
    Call(C),
    Exchange(Result<Outgoing, ForwardError>),
}

/// What is left of a request when its head has been written.
struct Outgoing {
    message: Message,
    is_head: bool,
    /// Sent twice, it has no other effect than sent once, and it can be sent twice.
    repeatable: bool,
    interim: Option<Interim>,
    /// Absent when nothing follows the head.
    progress: Option<Rc<Progress>>,
    offer: Option<Box<Offer>>,
}

/// A request as it goes out.
enum Message {
    /// Over a connection that was idle.
    Leased(Box<Exchange<RequestBody>>),
    /// There was none.
    Waiting(Box<RequestWriter<RequestBody>>, ConnectionOwner),
}

/// The protocol that the client would switch to.
struct Offer {
    protocol: HeaderValue,
    client: OnUpgrade,
    handshake: Option<Handshake>,
}

impl Offer {
    /// What the client gets when the portal has switched: to this protocol, since another one would be raw bytes that nobody
    /// agreed on.
    fn accepted(&self, mut fields: PortalFields) -> Result<Head, ForwardError> {
        let protocol = fields.get(&header::UPGRADE);
        if !protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case(self.protocol.as_bytes())) {
            return Err(ForwardError::Switch);
        }
        let status = match &self.handshake {
            Some(handshake) => handshake.finish(&mut fields).ok_or(ForwardError::Handshake)?,
            None => {
                fields.replace(&header::CONNECTION, HeaderValue::from_static("upgrade"));
                fields.replace(&header::UPGRADE, self.protocol.clone());
                StatusCode::SWITCHING_PROTOCOLS
            }
        };
        Ok((status, fields))
    }
}

/// How a request is sent and its answer waited for.
#[derive(Clone, Copy)]
struct Sending<'a> {
    is_head: bool,
    repeatable: bool,
    interim: Option<&'a Interim>,
    /// Counts from the last part of the request that went out.
    timeout: Duration,
    identity: &'a Identity,
    /// Absent when nothing follows the request's head.
    progress: Option<&'a Progress>,
}

impl Sending<'_> {
    /// Waits. The timer goes off now and then to see whether there still is a session: listening for its end would cost
    /// every request something that only the slow ones need.
    async fn answer(
        self,
        exchange: &mut Exchange<RequestBody>,
    ) -> Result<Result<Head, AnswerError<BodyError>>, ForwardError> {
        let mut started = None;
        poll_fn(|cx| {
            let answer =
                exchange.poll_answer(cx, |status, fields| pass_interim_on(status, fields, self.interim));
            if let Poll::Ready(answer) = answer {
                return Poll::Ready(Ok(answer));
            }
            let Some(timer) = exchange.timer() else { return Poll::Pending };
            loop {
                ready!(timer.as_mut().poll(cx));
                let now = Instant::now();
                // Late by the timer's first round at most, and most requests never ask what time it is.
                let started = *started.get_or_insert(now);
                let sent = self.progress.map_or(started, |progress| progress.last().max(started));
                if self.identity.has_ended() {
                    return Poll::Ready(Err(ForwardError::SessionEnded));
                }
                if now >= sent + self.timeout {
                    return Poll::Ready(Err(ForwardError::Timeout(self.timeout)));
                }
                timer.as_mut().reset((sent + self.timeout).min(now + LOOK));
            }
        })
        .await
    }
}

fn ask(identity: &Identity, repeatable: bool) -> Ask<'_> {
    // Those who are not known share what is no user's: no id is empty. A token may have fewer groups than its user.
    let user = match (identity.session(), identity.subject()) {
        (Some(live), _) => live.session.user.as_str().as_bytes(),
        (None, Some(machine)) => machine.session.id.as_bytes(),
        (None, None) => &[],
    };
    Ask { user, repeatable }
}

fn is_events(fields: &PortalFields) -> bool {
    let kind = fields.get(&header::CONTENT_TYPE).and_then(|kind| kind.get(..17));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"))
}

fn classify(error: AnswerError<BodyError>) -> ForwardError {
    match error {
        AnswerError::RequestBody(BodyError::SessionEnded) => ForwardError::SessionEnded,
        AnswerError::RequestBody(_) | AnswerError::RequestLength => ForwardError::RequestBody(error),
        _ => ForwardError::Answer(error),
    }
}

/// Forwards 103 and its like ahead of the answer. 100 was given by us already.
fn pass_interim_on(status: StatusCode, mut fields: PortalFields, interim: Option<&Interim>) {
    let Some(interim) = interim.filter(|_| status != StatusCode::CONTINUE) else { return };
    // What the browser is to remember comes with the answer itself.
    fields.drop_where(|name| Topics::of(name) != Topics::default() && *name != header::LINK);
    fields.drop_all(&header::CONTENT_LENGTH);
    let mut headers = HeaderMap::new();
    fields.add_to(&mut headers);
    interim.send(status, &headers);
}
