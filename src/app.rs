//! The composition root: from a configuration to stores, gateway and server. The only file that knows every concrete
//! type.

use std::{
    error::Error,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use aws_lc_rs::hmac;
use futures_util::future::BoxFuture;
use tokio::{net::TcpListener, runtime::Handle};
use tokio_util::sync::CancellationToken;

use crate::{
    account::Administration,
    admin::{self, Admin, Logins},
    agreement::{Agreement, Asked},
    audit::Audit,
    background::Background,
    clock::{Clock, SharedClock, Watermark},
    config::Config,
    credentials::{Devices, Hashing, Passwords, RecoveryCodes, SecondFactor, Tries, Turns},
    database::Database,
    errors::Chain,
    gate::{AccessLevel, Challenger, Gate},
    gateway::{Bounds, Gateway, Shared, SharedSite, Site, SiteAddress},
    identity::{Assertions, IdentityHeaders, SigningKeys},
    kept_forms::KeptForms,
    login::{KnownBrowsers, Login, PendingLogins},
    pages::{self, Pages},
    proxy::{CallBody, Patience, Proxy},
    random::{OsRandom, Random},
    redis_pool::RedisPool,
    sealing::Sealer,
    server::Bound,
    sessions::{
        self, AccountStatus, Dependencies, Profile, RedisSessions, RevocationLog, SessionStore, Sessions,
        SqlSessions,
    },
    telemetry::{access_log::AccessLog, metrics::Metrics, writer::LogWriter},
    throttle::{RedisThrottle, SqlThrottle, Throttle, ThrottleStore},
    tls,
    upstream::{self, Connector, Limits, Peer, PerUser, Pool, Sharing, http2::Http2},
    users::{UserId, Users},
    web::{
        cookies,
        gate::RequestGate,
        hops::LoopMark,
        portal_answers::{self, PortalAnswers},
        return_to::Returns,
    },
};

/// How often a worker closes idle connections to the portal.
const TIDY: Duration = Duration::from_secs(1);
/// How long the last uses of sessions may take to be written down at the end.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// What the stores are opened with besides the configuration.
#[derive(Clone, Debug)]
pub struct Environment {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub metrics: Arc<Metrics>,
}

impl Environment {
    /// The machine's clock and randomness.
    pub fn system(metrics: Metrics) -> Self {
        Self {
            clock: Arc::new(SharedClock::default()),
            random: Arc::new(OsRandom),
            metrics: Arc::new(metrics),
        }
    }
}

/// The stores, and what works on them without HTTP.
pub struct Stores {
    pub administration: Administration,
    pub database: Database,
    pub sealer: Arc<Sealer>,
    pub hashing: Arc<Hashing>,
    pub signing_keys: Arc<SigningKeys>,
    pub agreement: Arc<Agreement>,
    second_factor: SecondFactor,
    failures: Arc<dyn ThrottleStore>,
}

impl Stores {
    /// Opens the stores beside a gateway that may be running. Makes none: where there are none, nobody is there to serve.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let database = Database::open_existing(&config.database).await?;
        if config.key.read()?.is_none() {
            bail!("{} is missing, and {} was sealed with it: restore it", config.key, config.database);
        }
        Self::open_with(database, config, &Environment::system(Metrics::new())).await
    }

    /// Opens the stores, and makes what is not there.
    pub async fn open_or_make(config: &Config) -> anyhow::Result<Self> {
        Self::open_in(config, &Environment::system(Metrics::new())).await
    }

    /// The same with a clock, randomness and metrics of the caller's.
    pub async fn open_in(config: &Config, environment: &Environment) -> anyhow::Result<Self> {
        Self::open_with(Database::open(&config.database).await?, config, environment).await
    }

    async fn open_with(
        database: Database,
        config: &Config,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        let Environment { clock, random, metrics } = environment;
        let sealer = Arc::new(open_key(&database, config, &**random).await?);
        let users = Users::new(database.clone(), Arc::clone(clock), Arc::clone(random));
        if let Err(error) = users.renew_names().await {
            tracing::warn!(error = %Chain(&error), "cannot bring the names of users into their canonical form");
        }
        let mut agreement = Agreement::new(Arc::clone(clock), time_of(&database));
        let (store, failures) =
            shared_stores(config, environment, &database, &sealer, &mut agreement).await?;
        // Before anything is made that time matters to.
        agreement.compare().await;
        let watermark = Arc::new(Watermark::new(Arc::clone(clock)));
        let dependencies = Dependencies {
            store,
            database: database.for_sessions(),
            status: Arc::new(StatusOfUsers(Users::new(
                database.for_sessions(),
                Arc::clone(clock),
                Arc::clone(random),
            ))),
            rollout: config.rollout.clone(),
            sealer: Arc::clone(&sealer),
            clock: Arc::clone(clock),
            watermark: Arc::clone(&watermark),
            random: Arc::clone(random),
        };
        let sessions = Arc::new(Sessions::new(&config.sessions, dependencies));
        let threads = Hashing::default_threads();
        let hashing = Arc::new(Hashing::start(threads, Arc::clone(random)).context("cannot start hashing")?);
        let counted = Arc::clone(metrics);
        let (d, s, c, r) = (database.clone(), Arc::clone(&sealer), Arc::clone(clock), Arc::clone(random));
        let administration = Administration {
            database: database.clone(),
            users,
            passwords: Arc::new(Passwords::new(
                d.clone(),
                Arc::clone(&hashing),
                Arc::clone(&c),
                &config.credentials,
            )),
            devices: Devices::new(
                d.clone(),
                Arc::clone(&s),
                Arc::clone(&c),
                Arc::clone(&watermark),
                Arc::clone(&r),
            ),
            recovery_codes: RecoveryCodes::new(d.clone(), Arc::clone(&s), Arc::clone(&c), Arc::clone(&r)),
            sessions,
            pending: PendingLogins::new(d.clone(), Arc::clone(&s), Arc::clone(&c), Arc::clone(&r)),
            kept_forms: KeptForms::new(
                config.kept_forms,
                d.clone(),
                Arc::clone(&s),
                Arc::clone(&c),
                Arc::clone(&r),
            ),
            audit: Arc::new(Audit::new(Box::new(move |event| counted.audit_event(event)))),
            policy: config.credentials.clone(),
            context_words: context_words(config),
        };
        let signing_keys = SigningKeys::new(d.clone(), Arc::clone(&s), Arc::clone(&administration.audit));
        let signing_keys = Arc::new(signing_keys);
        let second_factor = SecondFactor::new(d, s, c, watermark);
        Ok(Self {
            administration,
            database,
            sealer,
            hashing,
            signing_keys,
            second_factor,
            failures,
            agreement: Arc::new(agreement),
        })
    }

    fn login(&self, config: &Config, environment: &Environment) -> Login {
        let administration = &self.administration;
        Login {
            users: administration.users.clone(),
            passwords: Arc::clone(&administration.passwords),
            devices: administration.devices.clone(),
            second_factor: self.second_factor.clone(),
            recovery_codes: administration.recovery_codes.clone(),
            sessions: Arc::clone(&administration.sessions),
            pending: administration.pending.clone(),
            throttle: Throttle::new(
                &config.throttle,
                Arc::clone(&self.failures),
                Arc::clone(&environment.clock),
            ),
            turns: Turns::new(Hashing::default_threads()),
            tries: Tries::new(self.database.clone(), Arc::clone(&environment.clock)),
            known: KnownBrowsers::new(&self.sealer),
            names: hmac::Key::new(hmac::HMAC_SHA256, self.sealer.derive("names in the log").as_slice()),
            audit: Arc::clone(&administration.audit),
            rollout: config.rollout.clone(),
            seeds: hmac::Key::new(hmac::HMAC_SHA256, self.sealer.derive("devices of sessions").as_slice()),
            clock: Arc::clone(&environment.clock),
            random: Arc::clone(&environment.random),
        }
    }
}

