//! Sessions in Redis, for many gateways.
//!
//! `PREFIXs:ID` is a hash with the sealed record, and `PREFIXu:USER` a sorted set of that user's session ids by their
//! end. A session is valid only while it is in both, and while the revocation log has no end for it. Each command
//! touches one key, so that the two may be on different masters of a cluster. All times to live are relative: clocks
//! need not agree.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures_util::{
    future::{BoxFuture, FutureExt as _},
    stream::{self, StreamExt as _, TryStreamExt as _},
};

use super::{
    SessionError, SessionStore, StoredSession,
    feed::{FeedEvent, Hear},
    revocation_log::RevocationLog,
};
use crate::{
    clock::Timestamp,
    errors::Chain,
    redis_pool::{RedisError, RedisPool, Script},
    sealing::Sealer,
    secret::TokenHash,
    users::UserId,
};

/// How much longer than its limits a session is stored: a gateway checks the limits, by its own clock.
const MARGIN: Duration = Duration::from_mins(1);
/// Concurrent requests for sessions.
const BATCH: usize = 100;

static INDEX: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/index.lua")));
static INSERT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/insert.lua")));
static TOUCH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/touch.lua")));
static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/take.lua")));
static TAKE_INDEX: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/take_index.lua")));

/// The store that several gateways share.
pub struct RedisSessions {
    pool: Arc<RedisPool>,
    revocations: RevocationLog,
    sealer: Arc<Sealer>,
    inactivity: Duration,
}

impl RedisSessions {
    /// `inactivity` is how long an unused session is stored.
    pub fn new(
        pool: Arc<RedisPool>,
        revocations: RevocationLog,
        sealer: Arc<Sealer>,
        inactivity: Duration,
    ) -> Self {
        Self { pool, revocations, sealer, inactivity }
    }

    fn session_key(&self, id: &str) -> String {
        self.pool.key("s:") + id
    }

    fn index_key(&self, user: &UserId) -> String {
        self.pool.key("u:") + user.as_str()
    }

    /// The index first: if interrupted in between, it lists a session that does not exist.
    async fn insert(&self, session: &StoredSession) -> Result<(), SessionError> {
        let StoredSession { id, user, record, last_seen, expires_at, generation: _ } = session;
        let generation = self.revocations.generation(user).await?;
        let id = id.to_hex();
        let left = expires_at.since(*last_seen);
        let index = INDEX
            .on([&*self.index_key(user)])
            .arg(&id)
            .arg(last_seen.unix_millis())
            .arg(expires_at.unix_millis())
            .millis(left + MARGIN);
        let () = self.pool.invoke(&index).await?;
        let insert = INSERT
            .on([&*self.session_key(&id)])
            .arg(user.as_str())
            .arg(record)
            .arg(last_seen.unix_millis())
            .arg(expires_at.unix_millis())
            .arg(self.sealer.seal(&place(&id, user), &generation.to_be_bytes()))
            .millis(left.min(self.inactivity) + MARGIN);
        Ok(self.pool.invoke(&insert).await?)
    }

    async fn load(&self, id: &TokenHash) -> Result<Option<StoredSession>, SessionError> {
        type Found = (Option<String>, Option<Vec<u8>>, Option<i64>, Option<i64>, Option<Vec<u8>>);
        let hex = id.to_hex();
        let key = self.session_key(&hex);
        let mut command = redis::cmd("HMGET");
        command.arg(&key).arg(&["user", "record", "seen", "expires", "generation"]);
        let found: Found = self.pool.query(&key, &command).await?;
        let (Some(user), Some(record), Some(last_seen), Some(expires_at), Some(sealed)) = found else {
            return Ok(None);
        };
        let opened =
            UserId::parse(&user).and_then(|user| Some((self.generation(&hex, &user, &sealed)?, user)));
        let Some((generation, user)) = opened else {
            tracing::warn!(session.id = id.short(), "a session in Redis does not open with our key");
            return Ok(None);
        };
        // A session missing from its user's index could not be ended together with the others, so it is not valid.
        let index = self.index_key(&user);
        let mut command = redis::cmd("ZSCORE");
        command.arg(&index).arg(&hex);
        let listed: Option<f64> = self.pool.query(&index, &command).await?;
        if listed.is_none() || self.revocations.has_ended(id, &user, generation).await? {
            return Ok(None);
        }
        Ok(Some(StoredSession {
            id: *id,
            user,
            record,
            last_seen: Timestamp::from_unix_millis(last_seen),
            expires_at: Timestamp::from_unix_millis(expires_at),
            generation,
        }))
    }

