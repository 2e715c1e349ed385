//! Making the link, watching its pulse, and making it again.
//!
//! The beat serves two ends. A server that hangs is noticed without a caller having to wait for it. And since
//! replies and messages share one ordered stream, the answer to a beat proves that nothing published before the
//! question is still under way, which is what a cache must know to be believed.

use std::{fs, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _, Msg, ProtocolVersion, PushInfo,
    PushKind, TlsCertificates, Value, aio::MultiplexedConnection,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use secrecy::ExposeSecret as _;
use tokio::{
    sync::broadcast,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Config, News, RedisError, channel};
use crate::{errors::Chain, random::Random};

/// How often the link is asked whether it still works.
const BEAT: Duration = Duration::from_millis(250);
/// The pauses between two tries grow from the first to the last of these.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(250);
/// Commands on their way at once before callers wait for room.
const IN_FLIGHT: usize = 4096;
/// News kept for a listener that is late.
const BACKLOG: usize = 4096;

/// One connection, until it fails.
#[derive(Debug)]
pub(super) struct Circuit {
    connection: MultiplexedConnection,
    cut: CancellationToken,
}

impl Circuit {
    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }
}

/// The circuit of the moment, if there is one.
#[derive(Debug)]
pub(super) struct Link {
    circuit: ArcSwapOption<Circuit>,
    news: broadcast::Sender<News>,
}

impl Link {
    pub(super) fn new() -> Self {
        Self { circuit: ArcSwapOption::empty(), news: broadcast::Sender::new(BACKLOG) }
    }

    pub(super) fn news(&self) -> broadcast::Sender<News> {
        self.news.clone()
    }

