//! `[portal]`: the portal behind the gateway, and what our pages say about it.

use std::{path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue, uri::Authority};
use rustls::pki_types::ServerName;
use serde::Deserialize;
use url::Url;

use super::{
    RouteConfig,
    key_path::{shown, steps},
    layers::Layers,
    values::{ConfigValue, List, OneOrMore, Parsed, origin, socket_path},
};
use crate::{
    access::{AccessPath, PathRoutes},
    pages,
    upstream::{self, HostName, Sharing},
    web::{
        logout::{LogoutPath, LogoutPaths},
        path::PathPattern,
        portal_answers::{self, Hsts},
        service_worker::Policy,
        session_notice::InPages,
    },
};

/// `[portal]`, validated. A missing required key is `None`, which is a fault.
pub(super) struct PortalSettings {
    pub(super) upstream: upstream::Config,
    pub(super) routes: Vec<RouteConfig>,
    pub(super) pages: Option<pages::Config>,
    pub(super) logout_paths: LogoutPaths,
    pub(super) pass_headers: Vec<HeaderName>,
    pub(super) answers: portal_answers::Config,
}

/// Connections of a worker to each server: as many as the 64 streams of a browser's HTTP/2 connection, and as many
/// again for everybody else.
const CONNECTIONS_A_WORKER: usize = 128;
/// With fewer connections, one browser can take all that it is allowed to and wait for itself.
const FEW_CONNECTIONS: usize = 8;
const LEAST_CONNECTIONS: usize = 256;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    /// The portal's name, in headings and, unless `second_factor.issuer` says otherwise, in authenticator apps. Required.
    name: Option<Parsed<Name>>,
    /// The portal's servers: `http` or `https` URLs without a path, or `unix:/path` for HTTP over a Unix socket.
    /// Required.
    upstreams: List<UpstreamUrl>,
    /// The `Host` field for them: `public` for the host of `server.public_url`, `upstream` for that of each URL, or a
    /// name.
    host: Parsed<HostName>,
    /// The name in the certificates of `https` servers, also sent as SNI. Absent: the host of the URL.
    tls_name: Option<Parsed<ServerName<'static>>>,
    /// Where users find help: a `mailto:`, `tel:` or `https:` URL, shown on every page. Absent: none is shown.
    support: Option<Parsed<Support>>,
    /// The paths where the portal logs out, exact or, with `/*` at the end, everything below; with a method in front
    /// and a query behind it where the path alone is ambiguous. The session ends there.
    logout_paths: List<LogoutPath>,
    /// Headers that clients may send although proxies use them and portals tend to trust them.
    pass_headers: List<HeaderName>,
    /// Whether internal addresses of the portal in its responses become addresses of `public_url`.
    rewrite_redirects: bool,
    /// The origin of requests that the portal sees: as the `client` sends it, or as the `upstream` knows itself.
    origin: Parsed<OriginAs>,
    /// The HSTS policy for browsers: a value, `portal` for the portal's own, or `off`.
    hsts: Parsed<Hsts>,
    /// Whether browsers load `http` resources of the portal's pages over `https`.
    upgrade_insecure_requests: bool,
    /// What to do with service workers that could answer in place of our pages: `refuse` or `allow`.
    service_worker: Parsed<Policy>,
    /// Whether pages that are open tell their users when the session ends, and how to go on.
    session_notice: bool,
    /// Paths whose responses are the same for all users, so that shared caches may store them.
    cacheable_paths: List<PathPattern>,
    /// PEM file with the authority that signed the portal's certificate. Absent: the system's authorities.
    ca: Option<Parsed<PathBuf>>,
    /// To establish a connection to the portal, including TLS.
    connect_timeout: Parsed<Duration>,
    /// From the end of a request to the head of the portal's response.
    response_timeout: Parsed<Duration>,
    /// Connections to each server, divided evenly among the workers. Absent: 128 per worker, and at least 256.
    max_connections: Option<usize>,
    /// Requests that wait for a connection, at most `connect_timeout`; divided likewise.
    max_waiting: usize,
    /// Who may reuse a connection to the portal: `shared`, `user` or `once`.
    connections: Parsed<Sharing>,
    /// Maximum age of a connection to the portal; names are resolved for each new one.
    max_connection_age: Parsed<Duration>,
    /// Concurrent requests of one user per worker; further ones wait. Absent: as many as there are free connections.
    max_connections_per_user: Option<u32>,
    /// Concurrent WebSockets and event streams, which do not count as connections; divided likewise.
    max_streams: usize,
    /// The same for one user.
    max_streams_per_user: u32,
    /// Paths that go to other servers; the first route that matches wins.
    routes: Vec<Option<Route>>,
}

