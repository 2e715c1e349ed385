//! Why Redis failed, and which Redis, in the words of operators.

use std::{error::Error, fmt, io, path::PathBuf, sync::Arc};

use super::RedisUrlError;

/// Why Redis failed, and which Redis. Displayed without user and password.
#[derive(Debug)]
pub struct RedisError {
    pub reason: Reason,
    /// `None` if the URL is wrong.
    pub(super) store: Option<Arc<str>>,
}

impl RedisError {
    /// Whether the error concerns the value of a key, which we have not written, rather than the server.
    pub fn is_about_the_record(&self) -> bool {
        self.reason.is_about_the_record()
    }
}

impl fmt::Display for RedisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, store } = self;
        match store {
            Some(store) => write!(f, "{reason} ({store})"),
            None => reason.fmt(f),
        }
    }
}

impl Error for RedisError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.reason.source()
    }
}

/// Why Redis failed.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    #[error("the URL of Redis {0}")]
    Url(RedisUrlError),
    #[error("cannot read {}, which the connection to Redis needs", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the file {} contains no PEM certificate", path.display())]
    NoCertificate { path: PathBuf },
    #[error("the file {} contains no PEM private key", path.display())]
    NoKey { path: PathBuf },
    #[error("cannot set up the connection to Redis")]
    Client(#[source] redis::RedisError),
    #[error("Redis refuses our user, our password or a command we need: check the password and the ACL")]
    Refused(#[source] redis::RedisError),
    #[error("cannot connect to Redis")]
    Unreachable(#[source] redis::RedisError),
    #[error("this Redis is a replica, which may lag behind")]
    Replica,
    #[error("this Redis has lost its replicas and nobody confirms that it is still the master")]
    Isolated,
    #[error("Redis is still loading its data set")]
    Loading,
    #[error("no majority of the sentinels answered or agreed on the master")]
    NoMajority,
    #[error("the sentinels know no master with this name: check the end of `sessions.store`")]
    UnknownMaster,
    #[error("the cluster is down: part of its slots has no master")]
    ClusterDown,
    #[error("Redis is full and refuses to write: give it more memory")]
    Full,
    #[error("Redis refuses to write because it cannot save to its disk: see its log")]
    Unsaved,
    #[error("Redis refuses to write while it has too few replicas")]
    TooFewReplicas,
    #[error("there is no connection to Redis")]
    Down,
    #[error("Redis did not answer in time")]
    Slow,
    #[error("Redis answered with an error")]
    Failed(#[source] redis::RedisError),
}

impl Reason {
    pub(super) fn at(self, store: &Arc<str>) -> RedisError {
        RedisError { reason: self, store: Some(Arc::clone(store)) }
    }

    /// The meaning of an error reply to a command.
    pub(super) fn answered(source: redis::RedisError) -> Self {
        if source.kind() == redis::ErrorKind::AuthenticationFailed {
            return Self::Refused(source);
        }
        match source.code() {
            Some("NOAUTH" | "WRONGPASS" | "NOPERM") => Self::Refused(source),
            Some("READONLY" | "MASTERDOWN") => Self::Replica,
            Some("LOADING") => Self::Loading,
            Some("CLUSTERDOWN") => Self::ClusterDown,
            Some("OOM") => Self::Full,
            Some("MISCONF") => Self::Unsaved,
            Some("NOREPLICAS") => Self::TooFewReplicas,
            _ => Self::Failed(source),
        }
    }

    /// The meaning of a failed attempt to connect.
    pub(super) fn connecting(source: redis::RedisError) -> Self {
        match Self::answered(source) {
            Self::Failed(source) => Self::Unreachable(source),
            told => told,
        }
    }

    fn is_about_the_record(&self) -> bool {
        match self {
            Self::Failed(source) => {
                source.code() == Some("WRONGTYPE")
                    || matches!(
                        source.kind(),
                        redis::ErrorKind::UnexpectedReturnType | redis::ErrorKind::Parse
                    )
            }
            _ => false,
        }
    }

    /// Whether a server with this error is useless until it has been checked again.
    pub(super) fn ends_the_connection(&self) -> bool {
        match self {
            Self::Replica | Self::Isolated | Self::Loading | Self::Slow | Self::Unreachable(_) => true,
            Self::Refused(source) => source.code() != Some("NOPERM"),
            Self::Failed(source) => source.is_unrecoverable_error(),
            _ => false,
        }
    }
}