/// How the database is asked for its time.
fn time_of(database: &Database) -> Asked {
    let database = database.clone();
    Box::new(move || {
        let database = database.clone();
        Box::pin(async move { database.time().await.ok().flatten() })
    })
}

/// Where sessions and failed logins are kept: in one store, which all gateways see.
async fn shared_stores(
    config: &Config,
    environment: &Environment,
    database: &Database,
    sealer: &Arc<Sealer>,
    agreement: &mut Agreement,
) -> anyhow::Result<(Arc<dyn SessionStore>, Arc<dyn ThrottleStore>)> {
    let Environment { clock, random, .. } = environment;
    let names = hmac::Key::new(hmac::HMAC_SHA256, sealer.derive("failed logins").as_slice());
    match &config.sessions.store {
        sessions::Store::Database => Ok((
            Arc::new(SqlSessions::new(
                database.clone(),
                longest(config.sessions.inactivity, config),
                Arc::clone(clock),
            )),
            Arc::new(SqlThrottle::new(database.clone(), names, Arc::clone(clock))),
        )),
        sessions::Store::Redis(redis) => {
            let pool = Arc::new(RedisPool::open(redis, Arc::clone(random)).await?);
            let theirs = Arc::clone(&pool);
            agreement.add(
                "redis",
                Box::new(move || {
                    let theirs = Arc::clone(&theirs);
                    Box::pin(async move { theirs.time().await.ok() })
                }),
            );
            let expiration = longest(config.sessions.expiration, config);
            let revocations = RevocationLog::new(database.for_sessions(), Arc::clone(clock), expiration);
            Ok((
                Arc::new(RedisSessions::new(
                    Arc::clone(&pool),
                    revocations,
                    Arc::clone(sealer),
                    worth_keeping(config),
                )),
                Arc::new(RedisThrottle::new(pool, names)),
            ))
        }
    }
}

