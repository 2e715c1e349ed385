//! Sessions in Redis, for many gateways. Its own channel announces what is removed.
//!
//! `PREFIXs:ID` is a hash with the sealed record, and `PREFIXu:USER` a sorted set of that user's ids by their end;
//! a session is one only while it is in both. Redis forgets what is over by itself, on its own clock: all times to
//! live are relative, so that its clock and ours need not agree.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures_util::{
    future::{BoxFuture, FutureExt as _, TryFutureExt as _},
    stream::{self, StreamExt as _, TryStreamExt as _},
};
use redis::Script;
use tokio::sync::broadcast::error::RecvError;

use super::{
    SessionError, SessionStore, StoredSession,
    feed::{Hear, News},
};
use crate::{
    clock::Timestamp,
    database::Change,
    redis_pool::{self, RedisError, RedisPool},
    secret::TokenHash,
};

/// How much longer than its limits a session is kept: a gateway judges the limits, by its own clock.
const MARGIN: Duration = Duration::from_mins(1);
/// Sessions touched by one script, which keeps others waiting while it runs.
const BATCH: usize = 100;

static INSERT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/insert.lua")));
static LOAD: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/load.lua")));
static TOUCH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/touch.lua")));
static REMOVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/remove.lua")));
static REMOVE_USER: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/remove_user.lua")));

/// The store that many gateways share.
pub struct RedisSessions {
    pool: Arc<RedisPool>,
    inactivity: Duration,
}

impl RedisSessions {
    /// `inactivity` is how long a session that nobody uses is worth keeping.
    pub fn new(pool: Arc<RedisPool>, inactivity: Duration) -> Self {
        Self { pool, inactivity }
    }

    fn session_key(&self, id: &str) -> String {
        self.pool.key("s:") + id
    }

    fn index_key(&self, user: &str) -> String {
        self.pool.key("u:") + user
    }

    async fn insert(&self, session: &StoredSession) -> Result<(), RedisError> {
        let id = session.id.to_hex();
        let left = session.expires_at.since(session.last_seen);
        self.pool
            .invoke(
                INSERT
                    .key(self.session_key(&id))
                    .key(self.index_key(&session.user))
                    .arg(id)
                    .arg(&session.user)
                    .arg(&session.record)
                    .arg(session.last_seen.unix_millis())
                    .arg(session.expires_at.unix_millis())
                    .arg(millis(left.min(self.inactivity) + MARGIN))
                    .arg(millis(left + MARGIN)),
            )
            .await
    }

    async fn load(&self, id: &TokenHash) -> Result<Option<StoredSession>, RedisError> {
        let hex = id.to_hex();
        let found: Option<(String, Vec<u8>, i64, i64)> =
            self.pool.invoke(LOAD.key(self.session_key(&hex)).arg(hex).arg(self.index_key(""))).await?;
        Ok(found.map(|(user, record, last_seen, expires_at)| StoredSession {
            id: *id,
            user,
            record,
            last_seen: Timestamp::from_unix_millis(last_seen),
            expires_at: Timestamp::from_unix_millis(expires_at),
        }))
    }

    async fn touch(&self, seen: &[(TokenHash, Timestamp)]) -> Result<Vec<TokenHash>, RedisError> {
        let mut missing = Vec::new();
        for batch in seen.chunks(BATCH) {
            let mut call = TOUCH.arg(millis(self.inactivity));
            call.arg(millis(MARGIN));
            for (id, at) in batch {
                call.key(self.session_key(&id.to_hex())).arg(at.unix_millis());
            }
            let places: Vec<usize> = self.pool.invoke(&call).await?;
            missing.extend(places.iter().filter_map(|place| Some(batch.get(place.checked_sub(1)?)?.0)));
        }
        Ok(missing)
    }

    async fn remove(&self, id: &TokenHash) -> Result<(), RedisError> {
        let hex = id.to_hex();
        let key = self.session_key(&hex);
        self.pool.invoke(REMOVE.key(key).arg(hex).arg(self.index_key("")).arg(self.pool.channel())).await
    }

    async fn remove_user(&self, user: &str) -> Result<Vec<TokenHash>, RedisError> {
        let ended: Vec<String> = self
            .pool
            .invoke(
                REMOVE_USER
                    .key(self.index_key(user))
                    .arg(user)
                    .arg(self.session_key(""))
                    .arg(self.pool.channel()),
            )
            .await?;
        Ok(ended.iter().filter_map(|id| parse_id(id)).collect())
    }

