//! The contract of every store of failures, which `tests.rs` checks.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::budget::Budget;
use crate::{clock::Timestamp, database::DatabaseError, redis_pool::RedisError};

/// SHA-256 of what is limited: of fixed size, however long a name somebody tries.
pub type Key = [u8; 32];

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An account from a network, by strangers.
    Pair,
    /// An account from everywhere, by strangers.
    Strangers,
    /// An account in a browser in which it is known: recently, and in a row.
    Known,
    Mark,
    /// Attempts for an account, whatever their result: by strangers, and in all browsers in which it is known.
    Tries,
    KnownTries,
    /// An address, or the /64 of one.
    Network,
    /// The /56 of an IPv6 address, which a household gets.
    Site,
    /// The /48 of an IPv6 address, which an organisation gets.
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
    /// Separates the keys of one kind from those of another.
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

/// One budget that an attempt uses.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    pub(super) kind: Kind,
    pub(super) key: Key,
    pub(super) budget: Budget,
}

/// A count, and its window.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    pub(super) kind: Kind,
    pub(super) key: Key,
    pub(super) window: Window,
}

/// Where a failure was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Identifies the window.
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// The time of the failure before: the start of the wait once this one has been taken back.
    pub(super) before: Timestamp,
}

/// How a count is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It stays.
    Keep,
    /// It is taken back, and everything before it is forgiven.
    Clear,
    /// It is taken back, if its window is still the current one.
    TakeBack,
    /// At least one is taken back, and as many as the last `Clear` has forgiven.
    TakeBackAll,
}

/// Whether an attempt may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The budget of the meter at this index is exhausted; it has the longest wait. Nothing has been counted.
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

/// Counts failures, for all gateways that share it. Times are the store's if it has its own clock.
pub trait ThrottleStore: Send + Sync {
    /// Counts one failure in each meter, or in none.
    fn admit<'a>(&'a self, meters: &'a [Meter]) -> BoxFuture<'a, Result<Verdict, ThrottleError>>;

    /// Settles the counts of one attempt.
    fn settle<'a>(&'a self, counted: &'a [(Counted, Settlement)])
    -> BoxFuture<'a, Result<(), ThrottleError>>;
}