/// Reads the sealing key, and makes one only for a database that nothing has been sealed in yet.
///
/// A key that does not fit would make every device of every user useless, one by one and at the worst moment.
async fn open_key(database: &Database, config: &Config, random: &dyn Random) -> anyhow::Result<Sealer> {
    const FACT: &str = "key_check";
    let place = ["facts", FACT];
    let key = &config.key;
    let check = database.fact(FACT).await?;
    if check.is_some() && key.read()?.is_none() {
        bail!("{key} is missing, and {} was sealed with it: restore it", config.database);
    }
    let sealer = Sealer::with_keys_of(key, random)?;
    match check {
        Some(record) if sealer.open(&place, &record).is_err() => {
            bail!("{key} does not fit {}: restore the one it was sealed with", config.database)
        }
        Some(_) => {}
        None => {
            database.note_fact(FACT, &sealer.seal(&place, b"")).await?;
            // Of two gateways that start at once with a fresh key each, the other may have come first.
            let noted = database.fact(FACT).await?.unwrap_or_default();
            if sealer.open(&place, &noted).is_err() {
                bail!(
                    "another gateway has just begun to use {} with another key than {key}: give both the same",
                    config.database
                )
            }
        }
    }
    Ok(sealer)
}

/// How long Redis keeps a session that nobody uses. It takes one to know whose form it is that comes too late.
fn worth_keeping(config: &Config) -> Duration {
    let sessions = &config.sessions;
    longest(if config.kept_forms.max == 0 { sessions.inactivity } else { sessions.expiration }, config)
}

/// The longer of a limit of sessions and what takes its place when they are remembered. A store cannot tell them apart.
fn longest(limit: Duration, config: &Config) -> Duration {
    config.sessions.remember_me.map_or(limit, |remembered| limit.max(remembered))
}

/// Words that a password must not be made of.
fn context_words(config: &Config) -> Vec<String> {
    let host = config.web.public_url.host_str().unwrap_or_default();
    vec!["portcullis".to_owned(), host.to_owned(), config.pages.portal_name.clone()]
}

/// A session is good only as long as its user is.
struct StatusOfUsers(Users);