    async fn touch(&self, seen: &[(TokenHash, Timestamp)]) -> Result<Vec<TokenHash>, SessionError> {
        let touched = stream::iter(seen.to_vec()).map(|(id, at)| async move {
            let call = TOUCH
                .on([&*self.session_key(&id.to_hex())])
                .millis(self.inactivity)
                .millis(MARGIN)
                .arg(at.unix_millis());
            let there: bool = self.pool.invoke(&call).await?;
            Ok::<_, SessionError>((!there).then_some(id))
        });
        let missing: Vec<Option<TokenHash>> = touched.buffered(BATCH).try_collect().await?;
        Ok(missing.into_iter().flatten().collect())
    }

    /// Once the revocation log has it, the session has ended, whatever Redis says.
    async fn remove(&self, id: &TokenHash) -> Result<(), SessionError> {
        self.revocations.end(id).await?;
        if let Err(error) = self.forget(id).await {
            tidy_later(&error);
        }
        Ok(())
    }

    async fn forget(&self, id: &TokenHash) -> Result<(), RedisError> {
        let hex = id.to_hex();
        let user: Option<String> = self.pool.invoke(&TAKE.on([&*self.session_key(&hex)])).await?;
        let Some(user) = user.as_deref().and_then(UserId::parse) else { return Ok(()) };
        let index = self.index_key(&user);
        let mut command = redis::cmd("ZREM");
        command.arg(&index).arg(&hex);
        self.pool.query(&index, &command).await
    }

    async fn remove_user(&self, user: &UserId) -> Result<Vec<TokenHash>, SessionError> {
        let known = self.listed(user).await.unwrap_or_default();
        self.revocations.end_user(user, &known).await?;
        match self.forget_user(user).await {
            Ok(ended) => Ok(ended),
            Err(error) => {
                tidy_later(&error);
                Ok(known)
            }
        }
    }

    async fn forget_user(&self, user: &UserId) -> Result<Vec<TokenHash>, RedisError> {
        let listed: Vec<String> = self.pool.invoke(&TAKE_INDEX.on([&*self.index_key(user)])).await?;
        let ids: Vec<_> = listed.iter().filter_map(|id| TokenHash::from_hex(id)).collect();
        let ended = stream::iter(ids).map(|id| async move {
            let user: Option<String> = self.pool.invoke(&TAKE.on([&*self.session_key(&id.to_hex())])).await?;
            Ok::<_, RedisError>(user.map(|_| id))
        });
        let ended: Vec<Option<TokenHash>> = ended.buffered(BATCH).try_collect().await?;
        Ok(ended.into_iter().flatten().collect())
    }

    /// The ids in a user's index.
    async fn listed(&self, user: &UserId) -> Result<Vec<TokenHash>, RedisError> {
        let index = self.index_key(user);
        let mut command = redis::cmd("ZRANGE");
        command.arg(&index).arg(0).arg(-1);
        let ids: Vec<String> = self.pool.query(&index, &command).await?;
        Ok(ids.iter().filter_map(|id| TokenHash::from_hex(id)).collect())
    }

