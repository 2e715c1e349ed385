//! Parses the URL of Redis: one server, a master named by Sentinel, or a cluster. Connects to nothing.
//!
//! The URL may contain a password, so no message repeats any of it.

use std::fmt;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// More hosts than anybody needs.
const MANY: usize = 64;

/// A host, by name or by address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Address {
    /// `host:port`, as Redis writes it: an IPv6 address has no brackets.
    pub(super) fn announced(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }

    fn read(text: &str, default_port: u16) -> Result<Self, RedisUrlError> {
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or(RedisUrlError::Host)?)),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let fit = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte);
        if host.is_empty() || !host.bytes().all(fit) {
            return Err(RedisUrlError::Host);
        }
        let port = port.map_or(Ok(default_port), |port| port.parse().map_err(|_| RedisUrlError::Port))?;
        Ok(Self { host: host.to_owned(), port })
    }
}

/// How the servers are organised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Single(Address),
    /// Sentinels, and their name for the master.
    Sentinel(Vec<Address>, String),
    /// Nodes of a cluster, which know the others.
    Cluster(Vec<Address>),
}

/// The address of Redis.
#[derive(Clone, Debug)]
pub struct RedisUrl {
    pub(super) shape: Shape,
    pub(super) encrypted: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<SecretString>,
    pub(super) database: u32,
}

/// Without user and password.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.encrypted { "rediss" } else { "redis" };
        let listed = |hosts: &[Address]| hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let database = self.database;
        match &self.shape {
            Shape::Single(address) => write!(f, "{family}://{address}/{database}"),
            Shape::Sentinel(sentinels, name) => {
                write!(f, "{family}+sentinel://{}/{name}/{database}", listed(sentinels))
            }
            Shape::Cluster(nodes) => write!(f, "{family}+cluster://{}", listed(nodes)),
        }
    }
}

/// Why a URL is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    #[error(
        "is not a Redis URL; expected `redis://host:port/number`, `redis+sentinel://host,host/NAME` or \
         `redis+cluster://host,host` (with TLS: `rediss://…`, `rediss+sentinel://…`, `rediss+cluster://…`)"
    )]
    Scheme,
    #[error("has no host or an invalid one: expected `redis://host:port/number`")]
    Host,
    #[error("has an invalid port: expected a number up to 65535")]
    Port,
    #[error("must end after the port or with a database number such as `/0`")]
    Database,
    #[error("must name the master that the sentinels watch, as in `redis+sentinel://host,host/NAME`")]
    Master,
    #[error("names several hosts: only `redis+sentinel://` and `redis+cluster://` do")]
    Several,
    #[error("must end after the hosts: a cluster has no numbered databases")]
    Path,
    #[error("must not contain `?` or `#`: certificates are always checked; in a password write %3F and %23")]
    Options,
    #[error("has a user or password that is not UTF-8 after decoding")]
    Encoding,
}

