//! Several gateways on one store. This file builds their world.

mod everybody;
mod fleets;
mod levels;
mod life;
mod limits;
mod outages;
mod races;

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::{task::JoinHandle, time::timeout};

use super::*;
use crate::{
    background::Background,
    clock::{ManualClock, Timestamp, Watermark},
    database::{
        Change, Database,
        test_database::{On, TestDatabase},
    },
    random::OsRandom,
    redis_pool::{RedisPool, test_server::RedisServer},
};

const INACTIVITY: Duration = Duration::from_hours(1);
const EXPIRATION: Duration = Duration::from_hours(12);
const START: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);
/// The promised time for ending a session on every gateway.
const BOUND: Duration = Duration::from_secs(1);
/// Long enough for a busy machine, and never waited for in full.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Database,
    Postgres,
    Redis,
}

const STORES: [Kind; 3] = [Kind::Database, Kind::Postgres, Kind::Redis];

/// The users, and whether they can be looked up.
#[derive(Default)]
struct People {
    profiles: Mutex<HashMap<UserId, Profile>>,
    unreachable: Mutex<bool>,
}

impl AccountStatus for People {
    fn of<'a>(
        &'a self,
        user: &'a UserId,
    ) -> BoxFuture<'a, Result<Option<Profile>, Box<dyn Error + Send + Sync>>> {
        let answer = if *self.unreachable.lock().unwrap() {
            Err("nobody knows".into())
        } else {
            Ok(self.profiles.lock().unwrap().get(user).cloned())
        };
        std::future::ready(answer).boxed()
    }
}

/// What all gateways share.
struct World {
    durable: TestDatabase,
    redis: Option<RedisServer>,
    /// A Redis that the test itself starts and stops.
    elsewhere: Option<redis_pool::Config>,
    clock: Arc<ManualClock>,
    people: Arc<People>,
    /// The timeout of a Redis command: longer than the product's, unless a test is about it.
    deadline: Duration,
    grace: Duration,
    remember_me: Option<Duration>,
    mandatory_from: Option<Timestamp>,
}

impl World {
    async fn new(kind: Kind) -> Self {
        let redis = match kind {
            Kind::Database | Kind::Postgres => None,
            Kind::Redis => Some(RedisServer::start().await),
        };
        let world = Self {
            durable: TestDatabase::empty(if matches!(kind, Kind::Postgres) {
                On::Postgres
            } else {
                On::Sqlite
            }),
            redis,
            elsewhere: None,
            clock: Arc::new(ManualClock::at(START)),
            people: Arc::default(),
            deadline: Duration::from_secs(5),
            grace: Duration::ZERO,
            remember_me: None,
            mandatory_from: None,
        };
        for user in ["ada", "bob"] {
            world.people.profiles.lock().unwrap().insert(UserId::of(user), profile(user, &[]));
        }
        world
    }

    async fn at(elsewhere: redis_pool::Config) -> Self {
        Self { elsewhere: Some(elsewhere), ..Self::new(Kind::Database).await }
    }

    fn redis(&mut self) -> &mut RedisServer {
        self.redis.as_mut().unwrap()
    }

    async fn database(&self) -> Database {
        self.durable.open().await
    }

    async fn store(&self) -> Arc<dyn SessionStore> {
        let worth = self.remember_me.unwrap_or(INACTIVITY);
        let server = self.redis.as_ref().map(RedisServer::config);
        match server.or_else(|| self.elsewhere.clone()) {
            None => Arc::new(SqlSessions::new(self.database().await, worth, self.clock.clone())),
            Some(server) => {
                let config = redis_pool::Config { timeout: self.deadline, ..server };
                let pool = RedisPool::open(&config, Arc::new(OsRandom)).await.unwrap();
                let revocations =
                    RevocationLog::new(self.database().await, self.clock.clone(), EXPIRATION.max(worth));
                let sealer = Arc::new(Sealer::from_key(&[7; 32]));
                Arc::new(RedisSessions::new(Arc::new(pool), revocations, sealer, worth))
            }
        }
    }

    /// A gateway with its background work.
    async fn gateway(&self) -> Gateway {
        self.gateway_on(self.store().await).await
    }

