//! Reads the configuration from files and environment: every module's own `Config`, or all faults at once.
//!
//! The layers, each overriding the one before: the defaults beside each key in the section files, the configuration
//! files in their order, `PORTCULLIS_…` variables, flags. Opens no file that a value names, except for secrets.

mod access;
mod clients;
mod identity;
mod key_path;
mod kinds;
mod known;
mod layers;
mod log;
mod login;
mod mail;
mod masking;
mod portal;
mod problems;
mod second_factor;
mod server;
mod sessions;
mod site_scope;
mod sites;
mod slips;
mod source;
mod storage;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;
mod values;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use figment::value::Dict;
use serde::Deserialize;
use url::Url;

use self::layers::Layers;
pub use self::problems::{Location, Position, Problem, Problems, Severity};
use crate::web::{logout::LogoutPaths, path::PathPattern};

/// The settings of a gateway: one field per module.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: crate::server::Config,
    pub web: crate::web::Config,
    pub tls: crate::tls::Config,
    /// Which certificates of clients count; absent: nobody is asked for one.
    pub client_certificates: Option<crate::client_certificates::Config>,
    /// What each of those clients may do as a machine.
    pub client_scopes: Vec<crate::tokens::Scope>,
    pub upstream: crate::upstream::Config,
    /// Paths that go to other servers of the portal.
    pub routes: Vec<RouteConfig>,
    pub pages: crate::pages::Config,
    pub portal_answers: crate::web::portal_answers::Config,
    /// The `Clear-Site-Data` value for a sign-out; `None`: not sent.
    pub clear_on_sign_out: Option<http::HeaderValue>,
    /// The paths where the portal logs out.
    pub logout_paths: LogoutPaths,
    /// Requests to these paths do not count as use of a session.
    pub passive_paths: Vec<PathPattern>,
    /// What else counts as use of a session.
    pub activity: crate::sessions::Activity,
    pub database: crate::database::Config,
    /// The key that seals secrets at rest.
    pub key: crate::sealing::KeySource,
    pub sessions: crate::sessions::Config,
    pub saved_forms: crate::saved_forms::Config,
    pub credentials: crate::credentials::Config,
    pub throttle: crate::throttle::Config,
    /// What users may do with their own tokens.
    pub tokens: crate::tokens::Config,
    pub rollout: crate::rollout::Config,
    pub identity: crate::identity::Config,
    /// The access rules of the first site.
    pub access: crate::access::Config,
    /// How mail is sent; absent: none is.
    pub mail: Option<crate::mail::Config>,
    pub log: crate::telemetry::log::Config,
    /// Whether each request is logged.
    pub access_log: bool,
    /// The address of `/live`, `/ready` and `/metrics`; `None`: not served.
    pub admin_listen: Option<SocketAddr>,
    /// All sites except the first, whose settings are the fields above.
    pub others: Vec<SiteConfig>,
    /// Settings that work but are probably not meant. The caller shows them.
    pub warnings: Problems,
    /// The files that were read, in their order. Empty if the environment sets everything.
    pub files: Vec<PathBuf>,
}

/// The settings of one site.
#[derive(Clone, Debug)]
pub struct SiteConfig {
    pub public_url: Url,
    pub upstream: crate::upstream::Config,
    pub routes: Vec<RouteConfig>,
    pub pages: crate::pages::Config,
    pub portal_answers: crate::web::portal_answers::Config,
    pub logout_paths: LogoutPaths,
    pub identity: crate::identity::Config,
    pub access: crate::access::Config,
}

/// Paths of a site that go to their own servers.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    pub paths: Vec<crate::access::AccessPath>,
    pub upstream: crate::upstream::Config,
}

/// A key set on the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The flag as typed, such as `--listen`; faults name it.
    pub name: String,
    /// The key it sets, such as `server.listen`.
    pub key: String,
    /// As in an environment variable: text, or a number, a boolean or a list as in TOML.
    pub value: String,
}

/// The top level of a configuration file.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Document {
    server: server::Section,
    tls: tls::Section,
    portal: portal::Section,
    storage: storage::Section,
    sessions: sessions::Section,
    login: login::Section,
    tokens: tokens::Section,
    second_factor: second_factor::Section,
    identity: identity::Section,
    access: access::Section,
    mail: mail::Section,
    log: log::Section,
    /// Further portals, each with its differences. Read one by one.
    #[serde(rename = "sites")]
    _sites: Vec<Option<Dict>>,
}

