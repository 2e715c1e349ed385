//! Access rules: what each target requires, by path, method, network and user. The first rule that matches wins.
//!
//! Pure. A path or method that portals could read differently gets the strictest level of all its readings.

mod covered;
mod index;
mod methods;
mod pattern;
mod preset;
#[cfg(test)]
mod readers;
mod readings;
mod regexes;
mod routes;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr, time::Duration};

use http::{HeaderMap, Method, header};
use ipnet::IpNet;

pub use self::{
    covered::covered, pattern::AccessPath, preset::Preset, regexes::check as check_regex, routes::PathRoutes,
};
use self::{
    index::Index,
    methods::Methods,
    pattern::Fit,
    readings::{Reader, Reading, Readings},
    regexes::{Fits, Regexes},
};
use crate::users::CanonicalName;

/// What a target requires, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccessLevel {
    /// Nothing: everybody gets through.
    Bypass,
    /// A password.
    OneFactor,
    /// A password, and a second factor as soon as the roll-out demands it.
    TwoFactor,
    /// Nobody gets through.
    Deny,
}

impl AccessLevel {
    pub const ALL: [Self; 4] = [Self::Bypass, Self::OneFactor, Self::TwoFactor, Self::Deny];

    /// The name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::OneFactor => "one_factor",
            Self::TwoFactor => "two_factor",
            Self::Deny => "deny",
        }
    }
}

/// The kind of client, by the credential of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// A session, or no credential.
    Browser,
    /// A token of a machine.
    Token,
}

/// One rule. An empty criterion always holds.
#[derive(Clone, Debug)]
pub struct AccessRule {
    pub paths: Vec<AccessPath>,
    /// Regular expressions for whole paths.
    pub regexes: Vec<String>,
    pub methods: Vec<Method>,
    pub networks: Vec<IpNet>,
    /// The user has to be in one of them.
    pub groups: Vec<String>,
    pub users: Vec<CanonicalName>,
    pub client: Option<ClientKind>,
    /// Whether the rule is for CORS preflight requests.
    pub preflight: bool,
    pub level: AccessLevel,
    /// The maximum age of the user's last code.
    pub max_age: Option<Duration>,
    /// Whether the portal is not told who the user is, even if that is known.
    pub anonymous: bool,
    /// Where the rule is in the configuration, for messages.
    pub place: String,
}

impl Default for AccessRule {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            regexes: Vec::new(),
            methods: Vec::new(),
            networks: Vec::new(),
            groups: Vec::new(),
            users: Vec::new(),
            client: None,
            preflight: false,
            level: AccessLevel::TwoFactor,
            max_age: None,
            anonymous: false,
            place: String::new(),
        }
    }
}

/// The access rules of a site.
#[derive(Clone, Debug)]
pub struct Config {
    /// The level where no rule matches.
    pub default: AccessLevel,
    pub rules: Vec<AccessRule>,
}

impl Default for Config {
    fn default() -> Self {
        Self { default: AccessLevel::TwoFactor, rules: Vec::new() }
    }
}

/// The compiled rules of a site.
#[derive(Debug)]
pub struct AccessRules {
    default: Ruling,
    rules: Vec<AccessRule>,
    index: Index,
    regexes: Regexes,
}

/// What the rules require of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    pub level: AccessLevel,
    /// The maximum age of the user's last code, where the level requires one.
    pub max_age: Option<Duration>,
    /// Whether the portal is not told who the user is.
    pub anonymous: bool,
    /// The decisive rule; `None`: the default.
    pub rule: Option<usize>,
    /// Whether the ruling may differ for another user, or after a login.
    pub depends_on_user: bool,
}

impl Ruling {
    const fn by_default(level: AccessLevel) -> Self {
        Self { level, max_age: None, anonymous: false, rule: None, depends_on_user: false }
    }

    fn of(rule: &AccessRule, index: usize) -> Self {
        let AccessRule { level, max_age, anonymous, .. } = *rule;
        Self { level, max_age, anonymous, rule: Some(index), depends_on_user: false }
    }

    /// Whether the sender of the request matters.
    pub fn asks_who(&self) -> bool {
        self.depends_on_user || !(self.level == AccessLevel::Bypass && self.anonymous)
    }

    /// Whether the request has to wait until its sender is known.
    pub fn needs_to_know(&self) -> bool {
        match self.level {
            AccessLevel::Bypass => false,
            AccessLevel::OneFactor | AccessLevel::TwoFactor => true,
            AccessLevel::Deny => self.depends_on_user,
        }
    }

