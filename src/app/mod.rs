//! The composition root: builds stores, gateway and server from a configuration. The only module that knows every
//! concrete type.

mod sites;
mod stores;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::{net::TcpListener, runtime::Handle};
use tokio_util::sync::CancellationToken;

use self::sites::{OpenSite, ThisWorker};
pub use self::stores::{Environment, Stores};
use crate::{
    background::Background,
    client_certificates::ClientCertificates,
    config::Config,
    gateway::{Gateway, SharedGateway},
    mail::{self, MailTransport},
    monitoring::{self, Enrolments, Logins, Monitoring},
    server::{Bound, ListenAddress},
    telemetry::{access_log::AccessLog, metrics::Metrics, writer::LogWriter},
    tls,
    web::{gate::RequestGate, loop_mark::LoopMark},
};

/// How long storing the last uses of sessions may take at shutdown.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// A gateway that is ready to serve.
pub struct App {
    stores: Stores,
    shared: Arc<SharedGateway>,
    sites: Vec<OpenSite>,
    health_path: Option<String>,
    max_head: usize,
    bound: Bound,
    admin: Option<(TcpListener, SocketAddr)>,
    certificates: tls::Reload,
    /// The way to the mail server, if there is one.
    mail: Option<MailTransport>,
    workers: usize,
    /// How long one key signs; `None`: no assertions.
    rotation: Option<Duration>,
    environment: Environment,
}

impl App {
    /// Builds everything with the machine's clock and binds the sockets. Nothing is served yet.
    pub async fn build(config: Config, log: &LogWriter) -> anyhow::Result<Self> {
        let access_log = AccessLog::new(config.log.format, config.access_log, log.clone());
        let environment = Environment::system(Metrics::with_log(log.clone()));
        // Boxed, since the future is large.
        Box::pin(Self::build_in(config, access_log, environment)).await
    }