/// The settings of another store than the configured one, `own`, whose password and authority are the defaults.
pub fn other_store(
    url: &str,
    own: &crate::database::Config,
    password_file: Option<&std::path::Path>,
    ca: Option<PathBuf>,
) -> Result<crate::database::Config, String> {
    storage::other(url, own, password_file, ca)
}

/// Whether the environment sets anything, as in a container.
pub fn is_in_environment(environment: impl IntoIterator<Item = (OsString, OsString)>) -> bool {
    environment.into_iter().any(|variable| layers::ours(variable).is_some())
}

impl Config {
    /// Reads `files` in their order, then the variables in `environment` that begin with `PORTCULLIS_`, then `flags`.
    ///
    /// `environment` is the result of `std::env::vars_os()`. An error contains all problems there are.
    pub fn load(
        files: &[PathBuf],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[Flag],
    ) -> Result<Self, Problems> {
        let mut layers = Layers::gather(files, environment, flags);
        let mut document: Document = layers.read();

        let server = document.server.validate(&mut layers);
        let site = server.web.as_ref().map(|web| &web.public_url);
        let others = sites::read(&mut layers);
        sites::check_addresses(site, &others, &mut layers);
        let urls = site.into_iter().chain(others.iter().filter_map(|other| other.public_url.as_ref()));
        let urls: Vec<Url> = urls.cloned().collect();
        let hosts = sites::hosts(&urls);
        if hosts.len() < urls.len() && server.web.as_ref().is_some_and(|web| web.believes_forwarded_host) {
            let message = "several sites have the same host: the proxy has to send the port with it";
            layers.warn("server.client_host", message);
        }
        let (client_certificates, client_scopes) = document.tls.clients(&urls, &mut layers);
        let tls = document.tls.validate(hosts, &mut layers);
        let portal = document.portal.validate(server.server.workers, &mut layers);
        let storage = document.storage.validate(&mut layers);
        let sessions = document.sessions.validate(&mut layers);
        let login = document.login.validate(&mut layers);
        let tokens = document.tokens.validate(&mut layers);
        let portal_name = portal.pages.as_ref().map(|pages| pages.portal_name.as_str());
        let second_factor = document.second_factor.validate(portal_name, &mut layers);
        let origin = server.web.as_ref().map(|web| web.public_url.origin().ascii_serialization());
        let inactivity = sessions.sessions.inactivity;
        let identity =
            document.identity.validate(origin.as_deref(), inactivity, portal.pass_headers, &mut layers);
        let access = document.access.validate(site, &urls, &mut layers);
        let workers = server.server.workers;
        let others = others.into_iter().map(|other| other.validate(&urls, workers, inactivity, &mut layers));
        let others: Option<Vec<_>> = others.collect();
        let mail = document.mail.validate(site, portal_name, &mut layers);
        let log = document.log.validate();

        let (faults, warnings) = layers.finish();
        let (Some(web), Some(pages), Some(others), true) =
            (server.web, portal.pages, others, faults.is_empty())
        else {
            return Err(faults);
        };
        Ok(Self {
            server: server.server,
            web,
            tls,
            client_certificates,
            client_scopes,
            upstream: portal.upstream,
            routes: portal.routes,
            pages,
            portal_answers: portal.answers,
            clear_on_sign_out: sessions.clear_on_sign_out,
            logout_paths: portal.logout_paths,
            passive_paths: sessions.passive_paths,
            activity: sessions.activity,
            database: storage.database,
            key: storage.key,
            sessions: sessions.sessions,
            saved_forms: sessions.saved_forms,
            credentials: crate::credentials::Config {
                password_min_length: login.password_min_length,
                password_max_length: login.password_max_length,
                issuer: second_factor.issuer,
            },
            throttle: login.throttle,
            tokens,
            rollout: second_factor.rollout,
            identity,
            access,
            mail,
            log: log.log,
            access_log: log.access_log,
            admin_listen: server.admin_listen,
            others,
            warnings,
            files: files.to_vec(),
        })
    }
}
