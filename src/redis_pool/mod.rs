//! The pool of Redis connections: one multiplexed connection per master, re-established by itself, with a timeout on
//! every command.
//!
//! Without a connection a command fails at once: nothing queues, and a caller never waits longer than the timeout.
//! Replicas are not used, since they may lag behind. Knows the prefix of our keys, but not what they contain.

mod connection;
mod error;
mod routes;
mod script;
mod supervisor;
mod survey;
#[cfg(test)]
pub(crate) mod test_fleet;
#[cfg(test)]
pub(crate) mod test_server;
mod url;

use std::{path::PathBuf, sync::Arc, time::Duration};

use redis::{Cmd, FromRedisValue};
use secrecy::SecretString;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    connection::{RedisConnection, RedisConnector, RedisCredentials},
    supervisor::{Shared, Supervisor},
    survey::Survey,
    url::Address,
};
pub use self::{
    error::{Reason, RedisError},
    script::{Call, Script},
    supervisor::RoundReport,
    url::{RedisUrl, RedisUrlError},
};
use crate::{clock::Timestamp, random::Random};

/// The wait before a key is requested again whose slot is being moved between two masters.
const HALF_WAY: Duration = Duration::from_millis(5);

/// The address of Redis, and the login.
///
/// A user in Redis's ACL needs no more than
/// `~PREFIX* +@read +@write +@scripting +@connection -@dangerous +role`, and `+cluster|nodes` in a cluster; a user of a
/// Sentinel no more than `-@all +@connection +sentinel|get-master-addr-by-name`.
#[derive(Clone, Debug)]
pub struct Config {
    /// As [`RedisUrl::parse`] reads it.
    pub url: SecretString,
    /// Overrides the password of the URL.
    pub password: Option<SecretString>,
    /// Overrides the ACL user of the URL.
    pub user: Option<String>,
    /// For the sentinels, which do not know the users of Redis.
    pub sentinel_user: Option<String>,
    pub sentinel_password: Option<SecretString>,
    /// PEM file with the authority that signed the server's certificate; `None`: the system's authorities.
    pub ca: Option<PathBuf>,
    /// PEM files with a client certificate and its key, for servers that ask for one.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// The prefix of all our keys.
    pub key_prefix: String,
    /// The timeout of one command.
    pub timeout: Duration,
}

/// The pool. It reconnects as long as this value exists.
#[derive(Debug)]
pub struct RedisPool {
    shared: Arc<Shared>,
    key_prefix: String,
    timeout: Duration,
    /// Cancelled when the supervisor has ended.
    abandoned: CancellationToken,
    _supervised: DropGuard,
}

impl RedisPool {
    /// Connects, and keeps reconnecting in a task of the current runtime.
    ///
    /// A Redis that cannot be reached is not an error here: commands fail until it can be. One that refuses the login
    /// is.
    pub async fn open(config: &Config, random: Arc<dyn Random>) -> Result<Self, RedisError> {
        use secrecy::ExposeSecret as _;
        let url = RedisUrl::parse(config.url.expose_secret())
            .map_err(|reason| RedisError { reason: Reason::Url(reason), store: None })?;
        let store = Arc::from(url.to_string());
        Self::connect(config, &url, &store, random).await.map_err(|reason| reason.at(&store))
    }

    async fn connect(
        config: &Config,
        url: &RedisUrl,
        store: &Arc<str>,
        random: Arc<dyn Random>,
    ) -> Result<Self, Reason> {
        let credentials = RedisCredentials {
            user: config.user.as_deref().or(url.user.as_deref()),
            password: config.password.as_ref().or(url.password.as_ref()),
            database: url.database,
        };
        let connector = RedisConnector::new(config, url.encrypted, &credentials)?;
        let mut supervisor = Supervisor::new(Survey::new(config, url)?, connector, random, Arc::clone(store));
        match supervisor.round().await {
            Err(RedisError { reason: refused @ Reason::Refused(_), .. }) => return Err(refused),
            Err(error) => supervisor.complain(&error),
            Ok(()) => {}
        }
        let shared = supervisor.shared();
        let stop = CancellationToken::new();
        let supervised = stop.clone().drop_guard();
        let abandoned = CancellationToken::new();
        let ends = abandoned.clone().drop_guard();
        tokio::spawn(async move {
            let _ends = ends;
            stop.run_until_cancelled(supervisor.run()).await;
        });
        Ok(Self {
            shared,
            key_prefix: config.key_prefix.clone(),
            timeout: config.timeout,
            abandoned,
            _supervised: supervised,
        })
    }

    /// A key with our prefix.
    pub fn key(&self, rest: &str) -> String {
        format!("{}{rest}", self.key_prefix)
    }

    /// The state of the servers, from now on.
    pub fn report(&self) -> watch::Receiver<RoundReport> {
        self.shared.report.subscribe()
    }

    /// Returns once nobody reconnects any more, which is a bug.
    pub async fn abandoned(&self) {
        self.abandoned.cancelled().await;
    }

    /// Runs one command on the server of `key`.
    pub async fn query<T: FromRedisValue>(&self, key: &str, command: &Cmd) -> Result<T, RedisError> {
        self.named(self.deliver(key, Order::Command(command)).await)
    }

    /// Runs one script on the server of its keys.
    pub async fn invoke<T: FromRedisValue>(&self, call: &Call) -> Result<T, RedisError> {
        self.named(self.deliver(call.place(), Order::Call(call)).await)
    }

    /// All keys that match `pattern`, on all servers. A key that is being moved may be returned twice.
    pub async fn scan(&self, pattern: &str) -> Result<Vec<String>, RedisError> {
        self.named(self.matching(pattern).await)
    }

