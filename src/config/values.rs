//! The values of the configuration: durations, addresses, URLs, names, lists, secrets.
//!
//! A type here rejects what can never be valid, and says what would be. Rules between keys belong to the sections.

use std::{
    fmt,
    marker::PhantomData,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use http::Method;
use ipnet::IpNet;
use jiff::{fmt::temporal::Pieces, tz::Offset};
use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use url::Url;

use crate::{
    clock::Timestamp,
    web::{
        client::canonical,
        logout::{self, LogoutPath},
        path::PathPattern,
    },
};

/// The maximum of a duration: anything longer is a mistake, and would overflow deadlines.
const LONGEST: Duration = Duration::from_hours(365 * 24);

/// A value that is text in the configuration.
pub(super) trait ConfigValue: Sized {
    /// A description of valid values; completes "expected …".
    const EXPECTED: &'static str;

    /// Parses the text, or says what is wrong with it. The message must not repeat a text that may contain a secret.
    fn read(text: &str) -> Result<Self, String>;
}

/// A [`ConfigValue`] as a field of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parsed<T>(pub(super) T);

impl<'de, T: ConfigValue> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads<T>(PhantomData<T>);

        impl<T: ConfigValue> Visitor<'_> for Reads<T> {
            type Value = Parsed<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                T::read(text).map(Parsed).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Reads(PhantomData))
    }
}

impl ConfigValue for PathPattern {
    const EXPECTED: &'static str = "a path such as `/logout` or `/auth/*`";

    fn read(text: &str) -> Result<Self, String> {
        let path = text.strip_suffix('*').unwrap_or(text);
        let plain = path.starts_with('/')
            && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"*?#\\".contains(&byte));
        if !plain || (text.ends_with('*') && (!path.ends_with('/') || path == "/")) {
            return Err(format!("`{text}` is not {}", Self::EXPECTED));
        }
        Ok(if text.ends_with('*') { Self::Below(path.to_owned()) } else { Self::Exact(path.to_owned()) })
    }
}

impl ConfigValue for LogoutPath {
    const EXPECTED: &'static str =
        "a path such as `/logout` or `/auth/*`, or `GET /wp-login.php?action=logout`";

    fn read(text: &str) -> Result<Self, String> {
        let fault = || format!("`{text}` is not {}", Self::EXPECTED);
        let (method, target) = match text.split_once(' ') {
            None => (None, text),
            Some((method, target)) if method.bytes().all(|byte| byte.is_ascii_uppercase()) => {
                (Some(Method::from_bytes(method.as_bytes()).map_err(|_| fault())?), target.trim_start())
            }
            Some(_) => return Err(fault()),
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = PathPattern::read(&logout::canonical(path)).map_err(|_| fault())?;
        if !query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(fault());
        }
        Ok(Self { method, path, query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect() })
    }
}

/// Several [`ConfigValue`]s. A plain text is a comma-separated list, so that an environment variable needs no brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List<T>(pub(super) Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: ConfigValue> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads<T>(PhantomData<T>);

        impl<'de, T: ConfigValue> Visitor<'de> for Reads<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list, each element {}", T::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                let elements = text.split(',').map(str::trim).filter(|element| !element.is_empty());
                elements.map(T::read).collect::<Result<_, _>>().map(List).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<Self::Value, A::Error> {
                // An element that has been reported arrives as `None`, so that the others keep their index.
                let elements = Vec::<Option<Parsed<T>>>::deserialize(SeqAccessDeserializer::new(elements))?;
                Ok(List(elements.into_iter().flatten().map(|Parsed(element)| element).collect()))
            }
        }

        deserializer.deserialize_any(Reads(PhantomData))
    }
}

/// One [`ConfigValue`], or several in a list. A comma is part of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OneOrMore<T>(pub(super) Vec<T>);

impl<'de, T: ConfigValue> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads<T>(PhantomData<T>);

        impl<'de, T: ConfigValue> Visitor<'de> for Reads<T> {
            type Value = OneOrMore<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}, or a list of such", T::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                T::read(text).map(|one| OneOrMore(vec![one])).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<Self::Value, A::Error> {
                let List(elements) = List::deserialize(SeqAccessDeserializer::new(elements))?;
                Ok(OneOrMore(elements))
            }
        }

        deserializer.deserialize_any(Reads(PhantomData))
    }
}

/// A secret in the configuration itself. Taken as it is: no trimming, and no parsing as a number.
#[derive(Clone, Debug)]
pub(super) struct Secret(pub(super) SecretString);

impl ConfigValue for Secret {
    const EXPECTED: &'static str = "a secret in quotes";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("is empty".into());
        }
        Ok(Self(SecretString::from(text)))
    }
}

impl ConfigValue for PathBuf {
    const EXPECTED: &'static str = "the path of a file";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("is empty; expected the path of a file".into());
        }
        Ok(Self::from(text))
    }
}