/// All keys of the portal also apply to these servers.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Route {
    /// Paths as the portal sees them, decoded; with `/*` at the end, everything below. Required.
    path: Option<OneOrMore<AccessPath>>,
    /// Its servers: `http` or `https` URLs without a path. Required.
    upstreams: List<UpstreamUrl>,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            name: None,
            upstreams: List::default(),
            host: Parsed(HostName::Public),
            tls_name: None,
            support: None,
            logout_paths: List::default(),
            pass_headers: List::default(),
            rewrite_redirects: true,
            origin: Parsed(OriginAs::Client),
            hsts: Parsed(Hsts::Says(HeaderValue::from_static("max-age=31536000"))),
            upgrade_insecure_requests: false,
            service_worker: Parsed(Policy::Refuse),
            session_notice: false,
            cacheable_paths: List::default(),
            ca: None,
            connect_timeout: Parsed(Duration::from_secs(2)),
            response_timeout: Parsed(Duration::from_mins(1)),
            max_connections: None,
            max_waiting: 1024,
            connections: Parsed(Sharing::Shared),
            max_connection_age: Parsed(Duration::from_mins(1)),
            max_connections_per_user: None,
            max_streams: 10_000,
            max_streams_per_user: 200,
            routes: Vec::new(),
        }
    }
}

impl Section {
    pub(super) fn validate(self, workers: usize, layers: &mut Layers) -> PortalSettings {
        if self.name.is_none() {
            layers.missing("portal.name", "set it to the name that users know the portal by");
        }
        let upstreams: Vec<_> = self.upstreams.0.into_iter().map(|UpstreamUrl(url)| url).collect();
        check_upstreams("portal.upstreams", &upstreams, layers);
        let routes = routes(self.routes, layers);
        let all: Vec<Url> =
            upstreams.iter().chain(routes.iter().flat_map(|(_, upstreams)| upstreams)).cloned().collect();
        if self.max_connections == Some(0) {
            layers.fault("portal.max_connections", "must be at least 1");
        }
        if self.max_connections_per_user == Some(0) {
            layers.fault(
                "portal.max_connections_per_user",
                "must be at least 1; leave it out for as many as there are connections free",
            );
        }
        check_shares(self.max_connections, workers, layers);
        let max_connections = self
            .max_connections
            .unwrap_or_else(|| workers.saturating_mul(CONNECTIONS_A_WORKER).max(LEAST_CONNECTIONS));
        let encrypted = all.iter().any(|url| url.scheme() == "https");
        for (key, is_set) in [("portal.ca", self.ca.is_some()), ("portal.tls_name", self.tls_name.is_some())]
        {
            if is_set && !encrypted {
                layers.warn(key, "has no effect: none of `portal.upstreams` is `https`");
            }
        }
        check_origin(self.origin.0, &self.host.0, &all, layers);
        check_host(&self.host.0, &all, layers);
        let upstream = upstream::Config {
            upstreams,
            host: self.host.0,
            tls_name: self.tls_name.map(|Parsed(name)| name),
            ca: self.ca.map(|Parsed(ca)| layers.resolve("portal.ca", &ca)),
            connect_timeout: self.connect_timeout.0,
            response_timeout: self.response_timeout.0,
            limits: upstream::PoolLimits {
                connections: max_connections,
                waiting: self.max_waiting,
                streams: self.max_streams,
            },
            per_user: upstream::PerUser {
                connections: self.max_connections_per_user.unwrap_or(u32::MAX),
                leaves_room: self
                    .max_connections_per_user
                    .is_none_or(|most| usize::try_from(most).is_ok_and(|most| most < max_connections)),
                streams: self.max_streams_per_user,
            },
            sharing: self.connections.0,
            max_age: self.max_connection_age.0,
        };
        let route = |(paths, upstreams)| RouteConfig {
            paths,
            upstream: upstream::Config { upstreams, ..upstream.clone() },
        };
        PortalSettings {
            routes: routes.into_iter().map(route).collect(),
            upstream,
            answers: portal_answers::Config {
                inner_origin: self.origin.0 == OriginAs::Upstream,
                rewrite_redirects: self.rewrite_redirects,
                hsts: self.hsts.0,
                upgrade_insecure_requests: self.upgrade_insecure_requests,
                service_worker: self.service_worker.0,
                session_notice: if self.session_notice { InPages::Yes } else { InPages::No },
                cacheable_paths: self.cacheable_paths.0,
            },
            logout_paths: LogoutPaths::new(self.logout_paths.0),
            pass_headers: self.pass_headers.0,
            pages: self.name.map(|Parsed(Name(portal_name))| pages::Config {
                portal_name,
                support: self.support.map(|Parsed(Support(url))| url),
            }),
        }
    }
}

