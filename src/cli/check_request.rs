//! `portcullis check --request`: which rule decides about a request, why, and what the portal would be told. Sends
//! nothing, and opens a store only to look a user up.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{anyhow, bail};
use clap::Args;
use http::{HeaderMap, Method, uri::PathAndQuery};
use serde::Serialize;

use super::output::Output;
use crate::{
    access::{AccessLevel, AccessRequest, AccessRules, Explanation, SignedIn},
    administration::service_as_user,
    client_certificates::{ClientCertificates, Role, ShownCertificate},
    clock::{Clock as _, SystemClock},
    config::{Config, SiteConfig},
    identity::IdentityHeaders,
    tokens::{Scope, TokenRecord},
    users::User,
    web::{
        gate::method,
        path::{self, Territory},
    },
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Say which access rule decides about this request, as 'GET https://iot.example.com/path', and send nothing
    #[arg(long, value_name = "REQUEST")]
    request: Option<String>,
    /// The user who sends it, just signed in with a second factor; by default nobody in particular
    #[arg(long = "as", value_name = "EMAIL", requires = "request")]
    user: Option<String>,
    /// The token that it shows, by its name
    #[arg(long, value_name = "NAME", requires = "request", conflicts_with = "user")]
    token: Option<String>,
    /// The certificate that the client has, as a PEM file, and after it those that it sends beside it
    #[arg(long, value_name = "FILE", requires = "request", conflicts_with_all = ["user", "token"])]
    certificate: Option<PathBuf>,
    /// The client's address; by default one in no network
    #[arg(long, value_name = "IP", requires = "request")]
    from: Option<IpAddr>,
    /// Send forged requests to the public address, and say what the proxy there lets through that asks this gateway
    #[arg(long, conflicts_with = "request")]
    pub(super) reach: bool,
    /// Where to send them, in place of where the name of the public address leads
    #[arg(long, value_name = "IP:PORT", requires = "reach")]
    pub(super) at: Option<SocketAddr>,
}

/// The arguments of a check.
pub(super) struct Asks<'a> {
    request: &'a str,
    user: Option<&'a str>,
    token: Option<&'a str>,
    certificate: Option<&'a Path>,
    from: Option<IpAddr>,
}

impl Arguments {
    pub(super) fn asks(&self) -> Option<Asks<'_>> {
        let request = self.request.as_deref()?;
        let (user, token) = (self.user.as_deref(), self.token.as_deref());
        Some(Asks { request, user, token, certificate: self.certificate.as_deref(), from: self.from })
    }
}

#[derive(Serialize)]
struct Report {
    request: String,
    /// `None`: a stranger.
    user: Option<String>,
    /// One of the levels; `own` for a page of the gateway, `refused` for a malformed request.
    level: &'static str,
    max_age: Option<String>,
    /// Where the rule is written.
    rule: Option<String>,
    reason: String,
    /// Whether the portal gets the request.
    passes: bool,
    headers: BTreeMap<String, String>,
}

/// The sender of the request.
enum Who {
    Nobody,
    SignedIn(User),
    Token(Box<TokenRecord>, User),
    /// A machine, by what its certificate is limited to.
    Certificate(Scope, User),
}

impl Who {
    fn user(&self) -> Option<&User> {
        match self {
            Self::Nobody => None,
            Self::SignedIn(user) | Self::Token(_, user) | Self::Certificate(_, user) => Some(user),
        }
    }
}

/// A request as typed.
struct Typed<'a> {
    method: Method,
    /// `None`: the site's.
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

pub(super) async fn run(asks: &Asks<'_>, config: &Config, output: Output) -> anyhow::Result<()> {
    let typed = Typed::parse(asks.request)?;
    let who = match (asks.user, asks.token, asks.certificate) {
        (Some(email), ..) => Who::SignedIn(find(email, config).await?),
        (None, Some(name), _) => find_token(name, config).await?,
        (None, None, Some(file)) => find_certificate(file, config).await?,
        (None, None, None) => Who::Nobody,
    };
    let report = report(&typed, &who, asks.from, config)?;
    output.print(&report, Report::in_words);
    Ok(())
}

