//! `[identity]`: the headers that tell the portal who the user is, and the signed assertion.

use std::time::Duration;

use http::HeaderName;
use serde::Deserialize;

use super::{
    layers::Layers,
    values::{ConfigValue, List, Parsed},
};
use crate::{
    http1::{fields::is_hop_by_hop, spelling::Spelled},
    identity::{AssertionConfig, Config, Encoding, GroupChoice, GroupPattern, HeaderNames, IdentityHeaders},
};

/// Headers with a meaning to HTTP, to browsers or to the gateway itself.
const RESERVED: [&str; 26] = [
    "authorization",
    "cache-control",
    "connection",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "from",
    "host",
    "keep-alive",
    "origin",
    "range",
    "referer",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];
const RESERVED_PREFIXES: [&str; 6] = ["accept", "access-control-", "content-", "if-", "proxy-", "sec-"];
const OURS: &str = "x-portcullis-";
/// Headers that the gateway sets on each request to the portal, besides the identity.
const SET: [&str; 6] =
    ["forwarded", "host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"];

/// Whoever copies an assertion can use it until it expires.
const LONGEST_LIFETIME: Duration = Duration::from_mins(5);
const SHORTEST_LIFETIME: Duration = Duration::from_mins(1);
/// Keys are published for an hour before they sign and for an hour after.
const SHORTEST_ROTATION: Duration = Duration::from_hours(24);

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    /// The names of a proxy that portals know: `remote`, `x-forwarded` or `x-auth-request`.
    preset: Preset,
    headers: Headers,
    /// The encoding of non-ASCII characters in headers: `percent`, `utf-8` or `rfc2047`.
    encoding: Coding,
    /// The groups that the portal is told, by name or, with `*` at the end, by prefix. Absent: all.
    groups: Option<List<GroupPattern>>,
    assertion: Assertion,
}

#[derive(Clone, Copy, Default, Deserialize)]
enum Coding {
    #[default]
    #[serde(rename = "percent")]
    Percent,
    #[serde(rename = "utf-8")]
    Utf8,
    #[serde(rename = "rfc2047")]
    Rfc2047,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Assertion {
    /// Whether a signed assertion is sent with each request.
    enabled: bool,
    /// The audience. Absent: `server.public_url`.
    audience: Option<Parsed<Audience>>,
    /// The lifetime of an assertion.
    lifetime: Parsed<Duration>,
    /// How long one key signs.
    rotation: Parsed<Duration>,
}

impl Default for Assertion {
    fn default() -> Self {
        Self {
            enabled: true,
            audience: None,
            lifetime: Parsed(LONGEST_LIFETIME),
            rotation: Parsed(Duration::from_hours(30 * 24)),
        }
    }
}

/// Single names that replace the preset's; `off` for no such header.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Headers {
    /// The canonical name.
    user: Option<Parsed<Name>>,
    /// The e-mail address.
    email: Option<Parsed<Name>>,
    /// The display name.
    name: Option<Parsed<Name>>,
    /// The groups, separated by commas.
    groups: Option<Parsed<Name>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Preset {
    /// `Remote-User`, `Remote-Email`, `Remote-Name`, `Remote-Groups`, as Authelia sends them.
    #[default]
    Remote,
    /// `X-Forwarded-User`, `-Email`, `-Preferred-Username`, `-Groups`, as oauth2-proxy sends them to an upstream.
    XForwarded,
    /// `X-Auth-Request-User`, `-Email`, `-Preferred-Username`, `-Groups`, as oauth2-proxy answers nginx.
    XAuthRequest,
}

impl Section {
    /// `origin` is `None` if the public URL is missing, which is a fault already. `inactivity` is the limit of
    /// sessions, `passed` is `portal.pass_headers`.
    pub(super) fn validate(
        self,
        origin: Option<&str>,
        inactivity: Duration,
        passed: Vec<HeaderName>,
        layers: &mut Layers,
    ) -> Config {
        let assertion = self.assertion.validate(origin, inactivity, layers);
        let preset = self.preset.names();
        let chosen = |own: Option<Parsed<Name>>, preset| own.map_or(preset, |Parsed(Name(name))| name);
        let headers = HeaderNames {
            user: chosen(self.headers.user, preset.user),
            email: chosen(self.headers.email, preset.email),
            name: chosen(self.headers.name, preset.name),
            groups: chosen(self.headers.groups, preset.groups),
        };
        check_names(&headers, layers);
        let config = Config {
            headers,
            encoding: match self.encoding {
                Coding::Percent => Encoding::Percent,
                Coding::Utf8 => Encoding::Utf8,
                Coding::Rfc2047 => Encoding::Rfc2047,
            },
            groups: GroupChoice(self.groups.map(|List(patterns)| patterns)),
            pass_headers: Vec::new(),
            assertion,
        };
        check_passed(&passed, &config, layers);
        Config { pass_headers: passed, ..config }
    }
}

/// Each header carries one value.
fn check_names(headers: &HeaderNames, layers: &mut Layers) {
    let mut seen: Vec<(&str, &HeaderName)> = Vec::new();
    for (fact, name) in ["user", "email", "name", "groups"].into_iter().zip(headers.all()) {
        let Some(name) = name else { continue };
        match seen.iter().find(|&&(_, earlier)| earlier == name) {
            Some((earlier, _)) => {
                // Points at the name that was written, not at the preset's.
                let key = format!("identity.headers.{fact}");
                let key = if layers.says(&key) { key } else { format!("identity.headers.{earlier}") };
                layers.fault(&key, format!("`{name}` would carry both `{earlier}` and `{fact}`"));
            }
            None => seen.push((fact, name)),
        }
    }
}

/// A client may send headers that portals trust, but none that the gateway sets.
fn check_passed(passed: &[HeaderName], config: &Config, layers: &mut Layers) {
    let usual = IdentityHeaders::new(config);
    for (index, name) in passed.iter().enumerate() {
        let key = format!("portal.pass_headers.{index}");
        let text = name.as_str();
        if SET.contains(&text) || text.starts_with(OURS) || config.headers.all().contains(&Some(name)) {
            layers
                .fault(&key, format!("`{text}` is what the gateway tells the portal; no client can set it"));
        } else if is_hop_by_hop(name) {
            layers.fault(&key, format!("`{text}` is between two servers only; it cannot be passed on"));
        } else if !usual.is_reserved(name) {
            layers.warn(&key, format!("has no effect: `{text}` is never removed"));
        }
    }
}

impl Assertion {
    fn validate(
        self,
        origin: Option<&str>,
        inactivity: Duration,
        layers: &mut Layers,
    ) -> Option<AssertionConfig> {
        let (lifetime, rotation) = (self.lifetime.0, self.rotation.0);
        if !(SHORTEST_LIFETIME..=LONGEST_LIFETIME).contains(&lifetime) {
            layers.fault("identity.assertion.lifetime", "must be between 1m and 5m");
        }
        if rotation < SHORTEST_ROTATION {
            layers.fault(
                "identity.assertion.rotation",
                "must be at least 1d: portals learn of a new key within an hour or so",
            );
        }
        if !self.enabled {
            for key in ["audience", "lifetime", "rotation"] {
                let key = format!("identity.assertion.{key}");
                if layers.says(&key) && layers.sound(&[&key]) {
                    layers.warn(&key, "has no effect: `identity.assertion.enabled` is false");
                }
            }
            return None;
        }
        let issuer = origin.unwrap_or_default().to_owned();
        Some(AssertionConfig {
            audience: self.audience.map_or_else(|| issuer.clone(), |Parsed(Audience(audience))| audience),
            issuer,
            // So that no assertion outlives an idle session.
            lifetime: lifetime.min(inactivity),
            rotation,
        })
    }
}

impl Preset {
    fn names(&self) -> HeaderNames {
        let [user, email, name, groups] = match self {
            Self::Remote => ["remote-user", "remote-email", "remote-name", "remote-groups"],
            Self::XForwarded => [
                "x-forwarded-user",
                "x-forwarded-email",
                "x-forwarded-preferred-username",
                "x-forwarded-groups",
            ],
            Self::XAuthRequest => [
                "x-auth-request-user",
                "x-auth-request-email",
                "x-auth-request-preferred-username",
                "x-auth-request-groups",
            ],
        }
        .map(|name| Some(HeaderName::from_static(name).into()));
        HeaderNames { user, email, name, groups }
    }
}

/// The name of an identity header, or `off`.
struct Name(Option<Spelled>);

impl ConfigValue for Name {
    const EXPECTED: &'static str = "the name of a header, such as `Remote-User`, or `off`";

