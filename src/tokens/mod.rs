//! Tokens of machines: what scripts, git and collectors send in place of a login, and what each token may do.
//!
//! A request asks [`Tokens::cached`], and [`Tokens::load`] on a miss. As with sessions, the cache is trusted only while
//! changes arrive within a second, and an error means that the store did not answer, never "no such token". The access
//! rules and the gate decide whether a target takes a token.

mod cache;
mod certified;
mod own;
mod scope;
mod shown;
mod store;
#[cfg(test)]
mod tests;
mod text;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use futures_util::stream::{self, StreamExt as _};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use self::{
    cache::{TokenCache, TokenState},
    scope::Limits,
};
pub use self::{
    certified::Certified,
    own::{Config, NewOwnToken, own_name},
    scope::Scope,
    shown::Shown,
    store::{Holder, NewToken, TokenRecord, TokenStore, is_service},
    text::TokenText,
};
use crate::{
    access::AccessRequest,
    background::{BEAT, Background, regularly},
    clock::{Moment, Timestamp},
    database::DatabaseError,
    errors::Chain,
    secret::constant_time_eq,
    sessions::{FeedEvent, Live, Method, Origin, Session, Sessions},
    throttle::{Networks, Throttle, ThrottleError},
    users::{SERVICE, User, UserId, Users, UsersError},
};

/// The longest that one look-up may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many times a look-up starts over because of a change in between.
const ATTEMPTS: usize = 5;
/// The wait before a failed check of a token is repeated.
const RETRY: Duration = Duration::from_millis(200);
/// Concurrent look-ups for networks that have sent too many unknown tokens.
const SUSPECTS: usize = 8;
/// Concurrent checks of doubtful tokens.
const AT_ONCE: usize = 32;
/// How often the last uses are stored.
const FLUSH: Duration = Duration::from_mins(1);
const PURGE: Duration = Duration::from_hours(1);
/// How long an ended token is remembered, so that it is not counted as unknown.
const REMEMBERED: Duration = Duration::from_hours(90 * 24);
/// The lifetime of tokens without an expiry, where one is needed.
const FOR_EVER: Duration = Duration::from_hours(100 * 365 * 24);

/// Why a token could not be made, changed or looked up.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    #[error("a token named {0} exists already: choose another name, or use `token rotate`")]
    Exists(String),
    #[error("there is no token named {0}: `token list` shows those there are")]
    NoToken(String),
    #[error("the token {0} has been revoked already")]
    Revoked(String),
    #[error("{0:?} is not a valid name for a token: use 1 to 64 letters, digits, `.`, `_` and `-`")]
    Name(String),
    #[error(
        "{0:?} is not a valid name for a service: use 1 to 64 lower-case letters, digits, `.`, `_` and `-`"
    )]
    Service(String),
    #[error("invalid limits for the token: {0}")]
    Scope(String),
    #[error("the user has too many tokens")]
    TooMany,
    #[error("the database, which keeps the tokens, failed")]
    Database(#[from] DatabaseError),
    #[error("cannot look up the token's user")]
    Users(#[from] UsersError),
    #[error("looking up the token took too long")]
    Slow,
    #[error("tokens changed again and again while one was looked up")]
    Unsettled,
}

impl From<sqlx::Error> for TokensError {
    fn from(error: sqlx::Error) -> Self {
        DatabaseError::from(error).into()
    }
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefusal {
    Unknown,
    Expired,
    Revoked,
    OutOfScope,
}

impl TokenRefusal {
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Expired, Self::Revoked, Self::OutOfScope];

    /// The name in metrics and challenges.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::OutOfScope => "out_of_scope",
        }
    }

    /// The `type` of the problem document for scripts.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Unknown => "urn:portcullis:token:unknown",
            Self::Expired => "urn:portcullis:token:expired",
            Self::Revoked => "urn:portcullis:token:revoked",
            Self::OutOfScope => "urn:portcullis:token:out_of_scope",
        }
    }

    /// The `detail` of the problem document.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Unknown => {
                "This token is unknown. Send one token, whole, as Bearer, as the password of Basic, or in X-Portcullis-Token."
            }
            Self::Expired => "This token has expired. Ask for a new one.",
            Self::Revoked => "This token has been revoked. Ask for a new one.",
            Self::OutOfScope => "This token is not for this path, method, network or site.",
        }
    }
}

