//! The composition root: from a configuration to stores, gateway and server. The only room that knows every concrete
//! type.

mod stores;

use std::{
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use tokio::{net::TcpListener, runtime::Handle};
use tokio_util::sync::CancellationToken;

pub use self::stores::{Environment, Stores};
use crate::{
    access::AccessRules,
    account::Accounts,
    background::Background,
    config::Config,
    gate::{Challenger, Gate},
    gateway::{Bounds, Gateway, SharedGateway, SharedSite, Site, SiteAddress},
    identity::{Assertions, IdentityHeaders},
    monitoring::{self, Logins, Monitoring},
    pages::{self, Pages},
    proxy::{CallBody, ForwardTimeouts, Proxy},
    server::Bound,
    telemetry::{access_log::AccessLog, metrics::Metrics, writer::LogWriter},
    tls,
    upstream::{self, Connector, Peer, PerUser, Pool, PoolLimits, Sharing, http2::Http2},
    web::{
        cookies,
        gate::RequestGate,
        loop_mark::LoopMark,
        portal_answers::{self, PortalAnswers},
        return_to::Returns,
    },
};

/// How often a worker closes idle connections to the portal.
const TIDY: Duration = Duration::from_secs(1);
/// How long the last uses of sessions may take to be written down at the end.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// A gateway that is ready to serve.
pub struct App {
    stores: Stores,
    shared: Arc<SharedGateway>,
    site: Arc<SharedSite>,
    health_path: Option<String>,
    max_head: usize,
    bound: Bound,
    admin: Option<(TcpListener, SocketAddr)>,
    certificate: tls::Reload,
    peers: Vec<Peer>,
    connector: Connector,
    limits: PoolLimits,
    per_user: PerUser,
    workers: usize,
    sharing: Sharing,
    max_age: Duration,
    timeouts: ForwardTimeouts,
    answers: Box<portal_answers::Parts>,
    /// For how long one key signs; absent: nothing is signed.
    rotation: Option<Duration>,
    environment: Environment,
}

impl App {
    /// Builds everything on the machine's clock and binds the sockets; nothing is served yet.
    pub async fn build(config: Config, log: &LogWriter) -> anyhow::Result<Self> {
        let access_log = AccessLog::new(config.log.format, config.access_log, log.clone());
        let environment = Environment::system(Metrics::with_log(log.clone()));
        // Boxed, since what it holds on the way is much.
        Box::pin(Self::build_in(config, access_log, environment)).await
    }

    /// Builds everything in an environment of the caller's.
    pub async fn build_in(
        config: Config,
        access_log: AccessLog,
        environment: Environment,
    ) -> anyhow::Result<Self> {
        let certificate = tls::Reload::new(&config.tls, Arc::clone(&environment.clock))?;
        let connector = Connector::new(&config.upstream)?;
        let stores = Stores::open_in(&config, &environment).await?;
        let site = site(&config, &stores, &environment).await?;
        let loop_mark = LoopMark::new(&stores.sealer.derive("via"));
        let bound = Bound::new(&config.server)?;
        let shared = SharedGateway {
            loop_mark,
            gate: Gate::new(config.rollout.clone()),
            sessions: Arc::clone(&stores.administration.sessions),
            tokens: Arc::clone(&stores.tokens),
            strangers: Arc::default(),
            saved_forms: stores.administration.saved_forms.clone(),
            clear_on_sign_out: config.clear_on_sign_out.clone(),
            activity: config.activity,
            trusted_proxies: config.web.trusted_proxies.clone(),
            client_address: config.web.client_address,
            believes_forwarded_host: config.web.believes_forwarded_host,
            load: bound.load(),
            access_log,
            metrics: Arc::clone(&environment.metrics),
            clock: Arc::clone(&environment.clock),
            control: Handle::current(),
        };
        let admin = bind_admin(config.admin_listen).await?;
        let peers = peers(&config.upstream);
        Ok(Self {
            stores,
            shared: Arc::new(shared),
            site: Arc::new(site),
            health_path: config.web.health_path.clone(),
            max_head: config.server.max_header_size,
            bound,
            admin,
            certificate,
            connector,
            limits: config.upstream.limits.share(config.server.workers),
            per_user: config.upstream.per_user,
            workers: config.server.workers,
            sharing: config.upstream.sharing,
            max_age: config.upstream.max_age,
            timeouts: timeouts(&config),
            answers: Box::new(portal_answers::Parts {
                config: config.portal_answers,
                public_url: config.web.public_url,
                upstreams: config.upstream.upstreams,
                named: peers.iter().filter_map(|peer| peer.named.clone()).collect(),
            }),
            peers,
            rotation: config.identity.assertion.map(|assertion| assertion.rotation),
            environment,
        })
    }

    /// Where the public listeners are.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.bound.addresses()
    }

    /// Where plain HTTP is led to HTTPS.
    pub fn redirect_addresses(&self) -> &[SocketAddr] {
        self.bound.redirect_addresses()
    }

    /// Where proxies ask.
    pub fn proxies_address(&self) -> Option<SocketAddr> {
        self.bound.proxies_address()
    }

    /// Where the operator's listener is.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, address)| *address)
    }

    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.environment.metrics)
    }

    /// The certificate in force.
    pub fn certificate(&self) -> Arc<tls::Certificate> {
        self.certificate.certificate().load_full()
    }

    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// Serves until `drain` is cancelled and what was open has ended.
    pub async fn serve(self, drain: CancellationToken) -> anyhow::Result<()> {
        // What runs beside the requests ends after them.
        let mut background = Background::default();
        let sessions = Arc::clone(&self.stores.administration.sessions);
        sessions.maintain(&mut background);
        self.stores.tokens.maintain(&mut background);
        if let Some(rotation) = self.rotation {
            let keys = Arc::clone(&self.stores.signing_keys);
            let clock = Arc::clone(&self.environment.clock);
            background.run("rotating the signing keys", keys.maintain(clock, rotation));
        }
        background.run("comparing clocks", Arc::clone(&self.stores.agreement).keep());
        background.run("purging old forms", self.stores.administration.saved_forms.clone().maintain());
        let sealer = Arc::clone(&self.stores.sealer);
        background.run_until("watching the sealing key", |stop| async move { sealer.watch(stop).await });
        let (tls, certificate) = (self.certificate.current(), self.certificate.certificate());
        let watched = self.certificate;
        background.run_until("watching the certificate", |stop| watched.watch(stop));
        if let Some((listener, _)) = self.admin {
            let admin = Monitoring {
                database: self.stores.database.clone(),
                agreement: Arc::clone(&self.stores.agreement),
                logins: Logins::new(self.stores.database.clone(), Arc::clone(&sessions)),
                sessions,
                metrics: Arc::clone(&self.environment.metrics),
                health: self.bound.health(),
                load: self.bound.load(),
                lost: background.losses(),
                certificate,
                clock: Arc::clone(&self.environment.clock),
                drain: drain.clone(),
            };
            background.run_until("answering the operator", |stop| Arc::new(admin).serve(listener, stop));
        }
        let (shared, site) = (self.shared, self.site);
        let (health_path, max_head, random) =
            (self.health_path, self.max_head, Arc::clone(&self.environment.random));
        let (peers, connector, timeouts) = (self.peers, self.connector, self.timeouts);
        let (limits, sharing, max_age) = (self.limits, self.sharing, self.max_age);
        let (answers, workers, per_user) = (self.answers, self.workers, self.per_user);
        let begun = Arc::new(AtomicUsize::new(0));
        let service = move || {
            let pool = Pool::new(peers.clone(), connector.clone(), limits, sharing, max_age);
            let http2 = Rc::new(Http2::new(peers.clone(), connector.clone(), max_age));
            tokio::task::spawn_local(tidy(Rc::downgrade(&pool), Rc::downgrade(&http2)));
            let reserved = Rc::new(site.identity.clone());
            let sessions = Arc::clone(&shared.sessions);
            let worker = begun.fetch_add(1, Ordering::Relaxed) % workers.max(1);
            let bounds = Bounds::new(worker, workers, per_user, Rc::clone(&pool));
            let proxy = Proxy::new(pool, http2, reserved, sessions, Arc::clone(&random), timeouts);
            let site = Site::new(Arc::clone(&site), proxy, PortalAnswers::new(&answers), bounds);
            let gate =
                RequestGate::new(site, vec![]).with_health(health_path.clone()).with_max_head(max_head);
            Gateway::new(Arc::clone(&shared), gate, &*random)
        };
        let served = background.beside(&drain, self.bound.serve(tls, drain.clone(), service)).await;
        background.stop(LAST_WRITES).await;
        self.stores.database.close().await;
        Ok(served??)
    }
}

