//! Forwards a request to the portal and streams the answer back. Decides nothing about who may pass.

mod body;
mod frames;
mod request;
mod response;
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

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, client::conn::TrySendError, upgrade::OnUpgrade};
use tokio::time::{Instant, Sleep};

use self::{
    body::{Progress, Tethered},
    request::Reserved,
    tunnel::Tunnel,
    websocket::Handshake,
};
use crate::{
    gate::Identity,
    random::Random,
    server::{Connection, Interim},
    sessions::Sessions,
    upstream::{ConnectError, Lease, Pool},
    web::{
        body::{BodyError, Stream},
        fields,
        gate::CanonicalRequest,
    },
};

pub use body::{PortalBody, RequestBody};
pub use request::{Additions, Origin};

/// How often a request that waits for its answer looks whether its session still lasts.
const LOOK: Duration = Duration::from_millis(400);

/// Why the portal's answer cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("the portal cannot be reached")]
    Connect(#[from] ConnectError),
    #[error("the portal's answer cannot be read")]
    Answer(#[source] hyper::Error),
    #[error("the request's body did not arrive")]
    RequestBody(#[source] hyper::Error),
    #[error("the portal did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("the portal switched to a protocol that nobody offered")]
    Switch,
    #[error("the portal's answer to a WebSocket handshake is none")]
    Handshake,
    #[error("the session ended before the answer came")]
    SessionEnded,
}

/// Longer than any session.
const FOR_EVER: Duration = Duration::from_hours(24 * 365);

/// How patient to be while forwarding.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the end of the request to the head of the answer.
    pub response: Duration,
    /// Without progress of a body.
    pub stall: Duration,
}

/// One worker's way to the portal.
pub struct Proxy {
    pool: Rc<Pool<RequestBody>>,
    reserved: Reserved,
    sessions: Arc<Sessions>,
    random: Arc<dyn Random>,
    patience: Patience,
}

/// The portal's answer, or the switch of protocols that a tunnel will follow.
pub type Forwarded = Response<Option<PortalBody>>;

impl Proxy {
    /// `sessions` hears of what tunnels carry; keys of handshakes are made of `random`.
    pub fn new(
        pool: Rc<Pool<RequestBody>>,
        reserved: Reserved,
        sessions: Arc<Sessions>,
        random: Arc<dyn Random>,
        patience: Patience,
    ) -> Self {
        Self { pool, reserved, sessions, random, patience }
    }

    /// Sends one request to the portal, at most once: a second try happens only when the first cannot have been seen,
    /// or when repeating is harmless (RFC 9110 §9.2.2).
    ///
    /// The [`Identity`] is the proof that the gate was passed.
    pub async fn forward(
        &self,
        mut request: CanonicalRequest<Incoming>,
        identity: &Identity,
        additions: &Additions<'_>,
        connection: &Connection,
    ) -> Result<Forwarded, ForwardError> {
        let offered = request.upgrade().cloned();
        let client = offered.is_some().then(|| request.on_upgrade());
        let handshake = Handshake::begin(&mut request, &*self.random);
        let interim = (request.version() == http::Version::HTTP_11).then(|| connection.interim()).flatten();
        let (mut rebuilt, incoming) = request::rebuild(request, &self.reserved, additions);
        let mut progress = None;
        if !http_body::Body::is_end_stream(&incoming) {
            let progress = progress.insert(Progress::begin());
            *rebuilt.body_mut() = RequestBody::Stream {
                body: Tethered::new(Stream::new(incoming, self.patience.stall), identity.clone()),
                reserved: Rc::clone(&self.reserved),
                progress: Rc::clone(progress),
            };
        }
        let wait = Wait { patience: self.patience.response, identity, progress: progress.as_deref() };
        let (answer, lease) = self.send(rebuilt, interim.as_ref(), wait).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            // On HTTP/2 it would be the word for a tunnel.
            if handshake.is_some() && answer.status().is_success() {
                return Err(ForwardError::Handshake);
            }
            let (parts, incoming) = answer.into_parts();
            let patience = self.patience_with(&parts.headers);
            let body = Tethered::new(Stream::new(incoming, patience), identity.clone());
            let body = PortalBody::new(body, lease, progress);
            return Ok(response::rebuild(parts, body).map(Some));
        }
        let Some((client, offered)) = client.zip(offered) else { return Err(ForwardError::Switch) };
        let (mut answer, portal) = agreed(answer, &offered)?;
        if let Some(handshake) = handshake {
            let (parts, body) = answer.into_parts();
            answer = Response::from_parts(handshake.finish(parts).ok_or(ForwardError::Handshake)?, body);
        }
        let tunnel = Tunnel {
            client,
            portal,
            sessions: Arc::clone(&self.sessions),
            session: Arc::clone(identity.session()),
            drain: connection.drain().clone(),
            passage: connection.passage(),
            is_websocket: offered.as_bytes().eq_ignore_ascii_case(b"websocket"),
        };
        tunnel.start();
        Ok(answer)
    }

    /// How long an answer's body may stand still. A stream of events says nothing while there is nothing to say.
    fn patience_with(&self, headers: &HeaderMap) -> Duration {
        let events = headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
            kind.as_bytes().get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"))
        });
        if events { FOR_EVER } else { self.patience.stall.max(self.patience.response) }
    }

    async fn send(
        &self,
        mut request: Box<Request<RequestBody>>,
        interim: Option<&Interim>,
        wait: Wait<'_>,
    ) -> Result<(Response<Incoming>, Lease<RequestBody>), ForwardError> {
        let mut lease = match self.pool.idle() {
            Some(lease) => lease,
            None => Box::pin(self.connect(false, wait.identity)).await?,
        };
        let repeatable =
            matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) && is_empty(&request);
        let copy = (lease.reused && repeatable).then(|| Box::new(request::copy_of_head(&request)));
        pass_interim_on(&mut request, interim);
        let answer = lease.sender.try_send_request(*request);
        match wait.until(answer, &mut lease.timer).await? {
            Ok(answer) => Ok((answer, lease)),
            Err(failed) if lease.reused => {
                drop(lease);
                Box::pin(self.send_again(failed, copy, interim, wait)).await
            }
            Err(failed) => Err(classify(failed.into_error())),
        }
    }

    /// A connection that was waited for, long enough perhaps for the session to have ended.
    async fn connect(&self, fresh: bool, identity: &Identity) -> Result<Lease<RequestBody>, ForwardError> {
        let lease = self.pool.lease(fresh).await?;
        if identity.has_ended() { Err(ForwardError::SessionEnded) } else { Ok(lease) }
    }

    /// Sends a request once more, on a new connection: one that died while idle, this one cannot have.
    async fn send_again(
        &self,
        mut failed: TrySendError<Request<RequestBody>>,
        copy: Option<Box<Request<RequestBody>>>,
        interim: Option<&Interim>,
        wait: Wait<'_>,
    ) -> Result<(Response<Incoming>, Lease<RequestBody>), ForwardError> {
        let unsent = failed.take_message();
        let error = failed.into_error();
        let Some(mut request) =
            unsent.or_else(|| copy.filter(|_| is_lost_connection(&error)).map(|copy| *copy))
        else {
            return Err(classify(error));
        };
        let mut lease = self.connect(true, wait.identity).await?;
        pass_interim_on(&mut request, interim);
        let answer = lease.sender.try_send_request(request);
        match wait.until(answer, &mut lease.timer).await? {
            Ok(answer) => Ok((answer, lease)),
            Err(failed) => Err(classify(failed.into_error())),
        }
    }
}