/// Each worker has its own share of the connections, and cannot use those of another.
fn check_shares(most: Option<usize>, workers: usize, layers: &mut Layers) {
    const KEY: &str = "portal.max_connections";
    let Some(most) = most.filter(|&most| most > 0) else { return };
    if most < workers {
        layers.fault(
            KEY,
            format!("must be at least {workers}, one for each worker; or set `server.workers` to {most}"),
        );
    } else if most / workers < FEW_CONNECTIONS {
        let whose = if most / workers == 1 { "everybody's" } else { "that user's" };
        layers.warn(
            KEY,
            format!(
                "leaves each worker {} (of {workers} workers): a user's downloads can hold up {whose} pages; \
                 raise it to {}, or lower `server.workers`",
                most / workers,
                FEW_CONNECTIONS * workers
            ),
        );
    }
}

/// The routes that are complete.
fn routes(listed: Vec<Option<Route>>, layers: &mut Layers) -> Vec<(Vec<AccessPath>, Vec<Url>)> {
    let mut routes: Vec<(Vec<AccessPath>, Vec<Url>)> = Vec::new();
    for (index, route) in listed.into_iter().enumerate() {
        let Some(route) = route else { continue };
        let key = format!("portal.routes.{index}");
        let OneOrMore(paths) = route.path.unwrap_or(OneOrMore(Vec::new()));
        if paths.is_empty() && layers.sound(&[&format!("portal.routes[{index}].path")]) {
            layers.fault(
                &format!("{key}.path"),
                "is missing; say which paths go to these servers, such as `/api/*`",
            );
        }
        let upstreams: Vec<_> = route.upstreams.0.into_iter().map(|UpstreamUrl(url)| url).collect();
        check_upstreams(&format!("{key}.upstreams"), &upstreams, layers);
        routes.push((paths, upstreams));
        let all = PathRoutes::new(routes.iter().map(|(paths, _)| paths.clone()).collect());
        if let Some(cover) = all.cover_of(routes.len() - 1).filter(|_| layers.sound(&["portal.routes"])) {
            let by = layers.written_at(&format!("portal.routes.{cover}"));
            layers.warn(&key, format!("never matches: the route at {by} comes first and takes all of it"));
        }
    }
    routes
}

/// `key` is the key of the list.
fn check_upstreams(key: &str, upstreams: &[Url], layers: &mut Layers) {
    if upstreams.is_empty() && layers.sound(&[&shown(&steps(key))]) {
        if layers.says(key) {
            layers.fault(key, "is empty; list at least one server of the portal");
        } else {
            layers.missing(key, "list the portal's servers, such as `[\"http://127.0.0.1:3000\"]`");
        }
    }
    for (index, url) in upstreams.iter().enumerate() {
        if upstreams[..index].contains(url) && layers.sound(&[&shown(&steps(key))]) {
            layers.fault(key, format!("lists `{url}` twice"));
        }
    }
}

