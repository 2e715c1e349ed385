//! The straight line that every request follows, and the only place where an error becomes a response.

mod access;
mod body;
mod bounds;
mod certificate;
mod challenge;
mod context;
mod failure;
mod fair_queue;
mod leaving;
mod limits;
mod notice;
mod plain;
mod questions;
mod request_ids;
mod rescue;
mod saved_form;
mod sign_off;
mod site;
mod token;
mod visit;
mod workers;

use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};
use http_body::Body as _;
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use tokio::{runtime::Handle, time::Instant};

use self::{
    body::{BodySource, ClientBody, RequestRecord, Sent, own},
    challenge::challenge,
    failure::Failure,
    fair_queue::Way,
    request_ids::RequestIds,
    rescue::Audience,
};
pub use self::{
    context::ConnectionContext,
    limits::Bounds,
    site::{Backend, SharedSite, Site, SiteAddress},
};
use crate::{
    client_certificates::{ClientCertificates, ShownCertificate},
    clock::{Clock, Moment, Timestamp},
    gate::Identity,
    identity::Unsigned,
    proxy::{Additions, Client, Forwarded, ForwardedFields},
    random::Random,
    saved_forms::SavedForms,
    secret::TokenHash,
    server::{ConnectionHandle, Door, Load, PlainAsked, Refused, Service},
    sessions::{Activity, Live, Ongoing, Sessions, Use},
    telemetry::{Outcome, access_log::AccessLog, metrics::Metrics},
    tokens::Tokens,
    web::{
        answer::{self, Answer},
        client::{self, AddressField, Destination},
        gate::{CanonicalRequest, Refusal, RequestGate},
        grpc,
        incoming::Incoming,
        loop_mark::LoopMark,
        origin,
        portal_answers::RequestInfo,
        reply::{Head, Reply},
    },
};

/// What all workers and sites share.
pub struct SharedGateway {
    pub loop_mark: LoopMark,
    pub sessions: Arc<Sessions>,
    pub tokens: Arc<Tokens>,
    /// Absent: nobody is asked for a certificate.
    pub certificates: Option<Arc<ClientCertificates>>,
    /// What all strangers together have in progress.
    pub strangers: Arc<Ongoing>,
    pub saved_forms: SavedForms,
    /// The `Clear-Site-Data` value for a sign-out; `None`: not sent.
    pub clear_on_sign_out: Option<HeaderValue>,
    pub activity: Activity,
    pub trusted_proxies: Vec<IpNet>,
    /// The field in which trusted proxies name the client.
    pub client_address: AddressField,
    /// Whether trusted proxies name the requested host in `X-Forwarded-Host`.
    pub believes_forwarded_host: bool,
    pub load: Arc<Load>,
    pub access_log: AccessLog,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    /// The runtime of our pages and the stores, away from the workers.
    pub control: Handle,
}

/// The gateway of one worker.
pub struct Gateway {
    shared: Arc<SharedGateway>,
    request_gate: RequestGate<Rc<Site>>,
    turned_away: rescue::TurnedAway,
    request_ids: RequestIds,
    /// Public requests of strangers that have not ended.
    public: Cell<u32>,
}

impl Gateway {
    pub fn new(shared: Arc<SharedGateway>, request_gate: RequestGate<Rc<Site>>, random: &dyn Random) -> Self {
        let (request_ids, turned_away) = (RequestIds::new(random), rescue::TurnedAway::default());
        Self { shared, request_gate, turned_away, request_ids, public: Cell::new(0) }
    }

