//! Following changes: PostgreSQL notifies on a connection of its own, which no crowd of requests can take away; the
//! file of the embedded store is watched.
//!
//! A follower reads the feed whenever it is notified, and at intervals anyway: that shows that the store is there, and
//! finds notifications lost with a connection. A store without notifications is polled more often.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::{
    Change, Database, DatabaseError,
    changes::{CHANNEL, LATEST, SINCE, after},
    postgres::{CONNECT, LISTENING, Servers},
    watched::Watched,
};
use crate::errors::Chain;

/// How often a feed without notifications is read.
const POLL: Duration = Duration::from_millis(50);
/// The same over a network.
const DISTANT_POLL: Duration = Duration::from_millis(200);
/// The minimum interval between two reads, however much is announced.
const PACE: Duration = Duration::from_millis(5);
/// The same for the embedded store, whose file changes for other reasons as well.
const FILE_PACE: Duration = POLL;
/// How long the file of the embedded store must be unchanged before its watch is trusted.
const SETTLED: Duration = Duration::from_secs(2);
/// How often the feed is read anyway then, in case the watch is wrong.
const NET: Duration = Duration::from_secs(5);
/// The wait before listening is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A reader of the change feed.
pub struct ChangeFeed {
    database: Database,
    /// Everything up to here has been read.
    position: Option<i64>,
    ear: Ear,
}

/// The source of notifications.
enum Ear {
    /// None: polling.
    Closed,
    /// Polling, until this is ready.
    Opening(BoxFuture<'static, Result<PgListener, sqlx::Error>>),
    Open(PgListener),
    File(FileEar),
}

/// The watch on the embedded store's file, and how far it can be trusted.
struct FileEar {
    watched: Box<Watched>,
    /// When a write was last seen; at first, when the watch began.
    written: Instant,
    /// When the last successful read began.
    read: Option<Instant>,
}

impl FileEar {
    fn new(watched: Watched) -> Self {
        Self { watched: Box::new(watched), written: Instant::now(), read: None }
    }

    /// Whether the watch has seen no write since the last read.
    fn knows_of_nothing(&self, now: Instant) -> bool {
        let is_read = self.read.is_some_and(|read| read > self.written && now < read + NET);
        is_read && now > self.written + SETTLED
    }

    /// When to look at the latest. A writer is noticed before its commit can be seen, and nothing tells of the moment when it can.
    fn next_look(&self, now: Instant, latest: Instant) -> Instant {
        if now > self.written + SETTLED { latest } else { latest.min(now + POLL) }
    }
}

impl ChangeFeed {
    pub fn of(database: &Database) -> Self {
        let mut feed = Self { database: database.clone(), position: None, ear: Ear::Closed };
        feed.open(Duration::ZERO);
        feed
    }

    /// The changes since the last read. The first read returns none: a new follower has cached nothing yet. If the
    /// future is dropped, the next read returns the same changes.
    pub async fn read(&mut self) -> Result<Vec<Change>, DatabaseError> {
        if self.database.is_closed() {
            return Err(sqlx::Error::PoolClosed.into());
        }
        let began = Instant::now();
        if matches!(&self.ear, Ear::File(ear) if ear.knows_of_nothing(began)) {
            return Ok(Vec::new());
        }
        // If this future is dropped, a query in progress makes the listener unusable.
        let read = match std::mem::replace(&mut self.ear, Ear::Closed) {
            Ear::Open(mut listener) => {
                let read = on_its_own(&mut listener, self.position).await;
                let read = read.map_err(|error| DatabaseError::from(self.database.pool.named(error)));
                if read.is_ok() {
                    self.ear = Ear::Open(listener);
                }
                read
            }
            ear => {
                self.ear = ear;
                self.by_pool().await
            }
        };
        let (newest, changes) = read?;
        self.position = Some(newest);
        if let Ear::File(ear) = &mut self.ear {
            ear.read = Some(began);
        }
        if changes.iter().any(|change| matches!(change, Change::SigningKeys | Change::All)) {
            self.database.signing_keys.notify_one();
        }
        if changes.iter().any(|change| matches!(change, Change::Mail | Change::All)) {
            self.database.mail.notify_one();
        }
        Ok(changes)
    }

    async fn by_pool(&mut self) -> Result<(i64, Vec<Change>), DatabaseError> {
        match self.position {
            Some(position) => self.database.changes_after(position).await,
            None => Ok((self.database.latest_change().await?, Vec::new())),
        }
    }

