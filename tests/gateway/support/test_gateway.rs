//! A whole gateway of a test's own.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use portcullis::{
    administration::Administration,
    app::{App, Environment, Stores},
    clock::{Clock, ManualClock, Timestamp},
    config::{Config, Flag},
    random::OsRandom,
    telemetry::{access_log::AccessLog, log::Format, metrics::Metrics, writer::LogWriter},
    users::{NewUser, User},
};
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    Browser, PATIENCE, Upstream,
    browser::{self, Surroundings},
    certificate_for,
    log::{Memory, Sink},
    now,
    phone::Phone,
    redis::RedisServer,
};

/// The host of every gateway: what it answers to does not depend on the port that it happens to have.
pub(crate) const HOST: &str = "iot.example.com";
/// The host of a second site, where a test has one. Certificates are for both.
pub(crate) const OTHER_HOST: &str = "crm.example.com";
/// What every user's password is unless a test says otherwise.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// A running gateway. It has stopped when this is dropped.
pub(crate) struct TestGateway {
    pub(crate) clock: Arc<ManualClock>,
    /// The first, usually the only, server of the portal.
    pub(crate) upstream: Upstream,
    /// The sessions' store, when a test asked for one.
    pub(crate) redis: Option<Arc<RedisServer>>,
    listens: Arc<Listens>,
    stores: Stores,
    access_log: (LogWriter, Arc<Memory>),
    surroundings: Arc<Surroundings>,
    builder: Builder,
    folder: Arc<TempDir>,
    drain: CancellationToken,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

/// Where a gateway is reached.
struct Listens {
    public: SocketAddr,
    admin: SocketAddr,
    proxies: Option<SocketAddr>,
    plain: Option<SocketAddr>,
}

/// What a gateway is to be like.
#[derive(Clone, Default)]
pub(crate) struct Builder {
    upstreams: Vec<Upstream>,
    urls: Vec<String>,
    redis: bool,
    settings: Vec<(String, String)>,
    clock: Option<Timestamp>,
    sees_time: Option<SeesTime>,
    shared: Option<Shared>,
}

/// What two gateways in front of the same portal share.
#[derive(Clone)]
struct Shared {
    folder: Arc<TempDir>,
    clock: Arc<ManualClock>,
    redis: Option<Arc<RedisServer>>,
    phones: Phones,
}

/// How a gateway reads the clock that it shares with others.
type SeesTime = Arc<dyn Fn(Arc<ManualClock>) -> Arc<dyn Clock> + Send + Sync>;

pub(crate) type Phones = Arc<Mutex<HashMap<String, Phone>>>;

impl Builder {
    /// Sets any key of the configuration, written as an environment variable is.
    #[must_use]
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Keeps the sessions in a Redis of its own.
    #[must_use]
    pub(crate) fn redis(mut self) -> Self {
        self.redis = true;
        self
    }

    /// What its clock shows when it starts.
    #[must_use]
    pub(crate) fn clock(self, now: Timestamp) -> Self {
        Self { clock: Some(now), ..self }
    }

    /// Lets the gateway see time through a clock of the test's own.
    #[must_use]
    pub(crate) fn seeing_time(
        self,
        through: impl Fn(Arc<ManualClock>) -> Arc<dyn Clock> + Send + Sync + 'static,
    ) -> Self {
        Self { sees_time: Some(Arc::new(through)), ..self }
    }

    /// The instant from which nobody gets in without a second factor.
    #[must_use]
    pub(crate) fn mandatory_from(self, instant: Timestamp) -> Self {
        self.set("second_factor.mandatory_from", &instant.to_string())
    }

    /// Stands in front of this server of the portal; called again, in front of several.
    #[must_use]
    pub(crate) fn upstream(mut self, upstream: &Upstream) -> Self {
        self.urls.push(upstream.url());
        self.upstreams.push(upstream.clone());
        self
    }

    /// A server of the portal that nobody records, such as one that is down.
    #[must_use]
    pub(crate) fn upstream_url(mut self, url: &str) -> Self {
        self.urls.push(url.to_owned());
        self
    }