    /// The straight line. The record collects what the access log and the metrics need.
    async fn handle(
        &self,
        mut request: Box<Request<Incoming>>,
        connection: &ConnectionHandle,
        context: &ConnectionContext,
        record: &mut RequestRecord,
    ) -> Result<Reply<BodySource>, Failure> {
        if self.shared.believes_forwarded_host && context.is_of_trusted_proxy() {
            self.request_gate.adopt_host(&mut request);
        }
        let body_follows = !request.body().is_end_stream();
        let (mut request, site) = self.request_gate.admit(request, body_follows)?;
        record.site = Rc::clone(site);
        self.check_loop(&request)?;
        record.upgrade = request.upgrade().cloned();
        record.client_ip = self.client_ip(connection, request.headers());
        self.check_question(site, &request, context, record)?;
        if request.is_health() {
            record.outcome = Outcome::Own;
            return Ok(own(health(connection.drain().is_cancelled())));
        }
        self.check_connection(site, context)?;
        let cookies = context.cookies.borrow_mut().open(request.headers(), &site.shared.cookies);
        if let Some(shown) = token::take(&mut request) {
            // The session is ignored: a request stands on a token or on a session, not both.
            let others = cookies.others.as_ref();
            return Box::pin(self.by_token(site, request, (shown, others), (connection, context), record))
                .await;
        }
        // Where a session is shown, good or not, that is what the request is from.
        if let Some(shown) = context.certificate().filter(|_| !cookies.shows_session && !request.is_ours())
            && let Some(machine) = Box::pin(self.certified(site, &request, shown, record)).await?
        {
            let by = (machine, cookies.others.as_ref());
            return Box::pin(self.by_certificate(site, request, by, (connection, context), record)).await;
        }
        let counts = self.counts(site, &request);
        let mut at = record.began;
        if self.shared.load.is_strained() {
            let claimed = (cookies.session, counts);
            Box::pin(self.shed(site, &request, claimed, connection, record)).await?;
            at = self.shared.clock.moment();
        }
        if request.is_ours() {
            record.outcome = Outcome::Own;
            // Boxed like every unusual way, so that the futures of the usual one stay small.
            return Ok(own(Box::pin(self.own(site, request, cookies.session, context, record)).await?));
        }
        let ruling = access::ruling(site, &request, record.client_ip);
        let claimed = cookies.session.filter(|_| ruling.asks_who());
        let session = match self.known_session(claimed, counts, &at) {
            Lookup::Session(live) => Some(live),
            Lookup::Nobody => None,
            Lookup::Ask(id) => {
                let loaded = Box::pin(self.load_for(&ruling, id, counts)).await?;
                at = self.shared.clock.moment();
                loaded
            }
        };
        let now = at.wall;
        let decision = self.judge((site, &request), ruling, session, &at, record)?;
        let is_form = *request.method() == Method::POST && record.question.is_none();
        if is_form && (decision.is_err() || saved_form::named(&request).is_some()) {
            let (session, cookies) = (cookies.session, cookies.others.as_ref());
            let posted =
                saved_form::Posted { site, request, session, cookies, connection, context, whole: None };
            return Box::pin(self.posted(posted, decision, record)).await;
        }
        match decision {
            Ok(identity) => {
                let passed =
                    Passed { site, identity: &identity, cookies: cookies.others.as_ref(), now, whole: None };
                // As `pass` does, whose future would hand the answer through once more.
                if let Some(answer) = self.before_the_portal(&mut request, &passed, record).await? {
                    return Ok(answer);
                }
                self.forward(request, passed, connection, context, record)?.await
            }
            Err(missing) => {
                let has_cookie = cookies.session.is_some();
                Ok(own(challenge(site, &request, has_cookie, missing, record)))
            }
        }
    }

    /// Forwards a request that passed the gate.
    async fn pass(
        &self,
        mut request: CanonicalRequest<Incoming>,
        passed: Passed<'_>,
        (connection, context): (&ConnectionHandle, &ConnectionContext),
        record: &mut RequestRecord,
    ) -> Result<Reply<BodySource>, Failure> {
        if let Some(answer) = self.before_the_portal(&mut request, &passed, record).await? {
            return Ok(answer);
        }
        self.forward(request, passed, connection, context, record)?.await
    }

    /// What a request waits for that may pass: its turn, and its body. An answer: it does not go to the portal.
    async fn before_the_portal(
        &self,
        request: &mut CanonicalRequest<Incoming>,
        passed: &Passed<'_>,
        record: &mut RequestRecord,
    ) -> Result<Option<Reply<BodySource>>, Failure> {
        let identity = passed.identity;
        if record.question.is_some() {
            return Self::allow(request, passed, record).map(Some);
        }
        if let Some(answer) = request.spend_hop() {
            return Ok(Some(own(answer)));
        }
        record.route = passed.site.shared.routes.of(request.path());
        if request.has_body() {
            Box::pin(record.servers().proxy.await_body(request, identity)).await?;
        }
        let way = Way::of(request.method(), request.headers());
        if !self.enters(way, identity, record) {
            Box::pin(self.wait_turn(way, identity, record)).await?;
        }
        Ok(None)
    }

