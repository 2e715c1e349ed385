//! `[sessions]` and `[sessions.redis]`: how long sessions last, and where they are stored.

use std::{path::PathBuf, time::Duration};

use http::HeaderValue;
use secrecy::SecretString;
use serde::Deserialize;

use super::{
    layers::Layers,
    values::{ConfigValue, List, Parsed, Secret, Size},
};
use crate::{
    redis_pool, saved_forms,
    sessions::{self, Activity, WhenFull},
    web::path::PathPattern,
};

/// NIST SP 800-63B-4 requires a new login at least this often with two factors (AAL2).
const LONGEST_ADVISED: Duration = Duration::from_hours(24);
/// The maximum length of an outage that sessions may outlast.
const LONGEST_GRACE: Duration = Duration::from_mins(1);

/// The maximum size of a saved form, which is held in memory on its way.
const LARGEST_FORM: u64 = 1 << 20;

/// `[sessions]`, validated.
pub(super) struct SessionSettings {
    pub(super) sessions: sessions::Config,
    pub(super) saved_forms: saved_forms::Config,
    pub(super) passive_paths: Vec<PathPattern>,
    pub(super) activity: Activity,
    pub(super) clear_on_sign_out: Option<HeaderValue>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    /// `database`, or for many gateways the URL of a Redis: `redis://`, `redis+sentinel://`, `redis+cluster://`.
    store: Parsed<Store>,
    /// A session unused for this long is over.
    inactivity: Parsed<Duration>,
    /// A session this old is over, however busy.
    expiration: Parsed<Duration>,
    /// The lifetime of a session, used or not, if its user asks to be kept signed in. Absent: users cannot ask.
    remember_me: Option<Parsed<Duration>>,
    /// Requests to these paths, or with `/*` at the end to everything below, do not count as use of a session.
    passive_paths: List<PathPattern>,
    /// What else counts as use: `requests`, or `people` for requests that the browser attributes to a person.
    activity: Parsed<Activity>,
    /// The maximum number of one user's sessions. Absent: any number.
    max_per_user: Option<usize>,
    /// What happens to a login beyond `max_per_user`: `end_oldest` lets it in, `refuse` does not.
    when_full: Parsed<WhenFull>,
    /// The maximum size of a form that is saved when it arrives after the session has expired; `0`: no form is saved.
    kept_form_max: Parsed<FormSize>,
    /// What browsers clear of the portal's data at a sign-out: its `cache`, its `storage`.
    clear_on_sign_out: List<Cleared>,
    /// How long known sessions go on after Redis has gone.
    outage_grace: Parsed<Grace>,
    redis: Redis,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Redis {
    /// The ACL user. Absent: the one in the URL, or Redis's default user.
    user: Option<Parsed<Printable>>,
    /// The password, in place of one in the URL.
    password: Option<Parsed<Secret>>,
    /// A file with the password; a final newline is cut off.
    password_file: Option<Parsed<PathBuf>>,
    /// The user and the password for the sentinels, which differ from those for Redis.
    sentinel_user: Option<Parsed<Printable>>,
    sentinel_password: Option<Parsed<Secret>>,
    sentinel_password_file: Option<Parsed<PathBuf>>,
    /// PEM file with the authority that signed the server's certificate. Absent: the system's authorities.
    ca: Option<Parsed<PathBuf>>,
    /// PEM files with a client certificate and its key, for servers that ask for one.
    certificate: Option<Parsed<PathBuf>>,
    key: Option<Parsed<PathBuf>>,
    /// The prefix of all our keys.
    key_prefix: Parsed<Printable>,
    /// The timeout of one command.
    timeout: Parsed<Duration>,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            store: Parsed(Store::Database),
            inactivity: Parsed(Duration::from_hours(1)),
            expiration: Parsed(Duration::from_hours(12)),
            remember_me: None,
            passive_paths: List::default(),
            activity: Parsed(Activity::Requests),
            max_per_user: None,
            when_full: Parsed(WhenFull::EndOldest),
            kept_form_max: Parsed(FormSize(64 << 10)),
            clear_on_sign_out: List(vec![Cleared::Cache]),
            outage_grace: Parsed(Grace(Duration::ZERO)),
            redis: Redis::default(),
        }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            user: None,
            password: None,
            password_file: None,
            sentinel_user: None,
            sentinel_password: None,
            sentinel_password_file: None,
            ca: None,
            certificate: None,
            key: None,
            key_prefix: Parsed(Printable("portcullis:".into())),
            timeout: Parsed(Duration::from_millis(250)),
        }
    }
}

