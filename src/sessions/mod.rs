//! Sessions: what a finished login leaves behind.

use std::time::Duration;

use crate::redis_pool;

/// Which store keeps the sessions.
#[derive(Clone, Debug)]
pub enum Store {
    /// The durable store, beside the users.
    Database,
    Redis(redis_pool::Config),
}

/// How long sessions live and where they are kept.
#[derive(Clone, Debug)]
pub struct Config {
    pub store: Store,
    /// A session not used for this long is over.
    pub inactivity: Duration,
    /// A session this old is over, however busy.
    pub expiration: Duration,
}