    pub(super) fn listen(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    pub(super) fn circuit(&self) -> Option<Arc<Circuit>> {
        self.circuit.load_full()
    }

    pub(super) fn switch_on(&self, circuit: &Arc<Circuit>) {
        self.circuit.store(Some(Arc::clone(circuit)));
    }

    /// Takes `circuit` out of use. One that has been replaced already is left alone with its replacement.
    pub(super) fn cut(&self, circuit: &Arc<Circuit>) {
        self.circuit.compare_and_swap(circuit, None);
        circuit.cut.cancel();
    }

    /// Keeps a circuit, for ever.
    pub(super) async fn supervise(
        self: Arc<Self>,
        dialer: Dialer,
        mut next: Option<Arc<Circuit>>,
        random: Arc<dyn Random>,
    ) {
        let mut pause = FIRST_PAUSE;
        let mut complained = next.is_none();
        loop {
            let dialled = match next.take() {
                Some(circuit) => Ok(circuit),
                None => dialer.dial().await,
            };
            match dialled {
                Ok(circuit) => {
                    if complained {
                        tracing::info!("connected to Redis");
                    }
                    let why = self.watch(&circuit, dialer.deadline).await;
                    tracing::warn!(error = %Chain(&why), "lost the connection to Redis");
                    (pause, complained) = (FIRST_PAUSE, true);
                }
                Err(error) => {
                    // Once an outage: the tries that follow would all say the same.
                    if !complained {
                        tracing::warn!(error = %Chain(&error), "cannot connect to Redis");
                    }
                    complained = true;
                }
            }
            sleep(jittered(pause, random.as_ref())).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Uses `circuit` until it fails, and says how it did.
    async fn watch(&self, circuit: &Arc<Circuit>, deadline: Duration) -> RedisError {
        // A listener cannot tell how long the last circuit had been deaf.
        let _ = self.news.send(News::Reconnected);
        self.switch_on(circuit);
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let why = loop {
            tokio::select! {
                () = circuit.cut.cancelled() => break RedisError::Down,
                _ = beats.tick() => {
                    let asked = Instant::now();
                    match timeout(deadline, check_role(&mut circuit.connection())).await {
                        // What was published before the answer has been sent to `news` by the driver before this.
                        Ok(Ok(())) => drop(self.news.send(News::Current(asked))),
                        Ok(Err(error)) => break error,
                        Err(_elapsed) => break RedisError::Slow,
                    }
                }
            }
        };
        self.cut(circuit);
        why
    }
}

/// Knows how to make a circuit.
pub(super) struct Dialer {
    client: Client,
    channel: String,
    deadline: Duration,
    news: broadcast::Sender<News>,
}

impl Dialer {
    pub(super) fn new(config: &Config, news: broadcast::Sender<News>) -> Result<Self, RedisError> {
        Ok(Self {
            client: client(config)?,
            channel: channel(&config.key_prefix),
            deadline: config.timeout,
            news,
        })
    }

    /// Connects, makes sure that this is no replica, and listens on the channel.
    pub(super) async fn dial(&self) -> Result<Arc<Circuit>, RedisError> {
        // A handshake takes several round trips where a command takes one.
        timeout(self.deadline * 2, self.connect()).await.unwrap_or(Err(RedisError::Slow))
    }

    async fn connect(&self) -> Result<Arc<Circuit>, RedisError> {
        let cut = CancellationToken::new();
        let (news, heard_cut) = (self.news.clone(), cut.clone());
        let options = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(IN_FLIGHT)
            .set_push_sender(move |push: PushInfo| {
                hear(push, &news, &heard_cut);
                Ok::<(), redis::aio::SendError>(())
            });
        let mut connection =
            self.client.get_multiplexed_async_connection_with_config(&options).await.map_err(refusal)?;
        check_role(&mut connection).await?;
        connection.subscribe(&self.channel).await.map_err(refusal)?;
        Ok(Arc::new(Circuit { connection, cut }))
    }
}

/// Runs in the driver of the connection, between the replies: what it sends comes before what follows on the wire.
fn hear(push: PushInfo, news: &broadcast::Sender<News>, cut: &CancellationToken) {
    if push.kind == PushKind::Disconnection {
        cut.cancel();
    } else if let Some(message) = Msg::from_push_info(push) {
        let text = String::from_utf8_lossy(message.get_payload_bytes());
        let _ = news.send(News::Message(text.into()));
    }
}

/// Asks for the role rather than for a PONG: a primary that was demoted answers, but with old answers.
pub(super) async fn check_role(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let role: Vec<Value> = redis::cmd("ROLE").query_async(connection).await.map_err(refusal)?;
    match role.first() {
        Some(Value::BulkString(name)) if name == b"master" => Ok(()),
        _ => Err(RedisError::Replica),
    }
}

fn refusal(source: redis::RedisError) -> RedisError {
    match source.code() {
        Some("NOAUTH" | "WRONGPASS" | "NOPERM") => RedisError::Refused(source),
        _ if source.kind() == redis::ErrorKind::AuthenticationFailed => RedisError::Refused(source),
        _ => RedisError::Unreachable(source),
    }
}

fn client(config: &Config) -> Result<Client, RedisError> {
    let info = config.url.expose_secret().into_connection_info().map_err(RedisError::Url)?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
        return Err(RedisError::Insecure);
    }
    // RESP3 carries messages and replies on one connection.
    let mut settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    if let Some(user) = &config.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &config.password {
        settings = settings.set_password(password.expose_secret());
    }
    let encrypted = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    let info = info.set_redis_settings(settings);
    if !encrypted && config.ca.is_none() {
        return Client::open(info).map_err(RedisError::Url);
    }
    // The client takes the process's provider; that there is one already is no fault.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let root_cert = config.ca.as_deref().map(authority).transpose()?;
    Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert }).map_err(RedisError::Url)
}

fn authority(path: &std::path::Path) -> Result<Vec<u8>, RedisError> {
    let pem = fs::read(path).map_err(|source| RedisError::Authority { path: path.into(), source })?;
    match CertificateDer::pem_slice_iter(&pem).next() {
        Some(Ok(_)) => Ok(pem),
        _ => Err(RedisError::NoAuthority { path: path.into() }),
    }
}

/// Between half of `pause` and all of it, so that many gateways do not come back in step.
fn jittered(pause: Duration, random: &dyn Random) -> Duration {
    let [byte] = random.bytes::<1>();
    pause / 2 + pause * u32::from(byte) / 512
}