    /// A rule for browsers that requires a login, as it applies to a token.
    fn keeps_machines_out(self, client: Option<ClientKind>) -> Option<Self> {
        let asks = matches!(self.level, AccessLevel::OneFactor | AccessLevel::TwoFactor);
        (asks && client == Some(ClientKind::Browser)).then_some(Self { level: AccessLevel::Deny, ..self })
    }

    /// Whether a valid token can meet the requirement: a token stands for all factors, but has no fresh code.
    pub fn takes_tokens(&self) -> bool {
        self.level != AccessLevel::Deny && self.max_age.is_none()
    }

    /// Both requirements combined.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let age = |ruling: &Self| ruling.max_age.unwrap_or(Duration::MAX);
        let stricter =
            (other.level, std::cmp::Reverse(age(&other))) > (self.level, std::cmp::Reverse(age(&self)));
        let (strict, lax) = if stricter { (other, self) } else { (self, other) };
        let max_age = match strict.level {
            AccessLevel::TwoFactor => strict.max_age.into_iter().chain(lax.max_age).min(),
            _ => None,
        };
        Self {
            max_age,
            anonymous: strict.anonymous || lax.anonymous,
            depends_on_user: strict.depends_on_user || lax.depends_on_user,
            ..strict
        }
    }
}

/// A user who is signed in.
#[derive(Clone, Copy, Debug)]
pub struct SignedIn<'a> {
    /// The canonical name.
    pub name: &'a str,
    pub groups: &'a [String],
}

/// The properties of a request that rules are about.
#[derive(Clone, Debug)]
pub struct AccessRequest<'a> {
    path: &'a str,
    methods: Methods,
    is_preflight: bool,
    address: IpAddr,
    client: ClientKind,
    user: Option<SignedIn<'a>>,
}

impl<'a> AccessRequest<'a> {
    /// `path` is the path as it was sent, `address` the client's address.
    pub fn new(
        method: &Method,
        headers: &HeaderMap,
        path: &'a str,
        query: Option<&str>,
        address: IpAddr,
    ) -> Self {
        let is_preflight = *method == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let methods = methods::of(method, headers, query);
        Self { path, methods, is_preflight, address, client: ClientKind::Browser, user: None }
    }

    /// The same request, sent by a known user.
    #[must_use]
    pub fn by(self, user: SignedIn<'a>) -> Self {
        Self { user: Some(user), ..self }
    }

    /// The same request, sent with a token.
    #[must_use]
    pub fn with_token(self) -> Self {
        Self { client: ClientKind::Token, ..self }
    }
}

/// Why a request gets its ruling.
#[derive(Clone, Debug)]
pub struct Explanation {
    pub ruling: Ruling,
    /// The decisive path and method.
    pub path: String,
    pub method: Method,
    /// Whether they differ from those that were sent: some portals read them so.
    pub is_reading: bool,
}

impl AccessRules {
    /// Each regular expression has been [checked](check_regex); all together may still be too large.
    pub fn new(config: &Config) -> Result<Self, String> {
        Ok(Self {
            default: Ruling::by_default(config.default),
            index: Index::new(&config.rules),
            regexes: Regexes::new(&config.rules)?,
            rules: config.rules.clone(),
        })
    }

    /// Whether there are no rules, so that every request gets the default.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The ruling where no rule matches.
    pub fn default_ruling(&self) -> Ruling {
        self.default
    }

    /// Where the decisive rule is in the configuration.
    pub fn place(&self, ruling: &Ruling) -> &str {
        ruling.rule.and_then(|rule| self.rules.get(rule)).map_or("access.default", |rule| &rule.place)
    }

    /// The ruling for a request: the strictest of all its readings.
    pub fn of(&self, request: &AccessRequest<'_>) -> Ruling {
        let mut strictest = None;
        self.each_reading(request, |ruling, _, _| {
            strictest = Some(strictest.map_or(ruling, |so_far: Ruling| so_far.and(ruling)));
        });
        strictest.unwrap_or(Ruling::by_default(AccessLevel::Deny))
    }

    /// The ruling and the reason for it.
    pub fn explain(&self, request: &AccessRequest<'_>) -> Explanation {
        let ruling = self.of(request);
        let mut decisive = None;
        let mut nth = 0;
        self.each_reading(request, |one, path, method| {
            if decisive.is_none() && one.level == ruling.level && one.rule == ruling.rule {
                let path = path
                    .map_or_else(|| "any path".to_owned(), |path| String::from_utf8_lossy(path).into_owned());
                decisive = Some((path, method.clone(), nth > 0));
            }
            nth += 1;
        });
        let (path, method, is_reading) = decisive.unwrap_or_else(|| {
            (request.path.to_owned(), request.methods.first().cloned().unwrap_or_default(), false)
        });
        Explanation { ruling, path, method, is_reading }
    }