impl RedisUrl {
    pub fn parse(text: &str) -> Result<Self, RedisUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(RedisUrlError::Scheme)?;
        if text.contains(['?', '#']) {
            return Err(RedisUrlError::Options);
        }
        let (family, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let encrypted = match family {
            "redis" => false,
            "rediss" => true,
            _ => return Err(RedisUrlError::Scheme),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (account, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = account.split_once(':').unwrap_or((account, ""));
        let decode = |text: &str| {
            let decoded = percent_decode_str(text).decode_utf8().map_err(|_| RedisUrlError::Encoding)?;
            Ok::<_, RedisUrlError>(Some(decoded.into_owned()).filter(|text| !text.is_empty()))
        };
        let addresses = |default_port| -> Result<Vec<Address>, RedisUrlError> {
            hosts.split(',').take(MANY).map(|host| Address::read(host.trim(), default_port)).collect()
        };
        let number = |text: &str| match text {
            "" => Ok(0),
            text => text.parse().map_err(|_| RedisUrlError::Database),
        };
        let (shape, database) = match kind {
            "" if scheme.ends_with('+') => return Err(RedisUrlError::Scheme),
            "" => match <[Address; 1]>::try_from(addresses(PORT)?) {
                Ok([address]) => (Shape::Single(address), number(path)?),
                Err(_) => return Err(RedisUrlError::Several),
            },
            "sentinel" => {
                let (name, database) = path.split_once('/').unwrap_or((path, ""));
                let name = decode(name)?.ok_or(RedisUrlError::Master)?;
                (Shape::Sentinel(addresses(SENTINEL_PORT)?, name), number(database)?)
            }
            "cluster" if path.is_empty() => (Shape::Cluster(addresses(PORT)?), 0),
            "cluster" => return Err(RedisUrlError::Path),
            _ => return Err(RedisUrlError::Scheme),
        };
        Ok(Self {
            shape,
            encrypted,
            user: decode(user)?,
            password: decode(password)?.map(SecretString::from),
            database,
        })
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn at(host: &str, port: u16) -> Address {
        Address { host: host.into(), port }
    }

    #[test]
    fn every_shape_is_understood() {
        for (url, shape, encrypted, database) in [
            ("redis://h", Shape::Single(at("h", 6379)), false, 0),
            ("redis://h:1/", Shape::Single(at("h", 1)), false, 0),
            ("rediss://[2001:db8::1]:7/3", Shape::Single(at("2001:db8::1", 7)), true, 3),
            (
                "redis+sentinel://a,b:1,[::1]:2/mymaster",
                Shape::Sentinel(vec![at("a", 26379), at("b", 1), at("::1", 2)], "mymaster".into()),
                false,
                0,
            ),
            (
                "rediss+sentinel://a/my%20master/7",
                Shape::Sentinel(vec![at("a", 26379)], "my master".into()),
                true,
                7,
            ),
            ("redis+cluster://a:7000,b:7001", Shape::Cluster(vec![at("a", 7000), at("b", 7001)]), false, 0),
            ("rediss+cluster://a/", Shape::Cluster(vec![at("a", 6379)]), true, 0),
        ] {
            let parsed = RedisUrl::parse(url).unwrap();
            assert_eq!(
                (parsed.shape, parsed.encrypted, parsed.database),
                (shape, encrypted, database),
                "{url}"
            );
        }
    }

    #[test]
    fn a_user_and_a_password_are_decoded() {
        let account = |url| {
            let url = RedisUrl::parse(url).unwrap();
            (url.user, url.password.map(|password| password.expose_secret().to_owned()))
        };
        assert_eq!(account("redis://h"), (None, None));
        assert_eq!(account("redis://:p@h"), (None, Some("p".into())));
        assert_eq!(account("redis://u:p%40%3A%2f@h"), (Some("u".into()), Some("p@:/".into())));
        assert_eq!(account("redis+cluster://u:p@q@h,i"), (Some("u".into()), Some("p@q".into())));
    }

    #[test]
    fn a_url_is_shown_without_its_user_and_password() {
        for (url, told) in [
            ("redis://hunter2@h", "redis://h:6379/0"),
            ("rediss://u:hunter2@[2001:db8::1]:7/3", "rediss://[2001:db8::1]:7/3"),
            ("redis+sentinel://:hunter2@a,b:1/main", "redis+sentinel://a:26379,b:1/main/0"),
            ("rediss+cluster://u:hunter2@a:7000,b", "rediss+cluster://a:7000,b:6379"),
        ] {
            assert_eq!(RedisUrl::parse(url).unwrap().to_string(), told);
        }
    }

    #[test]
    fn what_is_no_url_is_refused_with_its_reason() {
        for (url, reason) in [
            ("", RedisUrlError::Scheme),
            ("database", RedisUrlError::Scheme),
            ("http://h", RedisUrlError::Scheme),
            ("redis+://h", RedisUrlError::Scheme),
            ("redis+ring://h", RedisUrlError::Scheme),
            ("redis://", RedisUrlError::Host),
            ("redis://:p@", RedisUrlError::Host),
            ("redis://a b", RedisUrlError::Host),
            ("redis://[::1]7", RedisUrlError::Host),
            ("redis+cluster://a,,b", RedisUrlError::Host),
            ("redis://h:70000", RedisUrlError::Port),
            ("redis://h/a", RedisUrlError::Database),
            ("redis+sentinel://h/m/a", RedisUrlError::Database),
            ("redis://a,b", RedisUrlError::Several),
            ("redis+sentinel://h", RedisUrlError::Master),
            ("redis+sentinel://h//1", RedisUrlError::Master),
            ("redis+cluster://h/1", RedisUrlError::Path),
            ("rediss://h/#insecure", RedisUrlError::Options),
            ("redis://h?protocol=resp2", RedisUrlError::Options),
            ("redis://u:%ff@h", RedisUrlError::Encoding),
        ] {
            assert_eq!(RedisUrl::parse(url).unwrap_err(), reason, "{url}");
        }
    }

    #[test]
    fn addresses_that_redis_announces_are_read() {
        assert_eq!(Address::announced("10.0.0.1:7"), Some(at("10.0.0.1", 7)));
        assert_eq!(Address::announced("2001:db8::1:7"), Some(at("2001:db8::1", 7)));
        assert_eq!(Address::announced(":7"), Some(at("", 7)));
        assert_eq!(Address::announced("nothing"), None);
    }
}