    async fn list(&self, user: Option<&str>) -> Result<Vec<StoredSession>, RedisError> {
        let ids: BTreeSet<String> = match user {
            Some(user) => {
                self.pool.query(redis::cmd("ZRANGE").arg(self.index_key(user)).arg(0).arg(-1)).await?
            }
            None => self.scan().await?,
        };
        let ids: Vec<_> = ids.iter().filter_map(|id| parse_id(id)).collect();
        let found: Vec<Option<_>> = stream::iter(ids)
            .map(|id| async move { self.load(&id).await })
            .buffered(BATCH)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The ids of all sessions. A set, since a scan may give one twice.
    async fn scan(&self) -> Result<BTreeSet<String>, RedisError> {
        let begin = self.session_key("");
        let pattern = literal(&begin) + "*";
        let mut ids = BTreeSet::new();
        let mut cursor = 0_u64;
        loop {
            let (next, keys): (u64, Vec<String>) = self
                .pool
                .query(redis::cmd("SCAN").arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(500))
                .await?;
            ids.extend(keys.iter().filter_map(|key| key.strip_prefix(&begin)).map(str::to_owned));
            if next == 0 {
                return Ok(ids);
            }
            cursor = next;
        }
    }

    async fn tell(&self, hear: &Hear<'_>) {
        let mut news = self.pool.news();
        // What was told before we listened is as good as missed.
        hear(News::Gap);
        loop {
            hear(match news.recv().await {
                Ok(redis_pool::News::Message(text)) => News::Changed(vec![parse_change(&text)]),
                Ok(redis_pool::News::Current(asked)) => News::Current(asked),
                Ok(redis_pool::News::Reconnected) | Err(RecvError::Lagged(_)) => News::Gap,
                // The pool is ours and still there, so that its news cannot end.
                Err(RecvError::Closed) => return,
            });
        }
    }
}

impl SessionStore for RedisSessions {
    fn insert<'a>(&'a self, session: &'a StoredSession) -> BoxFuture<'a, Result<(), SessionError>> {
        self.insert(session).err_into().boxed()
    }

    fn load<'a>(&'a self, id: &'a TokenHash) -> BoxFuture<'a, Result<Option<StoredSession>, SessionError>> {
        self.load(id).err_into().boxed()
    }

    fn touch<'a>(
        &'a self,
        seen: &'a [(TokenHash, Timestamp)],
    ) -> BoxFuture<'a, Result<Vec<TokenHash>, SessionError>> {
        self.touch(seen).err_into().boxed()
    }

    fn remove<'a>(&'a self, id: &'a TokenHash) -> BoxFuture<'a, Result<(), SessionError>> {
        self.remove(id).err_into().boxed()
    }

    fn remove_user<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<Vec<TokenHash>, SessionError>> {
        self.remove_user(user).err_into().boxed()
    }

    fn list<'a>(&'a self, user: Option<&'a str>) -> BoxFuture<'a, Result<Vec<StoredSession>, SessionError>> {
        self.list(user).err_into().boxed()
    }

    /// Redis has done it already.
    fn purge(&self, _now: Timestamp) -> BoxFuture<'_, Result<u64, SessionError>> {
        std::future::ready(Ok(0)).boxed()
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), SessionError>> {
        self.pool.ping().err_into().boxed()
    }

    fn follow<'a>(&'a self, hear: &'a Hear<'a>) -> Option<BoxFuture<'a, ()>> {
        Some(self.tell(hear).boxed())
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A message names what it is about as our keys do. What makes no sense changes everything.
fn parse_change(text: &str) -> Change {
    match text.split_once(':') {
        Some(("s", id)) => parse_id(id).map_or(Change::All, Change::Session),
        Some(("u", user)) => Change::User(user.to_owned()),
        _ => Change::All,
    }
}

fn parse_id(hex: &str) -> Option<TokenHash> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(TokenHash::from_bytes(bytes))
}

/// A glob that matches `text` alone.
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
    fn only_64_hexadecimal_digits_are_an_id() {
        let id = TokenHash::from_bytes([0xa7; 32]);
        assert_eq!(parse_id(&id.to_hex()), Some(id));
        for text in ["", "a7", &"+1".repeat(32), &"é".repeat(32), &id.to_hex()[1..]] {
            assert_eq!(parse_id(text), None, "{text}");
        }
    }

    #[test]
    fn a_message_that_makes_no_sense_changes_everything() {
        let id = TokenHash::from_bytes([0xa7; 32]);
        assert_eq!(parse_change(&format!("s:{}", id.to_hex())), Change::Session(id));
        assert_eq!(parse_change("u:a:b"), Change::User("a:b".into()));
        for text in ["", "s", "s:", "s:a7", "x:y", &id.to_hex()] {
            assert_eq!(parse_change(text), Change::All, "{text}");
        }
    }

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(literal("a*[b]?"), r"a\*\[b\]\?");
    }
}