    /// What this gateway has sent and gets back would go round for ever.
    fn check_loop(&self, request: &CanonicalRequest<Incoming>) -> Result<(), Failure> {
        let may_be = request.field_set().may_have(&header::FORWARDED);
        if may_be && self.shared.loop_mark.is_in(request.headers()) { Err(Failure::Loop) } else { Ok(()) }
    }

    fn client_ip(&self, connection: &ConnectionHandle, headers: &HeaderMap) -> IpAddr {
        let SharedGateway { trusted_proxies, client_address, .. } = &*self.shared;
        client::address(connection.peer().ip(), headers, trusted_proxies, *client_address)
    }

    /// Whether a request counts as use of its session.
    fn counts(&self, site: &Site, request: &CanonicalRequest<Incoming>) -> Use {
        let passive = site.shared.passive_paths.iter().any(|known| known.matches(request.path()))
            || (self.shared.activity == Activity::People
                && !client::is_by_person(request.method(), request.headers()));
        if passive { Use::Passive } else { Use::Counts }
    }

    /// What this gateway knows of the session without asking a store.
    fn known_session(&self, claimed: Option<TokenHash>, counts: Use, at: &Moment) -> Lookup {
        let Some(id) = claimed else { return Lookup::Nobody };
        match self.shared.sessions.cached(&id, counts, at) {
            Some(live) => {
                self.shared.metrics.session_cache_hit();
                Lookup::Session(live)
            }
            None => Lookup::Ask(id),
        }
    }

    /// Loads the session from the store. An error means that the store did not answer, never "no session".
    async fn load_session(&self, id: TokenHash, counts: Use) -> Result<Option<Arc<Live>>, Failure> {
        self.shared.metrics.session_cache_miss();
        let sessions = Arc::clone(&self.shared.sessions);
        let loaded = self.shared.control.spawn(async move { sessions.load(&id, counts).await });
        Ok(loaded.await.map_err(Failure::Lost)??)
    }

    /// Forwards the request. The returned future has to be awaited.
    fn forward<'a>(
        &'a self,
        mut request: CanonicalRequest<Incoming>,
        passed: Passed<'a>,
        connection: &'a ConnectionHandle,
        context: &'a ConnectionContext,
        record: &'a mut RequestRecord,
    ) -> Result<impl Future<Output = Result<Reply<BodySource>, Failure>> + use<'a>, Failure> {
        let site = passed.site;
        let is_personal = passed.identity.subject().is_some();
        let is_session = passed.identity.session().is_some();
        access::admit_socket(site, &request, passed.identity)?;
        if request.upgrade().is_some() {
            self.opens_stream(passed.identity, (connection, context), record)?;
        }
        let guards = workers::admit(&mut request, &site.answers)?;
        let notices = notice::admit(&mut request, passed.identity, site);
        let Passed { identity, cookies, now, whole, .. } = passed;
        let forwarded = self.forwarded_fields(site, record.client_ip, context);
        let additions = Additions {
            forwarded: &forwarded,
            authority: site.host(),
            inner_origin: site.answers.inner_origin(),
            request_id: record.request_id(),
            cookies,
            identity: identity.headers(&site.shared.identity)?,
            assertion: assertion(site, identity, now)?,
        };
        // A token cannot be signed out.
        let logs_out = match request.upgrade() {
            Some(_) => None,
            None if is_personal && !is_session => None,
            None => {
                let (method, headers) = (request.method(), request.headers());
                site.shared.logout_paths.attempt(method, headers, request.path(), request.query())
            }
        };
        let from_our_form = is_from_our_form(site, &request, identity, now, whole.is_some());
        let counts = if request.upgrade().is_some() { self.counts(site, &request) } else { Use::Counts };
        let asked = self.shared.access_log.is_enabled().then(Instant::now);
        let client = Client { connection, tie: &context.tie };
        let forwarded =
            site.servers(record.route).proxy.forward(request, whole, identity, &additions, client, counts);
        Ok(async move {
            let forwarded = forwarded.await;
            record.portal_took = asked.map(|asked| asked.elapsed());
            let Forwarded { status, mut fields, mut followed, is_stream } = forwarded?;
            self.became(is_stream, identity, (connection, context), record)?;
            let signs_off = logs_out.is_some_and(|attempt| attempt.worked(status, &fields));
            let about = RequestInfo { path: record.uri.path(), cookies, is_personal, signs_off };
            site.answers.apply(&mut fields, status, &about);
            if signs_off {
                sign_off::follow(&mut fields, site, &self.shared);
                record.signs_off = true;
            }
            if from_our_form && let Some(page) = leaving::instead(status, &fields, site) {
                return Ok(page);
            }
            if guards {
                workers::guard(status, &mut fields, &mut followed)?;
            }
            if notices {
                notice::insert(status, &mut fields, &mut followed, site);
            }
            Ok(Reply { status, head: Head::Portal(fields), body: BodySource::from(followed) })
        })
    }

    /// The forwarding fields for a client.
    fn forwarded_fields(
        &self,
        site: &Rc<Site>,
        client: IpAddr,
        context: &ConnectionContext,
    ) -> Rc<ForwardedFields> {
        let mut last = context.forwarded.borrow_mut();
        match &*last {
            Some((known, of, fields)) if *known == client && Rc::ptr_eq(of, site) => Rc::clone(fields),
            _ => {
                let fields = Rc::new(ForwardedFields::new(client, site.authority(), &self.shared.loop_mark));
                Rc::clone(&last.insert((client, Rc::clone(site), fields)).2)
            }
        }
    }
}