async fn find(email: &str, config: &Config) -> anyhow::Result<User> {
    let (stores, _log) = super::open(config).await?;
    let user = stores.administration.find(email).await?;
    let user = user.ok_or_else(|| anyhow!("there is no user {email}"))?;
    if user.disabled {
        bail!("{email} is disabled, and has no session");
    }
    Ok(user)
}

async fn find_token(name: &str, config: &Config) -> anyhow::Result<Who> {
    let (stores, _log) = super::open(config).await?;
    let (record, user) = stores.administration.token_holder(name).await?;
    if let Some(refusal) = record.is_over(SystemClock.now()) {
        bail!("the token {name} is {}: it is answered 401 wherever it matters", refusal.word());
    }
    if user.disabled {
        bail!("{} is disabled, and so is the token {name}", user.name);
    }
    Ok(Who::Token(Box::new(record), user))
}

/// As the first of `tls.clients` that fits has it.
async fn find_certificate(file: &Path, config: &Config) -> anyhow::Result<Who> {
    let Some(known) = &config.client_certificates else {
        bail!("nobody is asked for a certificate: `tls.client_ca` is not set")
    };
    let (now, shown) = (SystemClock.now(), ShownCertificate::read(file)?);
    let verified = ClientCertificates::new(known)?
        .judge(&shown, now)
        .map_err(|refused| anyhow!("{} is as good as none: {refused}", file.display()))?;
    let (client, scope) = (verified.client(), config.client_scopes.get(verified.index));
    let scope = scope.cloned().unwrap_or_default();
    let user = match &client.role {
        Role::Service(service) => service_as_user(service, &scope, now)?,
        Role::Machine(name) => {
            let user = find(name.as_str(), config).await?;
            User { groups: scope.groups_of_user(user.groups), ..user }
        }
        Role::FirstFactor(name) => bail!(
            "{} is in place of {name}'s password: it counts on the sign-in page and nowhere else",
            client.shows
        ),
    };
    Ok(Who::Certificate(scope, user))
}

impl<'a> Typed<'a> {
    /// A request that is handled before any rule: the reported level, and why.
    fn not_for_rules(&self, health_path: Option<&str>) -> Option<(&'static str, &'static str)> {
        let is_clean = PathAndQuery::try_from(self.target()).is_ok()
            && self.query.is_none_or(path::is_clean_query)
            && !self.target().contains([' ', '\t']);
        let refused = |reason| Some(("refused", reason));
        match path::check(self.path) {
            _ if method::is_misspelt(&self.method) => refused("methods are told by their case (501)"),
            _ if matches!(self.method, Method::TRACE | Method::CONNECT) => {
                refused("this method is for the gateway itself, which doesn't offer it (405)")
            }
            _ if !is_clean => {
                refused("the target has a character that no address may have as it is: encode it (400)")
            }
            Err(path::NotCanonical) => refused(
                "the path has a dot segment, a backslash, a control character or broken encoding (400)",
            ),
            Ok(Territory::Ours) => {
                Some(("own", "it is one of the gateway's own pages, for which there are no rules"))
            }
            Ok(Territory::Portal) if health_path == Some(self.path) => {
                Some(("own", "the gateway answers it itself (server.health_path)"))
            }
            Ok(Territory::Portal) => None,
        }
    }

    /// Path and query.
    fn target(&self) -> String {
        self.query.map_or_else(|| self.path.to_owned(), |query| format!("{}?{query}", self.path))
    }

