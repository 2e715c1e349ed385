//! `[storage]`: where users, devices and codes are stored, and the key that seals their secrets.

use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use serde::Deserialize;

use super::{
    layers::{Layers, is_credential, is_public},
    values::{ConfigValue, Parsed, Secret},
};
use crate::{
    database::{
        self,
        postgres::{self, Host},
    },
    permission::{Need, explained},
    sealing::{KeySource, Keys},
};

const POSTGRES_PORT: u16 = 5432;
/// Default maximum of a gateway's open connections.
const CONNECTIONS: u32 = 8;

/// `[storage]`, validated.
pub(super) struct StorageSettings {
    pub(super) database: database::Config,
    pub(super) key: KeySource,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    /// The durable store: `sqlite:PATH`, made with its folder on first start, or for many gateways
    /// `postgres://user@host/database`.
    database: Parsed<Store>,
    /// The password for PostgreSQL, in place of one in the URL.
    password: Option<Parsed<Secret>>,
    /// A file with the password; a final newline is cut off.
    password_file: Option<Parsed<PathBuf>>,
    /// PEM file with the authority that signed PostgreSQL's certificate. Absent: the public authorities.
    ca: Option<Parsed<PathBuf>>,
    /// The maximum number of this gateway's connections to PostgreSQL.
    max_connections: Option<u32>,
    /// The key that seals secrets at rest; without it no second factor works any more. Meant for the environment.
    key: Option<Parsed<Keys>>,
    /// A file with the key. Made on first start if neither is set.
    key_file: Option<Parsed<PathBuf>>,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            database: Parsed(Store::Sqlite { path: "data/portcullis.db".into(), parameters: String::new() }),
            password: None,
            password_file: None,
            ca: None,
            max_connections: None,
            key: None,
            key_file: None,
        }
    }
}

impl Section {
    pub(super) fn validate(self, layers: &mut Layers) -> StorageSettings {
        let key = sealing_key(self.key, self.key_file, layers);
        let database = match self.database.0 {
            Store::Sqlite { path, parameters } => {
                for key in ["password", "password_file", "ca", "max_connections"] {
                    let key = format!("storage.{key}");
                    if layers.says(&key) {
                        layers.warn(&key, "has no effect: `storage.database` is not PostgreSQL");
                    }
                }
                let path = layers.resolve("storage.database", Path::new(&path));
                database::Config::Sqlite { url: format!("sqlite:{}{parameters}", path.display()) }
            }
            Store::Postgres(written) => {
                if self.max_connections == Some(0) {
                    layers.fault("storage.max_connections", "must be at least 1".to_owned());
                }
                let password = layers.secret("storage.password", self.password, self.password_file);
                if password.is_some() && written.password.is_some() {
                    layers.fault(
                        "storage.database",
                        "holds a password, and another one is set beside it; keep one of the two".to_owned(),
                    );
                }
                let tls = written.tls();
                let mut resolve = |path: PathBuf| layers.resolve("storage.database", &path);
                let client_certificate = written.client_certificate.map(|(c, k)| (resolve(c), resolve(k)));
                database::Config::Postgres(postgres::Config {
                    tls,
                    client_certificate,
                    hosts: written.hosts,
                    user: written.user,
                    password: password.or(written.password),
                    name: written.name,
                    ca: self.ca.map(|Parsed(ca)| layers.resolve("storage.ca", &ca)),
                    max_connections: self.max_connections.unwrap_or(CONNECTIONS),
                })
            }
        };
        StorageSettings { database, key }
    }
}

fn sealing_key(given: Option<Parsed<Keys>>, file: Option<Parsed<PathBuf>>, layers: &mut Layers) -> KeySource {
    if given.is_some() && file.is_some() {
        layers.fault("storage.key_file", "`storage.key` is set as well; keep one of the two");
    }
    if let Some(path) = layers.file_of("storage.key").filter(|path| is_public(path)) {
        let remedy = format!("run `chmod o-r {}`, or set PORTCULLIS_STORAGE__KEY instead", path.display());
        layers.fault("storage.key", format!("everyone on this machine can read this file; {remedy}"));
    }
    if let Some(Parsed(keys)) = given {
        return KeySource::Given(keys);
    }
    let Parsed(written) = file.unwrap_or_else(|| Parsed("data/portcullis.key".into()));
    let path = layers.resolve("storage.key_file", &written);
    if is_credential(&written) { KeySource::Credential(path) } else { KeySource::file(path) }
}

