//! `[portal]`: what the gateway stands in front of, and what our pages say about it.

use std::{path::PathBuf, time::Duration};

use http::HeaderName;
use serde::Deserialize;
use url::Url;

use super::{
    layers::Layers,
    written::{List, Text, Written, origin},
};
use crate::{
    pages,
    upstream::{self, Sharing},
    web::logout::{LogoutPath, LogoutPaths},
};

/// What `[portal]` becomes; what lacks a required key is absent, and that is a fault.
pub(super) struct Settled {
    pub(super) upstream: upstream::Config,
    pub(super) pages: Option<pages::Config>,
    pub(super) logout_paths: LogoutPaths,
    pub(super) pass_headers: Vec<HeaderName>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    /// The portal's name, in headings and, unless `second_factor.issuer` says otherwise, in authenticator apps. Required.
    name: Option<Text<Name>>,
    /// The portal's servers: `http` or `https` URLs without a path. Required.
    upstreams: List<UpstreamUrl>,
    /// Where users find help: a `mailto:`, `tel:` or `https:` URL, shown on every page. Absent: none is shown.
    support: Option<Text<Support>>,
    /// Where the portal logs out, exactly or, with `/*` at its end, everything below; with a method in front and a query
    /// behind it where the path alone does not say. The session ends with it.
    logout_paths: List<LogoutPath>,
    /// Headers that clients may send although proxies use them and portals tend to believe them.
    pass_headers: List<HeaderName>,
    /// PEM file with the authority that signed the portal's certificate. Absent: the system's authorities.
    ca: Option<Text<PathBuf>>,
    /// To establish a connection to the portal, TLS included.
    connect_timeout: Text<Duration>,
    /// From the end of a request to the head of the portal's answer.
    response_timeout: Text<Duration>,
    /// Connections to each server, shared out evenly among the workers.
    max_connections: usize,
    /// Requests that wait for a connection, at most `connect_timeout`; shared out likewise.
    max_waiting: usize,
    /// Who may use a connection to the portal again: `shared`, `user` or `once`.
    connections: Text<Sharing>,
    /// How old a connection to the portal gets; names are looked up for each new one.
    max_connection_age: Text<Duration>,
    /// WebSockets and streams of events at once, which do not count as connections; shared out likewise.
    max_streams: usize,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            name: None,
            upstreams: List::default(),
            support: None,
            logout_paths: List::default(),
            pass_headers: List::default(),
            ca: None,
            connect_timeout: Text(Duration::from_secs(2)),
            response_timeout: Text(Duration::from_mins(1)),
            max_connections: 256,
            max_waiting: 1024,
            connections: Text(Sharing::Shared),
            max_connection_age: Text(Duration::from_mins(1)),
            max_streams: 10_000,
        }
    }
}

impl Section {
    pub(super) fn settle(self, layers: &mut Layers) -> Settled {
        if self.name.is_none() {
            layers.missing("portal.name", "set it to the name that users know the portal by");
        }
        let upstreams: Vec<_> = self.upstreams.0.into_iter().map(|UpstreamUrl(url)| url).collect();
        check_upstreams(&upstreams, layers);
        if self.max_connections == 0 {
            layers.fault("portal.max_connections", "must be at least 1");
        }
        if self.ca.is_some() && !upstreams.iter().any(|url| url.scheme() == "https") {
            layers.warn("portal.ca", "has no effect: none of `portal.upstreams` is `https`");
        }
        Settled {
            upstream: upstream::Config {
                upstreams,
                ca: self.ca.map(|Text(ca)| layers.resolve("portal.ca", &ca)),
                connect_timeout: self.connect_timeout.0,
                response_timeout: self.response_timeout.0,
                limits: upstream::Limits {
                    connections: self.max_connections,
                    waiting: self.max_waiting,
                    streams: self.max_streams,
                },
                sharing: self.connections.0,
                max_age: self.max_connection_age.0,
            },
            logout_paths: LogoutPaths::new(self.logout_paths.0),
            pass_headers: self.pass_headers.0,
            pages: self.name.map(|Text(Name(portal_name))| pages::Config {
                portal_name,
                support: self.support.map(|Text(Support(url))| url),
            }),
        }
    }
}

fn check_upstreams(upstreams: &[Url], layers: &mut Layers) {
    const KEY: &str = "portal.upstreams";
    if upstreams.is_empty() && layers.sound(&[KEY]) {
        if layers.says(KEY) {
            layers.fault(KEY, "is empty; list at least one server of the portal");
        } else {
            layers.missing(KEY, "list the portal's servers, such as `[\"http://127.0.0.1:3000\"]`");
        }
    }
    for (index, url) in upstreams.iter().enumerate() {
        if upstreams[..index].contains(url) && layers.sound(&[KEY]) {
            layers.fault(KEY, format!("lists `{url}` twice"));
        }
    }
}

/// A name that fits into a heading.
struct Name(String);

impl Written for Name {
    const EXPECTED: &'static str = "a name in quotes";

    fn read(text: &str) -> Result<Self, String> {
        let name = text.trim();
        if name.is_empty() {
            return Err("is empty; expected a name".into());
        }
        if name.chars().count() > 64 || name.chars().any(char::is_control) {
            return Err("must be at most 64 characters, on one line".into());
        }
        Ok(Self(name.to_owned()))
    }
}

impl Written for Sharing {
    const EXPECTED: &'static str = "`shared`, `user` or `once`";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "shared" => Ok(Self::Shared),
            "user" => Ok(Self::User),
            "once" => Ok(Self::Once),
            _ => Err(format!("`{text}` is not {}", Self::EXPECTED)),
        }
    }
}

/// An origin of the portal.
#[derive(PartialEq)]
struct UpstreamUrl(Url);

impl Written for UpstreamUrl {
    const EXPECTED: &'static str = "a URL such as `http://127.0.0.1:3000`";

    fn read(text: &str) -> Result<Self, String> {
        origin(text, &["http", "https"]).map(Self)
    }
}

/// A link that helps.
struct Support(String);

impl Written for Support {
    const EXPECTED: &'static str = "a link such as `mailto:support@example.com`";

    fn read(text: &str) -> Result<Self, String> {
        match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "mailto" | "tel" | "https") => Ok(Self(url.into())),
            Ok(_) | Err(_) => Err(format!(
                "`{text}` is not a link; expected `mailto:support@example.com`, `tel:+4930123456` or an `https:` URL"
            )),
        }
    }
}