    fn parse(text: &'a str) -> anyhow::Result<Self> {
        let text = text.trim();
        let (method, target) = match text.split_once(' ') {
            Some((method, target)) => (method, target.trim_start()),
            None => ("GET", text),
        };
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| anyhow!("`{method}` is no method"))?;
        let (authority, target) = match target.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                (Some(&rest[..end]), &rest[end..])
            }
            Some((scheme, _)) if !scheme.starts_with('/') => {
                bail!("`{scheme}` is not served; write `https://…`")
            }
            _ => (None, target),
        };
        let target = target.split('#').next().unwrap_or_default();
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let path = if path.is_empty() && authority.is_some() { "/" } else { path };
        if !path.starts_with('/') {
            bail!("write a method and an address, such as 'GET https://iot.example.com/path'");
        }
        Ok(Self { method, authority, path, query })
    }
}

/// A token that a user has made opens nothing that the user could not open.
fn explain(rules: &AccessRules, request: AccessRequest<'_>, who: &Who) -> Explanation {
    let is_own = match who {
        Who::Nobody | Who::SignedIn(_) => return rules.explain(&request),
        Who::Token(record, _) => record.is_own(),
        Who::Certificate(..) => false,
    };
    let as_person = is_own.then(|| rules.explain(&request));
    let as_person = as_person.filter(|explained| !explained.ruling.takes_tokens());
    as_person.unwrap_or_else(|| rules.explain(&request.with_token()))
}

fn report(typed: &Typed<'_>, who: &Who, from: Option<IpAddr>, config: &Config) -> anyhow::Result<Report> {
    let user = who.user();
    let bare = |level, reason: String| Report {
        request: format!("{} {}", typed.method, typed.path),
        user: user.map(|user| user.name.to_string()),
        level,
        max_age: None,
        rule: None,
        reason,
        passes: false,
        headers: BTreeMap::new(),
    };
    let sites = config.sites();
    let asked =
        |site: &&SiteConfig| typed.authority.is_none_or(|authority| is_of(authority, &site.public_url));
    let Some(site) = sites.iter().find(asked) else {
        let known: Vec<_> = sites.iter().map(|site| site.public_url.origin().ascii_serialization()).collect();
        return Ok(bare("refused", format!("this gateway answers for {} only (421)", known.join(" and "))));
    };
    if let Some((level, reason)) = typed.not_for_rules(config.web.health_path.as_deref()) {
        return Ok(bare(level, reason.to_owned()));
    }
    let rules = AccessRules::new(&site.access).map_err(|reason| anyhow!("access.rules: {reason}"))?;
    let address = from.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical();
    let request = AccessRequest::new(&typed.method, &HeaderMap::new(), typed.path, typed.query, address);
    let request = match user {
        Some(user) => request.by(SignedIn { name: user.name.as_str(), groups: &user.groups }),
        None => request,
    };
    let admitted = match who {
        Who::Nobody => false,
        Who::SignedIn(_) => true,
        Who::Token(record, _) => record.admits(&request, &authority_of(&site.public_url)),
        Who::Certificate(scope, _) => scope.admits(&request, &authority_of(&site.public_url)),
    };
    let explained = explain(&rules, request, who);
    let ruling = explained.ruling;
    let has_certificate = matches!(who, Who::Certificate(..));
    if has_certificate && ruling.asks_who() && !(admitted && ruling.takes_tokens()) {
        // Whoever has it is asked as everybody is.
        let without = report(typed, &Who::Nobody, from, config)?;
        let why = if admitted {
            "no certificate is enough for it"
        } else {
            "the certificate is not for this path, method, network or site"
        };
        let reason = format!("{why}; without it, {}", without.reason);
        return Ok(Report { reason, ..without });
    }
    let suffices = match who {
        Who::Nobody => false,
        Who::SignedIn(_) => ruling.level != AccessLevel::Deny,
        Who::Token(..) | Who::Certificate(..) => admitted && ruling.takes_tokens(),
    };
    let passes = ruling.level == AccessLevel::Bypass || suffices;
    let mut headers = BTreeMap::new();
    if let Some(user) = user.filter(|_| passes && admitted && ruling.asks_who()) {
        headers.extend(IdentityHeaders::new(&site.identity).told(user)?);
        if site.identity.assertion.is_some() {
            headers.insert("X-Portcullis-Jwt-Assertion".to_owned(), "signed for each session".to_owned());
        }
    }
    Ok(Report {
        max_age: ruling.max_age.map(|age| humantime::format_duration(age).to_string()),
        rule: Some(rules.place(&ruling).to_owned()),
        passes,
        headers,
        ..bare(ruling.level.as_str(), reason(typed, who, admitted, &explained))
    })
}