/// The settings of another store than the configured one, as typed on the command line. They default to the configured
/// ones.
pub(super) fn other(
    text: &str,
    own: &database::Config,
    password_file: Option<&Path>,
    ca: Option<PathBuf>,
) -> Result<database::Config, String> {
    let written = match Store::read(text)? {
        Store::Sqlite { path, parameters } => {
            return Ok(database::Config::Sqlite { url: format!("sqlite:{path}{parameters}") });
        }
        Store::Postgres(written) => written,
    };
    let beside = match own {
        database::Config::Postgres(own) => (own.password.clone(), own.ca.clone()),
        database::Config::Sqlite { .. } => (None, None),
    };
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path);
        text.map(|text| SecretString::from(text.trim_end_matches(['\r', '\n']))).map_err(|reason| {
            let reason = explained(path, Need::Read, reason);
            format!("has a password file that cannot be read, {}: {reason}", path.display())
        })
    };
    let password = password_file.map(read).transpose()?;
    Ok(database::Config::Postgres(postgres::Config {
        tls: written.tls(),
        client_certificate: written.client_certificate,
        hosts: written.hosts,
        user: written.user,
        password: password.or(written.password).or(beside.0),
        name: written.name,
        ca: ca.or(beside.1),
        max_connections: CONNECTIONS,
    }))
}

enum Store {
    /// `sqlite:PATH`, perhaps with `?parameters`.
    Sqlite {
        path: String,
        /// With the question mark, or empty.
        parameters: String,
    },
    /// `postgres://user@host/database`, which may contain a password and is therefore never repeated in a message.
    Postgres(Postgres),
}

impl ConfigValue for Keys {
    const EXPECTED: &'static str = "64 hexadecimal digits, or what `portcullis sealing-key` has printed";

    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| format!("is not a sealing key; expected {}", Self::EXPECTED))
    }
}

struct Postgres {
    hosts: Vec<Host>,
    user: String,
    password: Option<SecretString>,
    name: String,
    tls: Option<String>,
    client_certificate: Option<(PathBuf, PathBuf)>,
}

impl ConfigValue for Store {
    const EXPECTED: &'static str =
        "a URL such as `sqlite:data/portcullis.db` or `postgres://user@host/database`";

    fn read(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
            return Postgres::read(rest).map(Self::Postgres);
        }
        let Some(rest) = text.strip_prefix("sqlite:") else {
            return Err(
                "is not a database; expected `sqlite:PATH`, such as `sqlite:data/portcullis.db`, or \
                 `postgres://user@host/database`"
                    .into(),
            );
        };
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, parameters) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        if path.is_empty() || path == ":memory:" {
            return Err("must name a file: users and devices would not survive a restart".into());
        }
        Ok(Self::Sqlite { path: path.to_owned(), parameters: parameters.to_owned() })
    }
}

impl Postgres {
    /// Parses the part after `postgres://`: one user, one or several hosts, one database.
    fn read(text: &str) -> Result<Self, String> {
        let (place, parameters) = text.split_once('?').unwrap_or((text, ""));
        // The last `@`: a password may contain the character.
        let (login, place) =
            place.rsplit_once('@').ok_or("names no user; expected `postgres://user@host/database`")?;
        let (hosts, name) = place.split_once('/').unwrap_or((place, ""));
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(SecretString::from(decoded(password)?))),
            None => (login, None),
        };
        if user.is_empty() || name.is_empty() || name.contains('/') {
            return Err("must name a user and a database; expected `postgres://user@host/database`".into());
        }
        let mut written = Self {
            hosts: Vec::new(),
            user: decoded(user)?,
            password,
            name: decoded(name)?,
            tls: None,
            client_certificate: None,
        };
        let (mut certificate, mut key) = (None, None);
        for (name, value) in url::form_urlencoded::parse(parameters.as_bytes()) {
            match &*name {
                "sslmode" => written.tls = Some(tls(&value)?),
                "sslcert" => certificate = Some(PathBuf::from(&*value)),
                "sslkey" => key = Some(PathBuf::from(&*value)),
                "host" if value.starts_with('/') => {
                    written.hosts.push(Host { name: value.into_owned(), port: POSTGRES_PORT });
                }
                // We always look for the server that accepts writes.
                "target_session_attrs" if matches!(&*value, "read-write" | "primary") => {}
                "target_session_attrs" => {
                    return Err(
                        "must ask for `target_session_attrs=read-write`: every login changes something"
                            .into(),
                    );
                }
                "sslrootcert" => return Err("takes no `sslrootcert`; set `storage.ca` instead".into()),
                "password" => return Err("takes no `password`; set `storage.password_file` instead".into()),
                _ => {
                    return Err("has a parameter that is not known; there are `sslmode`, `sslcert`, `sslkey`, `host` \
                                (the folder of a socket) and `target_session_attrs`"
                        .into());
                }
            }
        }
        written.client_certificate = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err("needs `sslcert` and `sslkey` together".into()),
        };
        if !hosts.is_empty() {
            written.hosts.extend(hosts.split(',').map(host).collect::<Result<Vec<_>, _>>()?);
        }
        if written.hosts.is_empty() {
            return Err("has no host; expected `postgres://user@host/database`".into());
        }
        Ok(written)
    }

    /// The TLS mode, as requested. The default over a network lets nobody in between read or answer.
    fn tls(&self) -> String {
        let near = |host: &Host| {
            matches!(&*host.name, "localhost" | "127.0.0.1" | "[::1]") || host.name.starts_with('/')
        };
        let default = if self.hosts.iter().all(near) { "prefer" } else { "verify-full" };
        self.tls.clone().unwrap_or_else(|| default.to_owned())
    }
}