/// The operator's listener, where there is to be one.
async fn bind_admin(address: Option<SocketAddr>) -> anyhow::Result<Option<(TcpListener, SocketAddr)>> {
    let Some(address) = address else { return Ok(None) };
    let listener = monitoring::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen on {address} for the operator"))?;
    let address = listener.local_addr()?;
    Ok(Some((listener, address)))
}

fn peers(config: &upstream::Config) -> Vec<Peer> {
    config.upstreams.iter().filter_map(|url| Peer::configured(url, config)).collect()
}

fn timeouts(config: &Config) -> ForwardTimeouts {
    ForwardTimeouts {
        response: config.upstream.response_timeout,
        stall: config.server.stall_timeout,
        min_rate: config.server.min_rate,
    }
}

/// The site that the configuration describes.
async fn site(config: &Config, stores: &Stores, environment: &Environment) -> anyhow::Result<SharedSite> {
    let public = &config.web.public_url;
    let address = SiteAddress::new(public);
    let names = cookies::CookieNames::new(public);
    let challenger = Challenger::new(address.origin(), Returns::new(public, config.logout_paths.clone()));
    // Before the pages are made, which are large and would be held while this waits.
    let assertions = assertions(config, stores, environment).await?;
    let login = stores.login(config, environment);
    let dependencies = pages::PageDependencies {
        accounts: Accounts::new(&login, stores.administration.tokens.clone()),
        own_tokens: config.tokens,
        login,
        challenger: challenger.clone(),
        saved_forms: stores.administration.saved_forms.clone(),
        clear_on_sign_out: config.clear_on_sign_out.clone(),
        clock: Arc::clone(&environment.clock),
        cookies: names.clone(),
        signing_keys: config.identity.assertion.is_some().then(|| Arc::clone(&stores.signing_keys)),
        issuer: config.credentials.issuer.clone(),
        origin: address.origin().to_owned(),
    };
    Ok(SharedSite {
        address,
        access: AccessRules::new(&config.access).map_err(|reason| anyhow!("access.rules: {reason}"))?,
        cookies: names,
        challenger,
        pages: Arc::new(Pages::new(&config.pages, dependencies, &stores.sealer)?),
        identity: IdentityHeaders::new(&config.identity),
        assertions,
        logout_paths: config.logout_paths.clone(),
        passive_paths: config.passive_paths.clone(),
    })
}

/// Reads the signing keys, and makes the first one when there is none.
async fn assertions(
    config: &Config,
    stores: &Stores,
    environment: &Environment,
) -> anyhow::Result<Option<Assertions>> {
    let groups = config.identity.groups.clone();
    let Some(config) = &config.identity.assertion else { return Ok(None) };
    let keys = Arc::clone(&stores.signing_keys);
    keys.keep(environment.clock.now(), config.rotation).await?;
    Ok(Some(Assertions::new(config, groups, keys, &stores.sealer, Arc::clone(&environment.random))))
}

/// Closes what has been idle too long, as long as the pool is in use.
async fn tidy(pool: Weak<Pool>, http2: Weak<Http2<CallBody>>) {
    let mut interval = tokio::time::interval(TIDY);
    loop {
        interval.tick().await;
        let Some((pool, http2)) = pool.upgrade().zip(http2.upgrade()) else { return };
        pool.tidy();
        http2.tidy();
    }
}
