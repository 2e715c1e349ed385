//! `[[tls.clients]]`: maps client certificates to users and services.

use http::Method;
use ipnet::IpNet;
use serde::Deserialize;
use url::Url;

use super::{
    layers::Layers,
    values::{ConfigValue, GroupName, OneOrMore, Parsed},
};
use crate::{
    access::AccessPath,
    client_certificates::{AltName, Mapping, Role, Shows},
    tokens::{self, Scope},
    users::CanonicalName,
};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ClientSection {
    /// A name in the certificate, as openssl prints it: `DNS:…`, `email:…` or `URI:…`.
    san: Option<Parsed<AltName>>,
    /// SHA-256 of the certificate.
    fingerprint: Option<Parsed<Fingerprint>>,
    user: Option<Parsed<CanonicalName>>,
    service: Option<Parsed<Service>>,
    /// `machine` or, for users, `first_factor`.
    #[serde(rename = "as")]
    counts_as: Option<Parsed<CountsAs>>,
    path: Option<OneOrMore<PathText>>,
    methods: Option<OneOrMore<Method>>,
    networks: Option<OneOrMore<IpNet>>,
    /// The groups of a service. For a user: the only ones of the user's groups that count.
    groups: Option<OneOrMore<GroupName>>,
    /// Hosts, as users type them.
    sites: Option<OneOrMore<SiteHost>>,
}

impl ClientSection {
    /// `sites`: the addresses of all sites.
    pub(super) fn validate(
        self,
        index: usize,
        sites: &[Url],
        layers: &mut Layers,
    ) -> Option<(Mapping, Scope)> {
        let place = format!("tls.clients[{index}]");
        let is_sound = layers.sound(&[&place]);
        let mut keys = Keys { index, layers, is_sound };
        let shows = match (self.san, self.fingerprint) {
            (Some(Parsed(name)), None) => Some(Shows::Name(name)),
            (None, Some(Parsed(Fingerprint(shows)))) => Some(shows),
            _ => keys.whole("needs either `san` or `fingerprint`: by what the certificate is told"),
        };
        let is_first = self.counts_as.is_some_and(|Parsed(counts)| counts == CountsAs::FirstFactor);
        let role = match (self.user, self.service) {
            (Some(Parsed(name)), None) if is_first => Some(Role::FirstFactor(name)),
            (Some(Parsed(name)), None) => Some(Role::Machine(name)),
            (None, Some(_)) if is_first => {
                keys.fault("as", "`first_factor` is for users; a service does not sign in")
            }
            (None, Some(Parsed(Service(name)))) => Some(Role::Service(name)),
            _ => keys.whole("needs either `user` or `service`: whom the certificate stands for"),
        };
        let limits = [
            ("path", self.path.is_some()),
            ("methods", self.methods.is_some()),
            ("networks", self.networks.is_some()),
            ("groups", self.groups.is_some()),
        ];
        for (key, _) in limits.into_iter().filter(|(_, is_set)| *is_set && is_first) {
            keys.fault::<()>(key, "limits a machine; a first factor opens what its user may open");
        }
        for SiteHost(name) in self.sites.iter().flat_map(|OneOrMore(listed)| listed) {
            if !sites.is_empty() && !sites.iter().any(|site| authority(site).eq_ignore_ascii_case(name)) {
                let known = sites.iter().map(authority).collect::<Vec<_>>().join("`, `");
                keys.fault::<()>("sites", format!("`{name}` is no site of this gateway; expected `{known}`"));
            }
        }
        let sites: Vec<String> =
            keys.list("sites", self.sites).into_iter().map(|SiteHost(name)| name).collect();
        let scope = Scope {
            paths: keys.list("path", self.path).into_iter().map(|PathText(path)| path).collect(),
            methods: keys.list("methods", self.methods).iter().map(ToString::to_string).collect(),
            networks: keys.list("networks", self.networks),
            groups: keys.list("groups", self.groups).into_iter().map(|GroupName(name)| name).collect(),
            sites: sites.clone(),
        };
        if let Err(message) = scope.check() {
            keys.whole::<()>(&message);
        }
        Some((Mapping { shows: shows?, role: role?, sites }, scope))
    }
}

fn authority(site: &Url) -> String {
    let host = site.host_str().unwrap_or_default();
    site.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Reports faults in the keys of one client.
struct Keys<'a> {
    index: usize,
    layers: &'a mut Layers,
    /// Whether no fault has been reported yet.
    is_sound: bool,
}

impl Keys<'_> {
    /// Reports a fault of one key, and returns none.
    fn fault<T>(&mut self, key: &str, message: impl Into<String>) -> Option<T> {
        self.layers.fault(&format!("tls.clients.{}.{key}", self.index), message);
        None
    }

    /// The same for the client as a whole.
    fn whole<T>(&mut self, message: &str) -> Option<T> {
        if self.is_sound {
            self.layers.fault(&format!("tls.clients.{}", self.index), message);
        }
        None
    }

    fn list<T>(&mut self, key: &str, listed: Option<OneOrMore<T>>) -> Vec<T> {
        let Some(OneOrMore(listed)) = listed else { return Vec::new() };
        let shown = format!("tls.clients[{}].{key}", self.index);
        if listed.is_empty() && self.layers.sound(&[&shown]) {
            self.fault::<()>(key, "is empty; leave it out if it does not matter");
        }
        listed
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CountsAs {
    Machine,
    FirstFactor,
}

impl ConfigValue for CountsAs {
    const EXPECTED: &'static str = "`machine` or `first_factor`";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "machine" => Ok(Self::Machine),
            "first_factor" => Ok(Self::FirstFactor),
            _ => Err(format!("`{text}` is not {}", Self::EXPECTED)),
        }
    }
}

impl ConfigValue for AltName {
    const EXPECTED: &'static str =
        "a name such as `URI:spiffe://example.com/ci`, `DNS:ci.example.com` or `email:ada@example.com`";

    fn read(text: &str) -> Result<Self, String> {
        let name = Self::parse(text).ok_or_else(|| format!("`{text}` is not {}", Self::EXPECTED));
        if text.starts_with("DNS:") && text.contains('*') {
            return Err(format!("`{text}` fits no certificate: names are compared as they are, without `*`"));
        }
        name
    }
}

struct Fingerprint(Shows);

impl ConfigValue for Fingerprint {
    const EXPECTED: &'static str =
        "the 64 hexadecimal digits that `openssl x509 -noout -fingerprint -sha256` prints";

    fn read(text: &str) -> Result<Self, String> {
        Shows::fingerprint(text).map(Self).ok_or_else(|| format!("`{text}` is not {}", Self::EXPECTED))
    }
}

struct Service(String);

impl ConfigValue for Service {
    const EXPECTED: &'static str = "1 to 64 lower-case letters, digits, `.`, `_` and `-`";

    fn read(text: &str) -> Result<Self, String> {
        if tokens::is_service(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("expected {}", Self::EXPECTED))
        }
    }
}

/// A path pattern as in access rules, as written.
struct PathText(String);

impl ConfigValue for PathText {
    const EXPECTED: &'static str = AccessPath::EXPECTED;

    fn read(text: &str) -> Result<Self, String> {
        AccessPath::read(text).map(|_| Self(text.to_owned()))
    }
}

struct SiteHost(String);

impl ConfigValue for SiteHost {
    const EXPECTED: &'static str = "the host of a site, such as `iot.example.com`";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains('/') {
            return Err(format!("`{text}` is not {}", Self::EXPECTED));
        }
        Ok(Self(text.to_owned()))
    }
}