    async fn gateway_on(&self, store: Arc<dyn SessionStore>) -> Gateway {
        let gateway = self.idle_gateway_on(store).await;
        let mut upkeep = Background::default();
        gateway.sessions.maintain(&mut upkeep);
        let gateway = Gateway { upkeep: Some(upkeep), ..gateway };
        eventually("the cache is believed", async || gateway.trusted()).await;
        gateway
    }

    /// A gateway without background work, as in a command.
    async fn idle_gateway_on(&self, store: Arc<dyn SessionStore>) -> Gateway {
        let database = self.database().await;
        let dependencies = Dependencies {
            watermark: Arc::new(Watermark::new(self.clock.clone())),
            store,
            database: database.clone(),
            status: self.people.clone(),
            rollout: rollout::Config { mandatory_from: self.mandatory_from, ..rollout::Config::default() },
            sealer: Arc::new(Sealer::from_key(&[7; 32])),
            clock: self.clock.clone(),
            random: Arc::new(OsRandom),
        };
        let config = Config {
            store: Store::Database,
            inactivity: INACTIVITY,
            expiration: EXPIRATION,
            remember_me: self.remember_me,
            max_per_user: None,
            when_full: WhenFull::EndOldest,
            outage_grace: self.grace,
        };
        Gateway { sessions: Arc::new(Sessions::new(&config, dependencies)), database, upkeep: None }
    }

    /// Changes a user as `users` does: the change and its announcement are one transaction.
    async fn change_user(&self, user: &str, profile: Option<Profile>) {
        let id = UserId::of(user);
        match profile {
            Some(profile) => drop(self.people.profiles.lock().unwrap().insert(id.clone(), profile)),
            None => drop(self.people.profiles.lock().unwrap().remove(&id)),
        }
        let database = self.database().await;
        let mut transaction = database.write().await.unwrap();
        database.announce(&mut transaction, &Change::User(id.to_string()), START).await.unwrap();
        transaction.commit().await.unwrap();
    }
}

struct Gateway {
    sessions: Arc<Sessions>,
    database: Database,
    upkeep: Option<Background>,
}

impl Gateway {
    async fn log_in(&self, user: &str) -> TokenHash {
        self.sessions.create(login(user), origin()).await.unwrap().hash()
    }

    /// Loads a session that has to be valid.
    async fn live(&self, id: &TokenHash) -> Arc<Live> {
        self.sessions.load(id, Use::Counts).await.unwrap().expect("the session is good")
    }

    fn cached(&self, id: &TokenHash, counts: Use) -> Option<Arc<Live>> {
        self.sessions.cached(id, counts, &self.sessions.clock.moment())
    }

    async fn is_out(&self, id: &TokenHash) -> bool {
        self.sessions.load(id, Use::Counts).await.unwrap().is_none()
    }

    fn trusted(&self) -> bool {
        self.sessions.freshness.holds()
    }

    /// Stops as a gateway does when asked to.
    async fn stop(mut self) {
        self.upkeep.take().unwrap().stop(PATIENCE).await;
    }
}

fn profile(user: &str, groups: &[&str]) -> Profile {
    Profile {
        name: format!("{user}@example.com"),
        email: format!("{user}@example.com"),
        display_name: user.to_owned(),
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        first_login_at: None,
        has_device: false,
    }
}

fn login(user: &str) -> NewSession {
    NewSession {
        user: UserId::of(user),
        profile: profile(user, &[]),
        amr: vec![Method::Password, Method::Totp],
        since: None,
        proved_by: None,
        remembered: false,
    }
}

fn origin() -> Origin {
    Origin::new([192, 0, 2, 7].into(), "Mozilla/5.0")
}

/// Polls `state` until it holds, and returns how long that took.
async fn eventually<F: Future<Output = bool>>(what: &str, mut state: impl FnMut() -> F) -> Duration {
    let start = tokio::time::Instant::now();
    let waiting = async {
        while !state().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    start.elapsed()
}

/// Waits until `live` is cancelled, and returns how long that took.
async fn ended(live: &Live) -> Duration {
    let start = tokio::time::Instant::now();
    timeout(PATIENCE, live.ended.cancelled()).await.expect("what is open is told of the end");
    start.elapsed()
}