/// The signed assertion for the portal.
fn assertion(site: &Site, identity: &Identity, now: Timestamp) -> Result<Option<HeaderValue>, Unsigned> {
    let assertions = site.shared.assertions.as_ref();
    assertions.zip(identity.subject()).map(|(assertions, live)| assertions.of(live, now)).transpose()
}

/// Whether one of our forms has led here, as at the end of a login. Only looked for where that is possible.
fn is_from_our_form(
    site: &Site,
    request: &CanonicalRequest<Incoming>,
    identity: &Identity,
    now: Timestamp,
    sends_saved: bool,
) -> bool {
    let is_new = identity
        .session()
        .is_some_and(|live| now.since(live.session.created_at) < leaving::LONGEST_AFTER_LOGIN);
    (is_new || sends_saved) && origin::is_from_our_page(request.headers(), site.origin())
}

/// A request that passed the gate.
struct Passed<'a> {
    site: &'a Rc<Site>,
    identity: &'a Identity,
    /// The portal's share of the client's cookies.
    cookies: Option<&'a HeaderValue>,
    now: Timestamp,
    /// The body, if it was read before.
    whole: Option<Bytes>,
}

/// What a worker knows of a session without asking a store.
enum Lookup {
    Session(Arc<Live>),
    Nobody,
    Ask(TokenHash),
}

impl Service for Gateway {
    type Body = ClientBody;
    type Context = ConnectionContext;

    async fn call(
        self: Rc<Self>,
        request: Box<Request<Incoming>>,
        connection: Rc<ConnectionHandle>,
        context: Rc<ConnectionContext>,
    ) -> Reply<ClientBody> {
        let began = self.shared.clock.moment();
        let mut record = Box::new(RequestRecord::new(
            Rc::clone(&self),
            &request,
            self.request_ids.next(),
            connection.peer().ip(),
            began,
        ));
        let audience = match client::destination(request.method(), request.headers()) {
            Destination::Window => Audience::Person,
            Destination::Frame => Audience::Frame,
            Destination::Elsewhere if grpc::is_call(request.method(), request.headers()) => Audience::Call,
            Destination::Elsewhere => Audience::Script,
        };
        let about = (request.version(), request.method() == Method::HEAD);
        if context.is_for_questions() {
            let answer = Box::pin(self.hear(request, audience, (&connection, &context), &mut record)).await;
            return give(answer, about, record, Some(&context));
        }
        let answer = match self.handle(request, &connection, &context, &mut record).await {
            Ok(answer) => answer,
            Err(failure) => own(self.rescue(&failure, audience, &mut record)),
        };
        // After a request that could be misread, no more bytes are read.
        if record.closes && about.0 != Version::HTTP_2 {
            connection.finish();
        }
        give(answer, about, record, Some(&context))
    }

