//! The pool of connections to the durable store: limited in number, as the server counts them.
//!
//! A connection abandoned during a statement keeps its permit until the server has ended that statement: a crowd that
//! stops waiting must not become a crowd of statements there. Only a limited number wait for a permit, and further ones
//! fail at once. Some permits are reserved for looking up sessions: logins of strangers, who may wait for a lock, never
//! take those.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::{AnyConnection, Connection as _, Error};
use tokio::{
    runtime::Handle,
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{named::named, postgres::Servers, sqlite};

/// Maximum number of waiters per connection, and the same again per connection for general use.
const WAITING: usize = 64;
/// One in this many connections is only for looking up sessions; at least one, unless there is only one.
const RESERVE: u32 = 4;
/// Maximum age of a connection.
const LIFETIME: Duration = Duration::from_mins(30);
/// How long a server may take to end an abandoned statement. Longer than statements wait for locks.
const LET_GO: Duration = Duration::from_secs(2);
/// How soon the server notices that its client has gone.
const NOTICED: Duration = Duration::from_millis(600);

/// How connections are made.
#[derive(Debug)]
pub(super) enum ConnectionSource {
    /// With this URL.
    Sqlite(String),
    Postgres(Arc<Servers>),
}

/// The connections of one process.
#[derive(Debug)]
pub(super) struct ConnectionPool {
    source: ConnectionSource,
    size: u32,
    /// One permit per connection.
    permits: Permits,
    /// Permits for general use. Taken before one of `permits`.
    open: Permits,
    /// The longest wait for a permit.
    patience: Duration,
    /// The most recently used is the last.
    idle: Mutex<Vec<Idle>>,
    /// Notified when a connection becomes idle.
    returned: Notify,
    closed: AtomicBool,
}

#[derive(Debug)]
struct Idle {
    live: Live,
    since: Instant,
}

#[derive(Debug)]
struct Live {
    connection: AnyConnection,
    opened: Instant,
}

/// The purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Anything,
    /// Looking up the session of a browser.
    Sessions,
}

/// Permits, and the queue for them.
#[derive(Debug)]
struct Permits {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Maximum number of waiters.
    most: usize,
}

impl Permits {
    /// This many of the permits of a pool of this size.
    fn new(number: u32, size: u32) -> Self {
        Self {
            free: Arc::new(Semaphore::new(number as usize)),
            waiting: AtomicUsize::new(0),
            most: WAITING * size as usize,
        }
    }

    async fn take(&self, until: Instant) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::join(self)?;
        let permit = timeout_at(until, Arc::clone(&self.free).acquire_owned()).await;
        permit.ok().and_then(Result::ok).ok_or_else(|| late("all connections to the database are busy"))
    }
}

/// A leased connection. Dropping it returns it; see [`Lease::abandon`] for one in an unknown state.
#[derive(Debug)]
pub(super) struct ConnectionLease {
    /// `None` only during the drop.
    live: Option<Live>,
    permit: Option<Permit>,
    pool: Arc<ConnectionPool>,
}

/// A permit, and one for general use if it is that.
type Permit = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

