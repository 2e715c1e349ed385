//! The connection to Redis: one multiplexed link that reconnects by itself, with our deadline on every command.
//!
//! While there is no link a command fails at once: nothing queues, and a caller never waits longer than the
//! deadline. A replica is no link, since it may lag behind its primary. Knows the prefix of our keys and the
//! channel of changes, but not what is kept there.

mod link;
#[cfg(test)]
pub(crate) mod test_server;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use redis::{Cmd, FromRedisValue, ScriptInvocation, aio::MultiplexedConnection};
use secrecy::SecretString;
use tokio::{sync::broadcast, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::link::{Dialer, Link};
use crate::{errors::Chain, random::Random};

/// Where Redis is.
///
/// A user of Redis's ACL needs no more than
/// `~PREFIX* &PREFIX* +@read +@write +@scripting +@pubsub +@connection -@dangerous +role`.
#[derive(Clone, Debug)]
pub struct Config {
    /// `redis://[user[:password]@]host[:port][/database]` or `rediss://…`.
    pub url: SecretString,
    /// Overrides the password of the URL.
    pub password: Option<SecretString>,
    /// Overrides the ACL user of the URL.
    pub user: Option<String>,
    /// PEM file with the authority that signed the server's certificate; absent: the system's authorities.
    pub ca: Option<PathBuf>,
    /// What every key of ours begins with.
    pub key_prefix: String,
    /// The longest that one command may take.
    pub timeout: Duration,
}

/// Why Redis did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    #[error("the URL of Redis cannot be used")]
    Url(#[source] redis::RedisError),
    #[error("`#insecure` in the URL of Redis is refused: name the authority of its certificate instead")]
    Insecure,
    #[error("cannot read the authority of Redis from {}", path.display())]
    Authority {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the file {} holds no certificate in PEM form", path.display())]
    NoAuthority { path: PathBuf },
    #[error("Redis refuses our user, our password or a command we need: check the password and the ACL")]
    Refused(#[source] redis::RedisError),
    #[error("cannot connect to Redis")]
    Unreachable(#[source] redis::RedisError),
    #[error("this Redis is a replica, which may lag behind")]
    Replica,
    #[error("there is no connection to Redis")]
    Down,
    #[error("Redis did not answer in time")]
    Slow,
    #[error("Redis answered with an error")]
    Failed(#[source] redis::RedisError),
}

/// What the link has to tell, in the order in which it happened.
#[derive(Clone, Debug)]
pub enum News {
    /// The link was made anew: any number of messages may have been missed before this.
    Reconnected,
    /// Somebody published this on our channel.
    Message(Arc<str>),
    /// Every message published before this instant has been told.
    Current(Instant),
}

/// The link to Redis. It lives, and reconnects, as long as this value does.
#[derive(Debug)]
pub struct RedisPool {
    link: Arc<Link>,
    key_prefix: String,
    timeout: Duration,
    _supervised: DropGuard,
}

impl RedisPool {
    /// Connects, and from then on keeps connecting in a task of the runtime this is called on.
    ///
    /// A Redis that cannot be reached is no error here: every command fails until it can be. One that refuses us is.
    pub async fn open(config: &Config, random: Arc<dyn Random>) -> Result<Self, RedisError> {
        let link = Arc::new(Link::new());
        let dialer = Dialer::new(config, link.news())?;
        let first = match dialer.dial().await {
            Ok(circuit) => Some(circuit),
            Err(refused @ RedisError::Refused(_)) => return Err(refused),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "starting without Redis, which will be tried again");
                None
            }
        };
        if let Some(circuit) = &first {
            link.switch_on(circuit);
        }
        let stop = CancellationToken::new();
        let supervised = stop.clone().drop_guard();
        let supervisor = Arc::clone(&link);
        tokio::spawn(async move {
            stop.run_until_cancelled(supervisor.supervise(dialer, first, random)).await;
        });
        Ok(Self {
            link,
            key_prefix: config.key_prefix.clone(),
            timeout: config.timeout,
            _supervised: supervised,
        })
    }

    /// A key of ours.
    pub fn key(&self, rest: &str) -> String {
        format!("{}{rest}", self.key_prefix)
    }

    /// The channel on which what changes is published.
    pub fn channel(&self) -> String {
        channel(&self.key_prefix)
    }

    /// What the link tells from now on. A receiver that lags has missed messages.
    pub fn news(&self) -> broadcast::Receiver<News> {
        self.link.listen()
    }

    /// Runs one command.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        self.within_deadline(async |connection| command.query_async(connection).await).await
    }

    /// Runs one script, which Redis knows by its hash after the first time.
    pub async fn invoke<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, RedisError> {
        self.within_deadline(async |connection| script.invoke_async(connection).await).await
    }

    /// Whether Redis answers, and is no replica.
    pub async fn ping(&self) -> Result<(), RedisError> {
        self.within_deadline(async |connection| Ok(link::check_role(connection).await)).await?
    }

    /// A command that fails to return takes the link down with it, so that those behind it fail at once.
    async fn within_deadline<T>(
        &self,
        command: impl AsyncFnOnce(&mut MultiplexedConnection) -> redis::RedisResult<T>,
    ) -> Result<T, RedisError> {
        let circuit = self.link.circuit().ok_or(RedisError::Down)?;
        let mut connection = circuit.connection();
        match tokio::time::timeout(self.timeout, command(&mut connection)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => {
                if source.is_unrecoverable_error() {
                    self.link.cut(&circuit);
                }
                Err(RedisError::Failed(source))
            }
            Err(_elapsed) => {
                self.link.cut(&circuit);
                Err(RedisError::Slow)
            }
        }
    }
}

fn channel(key_prefix: &str) -> String {
    format!("{key_prefix}changes")
}

#[cfg(test)]
mod tests;
