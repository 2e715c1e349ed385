//! Forwards a request to the portal and streams the response back. Does not decide who may pass.

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

/// How often a request that waits for its response checks that its session still lasts.
const LOOK: Duration = Duration::from_millis(50);

/// Why there is no response from the portal.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("cannot reach the portal")]
    Connect(#[from] ConnectError),
    #[error("cannot read the portal's response")]
    Answer(#[source] AnswerError<BodyError>),
    #[error("cannot read the portal's response to a gRPC call")]
    Call(#[source] hyper::Error),
    #[error("the portal closed a kept-alive connection, and the request is not safe to repeat")]
    Lost,
    #[error("the request's body did not arrive")]
    RequestBody(#[source] AnswerError<BodyError>),
    #[error("too many WebSockets and event streams are open (`portal.max_streams`)")]
    Streams,
    #[error("the portal did not respond within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("the portal switched to a protocol that was not offered")]
    Switch,
    #[error("malformed response from the portal to a WebSocket handshake")]
    Handshake,
    #[error("the session ended before the response came")]
    SessionEnded,
}

/// Longer than any session.
const FOR_EVER: Duration = Duration::from_hours(24 * 365);

/// The timeouts of forwarding.
#[derive(Clone, Copy, Debug)]
pub struct ForwardTimeouts {
    /// From the end of the request to the head of the response.
    pub response: Duration,
    /// Without progress of a body.
    pub stall: Duration,
    /// Minimum bytes per second of a request body, of the time spent waiting for it.
    pub min_rate: u32,
}

/// One worker's access to the portal.
pub struct Proxy {
    pool: Rc<Pool>,
    http2: Rc<Http2<CallBody>>,
    reserved: Rc<IdentityHeaders>,
    sessions: Arc<Sessions>,
    random: Arc<dyn Random>,
    timeouts: ForwardTimeouts,
}

/// The origin of a request.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    pub connection: &'a ConnectionHandle,
    /// The connection to the portal that is reserved for this client connection.
    pub tie: &'a Rc<Tie>,
}

/// The head of a response: its status and its fields.
type Head = (StatusCode, PortalFields);

/// What follows the head of the portal's response.
#[derive(Debug)]
pub enum Followed {
    Body(PortalBody),
    /// A tunnel, after an upgrade.
    Tunnel {
        /// The server of the portal at its other end.
        server: Rc<str>,
        tally: Rc<Tally>,
    },
}

/// The response of the portal.
#[derive(Debug)]
pub struct Forwarded {
    pub status: StatusCode,
    pub fields: PortalFields,
    pub followed: Followed,
    /// It is a WebSocket, another protocol, or an event stream.
    pub is_stream: bool,
}

impl Proxy {
    /// `sessions` is told of uses by tunnels; keys of handshakes are made with `random`.
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

    /// Sends one request to the portal, at most once: a second try happens only if the first cannot have been seen, or
    /// if repeating is harmless (RFC 9110 §9.2.2).
    ///
    /// The [`Identity`] is the proof that the gate was passed. `whole` is the request's body if it has been read
    /// already; `counts` says whether use of a tunnel counts as use of the session.
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
        // The head is written at once, so that little is held until the response comes.
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
            // In HTTP/2 a success would announce a tunnel.
            if status.is_success() && outgoing.offer.is_some_and(|offer| offer.handshake.is_some()) {
                return Err(ForwardError::Handshake);
            }
            self.answer(status, fields, exchange, identity, outgoing.progress)
        }
    }

    /// The timeout for the head of the portal's response.
    pub fn response_timeout(&self) -> Duration {
        self.timeouts.response
    }

    /// Waits for the first part of a body where none is usual: an empty body does not count, and its request is an
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

    /// Writes a request's head, and takes an idle connection if there is one.
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

    /// The portal's response, without its body yet.
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
            // An event stream is silent while there is no event.
            timeout = FOR_EVER;
        }
        let server = exchange.server();
        let body = SessionBoundBody::new(Stream::new(exchange, timeout), identity.clone());
        let followed = Followed::Body(PortalBody::new(body, server, progress));
        Ok(Forwarded { status, fields, followed, is_stream })
    }

    /// The body of a request, and its progress; `None` if there is no body.
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

    /// Waits for a connection; in the meantime the session may have ended.
    async fn connect(&self, fresh: bool, send: Sending<'_>) -> Result<Lease, ForwardError> {
        let lease = self.pool.lease(fresh, ask(send.identity, send.repeatable)).await?;
        if send.identity.has_ended() { Err(ForwardError::SessionEnded) } else { Ok(lease) }
    }

    /// Sends a request again, on a new connection, which cannot have died while idle.
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

/// A request that is being sent.
enum Begun<C> {
    /// Over HTTP/2.
    Call(C),
    Exchange(Result<Outgoing, ForwardError>),
}

/// The rest of a request after its head has been written.
struct Outgoing {
    message: Message,
    is_head: bool,
    /// Repeating it has no further effect, and it can be sent twice.
    repeatable: bool,
    interim: Option<Interim>,
    /// `None` if the request has no body.
    progress: Option<Rc<Progress>>,
    offer: Option<Box<Offer>>,
}

/// A request on its way to a server.
enum Message {
    /// On a connection that was idle.
    Leased(Box<Exchange<RequestBody>>),
    /// Still waiting for a connection.
    Waiting(Box<RequestWriter<RequestBody>>, ConnectionOwner),
}

/// The protocol that the client wants to switch to.
struct Offer {
    protocol: HeaderValue,
    client: OnUpgrade,
    handshake: Option<Handshake>,
}

impl Offer {
    /// The client's head after the portal has switched. It must be the offered protocol: for any other, the bytes would
    /// have no agreed meaning.
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

/// How a request is sent, and how long its response is waited for.
#[derive(Clone, Copy)]
struct Sending<'a> {
    is_head: bool,
    repeatable: bool,
    interim: Option<&'a Interim>,
    /// Starts with the last part of the request that was sent.
    timeout: Duration,
    identity: &'a Identity,
    /// `None` if the request has no body.
    progress: Option<&'a Progress>,
}

impl Sending<'_> {
    /// Waits for the response. The timer fires at intervals to check that the session still lasts: listening for its
    /// end would cost every request something that only slow ones need.
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
                // Late by at most one interval, and most requests never read the clock.
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
    // Strangers share one key, which is no user's: no id is empty. A token may have fewer groups than its user.
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

/// Forwards interim responses such as 103 ahead of the response. The gateway has sent 100 itself.
fn pass_interim_on(status: StatusCode, mut fields: PortalFields, interim: Option<&Interim>) {
    let Some(interim) = interim.filter(|_| status != StatusCode::CONTINUE) else { return };
    // Fields with a lasting effect on the browser come with the response itself.
    fields.drop_where(|name| Topics::of(name) != Topics::default() && *name != header::LINK);
    fields.drop_all(&header::CONTENT_LENGTH);
    let mut headers = HeaderMap::new();
    fields.add_to(&mut headers);
    interim.send(status, &headers);
}