impl ConnectionPool {
    pub(super) fn new(source: ConnectionSource, size: u32, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            source,
            size,
            permits: Permits::new(size, size),
            open: Permits::new(size - (size / RESERVE).clamp(u32::from(size > 1), size), size),
            patience,
            idle: Mutex::default(),
            returned: Notify::new(),
            closed: AtomicBool::new(false),
        })
    }

    /// Adds a connection that has been made already.
    pub(super) fn adopt(&self, connection: AnyConnection) {
        let now = Instant::now();
        self.idle().push(Idle { live: Live { connection, opened: now }, since: now });
    }

    pub(super) async fn take(self: &Arc<Self>, purpose: Purpose) -> Result<ConnectionLease, Error> {
        let permit = self.permit(purpose).await.map_err(|error| self.named(error))?;
        let live = match self.good_one().await {
            Some(live) => live,
            None => match self.source.connect().await {
                Err(error) if is_crowded(&error) => self.another().await.ok_or(error)?,
                connected => Live { connection: connected?, opened: Instant::now() },
            },
        };
        Ok(ConnectionLease { live: Some(live), permit: Some(permit), pool: Arc::clone(self) })
    }

    async fn permit(&self, purpose: Purpose) -> Result<Permit, Error> {
        let until = Instant::now() + self.patience;
        let open = match purpose {
            Purpose::Anything => Some(self.open.take(until).await?),
            Purpose::Sessions => None,
        };
        let permit = self.permits.take(until).await?;
        if self.is_closed() { Err(Error::PoolClosed) } else { Ok((permit, open)) }
    }

    /// The most recently used connection that still works.
    async fn good_one(&self) -> Option<Live> {
        loop {
            let mut idle = self.idle().pop()?;
            if idle.live.opened.elapsed() < LIFETIME && self.source.is_good(&mut idle).await {
                return Some(idle.live);
            }
            if let ConnectionSource::Sqlite(_) = self.source {
                let _ = idle.live.connection.close().await;
            }
        }
    }

    /// The server accepts no more connections, so an existing one has to do.
    async fn another(&self) -> Option<Live> {
        if self.permits.free.available_permits() + 1 >= self.size as usize {
            return None;
        }
        let returned = async {
            loop {
                let mut returned = std::pin::pin!(self.returned.notified());
                returned.as_mut().enable();
                if let Some(live) = self.good_one().await {
                    return live;
                }
                returned.await;
            }
        };
        timeout(self.patience, returned).await.ok()
    }

    /// The name of the store, for messages.
    pub(super) fn store(&self) -> String {
        match &self.source {
            ConnectionSource::Sqlite(url) => sqlite::path(url).display().to_string(),
            ConnectionSource::Postgres(servers) => servers.to_string(),
        }
    }

    /// The file of an embedded store.
    pub(super) fn file(&self) -> Option<&Path> {
        match &self.source {
            ConnectionSource::Sqlite(url) => Some(sqlite::path(url)),
            ConnectionSource::Postgres(_) => None,
        }
    }

    pub(super) fn named(&self, error: Error) -> Error {
        named(error, &self.store())
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        // A panic leaves the list consistent.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Waits until all connections are back, at most for `patience`, and closes them.
    pub(super) async fn close(&self, patience: Duration) {
        self.closed.store(true, Ordering::Release);
        let all = timeout(patience, self.permits.free.acquire_many(self.size)).await;
        let idle = std::mem::take(&mut *self.idle());
        let closing = async {
            // One after the other: of two that close a file at once, each takes the other for one that stays, and
            // neither checkpoints the log.
            for idle in idle {
                let _ = idle.live.connection.close().await;
            }
        };
        // Does not wait for a server that hangs.
        let _ = timeout(patience, closing).await;
        drop(all);
    }
}

impl ConnectionSource {
    async fn connect(&self) -> Result<AnyConnection, Error> {
        match self {
            Self::Sqlite(url) => {
                let mut connection = AnyConnection::connect(url).await?;
                sqlite::prepare(&mut connection).await?;
                Ok(connection)
            }
            Self::Postgres(servers) => servers.connect().await,
        }
    }

    /// An embedded store has no other end that could go away.
    async fn is_good(&self, idle: &mut Idle) -> bool {
        match self {
            Self::Sqlite(_) => true,
            Self::Postgres(servers) => {
                servers.are_good(&mut idle.live.connection, idle.live.opened, idle.since).await
            }
        }
    }
}

impl ConnectionLease {
    pub(super) fn live(&mut self) -> Result<&mut AnyConnection, Error> {
        self.live.as_mut().map(|live| &mut live.connection).ok_or(Error::PoolClosed)
    }

    /// Draws conclusions from an error on this connection for the others, and adds the store's name.
    pub(super) fn heard(&self, error: Error) -> Error {
        if let ConnectionSource::Postgres(servers) = &self.pool.source {
            servers.heard(&error);
        }
        self.pool.named(error)
    }

    /// Abandons the current statement. The permit is free once the store has ended it. A connection to a server returns
    /// to the pool if all its replies have arrived by then; otherwise its next reply is unknown. One to a file is
    /// closed, which is waited for as well: until then it may write to the file.
    pub(super) fn abandon(mut self) {
        // When the process ends, closing is all there is to do.
        let (Some(mut live), Ok(runtime)) = (self.live.take(), Handle::try_current()) else { return };
        runtime.spawn(async move {
            if let ConnectionSource::Sqlite(_) = self.pool.source {
                let _ = live.connection.close().await;
                return;
            }
            // Ends the transaction, and comes after any statement in progress.
            let ended = timeout(LET_GO, sqlx::raw_sql("ROLLBACK").execute(&mut live.connection)).await;
            match ended {
                Ok(Ok(_)) => self.live = Some(live),
                Ok(Err(_gone)) => {}
                Err(_hangs) => {
                    drop(live);
                    sleep(NOTICED).await;
                }
            }
            drop(self);
        });
    }
}

impl Drop for ConnectionLease {
    fn drop(&mut self) {
        // Even into a pool that is about to close, which closes its connections.
        if let Some(live) = self.live.take() {
            self.pool.idle().push(Idle { live, since: Instant::now() });
            drop(self.permit.take());
            self.pool.returned.notify_one();
        }
    }
}

