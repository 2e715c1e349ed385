//! PostgreSQL: which of several servers accepts writes, how a connection is set up, and advice for operators.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    hash::{BuildHasher as _, RandomState},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{
    Any, AnyConnection, ConnectOptions as _, Error, Executor, Row as _, any::AnyConnectOptions,
    postgres::PgConnectOptions,
};
use tokio::time::{Instant, timeout};
use url::Url;

use crate::errors::Chain;

/// The longest that a request may wait: for a connection, and for each reply.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Timeout of connecting to one server.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// Timeout of checking an idle connection.
const CHECK: Duration = Duration::from_millis(500);
/// The settings of a listening connection: a server that has lost the client must not keep it.
pub(super) const LISTENING: &str =
    "SET default_transaction_isolation = 'read committed'; SET lock_timeout = '500ms'";
/// A connection that has been idle for less than this needs no check.
const FRESH: Duration = Duration::from_secs(1);
/// The pauses between two attempts to connect grow from the first to the last of these.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(500);
/// The code of a server that accepts no writes.
const READ_ONLY: &str = "25006";

/// The address of PostgreSQL, and the login.
#[derive(Clone, Debug)]
pub struct Config {
    /// One of them accepts writes; which one may change.
    pub hosts: Vec<Host>,
    pub user: String,
    pub password: Option<SecretString>,
    /// The name of the database.
    pub name: String,
    /// `disable`, `prefer`, `require`, `verify-ca` or `verify-full`.
    pub tls: String,
    /// PEM file with the authority that signed the servers' certificates, besides the public ones.
    pub ca: Option<PathBuf>,
    /// Client certificate and key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    pub max_connections: u32,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// A name, an address, or the folder of a socket.
    pub name: String,
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

impl Config {
    /// Only for the driver: contains the password.
    fn url(&self, host: &Host) -> Result<Url, Error> {
        let mut url =
            Url::parse("postgres://localhost/").map_err(|error| Error::Configuration(error.into()))?;
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("host", &host.name);
            query.append_pair("port", &host.port.to_string());
            query.append_pair("user", &self.user);
            query.append_pair("dbname", &self.name);
            query.append_pair("sslmode", &self.tls);
            query.append_pair("application_name", "portcullis");
            if let Some(password) = &self.password {
                query.append_pair("password", password.expose_secret());
            }
            if let Some(ca) = &self.ca {
                query.append_pair("sslrootcert", &ca.to_string_lossy());
            }
            if let Some((certificate, key)) = &self.client_certificate {
                query.append_pair("sslcert", &certificate.to_string_lossy());
                query.append_pair("sslkey", &key.to_string_lossy());
            }
        }
        Ok(url)
    }

    fn options(&self, host: &Host) -> Result<AnyConnectOptions, Error> {
        AnyConnectOptions::from_url(&self.url(host)?)
    }
}

/// Without the password.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@", self.user)?;
        for (at, host) in self.hosts.iter().enumerate() {
            if at > 0 {
                f.write_char(',')?;
            }
            host.fmt(f)?;
        }
        write!(f, "/{}", self.name)
    }
}

/// The servers, one of which is in use.
#[derive(Debug)]
pub(super) struct Servers {
    config: Config,
    in_use: Mutex<InUse>,
    outage: Mutex<Option<Outage>>,
}

#[derive(Debug)]
struct InUse {
    host: Host,
    since: Instant,
    /// Connections that have been idle since before this may be dead as well.
    trouble: Instant,
    /// Another server may accept writes now.
    doubted: bool,
}

/// The one in use.
impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL at {}", self.in_use().host)
    }
}

/// The time from the first failed attempt to connect to the next success.
#[derive(Debug)]
struct Outage {
    since: Instant,
    reason: String,
    kind: io::ErrorKind,
    pause: Duration,
    next_try: Instant,
}

impl Servers {
    /// Finds the server that accepts writes.
    pub(super) async fn open(config: &Config) -> Result<(Arc<Self>, AnyConnection), Error> {
        let (host, connection) = find(config, 5 * CONNECT).await?;
        let now = Instant::now();
        let in_use = Mutex::new(InUse { host, since: now, trouble: now, doubted: false });
        Ok((Arc::new(Self { config: config.clone(), in_use, outage: Mutex::default() }), connection))
    }

    /// Whether one connection is used for listening.
    pub(super) fn listens(&self) -> bool {
        self.config.max_connections > 1
    }

    /// The number of connections for everything else.
    pub(super) fn connections(&self) -> u32 {
        self.config.max_connections - u32::from(self.listens())
    }

    /// The options for a listening connection to the server in use.
    pub(super) fn listening(&self) -> Result<PgConnectOptions, Error> {
        let host = self.in_use().host.clone();
        PgConnectOptions::from_url(&self.config.url(&host)?)
    }