    fn refuse(self: Rc<Self>, refusal: Refusal, read: &[u8], peer: SocketAddr) -> Reply<ClientBody> {
        // Nothing else is known of a malformed request.
        let mut unread = Request::new(());
        *unread.method_mut() = Method::from_bytes(b"-").unwrap_or_default();
        let began = self.shared.clock.moment();
        let mut record = Box::new(RequestRecord::new(
            Rc::clone(&self),
            &unread,
            self.request_ids.next(),
            peer.ip(),
            began,
        ));
        // Too many cookies are a person's problem, who can clear them.
        let is_page = refusal == Refusal::TooLarge && client::reads_like_navigation(read);
        let audience = if is_page { Audience::Person } else { Audience::Script };
        let answer = own(self.rescue(&refusal.into(), audience, &mut record));
        give(answer, (unread.version(), false), record, None)
    }

    fn answer_plain(self: Rc<Self>, asked: PlainAsked, client: SocketAddr) -> Answer {
        let mut unread = Request::new(());
        *unread.method_mut() = Method::from_bytes(b"-").unwrap_or_default();
        let request = asked.as_ref().map_or(&unread, |(request, _)| request);
        let (began, id) = (self.shared.clock.moment(), self.request_ids.next());
        let mut record = RequestRecord::new(Rc::clone(&self), request, id, client.ip(), began);
        let answer = match asked {
            Ok((request, has_body)) => self.plainly(request, has_body, &mut record),
            Err(refusal) => plain::refused(&refusal),
        };
        record.status = answer.status();
        answer
    }

    fn connected(&self, trusted: bool, door: Door) -> ConnectionContext {
        ConnectionContext::new(self.shared.metrics.connection(), trusted, door)
    }

    fn secured(&self, context: &ConnectionContext, shown: Option<&[CertificateDer<'_>]>, asked: bool) {
        context.has_shown(shown.and_then(ShownCertificate::new), asked);
    }

    fn handshake_failed(&self) {
        self.shared.metrics.handshake_failed();
    }

    fn refused(&self, reason: Refused) {
        self.shared.metrics.connection_refused(match reason {
            Refused::Network => "network",
            Refused::Overload => "overload",
            Refused::ProxyProtocol => "proxy_protocol",
        });
    }
}

/// The health check on the portal's port, for load balancers. It does not ask the stores, which all gateways share.
fn health(stops: bool) -> Answer {
    let (status, word) =
        if stops { (StatusCode::SERVICE_UNAVAILABLE, "stopping\n") } else { (StatusCode::OK, "ok\n") };
    answer::text(status, word)
}

/// Turns a response into one that the server can send for this version and for a HEAD.
fn give(
    Reply { mut status, mut head, body }: Reply<BodySource>,
    (version, is_head): (Version, bool),
    mut record: Box<RequestRecord>,
    context: Option<&ConnectionContext>,
) -> Reply<ClientBody> {
    if let Head::Own(headers) = &mut head
        && let Some(hsts) = record.own_hsts()
    {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    record.source = match body {
        BodySource::Own(Some(bytes)) if is_head => {
            head.set(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            BodySource::Own(None)
        }
        // The client has not read the earlier pages: this response has a status and no page.
        BodySource::Own(Some(bytes)) if version == Version::HTTP_2 && !bytes.is_empty() => {
            record.unread = record.unread.take().or_else(|| context?.unread());
            if record.unread.is_none() {
                status = StatusCode::SERVICE_UNAVAILABLE;
            }
            BodySource::Own(record.unread.is_some().then_some(bytes))
        }
        source => source,
    };
    record.status = status;
    let tally = match &record.source {
        BodySource::Tunnel { tally, .. } => Rc::clone(tally),
        BodySource::Own(_) | BodySource::Portal(_) => {
            return Reply { status, head, body: ClientBody(Sent::Recorded(record)) };
        }
    };
    record.count(record.began.instant.elapsed());
    tally.keep(record);
    Reply { status, head, body: ClientBody(Sent::Tunnel) }
}
