//! What a store of failures promises. `tests.rs` holds each of them to it.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::table::Budget;
pub use super::table::Key;
use crate::{clock::Timestamp, redis_pool::RedisError};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An account from a network.
    Pair,
    Network,
    /// A user's codes.
    Code,
}

/// One budget that an attempt takes from.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    pub(super) kind: Kind,
    pub(super) key: Key,
    pub(super) budget: Budget,
}

/// What was counted, and in which window.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    pub(super) together: Key,
    pub(super) kind: Kind,
    pub(super) key: Key,
    pub(super) window: Timestamp,
}

/// What becomes of a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It is taken back, and everything before it.
    Clear,
    /// It is taken back, if its window is still the current one.
    TakeBack,
}

/// Whether an attempt may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// One of the budgets is used up for so long yet. Nothing has been counted.
    Wait(Duration),
    /// The window of each count.
    Counted(Vec<Timestamp>),
}

/// The store did not answer: nobody may try.
#[derive(Debug, thiserror::Error)]
#[error("it cannot be said how many logins have failed lately")]
pub struct ThrottleError(#[from] RedisError);

/// Keeps counts of failures.
pub trait ThrottleStore: Send + Sync {
    /// Counts one failure in each meter, or in none. `together` is what the meters of one attempt share.
    fn admit<'a>(
        &'a self,
        together: &'a Key,
        meters: &'a [Meter],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Verdict, ThrottleError>>;

    /// Settles what was counted for one attempt.
    fn settle<'a>(&'a self, counted: &'a [(Counted, Settlement)])
    -> BoxFuture<'a, Result<(), ThrottleError>>;
}