    /// Connects to the server that accepts writes. During an outage only one caller tries at a time, and all others
    /// fail at once with its error.
    pub(super) async fn connect(&self) -> Result<AnyConnection, Error> {
        self.admit()?;
        let tried = self.try_to_connect().await;
        match &tried {
            Ok(_) => self.is_back(),
            Err(error) => self.is_away(error),
        }
        tried.map_err(|error| match error {
            error @ Error::Database(_) => error,
            error => self.refusal().unwrap_or(error),
        })
    }

    async fn try_to_connect(&self) -> Result<AnyConnection, Error> {
        let (host, doubted) = {
            let in_use = self.in_use();
            (in_use.host.clone(), in_use.doubted)
        };
        let several = self.config.hosts.len() > 1;
        if !(several && doubted) {
            let connected = in_time(CONNECT, connect(&self.config, &host, Needs::Current)).await;
            if connected.is_ok() || !several {
                return connected;
            }
        }
        let (found, connection) = find(&self.config, CONNECT).await?;
        let mut in_use = self.in_use();
        in_use.doubted = false;
        if in_use.host != found {
            tracing::warn!(from = %in_use.host, to = %found, "the database's changes are taken by another server now");
            let now = Instant::now();
            *in_use = InUse { host: found, since: now, trouble: now, doubted: false };
        }
        Ok(connection)
    }

    /// Whether a connection that was idle for a while still works.
    pub(super) async fn are_good(
        &self,
        connection: &mut AnyConnection,
        opened: Instant,
        idle_since: Instant,
    ) -> bool {
        {
            let in_use = self.in_use();
            if opened < in_use.since || (in_use.doubted && self.config.hosts.len() > 1) {
                return false;
            }
            if idle_since > in_use.trouble && idle_since.elapsed() < FRESH {
                return true;
            }
        }
        let good = matches!(timeout(CHECK, sqlx::Connection::ping(connection)).await, Ok(Ok(())));
        if !good {
            self.in_use().trouble = Instant::now();
        }
        good
    }

    /// Draws conclusions from an error on one connection for the others.
    pub(super) fn heard(&self, error: &Error) {
        let lost = matches!(error, Error::Io(_) | Error::Tls(_) | Error::Protocol(_));
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        if lost || ends_the_connection(error) {
            self.in_use().trouble = Instant::now();
        } else if code.as_deref() == Some(READ_ONLY) {
            self.in_use().doubted = true;
        }
    }

    pub(super) fn are_away(&self) -> bool {
        self.outage().is_some()
    }

    fn admit(&self) -> Result<(), Error> {
        let mut outage = self.outage();
        let Some(outage) = outage.as_mut() else { return Ok(()) };
        let now = Instant::now();
        if now < outage.next_try {
            return Err(outage.refusal());
        }
        // For callers that come during this attempt.
        outage.next_try = now + 2 * CONNECT;
        Ok(())
    }

    fn refusal(&self) -> Option<Error> {
        self.outage().as_ref().map(Outage::refusal)
    }

    /// Logged once per outage: the following attempts would all report the same.
    fn is_away(&self, error: &Error) {
        let host = self.in_use().host.clone();
        let advice = advice(&self.config, error).map(|advice| format!(" ({advice})")).unwrap_or_default();
        let at = if self.config.hosts.len() > 1 { self.config.to_string() } else { host.to_string() };
        let reason = format!("cannot connect to PostgreSQL at {at}: {}{advice}", Chain(error));
        let mut outage = self.outage();
        let now = Instant::now();
        let (since, pause) = match &*outage {
            Some(outage) => (outage.since, (2 * outage.pause).min(LAST_PAUSE)),
            None => {
                tracing::warn!(reason, "the database is away, and will be tried again");
                (now, FIRST_PAUSE)
            }
        };
        let kind = if let Error::Io(error) = error { error.kind() } else { io::ErrorKind::Other };
        *outage = Some(Outage { since, reason, kind, pause, next_try: now + jittered(pause) });
    }

    fn is_back(&self) {
        if let Some(outage) = self.outage().take() {
            tracing::warn!(seconds = outage.since.elapsed().as_secs(), "the database is back");
        }
    }

    fn in_use(&self) -> MutexGuard<'_, InUse> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outage(&self) -> MutexGuard<'_, Option<Outage>> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outage {
    fn refusal(&self) -> Error {
        Error::Io(io::Error::new(self.kind, self.reason.clone()))
    }
}

/// Whether a server with this error closes the connection: it is stopping, has crashed, or has waited too long for the
/// client.
pub(super) fn ends_the_connection(error: &Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code.starts_with("57P") || code == "25P03")
}

/// Between half of `pause` and all of it, so that many gateways do not reconnect in step.
fn jittered(pause: Duration) -> Duration {
    let chance = RandomState::new().hash_one(0) % 256;
    pause / 2 + pause * u32::try_from(chance).unwrap_or(0) / 512
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(Error::Io(io::ErrorKind::TimedOut.into())))
}

/// What a server is needed for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Current data: not a stand-by, which may lag behind.
    Current,
    /// Current data, and writes.
    Changes,
}

async fn connect(config: &Config, host: &Host, needs: Needs) -> Result<AnyConnection, Error> {
    let mut connection = config.options(host)?.connect().await?;
    prepare(&mut connection, needs).await?;
    Ok(connection)
}

