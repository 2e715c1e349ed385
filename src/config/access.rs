//! `[access]` and its rules: what each target requires.

use std::time::Duration;

use http::Method;
use ipnet::IpNet;
use serde::Deserialize;
use url::Url;

use super::{
    layers::Layers,
    values::{ConfigValue, GroupName, List, OneOrMore, Parsed},
};
use crate::{
    access::{self, AccessLevel, AccessPath, AccessRule, AccessRules, ClientKind, Preset},
    users::CanonicalName,
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    /// The level where no rule matches: `bypass`, `one_factor`, `two_factor` or `deny`.
    default: Parsed<AccessLevel>,
    /// Presets for what every site needs without a login; they come after all rules.
    presets: List<Preset>,
    /// The first rule that matches wins.
    rules: Vec<Option<RuleSection>>,
}

/// All given criteria must hold.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RuleSection {
    /// Paths as the portal sees them, decoded; with `/*` at the end, everything below.
    path: Option<OneOrMore<AccessPath>>,
    /// Regular expressions for whole paths.
    regex: Option<OneOrMore<PathRegex>>,
    methods: Option<OneOrMore<Method>>,
    /// The client's networks.
    networks: Option<OneOrMore<IpNet>>,
    groups: Option<OneOrMore<GroupName>>,
    users: Option<OneOrMore<CanonicalName>>,
    /// Hosts, as in the addresses that users type.
    sites: Option<OneOrMore<SiteName>>,
    /// The kind of credential: `browser` or `token`.
    clients: Option<Parsed<ClientKind>>,
    level: Option<Parsed<AccessLevel>>,
    /// The maximum age of the user's last code.
    max_age: Option<Parsed<Duration>>,
    /// Whether the portal is not told who the user is, even if that is known.
    anonymous: bool,
}

impl Default for Section {
    fn default() -> Self {
        Self { default: Parsed(AccessLevel::TwoFactor), presets: List::default(), rules: Vec::new() }
    }
}

impl Section {
    /// `site` is the address of the site that has the rules, one of `all`.
    pub(super) fn validate(self, site: Option<&Url>, all: &[Url], layers: &mut Layers) -> access::Config {
        let is_bare = self.rules.is_empty() && self.presets.0.is_empty();
        let (mut rules, mut written) = (Vec::new(), Vec::new());
        for (index, rule) in self.rules.into_iter().enumerate() {
            let Some(rule) = rule.and_then(|rule| rule.validate(index, site, all, layers)) else { continue };
            rules.push(rule);
            written.push(index);
        }
        if layers.sound(&["access"]) {
            rules.extend(self.presets.0.iter().map(|preset| preset.rule()));
            warn_of_covered(&rules, &written, layers);
        }
        let Parsed(default) = self.default;
        if default == AccessLevel::Bypass && is_bare {
            layers.warn("access.default", "lets everybody in without a login: there are no rules besides");
        }
        let config = access::Config { default, rules };
        if layers.sound(&["access"])
            && let Err(reason) = AccessRules::new(&config)
        {
            layers.fault("access.rules", format!("all `regex` together: {reason}"));
        }
        config
    }
}

impl RuleSection {
    /// `None` if the rule is for other sites.
    fn validate(
        self,
        index: usize,
        site: Option<&Url>,
        all: &[Url],
        layers: &mut Layers,
    ) -> Option<AccessRule> {
        let mut rule = Keys { index, layers };
        let level = self.level.map_or(AccessLevel::TwoFactor, |Parsed(level)| level);
        let max_age = self.max_age.map(|Parsed(age)| age);
        if max_age.is_some() && level != AccessLevel::TwoFactor {
            rule.fault("max_age", "is the age of a code, which only `level = \"two_factor\"` asks for");
        }
        if self.anonymous && level != AccessLevel::Bypass {
            rule.fault(
                "anonymous",
                "needs `level = \"bypass\"`: at any other level the portal is told who asks",
            );
        }
        for (key, is_set) in [("groups", self.groups.is_some()), ("users", self.users.is_some())] {
            if is_set && level == AccessLevel::Bypass {
                rule.fault(
                    key,
                    "needs a login to know who asks, and `bypass` asks for none; use `level = \"one_factor\"`, or leave it out",
                );
            }
        }
        for SiteName(name) in self.sites.iter().flat_map(|OneOrMore(sites)| sites) {
            if site.is_some() && !all.iter().any(|site| is_of(name, site)) {
                let hosts: Vec<_> = all.iter().filter_map(Url::host_str).collect();
                let expected = hosts.join("` or `");
                rule.fault("sites", format!("`{name}` is no site of this gateway; expected `{expected}`"));
            }
        }
        let sites = rule.list("sites", self.sites);
        let is_here =
            sites.is_empty() || site.is_none_or(|site| sites.iter().any(|SiteName(name)| is_of(name, site)));
        let read = AccessRule {
            paths: rule.list("path", self.path),
            regexes: rule.list("regex", self.regex).into_iter().map(|PathRegex(regex)| regex).collect(),
            methods: rule.list("methods", self.methods),
            networks: rule.list("networks", self.networks),
            groups: rule.list("groups", self.groups).into_iter().map(|GroupName(group)| group).collect(),
            users: rule.list("users", self.users),
            client: self.clients.map(|Parsed(client)| client),
            preflight: false,
            level,
            max_age,
            anonymous: self.anonymous,
            place: rule.layers.written_at(&rule.key()),
        };
        is_here.then_some(read)
    }
}

