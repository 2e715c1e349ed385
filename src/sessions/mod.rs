//! Sessions: from the end of a login to the end of the session on every gateway.
//!
//! A request asks [`Sessions::cached`], and [`Sessions::load`] on a miss. The returned session has a token that is
//! cancelled when the session ends. An error means that the store did not answer, never "no session".
//!
//! The cache is trusted only while changes arrive within a second (`feed`), and every use is checked against the limits
//! by a clock that setting back does not affect (`monotonic`). Reads no cookies and decides nobody's rights.

mod cache;
mod device;
mod feed;
mod left;
mod limit;
mod live;
mod monotonic;
mod new_session;
mod ongoing;
mod proof;
mod record;
mod redis;
mod revocation_log;
mod session;
mod sql;
mod store;
mod upkeep;

use std::{
    collections::HashSet,
    error::Error,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::timeout;

#[cfg(test)]
pub(crate) use self::live::having_proved;
use self::{
    cache::{Cache, Facts},
    feed::{FeedSource, Freshness},
    live::{Lifetimes, SessionState},
    monotonic::MonotonicWallClock,
    new_session::Beginning,
};
pub use self::{
    feed::{FeedEvent, Hear},
    left::Left,
    limit::WhenFull,
    live::{Activity, Live, Use},
    new_session::{NewSession, OtherUser},
    ongoing::{Newcomer, Ongoing, TooOften},
    proof::FirstFactor,
    redis::RedisSessions,
    revocation_log::RevocationLog,
    session::{Level, Method, Origin, Profile, Session, SessionSummary},
    sql::SqlSessions,
    store::{SessionStore, StoredSession},
};
use crate::{
    clock::{Clock, Moment, Timestamp, Watermark},
    database::{Database, DatabaseError, Transaction},
    errors::Chain,
    random::Random,
    redis_pool::{self, RedisError},
    rollout,
    sealing::Sealer,
    secret::{Token, TokenHash},
    users::UserId,
};

/// The longest that one look-up may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many times a look-up starts over because of a change in between.
const ATTEMPTS: usize = 5;
/// How far the clocks of two gateways may differ. A session from further in the future is refused.
const SKEW: Duration = Duration::from_mins(1);

/// Where sessions are stored.
#[derive(Clone, Debug)]
pub enum Store {
    /// The durable store, which also has the users.
    Database,
    Redis(Box<redis_pool::Config>),
}

/// The limits of sessions, and where they are stored.
#[derive(Clone, Debug)]
pub struct Config {
    pub store: Store,
    /// A session unused for this long is over.
    pub inactivity: Duration,
    /// A session this old is over, however busy.
    pub expiration: Duration,
    /// Replaces both limits for users who ask to be kept signed in. `None`: users cannot ask.
    pub remember_me: Option<Duration>,
    /// The maximum number of one user's sessions; `None`: any number.
    pub max_per_user: Option<usize>,
    pub when_full: WhenFull,
    /// How long known sessions go on after their store has gone.
    pub outage_grace: Duration,
}

/// Why a session could not be looked up or changed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("the database, which keeps the sessions, failed")]
    Database(#[from] DatabaseError),
    #[error("Redis, which keeps the sessions, failed")]
    Redis(#[from] RedisError),
    #[error("cannot check whether the user is still allowed in")]
    AccountStatus(#[source] Box<dyn Error + Send + Sync>),
    #[error("looking up the session took too long")]
    Slow,
    #[error("the session changed again and again while it was looked up")]
    Unsettled,
}

/// Whether a user may still be in, and as whom. Asked whenever a session is loaded from the store.
pub trait AccountStatus: Send + Sync {
    /// `None` if the user is gone or disabled. An error must mean that it is unknown.
    fn of<'a>(
        &'a self,
        user: &'a UserId,
    ) -> BoxFuture<'a, Result<Option<Profile>, Box<dyn Error + Send + Sync>>>;
}

/// The dependencies of sessions.
pub struct Dependencies {
    pub store: Arc<dyn SessionStore>,
    /// For its change feed, which announces changes of users whichever store keeps the sessions.
    pub database: Database,
    pub status: Arc<dyn AccountStatus>,
    /// From when one factor no longer suffices.
    pub rollout: rollout::Config,
    pub sealer: Arc<Sealer>,
    pub clock: Arc<dyn Clock>,
    /// Updated every second.
    pub watermark: Arc<Watermark>,
    pub random: Arc<dyn Random>,
}

/// All sessions, as seen by one gateway.
pub struct Sessions {
    store: Arc<dyn SessionStore>,
    database: Database,
    status: Arc<dyn AccountStatus>,
    rollout: rollout::Config,
    sealer: Arc<Sealer>,
    /// Whether the session store is not the database.
    elsewhere: bool,
    revocations: RevocationLog,
    random: Arc<dyn Random>,
    limits: Lifetimes,
    max_per_user: Option<usize>,
    when_full: WhenFull,
    clock: MonotonicWallClock,
    watermark: Arc<Watermark>,
    freshness: Freshness,
    cache: Cache,
    /// Another listener to changes in the database.
    listener: OnceLock<Box<Listener>>,
}

/// Gets the events of the database's change feed, in their order.
pub type Listener = dyn Fn(&FeedEvent) + Send + Sync;

impl Sessions {
    pub fn new(config: &Config, dependencies: Dependencies) -> Self {
        let Dependencies { store, database, status, rollout, sealer, clock, watermark, random } =
            dependencies;
        // For sessions that end together; the store itself keeps the ends of single sessions.
        let revocations = RevocationLog::new(database.clone(), Arc::clone(&clock), Duration::ZERO);
        Self {
            store,
            database,
            status,
            rollout,
            sealer,
            elsewhere: !matches!(config.store, Store::Database),
            revocations,
            random,
            limits: Lifetimes {
                inactivity: config.inactivity,
                expiration: config.expiration,
                remember_me: config.remember_me,
            },
            max_per_user: config.max_per_user,
            when_full: config.when_full,
            clock: MonotonicWallClock::new(clock),
            watermark,
            freshness: Freshness::none(config.outage_grace),
            cache: Cache::new(),
            listener: OnceLock::new(),
        }
    }

    /// The sealed records outside the database, each with its context.
    pub async fn sealed_elsewhere(&self) -> Result<Vec<([String; 2], Vec<u8>)>, SessionError> {
        if !self.elsewhere {
            return Ok(Vec::new());
        }
        let stored = self.store.list(None).await?;
        Ok(stored
            .into_iter()
            .map(|stored| (["sessions".to_owned(), stored.id.to_hex()], stored.record))
            .collect())
    }

    /// Makes a session. The token is only for the browser.
    pub async fn create(&self, new: NewSession, origin: Origin) -> Result<Token, SessionError> {
        let new = NewSession { remembered: self.is_remembered(&new), ..new };
        let token = Token::generate(self.random.as_ref());
        let now = self.clock.now();
        let lifetime = self.limits.lifetime(new.remembered);
        let beginning = Beginning { now, lifetime, origin, csrf: self.random.bytes() };
        let session = Session::begin(token.hash(), new, beginning);
        let stored = StoredSession {
            id: session.id,
            record: record::seal(&self.sealer, &session),
            user: session.user.clone(),
            last_seen: now,
            expires_at: session.expires_at,
            generation: 0,
        };
        self.store.insert(&stored).await?;
        Ok(token)
    }

    /// The session, if this gateway is certain that it is valid `at` this moment. The caller must not have awaited
    /// anything since. Called for every forwarded request: does not wait, allocate, or take a lock that other readers
    /// wait for.
    pub fn cached(&self, id: &TokenHash, counts: Use, at: &Moment) -> Option<Arc<Live>> {
        if !self.freshness.holds_or_grace(at.instant) {
            return None;
        }
        self.cache.get(id).filter(|live| self.limits.use_at(live, self.clock.at(at), counts))
    }

    /// The session, if it is valid: from the cache, else from the store.
    pub async fn load(&self, id: &TokenHash, counts: Use) -> Result<Option<Arc<Live>>, SessionError> {
        match self.cached(id, counts, &self.clock.moment()) {
            Some(live) => Ok(Some(live)),
            None => timeout(PATIENCE, self.look_up(id, counts)).await.unwrap_or(Err(SessionError::Slow)),
        }
    }

    /// The user of a session that reached a limit and was not ended. `None` for any other.
    pub async fn ran_out(&self, id: &TokenHash) -> Result<Option<UserId>, SessionError> {
        let asked = async {
            let Some(stored) = self.store.load(id).await? else { return Ok(None) };
            let Some(session) = self.open(&stored) else { return Ok(None) };
            if !self.limits.over(&session, stored.last_seen, self.clock.now()) {
                return Ok(None);
            }
            let status = self.status.of(&session.user).await.map_err(SessionError::AccountStatus)?;
            Ok(status.map(|_| session.user))
        };
        timeout(PATIENCE, asked).await.unwrap_or(Err(SessionError::Slow))
    }

    /// The time that sessions go by at a moment: setting the clock back does not affect it.
    pub fn time_at(&self, at: &Moment) -> Timestamp {
        self.clock.at(at)
    }

    /// The time that sessions go by.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Records a use of a session in memory, as by a tunnel with traffic. False if the session has ended.
    pub fn touch(&self, live: &Live) -> bool {
        self.limits.use_at(live, self.clock.now(), Use::Counts)
    }

    /// Ends one session: here before this returns, and elsewhere within a second.
    pub async fn revoke(&self, id: &TokenHash) -> Result<(), SessionError> {
        self.store.remove(id).await?;
        self.cache.end(&[*id]);
        Ok(())
    }

    /// Ends all sessions of a user, and returns their number.
    pub async fn revoke_user(&self, user: &UserId) -> Result<usize, SessionError> {
        let ended = self.store.remove_user(user).await?;
        self.cache.end(&ended);
        // The store may have lost a session that is still remembered here.
        self.cache.doubt_users(&HashSet::from([user.clone()]));
        Ok(ended.len())
    }

    /// Ends every session once `transaction` commits, which must be soon and without another lock.
    pub async fn end_all(&self, transaction: &mut Transaction) -> Result<(), SessionError> {
        Ok(self.revocations.end_everybody(transaction).await?)
    }

    /// Deletes ended sessions, and returns their number. `None` if the store did not answer: they stay until they
    /// expire or are deleted later, but have ended all the same.
    pub async fn clear_ended(&self) -> Option<usize> {
        self.cache.doubt_all();
        match self.store.clear_ended().await {
            Ok(cleared) => Some(cleared),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "ended every session, but cannot clear them away now");
                None
            }
        }
    }

    /// The sessions whose ids begin with these digits, over or not, with the canonical names at login.
    pub async fn beginning_with(
        &self,
        digits: &str,
    ) -> Result<Vec<(TokenHash, Option<String>)>, SessionError> {
        let stored = self.store.list(None).await?.into_iter();
        let matching = stored.filter(|stored| stored.id.to_hex().starts_with(digits));
        Ok(matching.map(|stored| (stored.id, self.open(&stored).map(|session| session.name))).collect())
    }

    /// Ends the user's sessions that were made with a password alone, and returns them. One that is being made at the
    /// same moment ends when it is looked up: its user has a device.
    pub async fn end_one_factor(&self, user: &UserId) -> Result<Vec<SessionSummary>, SessionError> {
        let mut ended = self.list(Some(user)).await?;
        ended.retain(|session| session.level() == Level::One);
        for session in &ended {
            self.revoke(&session.id).await?;
        }
        Ok(ended)
    }

    /// The sessions of one user or of all that are not over, the latest login first.
    pub async fn list(&self, user: Option<&UserId>) -> Result<Vec<SessionSummary>, SessionError> {
        let now = self.clock.now();
        let mut list: Vec<_> = self
            .store
            .list(user)
            .await?
            .into_iter()
            .filter_map(|stored| {
                let Some(session) = self.open(&stored) else {
                    tracing::warn!(
                        session.id = stored.id.short(),
                        "left out a session that does not open with our key"
                    );
                    return None;
                };
                (!self.limits.over(&session, stored.last_seen, now)).then_some(SessionSummary {
                    id: session.id,
                    user: session.user,
                    name: session.name,
                    amr: session.amr,
                    created_at: session.created_at,
                    last_seen: stored.last_seen,
                    expires_at: session.expires_at,
                    origin: session.origin,
                    remembered: session.remembered && self.limits.remember_me.is_some(),
                })
            })
            .collect();
        list.sort_by_key(|summary| std::cmp::Reverse(summary.created_at));
        Ok(list)
    }

    /// How long the browser is to store the cookie of a new session. `None`: until it is closed.
    pub fn kept_for(&self, new: &NewSession) -> Option<Duration> {
        let now = self.clock.now();
        let lasts = self.limits.remember_me.filter(|_| new.remembered)?;
        Some(new.since.unwrap_or(now).plus(lasts).since(now))
    }

    fn is_remembered(&self, new: &NewSession) -> bool {
        new.remembered && self.limits.remember_me.is_some()
    }

    /// How long users are kept signed in if they ask. `None`: users cannot ask.
    pub fn remember_me(&self) -> Option<Duration> {
        self.limits.remember_me
    }

    /// Whether known sessions go on although their store has gone.
    pub fn on_grace(&self) -> bool {
        !self.freshness.holds() && self.freshness.holds_or_grace(self.clock.moment().instant)
    }

    /// By how much the machine's clock is behind its former value.
    pub fn clock_behind(&self) -> Duration {
        self.watermark.behind()
    }

    /// Whether the store answers.
    pub async fn ping(&self) -> Result<(), SessionError> {
        self.store.ping().await
    }

    /// Whether the session store is the database and its changes are known up to a second ago.
    pub fn store_tells(&self) -> bool {
        self.freshness.is_waived(FeedSource::Store) && self.hear_of_changes()
    }

    /// Whether the database's changes are known up to a second ago.
    pub fn hear_of_changes(&self) -> bool {
        self.freshness.hears(FeedSource::Database)
    }

    /// The same at a moment; the caller must not have awaited anything since.
    pub fn hears_of_changes_at(&self, at: &Moment) -> bool {
        self.freshness.database_holds(at.instant)
    }

    /// Sets a second listener to the database's feed, called before the sessions' own. To be called once, before
    /// [`Self::maintain`]: the feed is read only once.
    pub fn tell(&self, listener: Box<Listener>) {
        let is_first = self.listener.set(listener).is_ok();
        debug_assert!(is_first, "there is a listener already");
    }

    /// What a user has in progress, in sessions and otherwise.
    pub fn ongoing(&self, user: &UserId) -> Arc<Ongoing> {
        self.cache.ongoing(user)
    }

    /// Whether the store accepts new sessions.
    pub async fn takes_changes(&self) -> Result<(), SessionError> {
        self.store.takes_changes().await
    }

    async fn look_up(&self, id: &TokenHash, counts: Use) -> Result<Option<Arc<Live>>, SessionError> {
        for _ in 0..ATTEMPTS {
            let now = self.clock.now();
            let saw = |live: &Arc<Live>| {
                if counts == Use::Counts {
                    live.state.saw(now);
                }
            };
            if !self.freshness.holds() {
                return Ok(self.ask(id).await?.inspect(saw));
            }
            match self.cache.get_or_vacancy(id).await {
                // The session may have ended while another look-up was waited for.
                Ok(live) if !live.state.ended.is_cancelled() && self.limits.use_at(&live, now, counts) => {
                    return Ok(Some(live));
                }
                // It is idle here, but may be in use at another gateway.
                Ok(_) => self.cache.forget(id),
                Err(vacancy) => {
                    let Some(live) = self.ask(id).await? else { return Ok(None) };
                    saw(&live);
                    if vacancy.fill(Arc::clone(&live)) {
                        return Ok(Some(live));
                    }
                    // It changed during the look-up: the result may be outdated.
                }
            }
        }
        Err(SessionError::Unsettled)
    }

    /// Opens a record. Its end is no later than the current limits, which may have become shorter since it was written.
    fn open(&self, stored: &StoredSession) -> Option<Session> {
        let mut session = record::open(&self.sealer, stored)?;
        let latest = session.created_at.plus(self.limits.lifetime(session.remembered));
        session.expires_at = session.expires_at.min(latest);
        Some(session)
    }

    /// Whether the user of a session in use may no longer be in, whatever the session store says.
    async fn has_lost_its_user(&self, id: &TokenHash) -> Result<bool, SessionError> {
        let Some(facts) = self.cache.facts(id) else { return Ok(false) };
        let status = self.status.of(&facts.user).await.map_err(SessionError::AccountStatus)?;
        Ok(status.is_none_or(|profile| !profile.admits(facts.level)))
    }

    /// Until when the roll-out lets the user do without a second factor.
    fn one_factor_until(&self, session: &Session, profile: &Profile) -> Timestamp {
        let first_login = profile.first_login_at.unwrap_or(session.created_at);
        let due = self.rollout.due(&session.user, &profile.groups, first_login);
        due.map_or(Timestamp::from_unix_millis(0), |due| due.at)
    }

    async fn ask_in_time(&self, id: &TokenHash) -> Result<Option<Arc<Live>>, SessionError> {
        timeout(PATIENCE, self.ask(id)).await.unwrap_or(Err(SessionError::Slow))
    }

    /// Asks the store, and then whether the user may still be in. If there is no session, ends what is left of it here.
    async fn ask(&self, id: &TokenHash) -> Result<Option<Arc<Live>>, SessionError> {
        let state = self.cache.enrol(id);
        let answer = self.judge(id, &state).await;
        if matches!(answer, Ok(None)) {
            self.cache.end(&[*id]);
        }
        drop(state);
        if !matches!(answer, Ok(Some(_))) {
            self.cache.release(id);
        }
        answer
    }

    async fn judge(
        &self,
        id: &TokenHash,
        state: &Arc<SessionState>,
    ) -> Result<Option<Arc<Live>>, SessionError> {
        let Some(stored) = self.store.load(id).await? else { return Ok(None) };
        let Some(mut session) = self.open(&stored) else {
            tracing::warn!(session.id = id.short(), "a stored session does not open with our key");
            return Ok(None);
        };
        let now = self.clock.now();
        if session.created_at.max(stored.last_seen) > now.plus(SKEW) {
            tracing::warn!(
                session.id = id.short(),
                "a session from the future: a clock was set back, or differs"
            );
            return Ok(None);
        }
        state.store_has(stored.last_seen);
        state.saw(stored.last_seen.min(now));
        let facts = Facts {
            user: session.user.clone(),
            expires_at: session.expires_at,
            inactivity: self.limits.inactivity(session.remembered),
            level: session.level(),
            generation: stored.generation,
        };
        self.cache.identify(id, facts);
        let status = self.status.of(&session.user).await.map_err(SessionError::AccountStatus)?;
        let Some(profile) = status.filter(|profile| profile.admits(session.level())) else {
            return Ok(None);
        };
        let now = self.clock.now();
        if state.ended.is_cancelled() || self.limits.over(&session, state.last_seen(), now) {
            return Ok(None);
        }
        if session.level() == Level::One {
            state.set_one_factor_until(self.one_factor_until(&session, &profile));
        }
        session.adopt(profile);
        let ongoing = self.cache.ongoing(&session.user);
        Ok(Some(Arc::new(Live::new(session, Arc::clone(state), ongoing))))
    }
}

#[cfg(test)]
mod contract;
#[cfg(test)]
mod tests;