    /// Builds everything in a given environment.
    pub async fn build_in(
        config: Config,
        access_log: AccessLog,
        environment: Environment,
    ) -> anyhow::Result<Self> {
        let clients = config.client_certificates.as_ref().map(ClientCertificates::new);
        let clients = clients.transpose()?.map(Arc::new);
        let certificates = tls::Reload::new(&config.tls, clients.clone(), Arc::clone(&environment.clock))?;
        let mail = config.mail.as_ref().map(MailTransport::new).transpose()?;
        let stores = Stores::open_in(&config, &environment).await?;
        let sites = Box::pin(sites::open(&config, &stores, clients.as_ref(), &environment)).await?;
        let tokens = stores.tokens(&config, clients.clone(), &environment);
        let loop_mark = LoopMark::new(&stores.sealer.derive("via"));
        let bound = Bound::new(&config.server)?;
        let shared = SharedGateway {
            loop_mark,
            sessions: Arc::clone(&stores.administration.sessions),
            tokens,
            certificates: clients,
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
        Ok(Self {
            stores,
            shared: Arc::new(shared),
            rotation: sites.iter().find_map(|site| site.rotation),
            sites,
            health_path: config.web.health_path,
            max_head: config.server.max_header_size,
            bound,
            admin,
            certificates,
            mail,
            workers: config.server.workers,
            environment,
        })
    }

    /// The addresses of the public listeners.
    pub fn addresses(&self) -> &[ListenAddress] {
        self.bound.addresses()
    }

    /// The addresses that redirect plain HTTP to HTTPS.
    pub fn redirect_addresses(&self) -> &[SocketAddr] {
        self.bound.redirect_addresses()
    }

    /// The address where other proxies ask.
    pub fn proxies_address(&self) -> Option<SocketAddr> {
        self.bound.proxies_address()
    }

    /// The address of the admin listener.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, address)| *address)
    }

    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.environment.metrics)
    }

    /// The certificates in force.
    pub fn certificates(&self) -> Arc<tls::Certificates> {
        self.certificates.certificates().load_full()
    }

    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// Serves until `drain` is cancelled and open requests have ended.
    pub async fn serve(self, drain: CancellationToken) -> anyhow::Result<()> {
        // Background work stops after the requests.
        let mut background = Background::default();
        let sessions = Arc::clone(&self.stores.administration.sessions);
        sessions.maintain(&mut background);
        self.shared.tokens.maintain(&mut background);
        if let Some(rotation) = self.rotation {
            let keys = Arc::clone(&self.stores.signing_keys);
            let clock = Arc::clone(&self.environment.clock);
            background.run("rotating the signing keys", keys.maintain(clock, rotation));
        }
        background.run("comparing clocks", Arc::clone(&self.stores.agreement).keep());
        background.run("purging old forms", self.stores.administration.saved_forms.clone().maintain());
        if self.sites.len() > 1 {
            background.run("purging hand-overs", self.stores.hand_overs.clone().maintain());
        }
        let sealer = Arc::clone(&self.stores.sealer);
        background.run_until("watching the sealing key", |stop| async move { sealer.watch(stop).await });
        if let Some(transport) = self.mail {
            let sender = mail::MailSender {
                outbox: self.stores.administration.notices.outbox.clone(),
                transport,
                audit: Arc::clone(&self.stores.administration.audit),
                metrics: Arc::clone(&self.environment.metrics),
            };
            background.run_until("sending mail", |stop| sender.run(stop));
            background.run("purging links", self.stores.administration.notices.links.clone().maintain());
        }
        let (tls, certificates) = (self.certificates.current(), self.certificates.certificates());
        let watched = self.certificates;
        background.run_until("watching the certificate", |stop| watched.watch(stop));
        if let Some((listener, _)) = self.admin {
            let admin = Monitoring {
                database: self.stores.database.clone(),
                agreement: Arc::clone(&self.stores.agreement),
                logins: Logins::new(self.stores.database.clone(), Arc::clone(&sessions)),
                enrolments: Enrolments::new(
                    self.stores.administration.users.clone(),
                    self.stores.administration.rollout.clone(),
                    Arc::clone(&self.environment.clock),
                ),
                sessions,
                metrics: Arc::clone(&self.environment.metrics),
                health: self.bound.health(),
                load: self.bound.load(),
                lost: background.losses(),
                outbox: self.stores.administration.notices.outbox.clone(),
                certificates,
                clock: Arc::clone(&self.environment.clock),
                drain: drain.clone(),
            };
            background.run_until("answering the operator", |stop| Arc::new(admin).serve(listener, stop));
        }
        let (shared, sites) = (self.shared, Arc::new(self.sites));
        let (health_path, max_head, random) =
            (self.health_path, self.max_head, Arc::clone(&self.environment.random));
        let groups = sites.iter().map(OpenSite::groups).sum();
        let (begun, workers) = (Arc::new(AtomicUsize::new(0)), self.workers.max(1));
        let service = move || {
            let number = begun.fetch_add(1, Ordering::Relaxed) % workers;
            let worker =
                ThisWorker { number, of: workers, groups, sessions: &shared.sessions, random: &random };
            let mut served = sites.iter().map(|site| site.of_worker(&worker));
            let (first, others) = (served.next(), served.collect());
            #[expect(clippy::unwrap_used, reason = "the configuration has a first site, or there is none")]
            let gate = RequestGate::new(first.unwrap(), others);
            let gate = gate.with_health(health_path.clone()).with_max_head(max_head);
            Gateway::new(Arc::clone(&shared), gate, &*random)
        };
        let served = background.beside(&drain, self.bound.serve(tls, drain.clone(), service)).await;
        background.stop(LAST_WRITES).await;
        self.stores.database.close().await;
        Ok(served??)
    }
}

/// Binds the admin listener, if there is an address for it.
async fn bind_admin(address: Option<SocketAddr>) -> anyhow::Result<Option<(TcpListener, SocketAddr)>> {
    let Some(address) = address else { return Ok(None) };
    let listener = monitoring::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen on {address} for the operator"))?;
    let address = listener.local_addr()?;
    Ok(Some((listener, address)))
}