/// Counted as a waiter until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(permits: &'a Permits) -> Result<Self, Error> {
        let waiting = Self(&permits.waiting);
        if permits.waiting.fetch_add(1, Ordering::AcqRel) >= permits.most {
            return Err(late("too many wait for the database already"));
        }
        Ok(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether the server has no free connection.
fn is_crowded(error: &Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some("53300")
}

fn late(what: &'static str) -> Error {
    Error::Io(io::Error::new(io::ErrorKind::TimedOut, what))
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, future::join_all};
    use sqlx::Row as _;

    use super::*;
    use crate::{
        database::{
            Config, Connection, Database,
            test_database::{On, TestDatabase, config},
            test_server::PostgresServer,
        },
        errors::Chain,
    };

    const PATIENCE: Duration = Duration::from_secs(20);
    /// Of eight, one listens, and one looks up sessions.
    const PLACES: usize = 6;

    async fn count(connection: &mut Connection, state: &str) -> usize {
        let query = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
                     AND pid <> pg_backend_pid() AND ";
        let query = sqlx::AssertSqlSafe(format!("{query}{state}"));
        let row = sqlx::query(query).fetch_one(connection).await.unwrap();
        row.get::<i64, _>(0).try_into().unwrap()
    }

    async fn until_none(connection: &mut Connection, state: &str) {
        let ended = async {
            while count(connection, state).await > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, ended).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_crowd_that_stops_waiting_is_no_crowd_in_the_server() {
        let (store, database) = TestDatabase::new(On::Postgres).await;
        let operator = store.open().await;
        let mut lock = operator.write().await.unwrap();
        sqlx::raw_sql("LOCK TABLE facts").execute(&mut *lock).await.unwrap();
        let waiting = "wait_event_type = 'Lock'";
        for _ in 0..5 {
            let crowd = (0..24).map(|_| timeout(Duration::from_millis(100), database.fact("x")));
            assert!(join_all(crowd).await.iter().all(|answer| !matches!(answer, Ok(Ok(_)))));
            assert!(count(&mut lock, waiting).await <= PLACES);
            assert!(count(&mut lock, "application_name = 'portcullis'").await <= PLACES + 1);
        }
        until_none(&mut lock, waiting).await;
        lock.rollback().await.unwrap();
        assert_eq!(timeout(PATIENCE, database.fact("x")).await.unwrap().unwrap(), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_given_up_ends_in_the_server() {
        let (store, database) = TestDatabase::new(On::Postgres).await;
        let operator = store.open().await;
        let mut operator = operator.acquire().await.unwrap();
        let long = sqlx::query("SELECT 1 FROM pg_sleep(600)").execute(&database);
        assert!(timeout(Duration::from_millis(50), long).await.is_err());
        until_none(&mut operator, "query LIKE '%pg_sleep%'").await;
    }

    #[tokio::test]
    async fn only_so_many_wait_and_the_next_one_is_told_at_once() {
        let (_store, database) = TestDatabase::new(On::Postgres).await;
        let held = join_all((0..PLACES).map(|_| database.acquire())).await;
        assert!(held.iter().all(Result::is_ok));
        let mut queue: Vec<_> = (0..WAITING * (PLACES + 1)).map(|_| Box::pin(database.acquire())).collect();
        assert!(queue.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        let refused = database.acquire().now_or_never().expect("it does not wait").unwrap_err();
        assert!(Chain(&refused).to_string().contains("too many wait"), "{refused:?}");
        // Sessions are looked up all the same, and concurrent look-ups do not share a connection.
        let sessions = database.for_sessions();
        sessions.ping().await.unwrap();
        let looking = sessions.acquire().await.unwrap();
        assert!(sessions.acquire().now_or_never().is_none());
        drop((looking, held));
        assert!(queue.swap_remove(0).await.is_ok());
        drop(queue);
        database.ping().await.unwrap();
    }

    #[tokio::test]
    async fn each_number_of_connections_has_some_for_everybody_and_all_for_sessions() {
        let store = TestDatabase::empty(On::Postgres);
        let Config::Postgres(config) = store.config else { panic!("it is PostgreSQL") };
        for (connections, sessions, everybody) in [(1, 1, 1), (2, 1, 1), (3, 2, 1), (4, 3, 2), (9, 8, 6)] {
            let config = super::super::postgres::Config { max_connections: connections, ..config.clone() };
            let database = Database::open(&Config::Postgres(config)).await.unwrap();
            for (handle, most) in [(&database, everybody), (&database.for_sessions(), sessions)] {
                let held = join_all((0..most).map(|_| handle.acquire())).await;
                assert!(held.iter().all(Result::is_ok));
                assert!(handle.acquire().now_or_never().is_none(), "{connections}");
            }
        }
    }

    #[tokio::test]
    async fn a_server_with_no_connection_left_is_asked_on_those_there_are() {
        let server = PostgresServer::start(&["max_connections=5", "superuser_reserved_connections=0"]);
        let store = Config::Postgres(config(&[&server], server.create_database()));
        let database = Database::open(&store).await.unwrap();
        let mut held: Vec<_> = join_all((0..5).map(|_| database.acquire())).await;
        assert!(held.iter().all(Result::is_ok));
        let (next, ()) = tokio::join!(database.acquire(), async {
            tokio::task::yield_now().await;
            drop(held.pop());
        });
        next.unwrap();
        drop(held);
        database.ping().await.unwrap();
    }
}