fn check_origin(origin: OriginAs, host: &HostName, upstreams: &[Url], layers: &mut Layers) {
    const KEY: &str = "portal.origin";
    let is_plain = |url: &Url| url.scheme() != "https";
    if origin == OriginAs::Client || *host != HostName::Public || upstreams.is_empty() {
        return;
    }
    if !upstreams.iter().any(is_plain) {
        layers.warn(KEY, "has no effect: all of `portal.upstreams` are `https`, and so is the origin");
    } else if !upstreams.iter().all(is_plain) {
        layers.fault(KEY, "needs `portal.upstreams` that are all `http`: their origin depends on it");
    }
}

fn check_host(host: &HostName, upstreams: &[Url], layers: &mut Layers) {
    if *host == HostName::Upstream && upstreams.iter().any(|url| url.scheme() == "unix") {
        layers.fault(
            "portal.host",
            "is `upstream`, and a Unix socket has no host; give the name, or leave it out",
        );
    }
}

/// A name that is short enough for a heading.
struct Name(String);

impl ConfigValue for Name {
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

impl ConfigValue for Sharing {
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

/// How the portal is told which site a request comes from.
#[derive(Clone, Copy, PartialEq)]
enum OriginAs {
    Client,
    Upstream,
}

impl ConfigValue for OriginAs {
    const EXPECTED: &'static str = "`client` or `upstream`";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "client" => Ok(Self::Client),
            "upstream" => Ok(Self::Upstream),
            _ => Err(format!("`{text}` is not {}", Self::EXPECTED)),
        }
    }
}

impl ConfigValue for Policy {
    const EXPECTED: &'static str = "`refuse` or `allow`";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "allow" => Ok(Self::Allow),
            _ => Err(format!("`{text}` is not {}", Self::EXPECTED)),
        }
    }
}

impl ConfigValue for Hsts {
    const EXPECTED: &'static str = "`portal`, `off` or a value such as `max-age=31536000; includeSubDomains`";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "portal" => return Ok(Self::Portal),
            "off" => return Ok(Self::Off),
            _ => {}
        }
        let mut has_age = false;
        let is_known = text.split(';').map(str::trim).all(|directive| {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            match name.to_ascii_lowercase().as_str() {
                "max-age" if !has_age => {
                    has_age = true;
                    !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit())
                }
                "includesubdomains" | "preload" => directive.len() == name.len(),
                _ => false,
            }
        });
        let value = HeaderValue::from_str(text).ok().filter(|_| is_known && has_age);
        value.map(Self::Says).ok_or_else(|| format!("`{text}` is not {}", Self::EXPECTED))
    }
}

/// An origin of the portal.
#[derive(PartialEq)]
struct UpstreamUrl(Url);

impl ConfigValue for UpstreamUrl {
    const EXPECTED: &'static str = "a URL such as `http://127.0.0.1:3000`, or `unix:/run/app.sock`";

    fn read(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix("unix:") else {
            return origin(text, &["http", "https"]).map(Self);
        };
        socket_path(path)?;
        // Exactly as written: a path that a URL would normalise would name another file.
        let url = Url::parse(text).ok().filter(|url| url.path() == path && url.as_str() == text);
        url.map(Self).ok_or_else(|| {
            format!("`{text}` has characters that the path of a socket may not have here: only letters, digits and `/-._~`")
        })
    }
}

impl ConfigValue for HostName {
    const EXPECTED: &'static str = "`public`, `upstream`, or a host such as `portal.internal`";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "public" => Ok(Self::Public),
            "upstream" => Ok(Self::Upstream),
            _ => {
                // The same rules as for the host of a URL, and no letter changed.
                let url = origin(&format!("http://{text}"), &["http"]).ok();
                let name: Option<Authority> = text.parse().ok();
                let (Some(_), Some(name), true) = (url, name, text.is_ascii() && !text.ends_with('/')) else {
                    return Err(format!("`{text}` is not {}", Self::EXPECTED));
                };
                Ok(Self::Other(name))
            }
        }
    }
}

impl ConfigValue for ServerName<'static> {
    const EXPECTED: &'static str = "the name in a certificate, such as `portal.internal`";

    fn read(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
            .map_err(|_| format!("`{text}` is not {}, without a port", Self::EXPECTED))
    }
}

/// A link to the support.
struct Support(String);

impl ConfigValue for Support {
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
