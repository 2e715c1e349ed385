//! What every store of sessions promises. `contract.rs` holds each of them to it.

use futures_util::future::BoxFuture;

use super::{SessionError, feed::Hear};
use crate::{clock::Timestamp, secret::TokenHash, users::UserId};

/// A session as a store sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    pub id: TokenHash,
    pub user: UserId,
    /// The rest, sealed.
    pub record: Vec<u8>,
    pub last_seen: Timestamp,
    /// The end, however busy the session is.
    pub expires_at: Timestamp,
    /// Of which generation it is (`revocation_log`); the store's to set.
    pub generation: i64,
}

/// Keeps sessions for all gateways.
///
/// An error always means that the store did not answer. What is removed stays removed, whatever becomes of the servers
/// behind the store; and by the time that removing returns, the removal stands in the database's change feed.
pub trait SessionStore: Send + Sync {
    fn insert<'a>(&'a self, session: &'a StoredSession) -> BoxFuture<'a, Result<(), SessionError>>;

    /// May still give a session whose limits are over.
    fn load<'a>(&'a self, id: &'a TokenHash) -> BoxFuture<'a, Result<Option<StoredSession>, SessionError>>;

    /// Moves `last_seen` forward, never back, and of sessions that exist only. Says which of them do not.
    fn touch<'a>(
        &'a self,
        seen: &'a [(TokenHash, Timestamp)],
    ) -> BoxFuture<'a, Result<Vec<TokenHash>, SessionError>>;

    /// Ends one session. That there is none is announced as well.
    fn remove<'a>(&'a self, id: &'a TokenHash) -> BoxFuture<'a, Result<(), SessionError>>;

    /// Ends all sessions of a user, and says which.
    fn remove_user<'a>(&'a self, user: &'a UserId) -> BoxFuture<'a, Result<Vec<TokenHash>, SessionError>>;

    /// Clears away the sessions of generations that have been ended, and says how many there were.
    fn clear_ended(&self) -> BoxFuture<'_, Result<usize, SessionError>>;

    /// The sessions of one user, or all. What cannot be read is named in the log and left out.
    fn list<'a>(
        &'a self,
        user: Option<&'a UserId>,
    ) -> BoxFuture<'a, Result<Vec<StoredSession>, SessionError>>;

    /// Forgets what was over at `now` already, and says how many.
    fn purge(&self, now: Timestamp) -> BoxFuture<'_, Result<u64, SessionError>>;

    /// Whether the store answers.
    fn ping(&self) -> BoxFuture<'_, Result<(), SessionError>>;

    /// Whether the store takes new sessions. One that lies beside the users takes what the database takes.
    fn takes_changes(&self) -> BoxFuture<'_, Result<(), SessionError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Tells `hear` whether the store is there, as long as anybody can tell. None: it is where the database's change feed
    /// is.
    fn follow<'a>(&'a self, hear: &'a Hear<'a>) -> Option<BoxFuture<'a, ()>> {
        let _ = hear;
        None
    }
}