impl Section {
    pub(super) fn validate(self, layers: &mut Layers) -> SessionSettings {
        let (inactivity, expiration) = (self.inactivity.0, self.expiration.0);
        if inactivity > expiration && layers.sound(&["sessions.inactivity", "sessions.expiration"]) {
            // Points at the key that was written: the other may be a default.
            let key = if layers.says("sessions.inactivity") { "inactivity" } else { "expiration" };
            layers.fault(
                &format!("sessions.{key}"),
                format!(
                    "`inactivity` ({}) must not be longer than `expiration` ({})",
                    humantime::format_duration(inactivity),
                    humantime::format_duration(expiration)
                ),
            );
        }
        if expiration > LONGEST_ADVISED {
            layers.warn(
                "sessions.expiration",
                "is above 24h, the most that NIST SP 800-63B-4 allows with two factors",
            );
        }
        let remember_me = self.remember_me.map(|Parsed(remember_me)| remember_me);
        if remember_me.is_some_and(|lasts| lasts < expiration)
            && layers.sound(&["sessions.remember_me", "sessions.expiration"])
        {
            layers.fault(
                "sessions.remember_me",
                format!(
                    "must not be shorter than `expiration` ({}), which it prolongs",
                    humantime::format_duration(expiration)
                ),
            );
        }
        if remember_me.is_some_and(|lasts| lasts > LONGEST_ADVISED) {
            layers.warn(
                "sessions.remember_me",
                "keeps users signed in for longer than NIST SP 800-63B-4 allows with two factors: 24h, and 1h unused",
            );
        }
        if self.max_per_user == Some(0) {
            layers.fault("sessions.max_per_user", "must be at least 1; leave it out for any number");
        }
        if self.max_per_user.is_none() && self.when_full.0 == WhenFull::Refuse {
            layers.warn("sessions.when_full", "has no effect without `sessions.max_per_user`");
        }
        let Grace(outage_grace) = self.outage_grace.0;
        let store = match self.store.0 {
            Store::Database => {
                if !outage_grace.is_zero() {
                    layers.warn("sessions.outage_grace", "has no effect: `sessions.store` is `database`");
                }
                if layers.says("sessions.redis") {
                    layers.warn("sessions.redis", "has no effect: `sessions.store` is `database`");
                }
                sessions::Store::Database
            }
            Store::Redis(url) => sessions::Store::Redis(Box::new(self.redis.validate(url, layers))),
        };
        SessionSettings {
            sessions: sessions::Config {
                store,
                inactivity,
                expiration,
                remember_me,
                max_per_user: self.max_per_user,
                when_full: self.when_full.0,
                outage_grace,
            },
            saved_forms: saved_forms::Config { max: self.kept_form_max.0.0 },
            passive_paths: self.passive_paths.0,
            activity: self.activity.0,
            clear_on_sign_out: clearing(&self.clear_on_sign_out.0),
        }
    }
}

impl Redis {
    fn validate(self, url: SecretString, layers: &mut Layers) -> redis_pool::Config {
        for (one, other, there) in [
            ("certificate", "key", self.certificate.is_some() && self.key.is_none()),
            ("key", "certificate", self.key.is_some() && self.certificate.is_none()),
        ] {
            if there {
                layers.fault(&format!("sessions.redis.{one}"), format!("needs `{other}` beside it"));
            }
        }
        let mut path = |key: &str, path: Option<Parsed<PathBuf>>| {
            path.map(|Parsed(path)| layers.resolve(&format!("sessions.redis.{key}"), &path))
        };
        let (ca, certificate) = (path("ca", self.ca), path("certificate", self.certificate));
        let key = path("key", self.key);
        redis_pool::Config {
            url,
            password: layers.secret("sessions.redis.password", self.password, self.password_file),
            user: self.user.map(|Parsed(Printable(user))| user),
            sentinel_user: self.sentinel_user.map(|Parsed(Printable(user))| user),
            sentinel_password: layers.secret(
                "sessions.redis.sentinel_password",
                self.sentinel_password,
                self.sentinel_password_file,
            ),
            ca,
            certificate,
            key,
            key_prefix: self.key_prefix.0.0,
            timeout: self.timeout.0,
        }
    }
}