fn tls(mode: &str) -> Result<String, String> {
    match mode {
        "verify-full" | "verify-ca" | "require" | "disable" => Ok(mode.to_owned()),
        "prefer" | "allow" => {
            Err("must not leave TLS to chance: say `sslmode=verify-full` (the default over a \
                                   network), or on a network that you trust `sslmode=disable`"
                .into())
        }
        _ => {
            Err("has an unknown `sslmode`; there are `verify-full`, `verify-ca`, `require` and `disable`"
                .into())
        }
    }
}

fn host(text: &str) -> Result<Host, String> {
    let bracket = text.rfind(']').unwrap_or(0);
    let (name, port) = match text[bracket..].rfind(':') {
        Some(at) => (&text[..bracket + at], Some(&text[bracket + at + 1..])),
        None => (text, None),
    };
    let port = match port {
        None => POSTGRES_PORT,
        Some(port) => port
            .parse()
            .ok()
            .filter(|&port| port > 0)
            .ok_or("has an invalid port: expected a number up to 65535")?,
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if name.is_empty() || !name.chars().all(allowed) {
        return Err("has a host that is neither a name nor an address".into());
    }
    Ok(Host { name: name.to_owned(), port })
}

fn decoded(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "is not UTF-8 once decoded")?;
    if decoded.contains('\0') {
        return Err("holds a zero byte".into());
    }
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn postgres(text: &str) -> postgres::Config {
        let own = database::Config::Sqlite { url: "sqlite:own.db".into() };
        match other(text, &own, None, None) {
            Ok(database::Config::Postgres(config)) => config,
            otherwise => panic!("{otherwise:?}"),
        }
    }

    fn hosts(config: &postgres::Config) -> Vec<String> {
        config.hosts.iter().map(|host| format!("{} {}", host.name, host.port)).collect()
    }

    #[test]
    fn a_postgres_is_read_with_all_its_servers_and_its_password_is_shown_nowhere() {
        let several = postgres(
            "postgres://gate%40way:s%3acr%25t@db1.example:5433,[2001:db8::1]/iot%20users?target_session_attrs=read-write",
        );
        assert_eq!(hosts(&several), ["db1.example 5433", "[2001:db8::1] 5432"]);
        assert_eq!((&*several.user, &*several.name, &*several.tls), ("gate@way", "iot users", "verify-full"));
        assert_eq!(several.password.as_ref().unwrap().expose_secret(), "s:cr%t");
        assert_eq!(several.to_string(), "postgres://gate@way@db1.example:5433,[2001:db8::1]:5432/iot users");
        assert!(!format!("{several:?}").contains("cr%t"));
    }

    #[test]
    fn tls_may_only_be_left_out_on_this_machine_or_when_asked_for() {
        for (text, host, tls) in [
            ("postgresql://gate@localhost/iot", "localhost 5432", "prefer"),
            ("postgres://gate@/iot?host=/run/postgresql", "/run/postgresql 5432", "prefer"),
            ("postgres://gate@db/iot", "db 5432", "verify-full"),
            ("postgres://gate@db/iot?sslmode=disable", "db 5432", "disable"),
        ] {
            let config = postgres(text);
            assert_eq!((hosts(&config), &*config.tls), (vec![host.to_owned()], tls), "{text}");
        }
        assert_eq!(postgres("postgres://gate@localhost,db/iot").tls, "verify-full");
    }
}
