//! What a store of failures promises. `tests.rs` holds each of them to it.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::budget::Budget;
use crate::{clock::Timestamp, database::DatabaseError, redis_pool::RedisError};

/// SHA-256 of whatever is limited: of fixed size, however long a name somebody tries.
pub type Key = [u8; 32];

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An account from a network, by strangers.
    Pair,
    /// An account by whoever is a stranger, from wherever.
    Strangers,
    /// An account in a browser that it is known in: lately, and in a row.
    Known,
    Mark,
    /// Tries for an account, whatever came of them: by strangers, and in all browsers that it is known in.
    Tries,
    KnownTries,
    /// An address, or the /64 of one.
    Network,
    /// The /56 of an IPv6 address: what a household gets.
    Site,
    /// The /48 of an IPv6 address: what an organisation gets.
    Organisation,
    /// A user's one-time codes.
    Code,
    /// A user's recovery codes.
    Recovery,
    /// Codes of a device that a user is binding.
    Binding,
    /// One-time codes that come before the password.
    FirstCode,
}

impl Kind {
    /// What tells the keys of one kind from those of another.
    pub(super) const fn letter(self) -> char {
        match self {
            Self::Pair => 'p',
            Self::Strangers => 's',
            Self::Known => 'k',
            Self::Mark => 'm',
            Self::Tries => 't',
            Self::KnownTries => 'w',
            Self::Network => 'n',
            Self::Site => 'h',
            Self::Organisation => 'o',
            Self::Code => 'c',
            Self::Recovery => 'r',
            Self::Binding => 'b',
            Self::FirstCode => 'f',
        }
    }
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
    pub(super) kind: Kind,
    pub(super) key: Key,
    pub(super) window: Window,
}

/// Where a failure was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Tells it from the next window.
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// When the one before failed: what the wait begins with once this one has been taken back.
    pub(super) before: Timestamp,
}

/// What becomes of a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It stays.
    Keep,
    /// It is taken back, and everything before it.
    Clear,
    /// It is taken back, if its window is still the current one.
    TakeBack,
    /// So are as many as the last `Clear` has forgiven, at least one.
    TakeBackAll,
}

/// Whether an attempt may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The budget of the meter at this place is used up, the longest, for so long yet. Nothing has been counted.
    Wait { meter: usize, wait: Duration },
    /// The window of each count.
    Counted(Vec<Window>),
}

/// The store did not answer: nobody may try.
#[derive(Debug, thiserror::Error)]
pub enum ThrottleError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Keeps counts of failures, for all gateways that share it. Times are the store's where it has a clock of its own.
pub trait ThrottleStore: Send + Sync {
    /// Counts one failure in each meter, or in none.
    fn admit<'a>(&'a self, meters: &'a [Meter]) -> BoxFuture<'a, Result<Verdict, ThrottleError>>;

    /// Settles what was counted for one attempt.
    fn settle<'a>(&'a self, counted: &'a [(Counted, Settlement)])
    -> BoxFuture<'a, Result<(), ThrottleError>>;
}