/// Whether this is the host of the site.
fn is_of(authority: &str, site: &url::Url) -> bool {
    let host = site.host_str().unwrap_or_default();
    let named = format!("{host}:{}", site.port_or_known_default().unwrap_or_default());
    authority.eq_ignore_ascii_case(&named) || (site.port().is_none() && authority.eq_ignore_ascii_case(host))
}

/// The site, in the form that tokens use.
pub(super) fn authority_of(site: &url::Url) -> String {
    let host = site.host_str().unwrap_or_default();
    site.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn reason(typed: &Typed<'_>, who: &Who, admitted: bool, explained: &Explanation) -> String {
    let (is_in, has_token) = (who.user().is_some(), matches!(who, Who::Token(..)));
    let has_certificate = matches!(who, Who::Certificate(..));
    let Explanation { ruling, path, method, is_reading } = explained;
    let mut reason = vec![match ruling.rule {
        Some(rule) => format!("rule {} is the first that matches", rule + 1),
        None => "no rule matches".to_owned(),
    }];
    if *is_reading {
        let read = if *method == typed.method { path.clone() } else { format!("{method} {path}") };
        reason.push(format!("some portals read this as {read}, and the strictest reading counts"));
    }
    let follows = match (ruling.level, is_in) {
        (AccessLevel::Deny, _) => "answered 403",
        (AccessLevel::OneFactor | AccessLevel::TwoFactor, _) if has_token && !admitted => {
            "the token is not for this path, method, network or site (401)"
        }
        (_, _) if has_token && !ruling.takes_tokens() => "no token has a fresh code (403)",
        (AccessLevel::OneFactor | AccessLevel::TwoFactor, true) if has_token => "passes with the token",
        (AccessLevel::OneFactor | AccessLevel::TwoFactor, true) if has_certificate => {
            "passes with the certificate"
        }
        (AccessLevel::Bypass, _) => "passes without a login",
        (AccessLevel::OneFactor | AccessLevel::TwoFactor, true) => "passes with a session",
        (AccessLevel::OneFactor | AccessLevel::TwoFactor, false) => "asked to sign in",
    };
    reason.push(follows.to_owned());
    if ruling.depends_on_user && !is_in {
        reason.push(
            "a rule for groups or users may decide differently for who is signed in (see --as)".to_owned(),
        );
    }
    reason.join("; ")
}

impl Report {
    fn in_words(&self) -> String {
        let by =
            self.user.as_ref().map_or_else(|| "without a session".to_owned(), |user| format!("as {user}"));
        let age =
            self.max_age.as_ref().map(|age| format!(", with a code no older than {age}")).unwrap_or_default();
        let mut lines = vec![format!("{}, {by}: {}{age}", self.request, self.level)];
        lines.extend(self.rule.as_ref().map(|rule| format!("Decided by: {rule}")));
        lines.push(format!("Reason: {}.", self.reason));
        if self.passes {
            lines.push(if self.headers.is_empty() {
                "The portal is told of no user.".to_owned()
            } else {
                "The portal is told:".to_owned()
            });
        }
        lines.extend(self.headers.iter().map(|(name, value)| format!("  {name}: {value}")));
        lines.join("\n")
    }
}