impl AccountStatus for StatusOfUsers {
    fn of<'a>(
        &'a self,
        user: &'a str,
    ) -> BoxFuture<'a, Result<Option<Profile>, Box<dyn Error + Send + Sync>>> {
        Box::pin(async move {
            let Some(id) = UserId::parse(user) else { return Ok(None) };
            let user = self.0.with_devices(&id).await?.filter(|(user, _)| !user.disabled);
            Ok(user.map(|(user, devices)| Profile {
                has_device: devices > 0,
                name: user.name.as_str().to_owned(),
                email: user.email,
                display_name: user.display_name,
                groups: user.groups,
            }))
        })
    }
}

/// A gateway that is ready to serve.
pub struct App {
    stores: Stores,
    shared: Arc<Shared>,
    site: Arc<SharedSite>,
    health_path: Option<String>,
    max_head: usize,
    bound: Bound,
    admin: Option<(TcpListener, SocketAddr)>,
    certificate: tls::Reload,
    peers: Vec<Peer>,
    connector: Connector,
    limits: Limits,
    per_user: PerUser,
    workers: usize,
    sharing: Sharing,
    max_age: Duration,
    patience: Patience,
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
        let shared = Shared {
            loop_mark,
            gate: Gate::new(config.rollout.clone()),
            sessions: Arc::clone(&stores.administration.sessions),
            strangers: Arc::default(),
            kept_forms: stores.administration.kept_forms.clone(),
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
            patience: patience(&config),
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
        if let Some(rotation) = self.rotation {
            let keys = Arc::clone(&self.stores.signing_keys);
            let clock = Arc::clone(&self.environment.clock);
            background.run("rotating the signing keys", keys.maintain(clock, rotation));
        }
        background.run("comparing clocks", Arc::clone(&self.stores.agreement).keep());
        background.run("purging old forms", self.stores.administration.kept_forms.clone().maintain());
        let sealer = Arc::clone(&self.stores.sealer);
        background.run_until("watching the sealing key", |stop| async move { sealer.watch(stop).await });
        let (tls, certificate) = (self.certificate.current(), self.certificate.certificate());
        let watched = self.certificate;
        background.run_until("watching the certificate", |stop| watched.watch(stop));
        if let Some((listener, _)) = self.admin {
            let admin = Admin {
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
        let (peers, connector, patience) = (self.peers, self.connector, self.patience);
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
            let proxy = Proxy::new(pool, http2, reserved, sessions, Arc::clone(&random), patience);
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
    let listener = admin::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen on {address} for the operator"))?;
    let address = listener.local_addr()?;
    Ok(Some((listener, address)))
}

fn peers(config: &upstream::Config) -> Vec<Peer> {
    config.upstreams.iter().filter_map(|url| Peer::configured(url, config)).collect()
}

fn patience(config: &Config) -> Patience {
    Patience {
        response: config.upstream.response_timeout,
        stall: config.server.stall_timeout,
        min_rate: config.server.min_rate,
    }
}

/// The site that the configuration describes.
async fn site(config: &Config, stores: &Stores, environment: &Environment) -> anyhow::Result<SharedSite> {
    let public = &config.web.public_url;
    let address = SiteAddress::new(public);
    let names = cookies::Names::new(public);
    let challenger = Challenger::new(address.origin(), Returns::new(public, config.logout_paths.clone()));
    let parts = pages::Parts {
        login: stores.login(config, environment),
        challenger: challenger.clone(),
        kept_forms: stores.administration.kept_forms.clone(),
        clear_on_sign_out: config.clear_on_sign_out.clone(),
        clock: Arc::clone(&environment.clock),
        cookies: names.clone(),
        signing_keys: config.identity.assertion.is_some().then(|| Arc::clone(&stores.signing_keys)),
        issuer: config.credentials.issuer.clone(),
        origin: address.origin().to_owned(),
    };
    Ok(SharedSite {
        address,
        level: AccessLevel::TwoFactor,
        cookies: names,
        challenger,
        pages: Arc::new(Pages::new(&config.pages, parts, &stores.sealer)?),
        identity: IdentityHeaders::new(&config.identity),
        assertions: assertions(config, stores, environment).await?,
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