    /// Builds, starts, and opens a browser.
    pub(crate) async fn start(mut self) -> (TestGateway, Browser) {
        if self.upstreams.is_empty() {
            let upstream = Upstream::start();
            if self.urls.is_empty() {
                self.urls.push(upstream.url());
            }
            self.upstreams.push(upstream);
        }
        let shared = match &self.shared {
            Some(shared) => shared.clone(),
            None => Shared {
                folder: Arc::new(folder()),
                clock: Arc::new(ManualClock::at(self.clock.unwrap_or_else(now))),
                redis: if self.redis { Some(Arc::new(RedisServer::start().await)) } else { None },
                phones: Phones::default(),
            },
        };
        // Boxed, since futures are made of all that lives in them.
        let config = Box::new(self.config(&shared));
        let clock = shared.clock.clone();
        let environment = Environment {
            clock: self
                .sees_time
                .as_ref()
                .map_or_else(|| clock.clone() as Arc<dyn Clock>, |see| see(clock.clone())),
            random: Arc::new(OsRandom),
            metrics: Arc::new(Metrics::new()),
        };
        let memory = Arc::new(Memory::default());
        let writer = LogWriter::start(Sink(Arc::clone(&memory))).unwrap();
        let access_log = AccessLog::new(Format::Text, true, writer.clone());
        let drain = CancellationToken::new();
        let (ready, is_ready) = oneshot::channel();
        let (its_config, its_environment, until) = (config.clone(), environment.clone(), drain.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let app = Box::pin(App::build_in(*its_config, access_log, its_environment)).await.unwrap();
                ready
                    .send(Listens {
                        public: app.addresses()[0].tcp().unwrap(),
                        admin: app.admin_address().unwrap(),
                        proxies: app.proxies_address(),
                        plain: app.redirect_addresses().first().copied(),
                    })
                    .ok()
                    .unwrap();
                app.serve(until).await
            })
        });
        let listens = is_ready.await.expect("the gateway starts");
        let stores = Box::pin(Stores::open_in(&config, &environment)).await.unwrap();
        let surroundings = Arc::new(Surroundings {
            address: listens.public,
            certificate: std::fs::read(shared.folder.path().join("certificate.pem")).unwrap(),
            clock: Arc::clone(&shared.clock),
            phones: Arc::clone(&shared.phones),
        });
        let gateway = TestGateway {
            clock: Arc::clone(&shared.clock),
            upstream: self.upstreams[0].clone(),
            redis: shared.redis.clone(),
            listens: Arc::new(listens),
            stores,
            access_log: (writer, memory),
            surroundings,
            folder: Arc::clone(&shared.folder),
            builder: Self { shared: Some(shared), ..self },
            drain,
            thread: Some(thread),
        };
        let browser = gateway.browser();
        (gateway, browser)
    }

    fn config(&self, shared: &Shared) -> Config {
        let file = shared.folder.path().join("portcullis.toml");
        let store = shared.redis.as_ref().map_or_else(
            || "database".to_owned(),
            |redis| secrecy::ExposeSecret::expose_secret(&redis.config().url).to_owned(),
        );
        std::fs::write(&file, configuration(&self.urls, &store)).unwrap();
        let flags: Vec<Flag> = self
            .settings
            .iter()
            .map(|(key, value)| Flag { name: format!("--{key}"), key: key.clone(), value: value.clone() })
            .collect();
        Config::load(&[file], [], &flags).unwrap_or_else(|problems| panic!("{problems}"))
    }
}

/// A configuration file as an operator writes it, for a gateway whose files are all in one [`folder`].
pub(crate) fn configuration(upstreams: &[String], store: &str) -> String {
    let upstreams = toml::Value::from(upstreams.to_vec());
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
public_url = "https://{HOST}"
admin_listen = "127.0.0.1:0"
workers = 1
[server.timeouts]
drain = "200ms"
[tls]
certificate = "certificate.pem"
key = "key.pem"
[portal]
name = "IoT Connectivity"
upstreams = {upstreams}
support = "mailto:support@example.com"
[storage]
database = "sqlite:portcullis.db"
key_file = "portcullis.key"
[sessions]
store = "{store}"
"#
    )
}

/// A folder of a test's own with a certificate for [`HOST`] and [`OTHER_HOST`] in it.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate_for(&[HOST, OTHER_HOST]);
    std::fs::write(folder.path().join("certificate.pem"), certificate).unwrap();
    std::fs::write(folder.path().join("key.pem"), key).unwrap();
    folder
}

impl TestGateway {
    /// The default gateway, with the embedded store, before an ordinary portal. Two factors are mandatory.
    pub(crate) async fn start() -> (Self, Browser) {
        Self::builder().start().await
    }

