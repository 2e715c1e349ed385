//! The response body on its way to the client, and the record of the request, written when the last byte is out.

use std::{
    net::IpAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body::{Body, Frame, SizeHint};

use super::{Backend, Gateway, SharedGateway, Site, context::Permit, limits::Counts, sign_off};
use crate::{
    clock::Moment,
    errors::Chain,
    forward_auth::Question,
    proxy::{Followed, PortalBody, Tally},
    sessions::Live,
    telemetry::{Outcome, access_log::Line},
    tokens::LiveToken,
    upstream::http1::AnswerError,
    web::{answer::Answer, body::BodyError, reply::Reply},
};

/// The source of a response body.
pub(super) enum BodySource {
    Own(Option<Bytes>),
    Portal(PortalBody),
    /// A tunnel: bytes in both directions instead of a body.
    Tunnel {
        server: Rc<str>,
        tally: Rc<Tally>,
    },
}

impl From<Followed> for BodySource {
    fn from(followed: Followed) -> Self {
        match followed {
            Followed::Body(body) => Self::Portal(body),
            Followed::Tunnel { server, tally } => Self::Tunnel { server, tally },
        }
    }
}

/// Wraps a response that does not come from the portal.
pub(super) fn own(answer: Answer) -> Reply<BodySource> {
    Reply::from(answer).map(|bytes| BodySource::Own(Some(bytes)))
}

/// What is known of one request. When it is dropped with the body, it becomes a line in the access log.
pub(super) struct RequestRecord {
    gateway: Rc<Gateway>,
    /// The site of the request, or the first site if the request names none.
    pub(super) site: Rc<Site>,
    /// The route to the portal; `None`: the site's own servers.
    pub(super) route: Option<usize>,
    pub(super) source: BodySource,
    /// The question of another proxy; `None`: the request is a client's.
    pub(super) question: Option<Question>,
    pub(super) method: Method,
    pub(super) uri: Uri,
    version: Version,
    pub(super) began: Moment,
    sent: u64,
    received: u64,
    server: Option<Rc<str>>,
    /// Hexadecimal digits of the id.
    request_id: [u8; 16],
    pub(super) client_ip: IpAddr,
    pub(super) session: Option<Arc<Live>>,
    /// The token of the request, if the request stands on one.
    pub(super) token: Option<Arc<LiveToken>>,
    pub(super) outcome: Outcome,
    pub(super) status: StatusCode,
    /// The protocol that the client wants to switch to.
    pub(super) upgrade: Option<HeaderValue>,
    /// The requested host, if it is not ours.
    pub(super) asked_host: Option<Box<str>>,
    pub(super) portal_took: Option<Duration>,
    /// The portal has logged the user out: the session ends with this response.
    pub(super) signs_off: bool,
    /// The connection closes after this response.
    pub(super) closes: bool,
    /// Counts a response that the client has not read yet.
    pub(super) unread: Option<Permit>,
    /// A public request of a stranger that got through.
    pub(super) is_public: bool,
    /// What it counts as in its user's limits.
    pub(super) counts: Counts,
    /// Counts a WebSocket or an event stream of its connection.
    pub(super) stream: Option<Permit>,
}

impl RequestRecord {
    pub(super) fn new<B>(
        gateway: Rc<Gateway>,
        request: &Request<B>,
        request_id: [u8; 16],
        peer: IpAddr,
        began: Moment,
    ) -> Self {
        let site = Rc::clone(gateway.request_gate.first());
        Self {
            gateway,
            site,
            route: None,
            source: BodySource::Own(None),
            question: None,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            began,
            sent: 0,
            received: 0,
            server: None,
            request_id,
            client_ip: peer.to_canonical(),
            session: None,
            token: None,
            outcome: Outcome::Refuse,
            status: StatusCode::OK,
            upgrade: None,
            asked_host: None,
            portal_took: None,
            signs_off: false,
            closes: false,
            unread: None,
            is_public: false,
            counts: Counts::default(),
            stream: None,
        }
    }

    /// The servers that the request goes to.
    pub(super) fn servers(&self) -> &Backend {
        self.site.servers(self.route)
    }

    pub(super) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    pub(super) fn shared(&self) -> &SharedGateway {
        &self.gateway.shared
    }

    /// The HSTS value of our own responses.
    pub(super) fn own_hsts(&self) -> Option<&HeaderValue> {
        self.site.answers.own_hsts()
    }

    /// The portal's response is incomplete, and so is the client's.
    fn broke_off(&self, error: &BodyError) {
        let by_client = match error {
            BodyError::SessionEnded => return,
            BodyError::Cut(cause) => matches!(
                cause.downcast_ref::<AnswerError<BodyError>>(),
                Some(AnswerError::RequestBody(_) | AnswerError::RequestLength)
            ),
            BodyError::Stalled(_) => false,
        };
        if by_client {
            tracing::debug!(request.id = self.request_id(), error = %Chain(error), "an upload broke off");
        } else {
            self.shared().metrics.upstream_error("answer");
            tracing::warn!(
                request.id = self.request_id(),
                error = %Chain(error),
                "the portal's answer broke off, and the client's with it"
            );
        }
    }

    /// Adds the request to the metrics, with its duration.
    pub(super) fn count(&self, took: Duration) {
        self.shared().metrics.request(self.outcome, self.status.as_u16(), took);
        if let Some(requests) = &self.site.shared.requests {
            requests.count();
        }
    }

    pub(super) fn request_id(&self) -> &str {
        std::str::from_utf8(&self.request_id).unwrap_or_default()
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        self.leaves_portal();
        self.leaves_public();
        self.closes_stream();
        if self.signs_off
            && let Some(live) = self.session.clone()
        {
            sign_off::end(live, &self.site, self.shared(), self.client_ip, self.request_id());
        }
        let took = self.began.instant.elapsed();
        if std::thread::panicking() {
            (self.outcome, self.status) = (Outcome::Error, StatusCode::INTERNAL_SERVER_ERROR);
        }
        match &self.source {
            BodySource::Own(_) => self.count(took),
            BodySource::Portal(body) => {
                self.count(took);
                self.received = body.sent();
                self.server = Some(body.server());
            }
            // A tunnel was counted when it was opened: its duration says nothing about the portal.
            BodySource::Tunnel { server, tally } => {
                (self.received, self.sent) = (tally.from_client(), tally.to_client());
                self.server = Some(Rc::clone(server));
            }
        }
        let shared = &self.gateway.shared;
        if !shared.access_log.is_enabled() {
            return;
        }
        let session = self.session.as_ref().map(|live| &live.session);
        shared.access_log.write(&Line {
            request_id: self.request_id(),
            client_ip: self.client_ip,
            method: self.method.as_str(),
            time: shared.clock.now(),
            host: self.asked_host.as_deref().unwrap_or_else(|| self.site.authority()),
            target: self.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
            protocol: match self.version {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            upgrade: self.upgrade.as_ref().and_then(|protocol| protocol.to_str().ok()),
            status: self.status.as_u16(),
            duration: took,
            bytes_in: self.received,
            bytes_out: self.sent,
            user: session.map(|session| session.name.as_str()),
            session: session.filter(|_| self.token.is_none()).map(|session| session.id),
            token: self.token.as_ref().map(|token| &*token.name),
            outcome: self.outcome,
            upstream: self.server.as_deref(),
            upstream_duration: self.portal_took,
        });
    }
}

/// A response body on its way to the client.
pub struct ClientBody(pub(super) Sent);

pub(super) enum Sent {
    /// Holds the record, and the source in it, in one box that is passed on.
    Recorded(Box<RequestRecord>),
    /// The tunnel holds the record.
    Tunnel,
}

impl ClientBody {
    fn source(&self) -> Option<&BodySource> {
        match &self.0 {
            Sent::Recorded(record) => Some(&record.source),
            Sent::Tunnel => None,
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Sent::Recorded(record) = &mut self.get_mut().0 else { return Poll::Ready(None) };
        let frame = match &mut record.source {
            BodySource::Own(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            BodySource::Portal(body) => ready!(Pin::new(body).poll_frame(cx)),
            BodySource::Tunnel { .. } => None,
        };
        match &frame {
            Some(Ok(frame)) => {
                let data = frame.data_ref().map_or(0, Bytes::len);
                record.sent += u64::try_from(data).unwrap_or(0);
            }
            Some(Err(error)) => record.broke_off(error),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self.source() {
            Some(BodySource::Own(bytes)) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Some(BodySource::Portal(body)) => body.is_end_stream(),
            Some(BodySource::Tunnel { .. }) | None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.source() {
            Some(BodySource::Own(bytes)) => SizeHint::with_exact(
                bytes.as_ref().map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(0)),
            ),
            Some(BodySource::Portal(body)) => body.size_hint(),
            Some(BodySource::Tunnel { .. }) | None => SizeHint::with_exact(0),
        }
    }
}
