//! PostgreSQL: which of several servers takes changes, how a connection is set up, and what an operator does about an
//! error.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{
    AnyConnection, AnyPool, ConnectOptions as _, Error, Row as _,
    any::{AnyConnectOptions, AnyPoolOptions},
    postgres::PgConnectOptions,
};
use tokio::time::{Instant, timeout};
use url::Url;

/// How long a request may wait: for a connection, and for each answer on it.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// The longest that one server may take to let us in.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// The longest that a connection may take to show that it is still good.
const CHECK: Duration = Duration::from_millis(500);
/// The settings of a connection that hears of changes: a server that has lost us must not keep it.
pub(super) const LISTENING: &str =
    "SET default_transaction_isolation = 'read committed'; SET lock_timeout = '500ms'";
/// How often the servers are asked at most which of them takes changes.
const SEARCH: Duration = Duration::from_millis(250);

/// Where PostgreSQL is, and as whom to log in there.
#[derive(Clone, Debug)]
pub struct Config {
    /// One of them takes changes; which one may change.
    pub hosts: Vec<Host>,
    pub user: String,
    pub password: Option<SecretString>,
    /// The database's name.
    pub name: String,
    /// `disable`, `prefer`, `require`, `verify-ca` or `verify-full`.
    pub tls: String,
    /// PEM file with the authority that signed the servers' certificates, besides the public ones.
    pub ca: Option<PathBuf>,
    /// Certificate and key files to log in with.
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

impl Config {
    /// For the driver alone: holds the password.
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
        for (at, Host { name, port }) in self.hosts.iter().enumerate() {
            if at > 0 {
                f.write_char(',')?;
            }
            write!(f, "{name}:{port}")?;
        }
        write!(f, "/{}", self.name)
    }
}

/// The servers, one of which is in use.
#[derive(Debug)]
pub(super) struct Servers {
    config: Config,
    in_use: Mutex<InUse>,
    /// When they were last asked; held by whoever asks.
    search: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct InUse {
    host: Host,
    since: Instant,
}

impl Servers {
    /// Finds the server that takes changes, and opens a pool of connections to it.
    pub(super) async fn open(config: &Config) -> Result<(AnyPool, Arc<Self>), Error> {
        let host = find(config, 5 * CONNECT).await?;
        let options = config.options(&host)?;
        let in_use = Mutex::new(InUse { host, since: Instant::now() });
        let servers =
            Arc::new(Self { config: config.clone(), in_use, search: tokio::sync::Mutex::default() });
        let checked = Arc::clone(&servers);
        let pool = AnyPoolOptions::new()
            // One of them is there to listen, where there are several.
            .max_connections(config.max_connections - u32::from(servers.listens()))
            .acquire_timeout(PATIENCE)
            // Ours asks for more than that there is an answer.
            .test_before_acquire(false)
            .before_acquire(move |connection, met| {
                let current = checked.opened_since_switch(met.age);
                Box::pin(async move { Ok(current && takes_changes(connection).await.unwrap_or(false)) })
            })
            .after_connect(|connection, _| Box::pin(prepare(connection)))
            .connect_lazy_with(options);
        Ok((pool, servers))
    }

    /// Whether one connection is spent on hearing of changes.
    pub(super) fn listens(&self) -> bool {
        self.config.max_connections > 1
    }

    /// How to connect to the server in use for that.
    pub(super) fn listening(&self) -> Result<PgConnectOptions, Error> {
        let host = self.in_use.lock().unwrap_or_else(PoisonError::into_inner).host.clone();
        PgConnectOptions::from_url(&self.config.url(&host)?)
    }

    pub(super) fn are_several(&self) -> bool {
        self.config.hosts.len() > 1
    }

    /// Asks all servers which one takes changes, and lets the pool connect to that one.
    pub(super) async fn search(&self, pool: &AnyPool) -> Result<(), Error> {
        let mut last = self.search.lock().await;
        if last.is_some_and(|last| last.elapsed() < SEARCH) {
            return Ok(());
        }
        let found = find(&self.config, CONNECT).await;
        *last = Some(Instant::now());
        let host = found?;
        let options = self.config.options(&host)?;
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if in_use.host != host {
            tracing::warn!(
                from = %format_args!("{}:{}", in_use.host.name, in_use.host.port),
                to = %format_args!("{}:{}", host.name, host.port),
                "the database's changes are taken by another server now"
            );
            pool.set_connect_options(options);
            *in_use = InUse { host, since: Instant::now() };
        }
        Ok(())
    }

    fn opened_since_switch(&self, age: Duration) -> bool {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner).since.elapsed() >= age
    }
}

/// The first of the servers to show that it takes changes; else why one of them does not.
async fn find(config: &Config, patience: Duration) -> Result<Host, Error> {
    let mut asked: FuturesUnordered<_> = config
        .hosts
        .iter()
        .map(async |host| {
            let asking = async {
                let mut connection = config.options(host)?.connect().await?;
                prepare(&mut connection).await?;
                let _ = sqlx::Connection::close(connection).await;
                Ok(host.clone())
            };
            timeout(patience, asking).await.unwrap_or_else(|_| Err(Error::Io(io::ErrorKind::TimedOut.into())))
        })
        .collect();
    let mut refused = Error::PoolTimedOut;
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(host) => return Ok(host),
            // That one is a stand-by says less than why the other one cannot be reached.
            Err(error) => {
                if matches!(refused, Error::PoolTimedOut) || !is_read_only(&error) {
                    refused = error;
                }
            }
        }
    }
    Err(refused)
}

/// Sets a connection up; an error when the server takes no changes.
async fn prepare(connection: &mut AnyConnection) -> Result<(), Error> {
    // What was committed survives a crash, used one-time codes above all, whatever the server's settings; a stronger
    // setting of the server's, which waits for stand-bys, stays. A client that has gone holds no lock.
    const SETTINGS: &str = "SET default_transaction_isolation = 'read committed'; \
         SET idle_in_transaction_session_timeout = '10s'; SET lock_timeout = '5s'; \
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";
    sqlx::raw_sql(SETTINGS).execute(&mut *connection).await?;
    if takes_changes(connection).await? { Ok(()) } else { Err(Error::Configuration(ReadOnly.into())) }
}

async fn takes_changes(connection: &mut AnyConnection) -> Result<bool, Error> {
    let asked = sqlx::query("SHOW transaction_read_only").fetch_one(connection);
    let row = timeout(CHECK, asked).await.map_err(|_| Error::Io(io::ErrorKind::TimedOut.into()))??;
    Ok(row.try_get::<String, _>(0)? == "off")
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

/// What to do about an error of connecting or of making tables. Never holds a password.
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
        // A certificate that is not believed.
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

/// How many other connections of this program there are to the database.
pub(super) async fn others(connection: &mut super::Connection) -> Result<i64, Error> {
    let row = sqlx::query(
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name = 'portcullis' AND pid <> pg_backend_pid()",
    )
    .fetch_one(connection)
    .await?;
    row.try_get(0)
}