    pub(crate) fn builder() -> Builder {
        Builder::default()
    }

    /// Another gateway on the same stores and the same portal.
    pub(crate) async fn twin(&self) -> (Self, Browser) {
        self.builder.clone().start().await
    }

    /// What starts another gateway on the same files.
    pub(crate) fn its_builder(&self) -> Builder {
        self.builder.clone()
    }

    /// Stops, and starts again on the same files. Browsers have to be [`moved`](Browser::moved_to).
    pub(crate) async fn restart(self) -> Self {
        let builder = self.builder.clone();
        self.stop().await;
        builder.start().await.0
    }

    pub(crate) fn surroundings(&self) -> &Arc<Surroundings> {
        &self.surroundings
    }

    /// The stores as another process has them open.
    pub(crate) fn stores(&self) -> &Stores {
        &self.stores
    }

    /// The same, opened by a process with another clock.
    pub(crate) async fn stores_at(&self, clock: Arc<dyn Clock>) -> Stores {
        let config = self.builder.config(self.builder.shared.as_ref().unwrap());
        let environment =
            Environment { clock, random: Arc::new(OsRandom), metrics: Arc::new(Metrics::new()) };
        Stores::open_in(&config, &environment).await.unwrap()
    }

    /// A browser that knows nothing yet.
    pub(crate) fn browser(&self) -> Browser {
        Browser::new(Arc::clone(&self.surroundings), browser::Protocol::Http1)
    }

    /// Adds a user with [`PASSWORD`] and no device.
    pub(crate) async fn add_user(&self, email: &str) -> User {
        add_user(self.administration(), email).await
    }

    /// What an operator can do from another process.
    pub(crate) fn administration(&self) -> &Administration {
        &self.stores.administration
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listens.public
    }

    /// Where proxies ask.
    pub(crate) fn proxies_address(&self) -> SocketAddr {
        self.listens.proxies.expect("server.forward_auth_listen is set")
    }

    /// Where it serves plain HTTP.
    pub(crate) fn plain(&self) -> SocketAddr {
        self.listens.plain.expect("server.redirect_listen is set")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn database_file(&self) -> PathBuf {
        self.folder().join("portcullis.db")
    }

    /// The phone with which a user logs in, once they have enrolled.
    pub(crate) fn phone(&self, email: &str) -> Phone {
        self.surroundings.phones.lock().unwrap()[email].clone()
    }

    /// Everything in the access log so far.
    pub(crate) fn access_log(&self) -> String {
        assert!(self.access_log.0.flush(PATIENCE), "the access log is written");
        self.access_log.1.text()
    }

    /// What the operator's listener says to a GET: status line, fields and body.
    pub(crate) async fn admin(&self, path: &str) -> String {
        let mut wire =
            super::wire::Wire::new(tokio::net::TcpStream::connect(self.listens.admin).await.unwrap());
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        wire.write(request.as_bytes()).await.unwrap();
        String::from_utf8(super::within(PATIENCE, wire.read_to_end()).await.unwrap()).unwrap()
    }

    /// Begins the drain; requests in progress may finish.
    pub(crate) fn drain(&self) {
        self.drain.cancel();
    }

    /// Whether the gateway has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Drains and waits for the end.
    pub(crate) async fn stop(self) {
        self.drain.cancel();
        self.ended().await.unwrap();
    }

    /// Waits until it ends by itself, and says how.
    pub(crate) async fn ended(mut self) -> anyhow::Result<()> {
        let thread = self.thread.take().unwrap();
        let ended = tokio::task::spawn_blocking(move || thread.join());
        super::within(Duration::from_secs(40), ended).await.unwrap().unwrap()
    }
}

/// Adds a user with [`PASSWORD`] and no device.
pub(crate) async fn add_user(administration: &Administration, email: &str) -> User {
    let new =
        NewUser { email: email.to_owned(), display_name: "Ada Lovelace".into(), groups: vec!["ops".into()] };
    administration.add_user(new, Some(SecretString::from(PASSWORD))).await.unwrap()
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.drain.cancel();
        if let Some(thread) = self.thread.take()
            && !matches!(thread.join(), Ok(Ok(())))
            && !std::thread::panicking()
        {
            panic!("the gateway did not end well");
        }
    }
}