/// A wait for the head of an answer.
#[derive(Clone, Copy)]
struct Wait<'a> {
    /// Counts from the last part of the request that went out.
    patience: Duration,
    identity: &'a Identity,
    /// Absent when nothing follows the request's head.
    progress: Option<&'a Progress>,
}

impl Wait<'_> {
    /// Waits. The timer goes off now and then to see whether there still is a session: listening for its end would cost
    /// every request something that only the slow ones need.
    async fn until<T>(
        self,
        answer: impl Future<Output = T>,
        timer: &mut Pin<Box<Sleep>>,
    ) -> Result<T, ForwardError> {
        let mut answer = std::pin::pin!(answer);
        let started = Instant::now();
        poll_fn(|cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            loop {
                ready!(timer.as_mut().poll(cx));
                let now = Instant::now();
                let sent = self.progress.map_or(started, |progress| progress.last().max(started));
                if self.identity.has_ended() {
                    return Poll::Ready(Err(ForwardError::SessionEnded));
                }
                if now >= sent + self.patience {
                    return Poll::Ready(Err(ForwardError::Timeout(self.patience)));
                }
                timer.as_mut().reset((sent + self.patience).min(now + LOOK));
            }
        })
        .await
    }
}

fn is_empty(request: &Request<RequestBody>) -> bool {
    matches!(request.body(), RequestBody::Empty)
}

fn is_lost_connection(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    let reset = error.source().and_then(|source| source.downcast_ref::<std::io::Error>()).is_some_and(|io| {
        matches!(io.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)
    });
    reset || error.is_incomplete_message() || error.is_closed() || error.is_canceled()
}

fn classify(error: hyper::Error) -> ForwardError {
    use std::error::Error as _;
    let cause = error.source().and_then(|source| source.downcast_ref::<BodyError>());
    if matches!(cause, Some(BodyError::SessionEnded)) {
        ForwardError::SessionEnded
    } else if error.is_user() {
        ForwardError::RequestBody(error)
    } else {
        ForwardError::Answer(error)
    }
}

/// Forwards 103 and its like ahead of the answer. 100 was given by us already, 101 is an answer of its own.
fn pass_interim_on(request: &mut Request<RequestBody>, interim: Option<&Interim>) {
    let Some(interim) = interim.cloned() else { return };
    hyper::ext::on_informational(request, move |early| {
        if early.status() != StatusCode::CONTINUE && early.status() != StatusCode::SWITCHING_PROTOCOLS {
            let mut headers: HeaderMap = early.headers().clone();
            fields::remove_hop_by_hop(&mut headers);
            headers.remove(header::SET_COOKIE);
            headers.remove(header::CONTENT_LENGTH);
            interim.send(early.status(), &headers);
        }
    });
}

/// Follows the portal to the protocol that was offered; to another one it would be raw bytes that nobody agreed on.
fn agreed(
    mut answer: Response<Incoming>,
    offered: &http::HeaderValue,
) -> Result<(Forwarded, OnUpgrade), ForwardError> {
    let agreed = answer
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(offered.as_bytes()));
    if !agreed {
        return Err(ForwardError::Switch);
    }
    let portal = hyper::upgrade::on(&mut answer);
    let (parts, _) = answer.into_parts();
    Ok((Response::from_parts(response::rebuild_switch(parts, offered.clone()), None), portal))
}