    /// Waits until there may be a change, at most a little longer than until `latest`.
    pub async fn wait_until(&mut self, latest: Instant) {
        let began = Instant::now();
        match &mut self.ear {
            Ear::Open(listener) => {
                if let Ok(told) = timeout_at(latest, listener.try_recv()).await {
                    if matches!(told, Ok(Some(_))) {
                        while listener.next_buffered().is_some() {}
                    } else {
                        self.open(Duration::ZERO);
                    }
                }
                sleep_until(began + PACE).await;
            }
            Ear::Opening(opening) => {
                if let Ok(opened) = timeout(DISTANT_POLL, opening).await {
                    match opened {
                        Ok(listener) => self.ear = Ear::Open(listener),
                        Err(error) => {
                            tracing::debug!(error = %Chain(&error), "cannot listen for changes, and look for them");
                            self.open(RETRY);
                        }
                    }
                }
            }
            Ear::File(ear) => {
                let latest = ear.next_look(began, latest);
                match timeout_at(latest, ear.watched.written()).await {
                    Ok(Ok(())) => ear.written = Instant::now(),
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "cannot watch the database's file, and look at it");
                        self.ear = Ear::Closed;
                    }
                    Err(_elapsed) => {}
                }
                sleep_until(began + FILE_PACE).await;
            }
            Ear::Closed => {
                self.open(Duration::ZERO);
                sleep(POLL).await;
            }
        }
    }

    /// Begins to listen after a pause, if the store has notifications.
    fn open(&mut self, pause: Duration) {
        self.ear = match &self.database.servers {
            Some(servers) if servers.listens() => {
                let servers = servers.clone();
                let opening = async move {
                    sleep(pause).await;
                    listen(&servers).await
                };
                Ear::Opening(opening.boxed())
            }
            Some(_) => Ear::Closed,
            None => self.database.pool.file().map_or(Ear::Closed, |file| {
                Watched::log_of(file).map_or(Ear::Closed, |watched| Ear::File(FileEar::new(watched)))
            }),
        };
    }
}

/// Every announcement from the moment this returns is received.
async fn listen(servers: &Servers) -> Result<PgListener, sqlx::Error> {
    // The driver can only listen on a pool's connection.
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECT);
    let pool = pool.connect_lazy_with(servers.listening()?);
    if servers.are_away() {
        // The followers of the pool notice when the server is back.
        return Err(sqlx::Error::PoolTimedOut);
    }
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    sqlx::raw_sql(LISTENING).execute(&mut listener).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