/// The name of a group.
pub(super) struct GroupName(pub(super) String);

impl ConfigValue for GroupName {
    const EXPECTED: &'static str = "the name of a group";

    fn read(text: &str) -> Result<Self, String> {
        let name = text.trim();
        if name.is_empty() { Err("is empty".into()) } else { Ok(Self(name.to_owned())) }
    }
}

impl ConfigValue for Duration {
    const EXPECTED: &'static str = "a duration such as `250ms`, `30s`, `5m` or `1h 30m`";

    fn read(text: &str) -> Result<Self, String> {
        let duration = humantime::parse_duration(text).map_err(|_| {
            format!("`{text}` is not a duration; expected one such as `250ms`, `30s`, `5m` or `1h 30m`")
        })?;
        if duration.is_zero() {
            return Err("must be longer than zero".into());
        }
        if duration > LONGEST {
            return Err("must be at most 365 days".into());
        }
        Ok(duration)
    }
}

impl ConfigValue for SocketAddr {
    const EXPECTED: &'static str = "an address and port such as `[::]:8443` or `127.0.0.1:9180`";

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is not an IP address with a port, such as `[::]:8443`"))
    }
}

impl ConfigValue for IpNet {
    const EXPECTED: &'static str = "a network such as `10.0.0.0/8`, or one address";

    fn read(text: &str) -> Result<Self, String> {
        let one = text.parse::<IpAddr>().map(Self::from).ok();
        if text.contains('%') {
            return Err(format!(
                "`{text}` names an interface, which cannot be checked; leave `%` and what follows out"
            ));
        }
        one.or_else(|| text.parse().ok())
            .map(canonical)
            .ok_or_else(|| format!("`{text}` is not a network such as `10.0.0.0/8`, nor an IP address"))
    }
}

/// A number of bytes.
pub(super) struct Size(pub(super) u64);

impl ConfigValue for Size {
    const EXPECTED: &'static str = "a size such as `512MiB` or `2GiB`";

    fn read(text: &str) -> Result<Self, String> {
        let units = [("KiB", 1_u64 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
        let size = units.iter().find_map(|(unit, bytes)| {
            text.strip_suffix(unit)?.trim_end().parse::<u64>().ok()?.checked_mul(*bytes)
        });
        match size {
            Some(0) => Err("must be more than nothing".into()),
            Some(bytes) => Ok(Self(bytes)),
            None => Err(format!("`{text}` is not {}", Self::EXPECTED)),
        }
    }
}

/// An instant with the UTC offset that it was written with: a TOML offset date-time, or the same as text (RFC 3339).
pub(super) struct Instant {
    pub(super) instant: Timestamp,
    pub(super) offset: Offset,
}

impl ConfigValue for Instant {
    const EXPECTED: &'static str = "a date and time with its offset, such as `2026-03-02T00:00:00Z`";

    fn read(text: &str) -> Result<Self, String> {
        if let (Ok(instant), Ok(pieces)) = (text.parse::<jiff::Timestamp>(), Pieces::parse(text)) {
            let instant = Timestamp::from_unix_millis(instant.as_millisecond());
            return Ok(Self { instant, offset: pieces.to_numeric_offset().unwrap_or(Offset::UTC) });
        }
        if text.parse::<jiff::civil::DateTime>().is_ok() {
            return Err(format!(
                "`{text}` does not say in which time zone; write an offset, such as `…T00:00:00+01:00`, or `Z` for UTC"
            ));
        }
        Err(format!("`{text}` is not a date and time such as `2026-03-02T00:00:00Z`"))
    }
}

/// The path of a Unix socket, absolute and short enough for the kernel.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, String> {
    const LONGEST: usize = 107;
    let plain = text.starts_with('/') && !text.ends_with('/') && !text.chars().any(char::is_control);
    if !plain {
        return Err(format!(
            "`unix:{text}` is not `unix:` and the whole path of a socket, such as `unix:/run/app.sock`"
        ));
    }
    if text.len() > LONGEST {
        return Err(format!(
            "is longer than {LONGEST} bytes, which is the most that a socket's path may have"
        ));
    }
    Ok(text.into())
}

/// The address of a server: a scheme, a host, perhaps a port, and nothing else.
pub(super) fn origin(text: &str, schemes: &[&str]) -> Result<Url, String> {
    let wanted = schemes.iter().map(|scheme| format!("`{scheme}://host`")).collect::<Vec<_>>().join(" or ");
    if !text.contains("://") {
        return Err(format!("does not say how to reach it; expected {wanted}"));
    }
    let url = Url::parse(text).map_err(|reason| format!("is not a URL ({reason}); expected {wanted}"))?;
    if !schemes.contains(&url.scheme()) {
        return Err(format!("must begin with {}", wanted.replace("host`", "`")));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("has no host; expected {wanted}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or a password".into());
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("must end after the host and port; expected {wanted}, without a path"));
    }
    Ok(url)
}