/// Why a request cannot proceed with its token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFault {
    #[error("the token is refused: {}", .0.word())]
    Refused(TokenRefusal),
    #[error("too many unknown tokens from this network")]
    Throttled(Duration),
    #[error("cannot check the token")]
    Store(#[from] TokensError),
    #[error("cannot count unknown tokens")]
    Throttle(#[from] ThrottleError),
}

/// A token that was valid when it was returned.
#[derive(Debug)]
pub struct LiveToken {
    pub name: String,
    /// The user has made it: it opens nothing that the user could not open.
    pub is_own: bool,
    /// What the portal is told; ends with the token.
    pub live: Arc<Live>,
    limits: Limits,
    held: Arc<TokenState>,
    /// Of a certificate: by which authorities and lists it was judged.
    generation: u64,
}

impl LiveToken {
    /// Whether the token is valid for a request to a site.
    pub fn admits(&self, request: &AccessRequest<'_>, authority: &str) -> bool {
        self.limits.admit(request, authority)
    }
}

/// All tokens, as seen by one gateway.
pub struct Tokens {
    store: TokenStore,
    users: Users,
    /// For the time, and for the freshness of the change feed.
    sessions: Arc<Sessions>,
    throttle: Throttle,
    cache: TokenCache,
    suspects: Semaphore,
    certified: Option<Certified>,
}

impl Tokens {
    pub fn new(
        store: TokenStore,
        users: Users,
        sessions: Arc<Sessions>,
        throttle: Throttle,
        certified: Option<Certified>,
    ) -> Arc<Self> {
        let cache = TokenCache::default();
        let suspects = Semaphore::new(SUSPECTS);
        let tokens = Arc::new(Self { store, users, sessions, throttle, cache, suspects, certified });
        let heard = Arc::downgrade(&tokens);
        tokens.sessions.tell(Box::new(move |event| {
            if let Some(tokens) = heard.upgrade() {
                tokens.hear(event);
            }
        }));
        tokens
    }

    /// The token, if this gateway is certain that it is valid `at` this moment. The caller must not have awaited
    /// anything since.
    pub fn cached(&self, shown: &TokenText, at: &Moment) -> Option<Arc<LiveToken>> {
        if !self.sessions.hears_of_changes_at(at) {
            return None;
        }
        let known = self.cache.get(shown.id())?;
        let now = self.sessions.time_at(at);
        let is_it = constant_time_eq(known.live.session.id.as_bytes(), shown.hash().as_bytes());
        (is_it && now < known.live.session.expires_at).then(|| {
            known.held.saw(now);
            known
        })
    }

    /// The token, if it is valid: from the cache, else from the store. A guess counts against the client's network if
    /// `count` says so; guesses that gain nothing do not count. A token that has ended is not a guess.
    ///
    /// A network with too many guesses still gets a valid token through, within a limit on concurrent look-ups.
    pub async fn load(
        &self,
        shown: &TokenText,
        client: IpAddr,
        count: bool,
    ) -> Result<Arc<LiveToken>, TokenFault> {
        let from = Networks::of(client);
        let told = self.throttle.told_of_tokens(from);
        let place = match told {
            Some(throttled) => match self.suspects.try_acquire() {
                Ok(place) => Some(place),
                Err(_) => return Err(TokenFault::Throttled(throttled.retry_after)),
            },
            None => None,
        };
        let found = timeout(PATIENCE, self.look_up(shown)).await.unwrap_or(Err(TokensError::Slow))?;
        drop(place);
        if let (Err(TokenRefusal::Unknown), true) = (&found, count) {
            if let Some(throttled) = told {
                return Err(TokenFault::Throttled(throttled.retry_after));
            }
            // The guess stays counted.
            let counted = timeout(PATIENCE, self.throttle.admit_token(from)).await;
            if let Err(throttled) = counted.map_err(|_| TokensError::Slow)?? {
                return Err(TokenFault::Throttled(throttled.retry_after));
            }
        }
        let token = found.map_err(TokenFault::Refused)?;
        token.held.saw(self.sessions.now());
        Ok(token)
    }

    async fn look_up(&self, shown: &TokenText) -> Result<Result<Arc<LiveToken>, TokenRefusal>, TokensError> {
        for _ in 0..ATTEMPTS {
            // Registered before the store is asked, so that a change announced meanwhile finds it.
            let (held, epoch) = self.cache.enrol(shown.id());
            let record = self.store.find(shown.id()).await?;
            let is_it =
                |record: &TokenRecord| constant_time_eq(record.hash.as_bytes(), shown.hash().as_bytes());
            let Some(record) = record.filter(is_it) else { return Ok(Err(TokenRefusal::Unknown)) };
            let facts = match self.facts(&record).await? {
                Ok(facts) => facts,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let made = Arc::new(self.make(record, facts, held, Method::Token)?);
            if self.cache.keep(shown.id(), &made, epoch) {
                return Ok(Ok(made));
            }
        }
        Err(TokensError::Unsettled)
    }

    /// The user of a token, if the token is valid now.
    async fn facts(&self, record: &TokenRecord) -> Result<Result<Option<User>, TokenRefusal>, TokensError> {
        if let Some(refusal) = record.is_over(self.sessions.now()) {
            return Ok(Err(refusal));
        }
        match &record.holder {
            Holder::Service(_) => Ok(Ok(None)),
            Holder::User(id) => match self.users.by_id(id).await?.filter(|user| !user.disabled) {
                Some(user) => Ok(Ok(Some(user))),
                // Ended with everything else of the user.
                None => Ok(Err(TokenRefusal::Revoked)),
            },
        }
    }

    fn make(
        &self,
        record: TokenRecord,
        user: Option<User>,
        held: Arc<TokenState>,
        by: Method,
    ) -> Result<LiveToken, TokensError> {
        let limits = record.scope.limits().map_err(|_| DatabaseError::Corrupt("a token's scope"))?;
        let expires_at = record.expires_at.unwrap_or_else(|| record.created_at.plus(FOR_EVER));
        let is_own = record.is_own();
        let (id, name, email, display_name, groups) = match (user, record.holder) {
            (Some(user), _) => {
                let groups = record.scope.groups_of_user(user.groups);
                (user.id, user.name.to_string(), user.email, user.display_name, groups)
            }
            (None, Holder::Service(service)) => {
                let name = format!("{SERVICE}{service}");
                (UserId::of_service(&service), name, String::new(), service, record.scope.groups)
            }
            (None, Holder::User(_)) => return Err(DatabaseError::Corrupt("whom a token is for").into()),
        };
        held.identify(&id, expires_at);
        let ongoing = self.sessions.ongoing(&id);
        let facts = Session {
            id: record.hash,
            user: id,
            name,
            email,
            display_name,
            groups,
            amr: vec![by],
            created_at: record.created_at,
            expires_at,
            origin: Origin::new(Ipv4Addr::UNSPECIFIED.into(), ""),
            csrf: [0; 16],
            remembered: false,
            proved_at: None,
        };
        let live = Arc::new(Live::of_machine(facts, held.over.clone(), ongoing));
        Ok(LiveToken { is_own, name: record.name, live, limits, held, generation: 0 })
    }

    fn hear(&self, event: &FeedEvent) {
        match event {
            FeedEvent::Gap => self.cache.doubt_all(),
            FeedEvent::Changed(changes) => self.cache.apply(changes),
            FeedEvent::Current(_) => {}
        }
    }

    /// Starts the background work. The last uses are stored at shutdown.
    pub fn maintain(self: &Arc<Self>, background: &mut Background) {
        let mine = Arc::clone(self);
        background.run("checking tokens that may be over", async move { mine.resolve_doubts().await });
        let mine = Arc::clone(self);
        background.run("ending tokens whose time is up", async move {
            let mut sweeps = regularly(BEAT);
            loop {
                sweeps.tick().await;
                mine.cache.sweep(mine.sessions.now());
            }
        });
        if let Some(Certified { certificates, .. }) = &self.certified {
            let (mine, certificates) = (Arc::clone(self), Arc::clone(certificates));
            background.run("checking certificates that may be revoked", async move {
                loop {
                    certificates.changed().await;
                    mine.cache.doubt_certificates();
                }
            });
        }
        let mine = Arc::clone(self);
        background.run("forgetting old tokens", async move {
            let mut purges = regularly(PURGE);
            loop {
                purges.tick().await;
                if let Err(error) = mine.store.purge(mine.sessions.now().minus(REMEMBERED)).await {
                    tracing::warn!(error = %Chain(&error), "cannot purge tokens that are over");
                }
            }
        });
        let mine = Arc::clone(self);
        background.run_until("writing down when tokens were used", |stop| async move {
            let flushes = async {
                let mut flushes = regularly(FLUSH);
                loop {
                    flushes.tick().await;
                    mine.flush().await;
                }
            };
            stop.run_until_cancelled(flushes).await;
            mine.flush().await;
        });
    }

    /// Checks doubtful tokens in use until the store answers.
    async fn resolve_doubts(&self) {
        loop {
            tokio::select! {
                () = self.cache.doubted() => {}
                () = sleep(RETRY), if self.cache.has_doubts() => {}
            }
            stream::iter(self.cache.take_doubts())
                .for_each_concurrent(AT_ONCE, async |(id, held)| {
                    match timeout(PATIENCE, self.still_good(&id, &held)).await {
                        Ok(Ok(Some(expires_at))) => held.lasts_until(expires_at),
                        Ok(Ok(None)) => held.over.cancel(),
                        // After an error the token stays doubtful.
                        Ok(Err(_)) | Err(_) => self.cache.doubt_again(id, held),
                    }
                })
                .await;
        }
    }

    /// The expiry of a token that is still valid; `None` if it has ended.
    async fn still_good(&self, id: &str, held: &TokenState) -> Result<Option<Timestamp>, TokensError> {
        if let Some(shown) = held.certificate() {
            return self.certificate_still_good(shown, held).await;
        }
        let Some(record) = self.store.find(id).await? else { return Ok(None) };
        let end = record.expires_at.unwrap_or_else(|| record.created_at.plus(FOR_EVER));
        Ok(self.facts(&record).await?.is_ok().then_some(end))
    }

    /// Stores the uses that the store does not know of.
    async fn flush(&self) {
        for (id, held, at) in self.cache.unstored() {
            if let Err(error) = self.store.note_use(&id, at).await {
                tracing::warn!(error = %Chain(&error), "cannot write down when tokens were used");
                return;
            }
            held.store_has(at);
        }
    }
}