/// `database`, or the URL of a Redis, which may contain a password and is therefore never repeated in a message.
enum Store {
    Database,
    Redis(SecretString),
}

impl ConfigValue for Store {
    const EXPECTED: &'static str = "`database` or a URL such as `redis://127.0.0.1:6379/0`";

    fn read(text: &str) -> Result<Self, String> {
        if text == "database" {
            return Ok(Self::Database);
        }
        redis_pool::RedisUrl::parse(text).map_err(|reason| reason.to_string())?;
        Ok(Self::Redis(SecretString::from(text)))
    }
}

impl ConfigValue for Activity {
    const EXPECTED: &'static str = "`requests` or `people`";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "requests" => Ok(Self::Requests),
            "people" => Ok(Self::People),
            _ => Err(format!("`{text}` is not {}", Self::EXPECTED)),
        }
    }
}

impl ConfigValue for WhenFull {
    const EXPECTED: &'static str = "`end_oldest` or `refuse`";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "end_oldest" => Ok(Self::EndOldest),
            "refuse" => Ok(Self::Refuse),
            _ => Err(format!("`{text}` is not {}", Self::EXPECTED)),
        }
    }
}

/// A part of the data that a browser stores for a site. Cookies are not among them: a browser would drop those of every
/// site under the same domain.
#[derive(Clone, Copy, PartialEq)]
enum Cleared {
    Cache,
    Storage,
}

impl ConfigValue for Cleared {
    const EXPECTED: &'static str = "`cache` or `storage`";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "cache" => Ok(Self::Cache),
            "storage" => Ok(Self::Storage),
            _ => Err(format!("`{text}` is not {}", Self::EXPECTED)),
        }
    }
}

/// The value of `Clear-Site-Data`.
fn clearing(parts: &[Cleared]) -> Option<HeaderValue> {
    let text = match (parts.contains(&Cleared::Cache), parts.contains(&Cleared::Storage)) {
        (true, true) => "\"cache\", \"storage\"",
        (true, false) => "\"cache\"",
        (false, true) => "\"storage\"",
        (false, false) => return None,
    };
    Some(HeaderValue::from_static(text))
}

/// A number of bytes, or `0` for none.
struct FormSize(usize);

impl ConfigValue for FormSize {
    const EXPECTED: &'static str = "a size such as `64KiB`, at most `1MiB`, or `0`";

    fn read(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self(0));
        }
        match Size::read(text)? {
            Size(bytes) if bytes > LARGEST_FORM => Err("must be at most `1MiB`".into()),
            Size(bytes) => Ok(Self(usize::try_from(bytes).unwrap_or(0))),
        }
    }
}

/// A short duration, which may be zero.
#[derive(Clone, Copy)]
struct Grace(Duration);

impl ConfigValue for Grace {
    const EXPECTED: &'static str = "a duration of at most `60s`, or `0s`";

    fn read(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            Ok(grace) if grace <= LONGEST_GRACE => Ok(Self(grace)),
            Ok(_) => Err("must be at most 60s".into()),
            Err(_) => Err(format!("`{text}` is not a duration; expected one such as `30s`, or `0s`")),
        }
    }
}

/// A word without spaces.
#[derive(Clone)]
struct Printable(String);

impl ConfigValue for Printable {
    const EXPECTED: &'static str = "a word in quotes";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > 128 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("must be one word of at most 128 letters, digits and signs".into());
        }
        Ok(Self(text.to_owned()))
    }
}