/// The first server that accepts writes; else the error of one of them. A single server need not accept writes.
async fn find(config: &Config, patience: Duration) -> Result<(Host, AnyConnection), Error> {
    let needs = if config.hosts.len() > 1 { Needs::Changes } else { Needs::Current };
    let mut asked: FuturesUnordered<_> = config
        .hosts
        .iter()
        .map(async |host| Ok((host.clone(), in_time(patience, connect(config, host, needs)).await?)))
        .collect();
    let mut refused = Error::PoolTimedOut;
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(found) => return Ok(found),
            // That one server is a stand-by says less than why the other cannot be reached.
            Err(error) => {
                if matches!(refused, Error::PoolTimedOut) || !is_read_only(&error) {
                    refused = error;
                }
            }
        }
    }
    Err(refused)
}

/// Sets a connection up; an error if the server is not what is needed.
async fn prepare(connection: &mut AnyConnection, needs: Needs) -> Result<(), Error> {
    // A commit survives a crash, used one-time codes above all, whatever the server's settings; a stronger setting of
    // the server, which waits for stand-bys, stays. A client that has gone holds no lock, and no statement waits for
    // one longer than we wait for the server: it ends abandoned statements. From version 14 on it also notices that the
    // client has gone.
    const SETTINGS: &str = "SET default_transaction_isolation = 'read committed'; \
         SET idle_in_transaction_session_timeout = '10s'; SET lock_timeout = '1500ms'; \
         SELECT set_config(name, '500ms', false) FROM pg_settings \
         WHERE name = 'client_connection_check_interval' AND version() LIKE '%linux%'; \
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";
    sqlx::raw_sql(SETTINGS).execute(&mut *connection).await?;
    let state = "SELECT CASE WHEN pg_is_in_recovery() THEN 2 \
                 WHEN current_setting('transaction_read_only') = 'on' THEN 1 ELSE 0 END";
    let short: i32 = sqlx::query(state).fetch_one(connection).await?.try_get(0)?;
    let fits = short == 0 || (short == 1 && needs == Needs::Current);
    if fits { Ok(()) } else { Err(Error::Configuration(ReadOnly.into())) }
}

#[derive(Debug, thiserror::Error)]
#[error("the server takes no changes: it is a stand-by, or read-only")]
struct ReadOnly;

fn is_read_only(error: &Error) -> bool {
    matches!(error, Error::Configuration(inner) if inner.is::<ReadOnly>())
}

const TLS_ADVICE: &str = "no TLS as asked for: give the certificate's authority as storage.ca and the name that is in the \
     certificate as host, or, on a network that you trust, say `sslmode=disable`";

fn is_about_tls(error: &io::Error) -> bool {
    let Some(cause) = error.get_ref() else { return false };
    cause.is::<rustls::Error>()
}

/// Advice for an error while connecting or migrating. Never contains a password.
pub(super) fn advice(config: &Config, error: &Error) -> Option<String> {
    let Config { user, name, .. } = config;
    let code = error.as_database_error().and_then(|error| error.code().map(Cow::into_owned));
    Some(match (code.as_deref(), error) {
        (Some("28P01"), _) => {
            format!(
                "the server refuses the password of {user}: set storage.password or storage.password_file"
            )
        }
        (Some("28000"), _) => format!("the server does not let {user} in from here: see its pg_hba.conf"),
        (Some("3D000"), _) => {
            format!("there is no database {name}: make it with `createdb --owner={user} {name}`")
        }
        (Some("42501"), _) => {
            format!("{user} may not make tables: run `GRANT CREATE ON SCHEMA public TO {user}` in {name}")
        }
        (Some("53300"), _) => {
            "the server has no connection left: raise its max_connections, or lower storage.max_connections"
                .into()
        }
        (Some("57P03"), _) => "the server is starting or stopping: try again".into(),
        (_, Error::Tls(_)) => TLS_ADVICE.into(),
        // The certificate is not trusted.
        (_, Error::Io(cause)) if is_about_tls(cause) => TLS_ADVICE.into(),
        (_, Error::Io(cause)) => match cause.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                "nobody listens there: is PostgreSQL running, and are host and port right?".into()
            }
            io::ErrorKind::TimedOut => {
                "no answer: is there a firewall between, or does the server hang?".into()
            }
            _ => "the server cannot be reached: are host and port right?".into(),
        },
        (_, error) if is_read_only(error) => {
            "none of the servers takes changes: name the primary as well, or promote one".into()
        }
        (_, Error::PoolTimedOut) => "no connection in time: does the server hang?".into(),
        _ => return None,
    })
}

/// The number of this program's other connections to the database.
pub(super) async fn others(connection: impl Executor<'_, Database = Any>) -> Result<i64, Error> {
    let row = sqlx::query(
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name = 'portcullis' AND pid <> pg_backend_pid()",
    )
    .fetch_one(connection)
    .await?;
    row.try_get(0)
}