    /// Calls back with the ruling for each reading of the path and each method. A path with too many readings is
    /// matched as any path.
    fn each_reading(
        &self,
        request: &AccessRequest<'_>,
        mut tell: impl FnMut(Ruling, Option<&[u8]>, &Method),
    ) {
        let readings = Readings::of(request.path);
        for method in &request.methods {
            let mut one = |path: Option<&[u8]>, by: Reader| {
                tell(self.of_reading((path, by), method, request), path, method);
            };
            match &readings {
                Readings::Plain(path) => one(Some(path), Reader::default()),
                Readings::Several(all) => {
                    for Reading { path, by } in all {
                        one(Some(path), *by);
                    }
                }
                Readings::Any => one(None, Reader::default()),
            }
        }
    }

    fn of_reading(
        &self,
        (path, by): (Option<&[u8]>, Reader),
        method: &Method,
        request: &AccessRequest<'_>,
    ) -> Ruling {
        let fits = path.map_or(Fits::none(), |path| self.regexes.fits(path));
        let mut strictest: Option<Ruling> = None;
        let mut to_sign_in = None;
        let mut depends_on_user = false;
        let mut is_decided = false;
        let mut for_browsers = None;
        for index in self.index.candidates(path, !fits.is_empty()) {
            let Some(rule) = self.rules.get(index).filter(|rule| rule.is_about(method, request)) else {
                continue;
            };
            let fit = match path {
                _ if rule.paths.is_empty() && rule.regexes.is_empty() => Fit::Exactly,
                Some(path) => {
                    let by_path = rule.paths.iter().map(|known| known.fit(path, by)).max();
                    by_path.unwrap_or(Fit::No).max(fits.of(index))
                }
                None => Fit::Loosely,
            };
            if fit == Fit::No {
                continue;
            }
            let ruling = Ruling::of(rule, index);
            if rule.client.is_some_and(|client| client != request.client) {
                for_browsers = for_browsers.or_else(|| ruling.keeps_machines_out(rule.client));
                continue;
            }
            // A later rule for every client can deny a token, but cannot let it in.
            if for_browsers.is_some() && rule.client.is_none() && ruling.takes_tokens() {
                continue;
            }
            if rule.names_users() {
                depends_on_user = true;
                match request.user {
                    Some(user) if rule.is_for(user) => {}
                    None if rule.level != AccessLevel::Deny => {
                        to_sign_in.get_or_insert(ruling);
                        continue;
                    }
                    Some(_) | None => continue,
                }
            }
            strictest = Some(strictest.map_or(ruling, |so_far| so_far.and(ruling)));
            if fit == Fit::Exactly {
                is_decided = true;
                break;
            }
        }
        let found = match strictest {
            Some(found) if is_decided => found,
            Some(found) => found.and(self.default),
            None => self.default,
        };
        // Where browsers are asked for a login, only a rule for tokens lets a token in.
        let found = match for_browsers {
            Some(closed) if !is_decided => found.and(closed),
            _ => found,
        };
        // Somebody who has yet to sign in may be one of the rule's users.
        let found = match to_sign_in {
            Some(with_session) if found.level == AccessLevel::Deny => with_session,
            _ => found,
        };
        Ruling { depends_on_user, ..found }
    }
}

impl AccessRule {
    /// Whether method, networks, client and preflight match the request. Path and user are compared elsewhere.
    fn is_about(&self, method: &Method, request: &AccessRequest<'_>) -> bool {
        let in_network = |network: &IpNet| network.contains(&request.address);
        (self.methods.is_empty() || self.methods.contains(method))
            && (self.networks.is_empty() || self.networks.iter().any(in_network))
            && (!self.preflight || request.is_preflight)
    }

    fn names_users(&self) -> bool {
        !self.groups.is_empty() || !self.users.is_empty()
    }

    fn is_for(&self, user: SignedIn<'_>) -> bool {
        (self.groups.is_empty() || self.groups.iter().any(|group| user.groups.contains(group)))
            && (self.users.is_empty() || self.users.iter().any(|name| name.as_str() == user.name))
    }
}

impl fmt::Display for AccessLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