    async fn matching(&self, pattern: &str) -> Result<Vec<String>, Reason> {
        let mut found = Vec::new();
        let routes = self.shared.routes.load_full();
        if !routes.complete() {
            return Err(Reason::Down);
        }
        for server in &routes.servers {
            let mut cursor = 0_u64;
            loop {
                let connection = server.connection().ok_or(Reason::Down)?;
                let mut command = redis::cmd("SCAN");
                command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(500);
                let answer =
                    timeout_at(Instant::now() + self.timeout, connection.send(&command, false)).await;
                let (next, mut keys): (u64, Vec<String>) = read(&connection, answer)?;
                found.append(&mut keys);
                if next == 0 {
                    break;
                }
                cursor = next;
            }
        }
        Ok(found)
    }

    /// Whether every master answers, and still is a master.
    pub async fn ping(&self) -> Result<(), RedisError> {
        self.named(self.check_roles().await)
    }

    async fn check_roles(&self) -> Result<(), Reason> {
        let routes = self.shared.routes.load_full();
        if !routes.complete() {
            return Err(Reason::Down);
        }
        let deadline = Instant::now() + self.timeout;
        for server in &routes.servers {
            let connection = server.connection().ok_or(Reason::Down)?;
            let role = timeout_at(deadline, connection.check_role()).await;
            role.unwrap_or(Err(Reason::Slow)).inspect_err(|error| cut_if_useless(&connection, error))?;
        }
        Ok(())
    }

    /// The time of a master.
    pub async fn time(&self) -> Result<Timestamp, RedisError> {
        self.named(self.clock().await)
    }

    async fn clock(&self) -> Result<Timestamp, Reason> {
        let routes = self.shared.routes.load_full();
        let connection = routes.servers.first().and_then(|server| server.connection()).ok_or(Reason::Down)?;
        let command = redis::cmd("TIME");
        let answer = timeout_at(Instant::now() + self.timeout, connection.send(&command, false)).await;
        let (seconds, micros): (i64, i64) = read(&connection, answer)?;
        Ok(Timestamp::from_unix_millis(seconds * 1000 + micros / 1000))
    }

    fn named<T>(&self, answer: Result<T, Reason>) -> Result<T, RedisError> {
        answer.map_err(|reason| reason.at(&self.shared.store))
    }

    /// Follows the key to its server, within one timeout.
    async fn deliver<T: FromRedisValue>(&self, key: &str, order: Order<'_>) -> Result<T, Reason> {
        let deadline = Instant::now() + self.timeout;
        let (mut sent_on, mut unknown) = (None, false);
        while Instant::now() < deadline {
            let routes = self.shared.routes.load_full();
            let (server, asking) = match sent_on.take() {
                Some(server) => (server, true),
                None => (Arc::clone(routes.server_of(key).ok_or(Reason::Down)?), false),
            };
            let connection = server.connection().ok_or(Reason::Down)?;
            let answer = timeout_at(deadline, order.send(&connection, asking, unknown)).await;
            let Ok(Err(error)) = &answer else { return read(&connection, answer) };
            match error.code() {
                Some("NOSCRIPT") if !unknown => {
                    unknown = true;
                    sent_on = asking.then_some(server);
                }
                Some("ASK") => {
                    let address = error.redirect_node().and_then(|(address, _)| Address::announced(address));
                    let target = address.and_then(|address| routes.named(&address).map(Arc::clone));
                    sent_on = Some(target.ok_or(Reason::Down)?);
                }
                Some("MOVED") => self.next_round(deadline).await,
                Some("TRYAGAIN") => sleep(HALF_WAY).await,
                _ => return read(&connection, answer),
            }
        }
        Err(Reason::Slow)
    }

    /// Waits until the masters have been looked for once more.
    async fn next_round(&self, deadline: Instant) {
        let mut report = self.shared.report.subscribe();
        report.mark_unchanged();
        self.shared.wake.notify_one();
        // The surrounding loop checks the deadline as well.
        let _ = timeout_at(deadline, report.changed()).await;
    }
}

/// What to send to a server.
#[derive(Clone, Copy)]
enum Order<'a> {
    Command(&'a Cmd),
    Call(&'a Call),
}

impl Order<'_> {
    /// `asking`: the key's slot is being moved to this server. `unknown`: the server does not know the script.
    async fn send(
        self,
        connection: &RedisConnection,
        asking: bool,
        unknown: bool,
    ) -> redis::RedisResult<redis::Value> {
        match self {
            Self::Command(command) => connection.send(command, asking).await,
            Self::Call(call) if unknown => connection.send(&call.by_text(), asking).await,
            Self::Call(call) => connection.send(&call.by_hash(), asking).await,
        }
    }
}

/// Parses a reply. After an error that makes the server useless, later callers must not wait for it.
fn read<T: FromRedisValue>(
    connection: &RedisConnection,
    answer: Result<redis::RedisResult<redis::Value>, tokio::time::error::Elapsed>,
) -> Result<T, Reason> {
    let error = match answer {
        Ok(Ok(value)) => {
            return redis::from_redis_value(value).map_err(|error| Reason::Failed(error.into()));
        }
        Ok(Err(source)) => Reason::answered(source),
        Err(_elapsed) => Reason::Slow,
    };
    cut_if_useless(connection, &error);
    Err(error)
}

fn cut_if_useless(connection: &RedisConnection, error: &Reason) {
    if error.ends_the_connection() {
        connection.cut();
    }
}

#[cfg(test)]
mod tests;