async fn on_its_own(
    listener: &mut PgListener,
    position: Option<i64>,
) -> Result<(i64, Vec<Change>), sqlx::Error> {
    if let Some(position) = position {
        let rows = sqlx::query_as(SINCE).bind(position).fetch_all(&mut *listener).await?;
        if let Some(read) = after(position, rows) {
            return Ok(read);
        }
    }
    let (newest,) = sqlx::query_as(LATEST).fetch_one(listener).await?;
    Ok((newest, position.map(|_| Change::All).into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Timestamp,
        database::{
            Config, sqlite,
            test_database::{On, TestDatabase, config, on_each_database},
            test_server::PostgresServer,
        },
    };

    const PATIENCE: Duration = Duration::from_secs(20);
    const BEAT: Duration = Duration::from_millis(50);
    const NOW: Timestamp = Timestamp::from_unix_seconds(100);

    async fn open(server: &PostgresServer, name: &str) -> Database {
        Database::open(&Config::Postgres(config(&[server], name.to_owned()))).await.unwrap()
    }

    async fn announce(database: &Database, user: &str) {
        let mut transaction = database.write().await.unwrap();
        database.announce(&mut transaction, &Change::User(user.into()), NOW).await.unwrap();
        transaction.commit().await.unwrap();
    }

    async fn hears(feed: &mut ChangeFeed, user: &str) {
        let heard = async {
            while feed.read().await.unwrap_or_default() != [Change::User(user.into())] {
                feed.wait_until(Instant::now() + BEAT).await;
            }
        };
        timeout(PATIENCE, heard).await.unwrap();
    }

    async fn listening(database: &Database) -> ChangeFeed {
        let mut feed = database.change_feed();
        feed.read().await.unwrap();
        let open = async {
            while !matches!(feed.ear, Ear::Open(_) | Ear::File(_)) {
                feed.wait_until(Instant::now() + BEAT).await;
            }
        };
        timeout(PATIENCE, open).await.unwrap();
        assert_eq!(feed.read().await.unwrap(), []);
        feed
    }

    on_each_database![news_is_read_once_and_from_the_beginning_on];

    async fn news_is_read_once_and_from_the_beginning_on(on: On) {
        let (store, database) = TestDatabase::new(on).await;
        announce(&database, "before").await;
        let mut feed = database.change_feed();
        assert_eq!(feed.read().await.unwrap(), []);
        announce(&store.open().await, "ada").await;
        hears(&mut feed, "ada").await;
        assert_eq!(feed.read().await.unwrap(), []);
        database.close().await;
        assert!(feed.read().await.is_err());
    }

    #[tokio::test]
    async fn a_watched_file_that_is_left_alone_is_read_now_and_then_and_a_written_one_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        std::fs::write(sqlite::log(&file), "").unwrap();
        let mut ear = FileEar::new(Watched::log_of(&file).unwrap());
        let start = ear.written;
        let at = |seconds| start + Duration::from_secs_f32(seconds);
        assert!(!ear.knows_of_nothing(at(3.0)), "it has never been read");
        ear.read = Some(at(3.0));
        assert!(ear.knows_of_nothing(at(3.0)) && ear.knows_of_nothing(at(7.9)));
        assert!(!ear.knows_of_nothing(at(8.0)), "the watch may be wrong");
        ear.written = at(9.0);
        assert!(!ear.knows_of_nothing(at(15.0)), "nobody has read what was written");
        ear.read = Some(at(10.0));
        assert!(!ear.knows_of_nothing(at(10.0)), "whoever wrote may be about to finish");
        assert_eq!(ear.next_look(at(11.0), at(20.0)), at(11.0) + POLL, "and tells nobody of the commit");
        assert_eq!(ear.next_look(at(11.0), at(11.01)), at(11.01));
        assert_eq!(ear.next_look(at(11.1), at(20.0)), at(20.0));
        assert!(ear.knows_of_nothing(at(11.1)));
    }

    #[tokio::test]
    async fn the_embedded_store_tells_at_the_commit() {
        let (store, database) = TestDatabase::new(On::Sqlite).await;
        let mut feed = listening(&database).await;
        let writer = store.open().await;
        for user in ["ada", "bob"] {
            announce(&writer, user).await;
            let Ear::File(ear) = &mut feed.ear else { panic!("it watches") };
            timeout(PATIENCE, ear.watched.written()).await.unwrap().unwrap();
            assert_eq!(feed.read().await.unwrap(), [Change::User(user.into())]);
        }
    }

    #[tokio::test]
    async fn postgres_tells_at_the_commit() {
        let (store, database) = TestDatabase::new(On::Postgres).await;
        let mut feed = listening(&database).await;
        announce(&store.open().await, "ada").await;
        let Ear::Open(listener) = &mut feed.ear else { panic!("it listens") };
        let told = timeout(PATIENCE, listener.try_recv()).await.unwrap().unwrap();
        assert_eq!(told.unwrap().channel(), CHANNEL);
        assert_eq!(feed.read().await.unwrap(), [Change::User("ada".into())]);
    }

    #[tokio::test]
    async fn what_is_announced_while_the_listener_is_cut_or_refused_is_heard() {
        let server = PostgresServer::start(&[]);
        let name = server.create_database();
        let database = open(&server, &name).await;
        let mut feed = listening(&database).await;
        let cut = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'SELECT%changes%' \
                   AND pid <> pg_backend_pid() AND datname = current_database()";
        // The pool's connection stays, and no other is accepted.
        let mut own = database.acquire().await.unwrap();
        sqlx::query("SELECT 1").execute(&mut own).await.unwrap();
        server.sql(&name, cut);
        server.sql("postgres", &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"));
        let said = sqlx::query("INSERT INTO changes (subject, at) VALUES ('user:ada', 0)");
        said.execute(&mut own).await.unwrap();
        drop(own);
        hears(&mut feed, "ada").await;
        assert!(!matches!(feed.ear, Ear::Open(_)));
        server.sql("postgres", &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"));
        announce(&database, "bob").await;
        hears(&mut feed, "bob").await;
        let open = async {
            while !matches!(feed.ear, Ear::Open(_)) {
                feed.wait_until(Instant::now() + BEAT).await;
            }
        };
        timeout(PATIENCE, open).await.unwrap();
    }

    #[tokio::test]
    async fn an_idle_listener_asks_one_question_a_beat() {
        let server = PostgresServer::start(&["log_statement=all"]);
        let name = server.create_database();
        let mut feed = listening(&open(&server, &name).await).await;
        let statements = || {
            let log = std::fs::read_to_string(server.folder().join("log")).unwrap();
            log.lines().filter(|line| line.contains("LOG:") && line.contains("SELECT")).count()
        };
        let before = statements();
        for _ in 0..3 {
            feed.wait_until(Instant::now() + BEAT).await;
            assert_eq!(feed.read().await.unwrap(), []);
        }
        assert_eq!(statements() - before, 3);
    }
}
