//! The contract of every session store, which `contract.rs` checks.

use futures_util::future::BoxFuture;

use super::{SessionError, feed::Hear};
use crate::{clock::Timestamp, secret::TokenHash, users::UserId};

/// A session, as a store sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    pub id: TokenHash,
    pub user: UserId,
    /// The sealed rest.
    pub record: Vec<u8>,
    pub last_seen: Timestamp,
    /// The end, however busy the session is.
    pub expires_at: Timestamp,
    /// Its generation (`revocation_log`); set by the store.
    pub generation: i64,
}

/// Stores sessions for all gateways.
///
/// An error always means that the store did not answer. A removed session stays removed, whatever happens to the
/// servers behind the store; and when a removal returns, it is in the database's change feed.
pub trait SessionStore: Send + Sync {
    fn insert<'a>(&'a self, session: &'a StoredSession) -> BoxFuture<'a, Result<(), SessionError>>;

    /// May still return a session that has reached its limits.
    fn load<'a>(&'a self, id: &'a TokenHash) -> BoxFuture<'a, Result<Option<StoredSession>, SessionError>>;

    /// Moves `last_seen` forward, never back, and only of sessions that exist. Returns those that do not.
    fn touch<'a>(
        &'a self,
        seen: &'a [(TokenHash, Timestamp)],
    ) -> BoxFuture<'a, Result<Vec<TokenHash>, SessionError>>;

    /// Ends one session. Announced even if there was none.
    fn remove<'a>(&'a self, id: &'a TokenHash) -> BoxFuture<'a, Result<(), SessionError>>;

    /// Ends all sessions of a user, and returns their ids.
    fn remove_user<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Vec<TokenHash>, SessionError>>;

    /// Deletes the sessions of ended generations, and returns their number.
    fn clear_ended(&self) -> BoxFuture<'_, Result<usize, SessionError>>;

    /// The sessions of one user, or all. A session that cannot be read is logged and left out.
    fn list<'a>(
        &'a self,
        user: Option<&'a UserId>,
    ) -> BoxFuture<'a, Result<Vec<StoredSession>, SessionError>>;

    /// Deletes sessions that were over at `now`, and returns their number.
    fn purge(&self, now: Timestamp) -> BoxFuture<'_, Result<u64, SessionError>>;

    /// Whether the store answers.
    fn ping(&self) -> BoxFuture<'_, Result<(), SessionError>>;

    /// Whether the store accepts new sessions. The database accepts them whenever it accepts other changes.
    fn takes_changes(&self) -> BoxFuture<'_, Result<(), SessionError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Reports to `hear` whether the store is there, for as long as that is known. `None`: the store is the database,
    /// which has its own feed.
    fn follow<'a>(&'a self, hear: &'a Hear<'a>) -> Option<BoxFuture<'a, ()>> {
        let _ = hear;
        None
    }
}