    fn read(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let header = HeaderName::read(text)?;
        let name = header.as_str();
        let reserved =
            RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if reserved || name.starts_with(OURS) {
            return Err(format!("`{text}` has a meaning of its own; choose a name such as `Remote-User`"));
        }
        Spelled::new(text).map(|spelled| Self(Some(spelled))).map_err(|error| error.to_string())
    }
}

impl ConfigValue for HeaderName {
    const EXPECTED: &'static str = "the name of a header, such as `Remote-User`";

    fn read(text: &str) -> Result<Self, String> {
        let name = Self::from_bytes(text.as_bytes())
            .map_err(|_| format!("`{text}` is not the name of a header, such as `Remote-User`"))?;
        if text.contains('_') {
            return Err(format!(
                "`{text}` holds an underscore, which servers take for a hyphen; use a hyphen"
            ));
        }
        Ok(name)
    }
}

impl ConfigValue for GroupPattern {
    const EXPECTED: &'static str = "a group such as `ops`, or `iot-*` for all that begin so";

    fn read(text: &str) -> Result<Self, String> {
        let (name, is_prefix) = text.strip_suffix('*').map_or((text, false), |start| (start, true));
        if name.is_empty() || name.trim() != name || name.contains(|c: char| c == '*' || c.is_control()) {
            return Err(format!("`{text}` is not {}", Self::EXPECTED));
        }
        Ok(if is_prefix { Self::Prefix(name.to_owned()) } else { Self::Exact(name.to_owned()) })
    }
}

/// The name by which the portal knows itself.
struct Audience(String);

impl ConfigValue for Audience {
    const EXPECTED: &'static str = "a name or URL in quotes";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > 255 || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("must be a name or URL of at most 255 bytes, without spaces".into());
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_every_preset_are_free() {
        for preset in [Preset::Remote, Preset::XForwarded, Preset::XAuthRequest] {
            for header in preset.names().all() {
                assert!(Name::read(header.unwrap().as_str()).is_ok(), "{header:?}");
            }
        }
        assert!(Name::read("off").unwrap().0.is_none());
    }

    #[test]
    fn a_header_with_a_meaning_of_its_own_carries_no_identity() {
        for taken in
            ["Host", "cookie", "Connection", "TE", "Content-Length", "X-Forwarded-For", "Sec-Fetch-Mode"]
        {
            assert!(Name::read(taken).is_err(), "{taken}");
        }
        for odd in ["", "Remote User", "Remote_User", "Rémote", "Remote-User:", "X-Portcullis-Jwt-Assertion"]
        {
            assert!(Name::read(odd).is_err(), "{odd}");
        }
    }
}