/// Whether `name` is the host of a site, with or without its port.
fn is_of(name: &str, site: &Url) -> bool {
    let host = site.host_str().unwrap_or_default();
    let port = site.port_or_known_default().unwrap_or_default();
    name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(&format!("{host}:{port}"))
}

/// Reports faults in the keys of one rule.
struct Keys<'a> {
    index: usize,
    layers: &'a mut Layers,
}

impl Keys<'_> {
    fn key(&self) -> String {
        format!("access.rules.{}", self.index)
    }

    fn fault(&mut self, key: &str, message: impl Into<String>) {
        let key = format!("{}.{key}", self.key());
        self.layers.fault(&key, message);
    }

    /// The values of a criterion; empty if it is absent.
    fn list<T>(&mut self, key: &str, listed: Option<OneOrMore<T>>) -> Vec<T> {
        let Some(OneOrMore(listed)) = listed else { return Vec::new() };
        let shown = format!("access.rules[{}].{key}", self.index);
        if listed.is_empty() && self.layers.sound(&[&shown]) {
            self.fault(key, "is empty; leave it out if it does not matter");
        }
        listed
    }
}

/// The first rules are the operator's, at the indexes `written` of their list; the others are presets.
fn warn_of_covered(rules: &[AccessRule], written: &[usize], layers: &mut Layers) {
    for (index, cover) in access::covered(rules) {
        let place = rules.get(cover).map_or("", |rule| &rule.place);
        let by = match written.get(cover) {
            Some(number) => format!("access.rules[{number}] ({place})"),
            None => place.to_owned(),
        };
        if let Some(number) = written.get(index) {
            let message = format!("never matches: {by} comes first and matches all of it");
            layers.warn(&format!("access.rules.{number}"), message);
        } else if cover < written.len() {
            let preset = rules.get(index).and_then(|rule| rule.place.rsplit(' ').next()).unwrap_or_default();
            layers.warn(
                "access.presets",
                format!("`{preset}` never matches: {by} comes first and matches all of it"),
            );
        }
    }
}

impl ConfigValue for AccessLevel {
    const EXPECTED: &'static str = "`bypass`, `one_factor`, `two_factor` or `deny`";

    fn read(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|level| level.as_str() == text);
        known.ok_or_else(|| format!("`{text}` is not {}", Self::EXPECTED))
    }
}

impl ConfigValue for Preset {
    const EXPECTED: &'static str = "`well-known`, `robots`, `manifest`, `favicon`, `preflight` or `acme`";

    fn read(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|preset| preset.as_str() == text);
        known.ok_or_else(|| format!("`{text}` is not {}", Self::EXPECTED))
    }
}

impl ConfigValue for ClientKind {
    const EXPECTED: &'static str = "`browser` or `token`";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "browser" => Ok(Self::Browser),
            "token" => Ok(Self::Token),
            _ => Err(format!("`{text}` is not {}", Self::EXPECTED)),
        }
    }
}

impl ConfigValue for AccessPath {
    const EXPECTED: &'static str = "a path such as `/health`, or `/webhooks/*` for all below";

    fn read(text: &str) -> Result<Self, String> {
        let path = Self::parse(text)?;
        if text.starts_with("/.portcullis/") || text.starts_with("/.well-known/portcullis/") {
            return Err(format!("`{text}` is the gateway's own, for which there are no rules"));
        }
        Ok(path)
    }
}

impl ConfigValue for Method {
    const EXPECTED: &'static str = "a method such as `GET`";

    fn read(text: &str) -> Result<Self, String> {
        let method =
            Self::from_bytes(text.as_bytes()).map_err(|_| format!("`{text}` is not {}", Self::EXPECTED))?;
        if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(format!("methods are told by their case; write `{}`", text.to_ascii_uppercase()));
        }
        if matches!(method, Self::CONNECT | Self::TRACE) {
            return Err(format!("`{text}` never reaches a portal"));
        }
        Ok(method)
    }
}

impl ConfigValue for CanonicalName {
    const EXPECTED: &'static str = "an e-mail or user name";

    fn read(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| format!("`{text}` is not {}", Self::EXPECTED))
    }
}

/// A regular expression for whole paths.
struct PathRegex(String);

impl ConfigValue for PathRegex {
    const EXPECTED: &'static str = "a regular expression such as `/v[0-9]+/health`";

    fn read(text: &str) -> Result<Self, String> {
        access::check_regex(text).map_err(|reason| format!("`{text}` {reason}"))?;
        Ok(Self(text.to_owned()))
    }
}

/// A host, as users type it.
struct SiteName(String);

impl ConfigValue for SiteName {
    const EXPECTED: &'static str = "the host of a site, such as `iot.example.com`";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains('/') {
            return Err(format!("`{text}` is not {}", Self::EXPECTED));
        }
        Ok(Self(text.to_owned()))
    }
}