    async fn list(&self, user: Option<&UserId>) -> Result<Vec<StoredSession>, SessionError> {
        let ids = match user {
            Some(user) => self.listed(user).await?,
            None => self.scan().await?,
        };
        let found: Vec<Option<_>> = stream::iter(ids)
            .map(|id| async move {
                match self.load(&id).await {
                    Err(SessionError::Redis(error)) if error.is_about_the_record() => {
                        self.leave_out(&id, &error);
                        Ok(None)
                    }
                    loaded => loaded,
                }
            })
            .buffered(BATCH)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// A foreign key with our prefix must not keep anybody from ending sessions.
    fn leave_out(&self, id: &TokenHash, error: &RedisError) {
        let key = self.session_key(&id.to_hex());
        tracing::warn!(key, error = %Chain(error), "left out what cannot be read as a session");
    }

    async fn clear_ended(&self) -> Result<usize, SessionError> {
        let generations = &self.revocations.all_generations().await?;
        let cleared = stream::iter(self.scan().await?).map(|id| async move {
            match self.clear_if(&id, |user, generation| generations.are_past(user, generation)).await {
                Err(error) if error.is_about_the_record() => {
                    self.leave_out(&id, &error);
                    Ok(false)
                }
                cleared => cleared,
            }
        });
        let cleared: Vec<bool> = cleared.buffered(BATCH).try_collect().await?;
        Ok(cleared.into_iter().filter(|cleared| *cleared).count())
    }

    async fn clear_if(
        &self,
        id: &TokenHash,
        is_past: impl Fn(&UserId, i64) -> bool,
    ) -> Result<bool, RedisError> {
        let hex = id.to_hex();
        let key = self.session_key(&hex);
        let mut command = redis::cmd("HMGET");
        command.arg(&key).arg(&["user", "generation"]);
        let found: (Option<String>, Option<Vec<u8>>) = self.pool.query(&key, &command).await?;
        let (Some(user), Some(sealed)) = found else { return Ok(false) };
        let Some(user) = UserId::parse(&user) else { return Ok(false) };
        match self.generation(&hex, &user, &sealed) {
            Some(generation) if is_past(&user, generation) => {
                self.forget(id).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Opens the sealed generation: nobody who can write to Redis can bring back an ended session.
    fn generation(&self, hex: &str, user: &UserId, sealed: &[u8]) -> Option<i64> {
        let plain = self.sealer.open(&place(hex, user), sealed).ok()?;
        Some(i64::from_be_bytes(*plain.as_array()?))
    }

    /// The ids of all sessions.
    async fn scan(&self) -> Result<Vec<TokenHash>, RedisError> {
        let begin = self.session_key("");
        let keys: BTreeSet<String> = self.pool.scan(&(literal(&begin) + "*")).await?.into_iter().collect();
        Ok(keys.iter().filter_map(|key| TokenHash::from_hex(key.strip_prefix(&begin)?)).collect())
    }

    /// Reports whether Redis is there. Ends come through the database's change feed, where the revocation log announces
    /// them.
    async fn tell(&self, hear: &Hear<'_>) {
        let mut report = self.pool.report();
        let (mut connections, mut asked) = (None, None);
        loop {
            let now = *report.borrow_and_update();
            if connections != Some(now.connections) {
                // This server may know less than the one before.
                hear(FeedEvent::Gap);
                connections = Some(now.connections);
            }
            if let Some(instant) = now.asked.filter(|_| now.asked != asked) {
                hear(FeedEvent::Current(instant));
                asked = now.asked;
            }
            tokio::select! {
                _ = report.changed() => {}
                // Without its supervisor, the pool reports nothing any more.
                () = self.pool.abandoned() => return,
            }
        }
    }
}

impl SessionStore for RedisSessions {
    fn insert<'a>(&'a self, session: &'a StoredSession) -> BoxFuture<'a, Result<(), SessionError>> {
        self.insert(session).boxed()
    }

    fn load<'a>(&'a self, id: &'a TokenHash) -> BoxFuture<'a, Result<Option<StoredSession>, SessionError>> {
        self.load(id).boxed()
    }

    fn touch<'a>(
        &'a self,
        seen: &'a [(TokenHash, Timestamp)],
    ) -> BoxFuture<'a, Result<Vec<TokenHash>, SessionError>> {
        self.touch(seen).boxed()
    }

    fn remove<'a>(&'a self, id: &'a TokenHash) -> BoxFuture<'a, Result<(), SessionError>> {
        self.remove(id).boxed()
    }

    fn remove_user<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Vec<TokenHash>, SessionError>> {
        self.remove_user(user).boxed()
    }

    fn list<'a>(
        &'a self,
        user: Option<&'a UserId>,
    ) -> BoxFuture<'a, Result<Vec<StoredSession>, SessionError>> {
        self.list(user).boxed()
    }

    fn clear_ended(&self) -> BoxFuture<'_, Result<usize, SessionError>> {
        self.clear_ended().boxed()
    }

    /// Redis has deleted its part already.
    fn purge(&self, now: Timestamp) -> BoxFuture<'_, Result<u64, SessionError>> {
        async move { Ok(self.revocations.purge(now).await?) }.boxed()
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), SessionError>> {
        async move { Ok(self.pool.ping().await?) }.boxed()
    }

    fn takes_changes(&self) -> BoxFuture<'_, Result<(), SessionError>> {
        let key = self.pool.key("probe");
        async move {
            let mut command = redis::cmd("SET");
            command.arg(&key).arg(1).arg("EX").arg(60);
            Ok(self.pool.query::<()>(&key, &command).await?)
        }
        .boxed()
    }

    fn follow<'a>(&'a self, hear: &'a Hear<'a>) -> Option<BoxFuture<'a, ()>> {
        Some(self.tell(hear).boxed())
    }
}

/// The context that the generation of a session is sealed for.
fn place<'a>(id: &'a str, user: &'a UserId) -> [&'a str; 3] {
    ["sessions in redis", id, user.as_str()]
}

/// An ended session stays in Redis until it expires.
fn tidy_later(error: &RedisError) {
    tracing::warn!(error = %Chain(error), "ended a session, but cannot clear it out of Redis");
}

/// A glob that matches only `text`.
fn literal(text: &str) -> String {
    text.chars().fold(String::new(), |mut pattern, character| {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            pattern.push('\\');
        }
        pattern.push(character);
        pattern
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(literal("a*[b]?"), r"a\*\[b\]\?");
    }
}
