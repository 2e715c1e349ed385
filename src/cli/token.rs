//! `portcullis token …`: tokens for scripts and other machines without a browser.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{ArgGroup, Args, Subcommand};
use ipnet::IpNet;
use serde::Serialize;

use super::output::{self, Output};
use crate::{
    administration::For,
    app::Stores,
    clock::{Clock as _, SystemClock, Timestamp},
    config::Config,
    tokens::{Scope, TokenRecord},
};

/// The default lifetime of a token.
const LIFETIME: &str = "365d";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a token for a user or a service, and print it this once
    Create(Create),
    /// List tokens: whom each is for, how long it lasts, when it was last used
    List {
        /// Also those that were revoked or replaced
        #[arg(long)]
        all: bool,
    },
    /// Show a token's limits and history, but never the token itself
    Show { name: String },
    /// Revoke a token; what it has open ends on every gateway within a second
    Revoke { name: String },
    /// Replace a token with a new one that has the same name and limits, and print that this once
    Rotate(Rotate),
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("whom").required(true).args(["user", "service"])))]
pub(super) struct Create {
    /// A name to list, rotate and revoke it by
    name: String,
    /// Act as this user, with the groups the user has at the time
    #[arg(long = "for", value_name = "EMAIL")]
    user: Option<String>,
    /// Act as a service, which the portal sees as the user `service:NAME`
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only for this path; `/api/*` is everything below. Repeatable, like the options below
    #[arg(long, value_name = "PATH")]
    path: Vec<String>,
    /// Only for this method, such as GET
    #[arg(long, value_name = "METHOD")]
    method: Vec<String>,
    /// Only from this address or network, such as 10.0.0.0/8
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    network: Vec<IpNet>,
    /// A group of the service; of a user's groups, only this one
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// Only for this site, by its host
    #[arg(long, value_name = "HOST")]
    site: Vec<String>,
    /// When it expires: after a time such as 90d, or `never`
    #[arg(long, value_name = "TIME", default_value = LIFETIME, value_parser = lifetime)]
    expires: Lifetime,
}

#[derive(Debug, Args)]
pub(super) struct Rotate {
    name: String,
    /// For how long the old token keeps working
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    overlap: Duration,
    /// When the new one expires: after a time such as 90d, or `never`
    #[arg(long, value_name = "TIME", default_value = LIFETIME, value_parser = lifetime)]
    expires: Lifetime,
}

/// From now on; `None`: for ever.
#[derive(Clone, Copy, Debug)]
struct Lifetime(Option<Duration>);

impl Lifetime {
    fn end(self) -> Option<Timestamp> {
        self.0.map(|lifetime| SystemClock.now().plus(lifetime))
    }
}

/// A new token.
#[derive(Serialize)]
struct Made {
    token: String,
    name: String,
    user: String,
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_expires_at: Option<String>,
}

#[derive(Serialize)]
struct TokenFact {
    name: String,
    /// Its prefix, by which a leaked token can be identified.
    prefix: String,
    user: String,
    status: &'static str,
    scope: Scope,
    created_at: String,
    expires_at: Option<String>,
    revoked_at: Option<String>,
    last_used_at: Option<String>,
}

#[derive(Serialize)]
struct Revoked {
    name: String,
    revoked: usize,
}

pub(super) async fn run(
    command: Command,
    config: &Config,
    stores: &Stores,
    output: Output,
) -> anyhow::Result<()> {
    let administration = &stores.administration;
    match command {
        Command::Create(new) => create(new, config, stores, output).await?,
        Command::List { all } => {
            let now = SystemClock.now();
            let tokens = administration.all_tokens().await?;
            let facts: Vec<_> = tokens
                .iter()
                .map(|(record, user)| TokenFact::of(record, user, now))
                .filter(|fact| all || !matches!(fact.status, "revoked" | "replaced"))
                .collect();
            output.print(&facts, |facts| list(facts));
        }
        Command::Show { name } => {
            let now = SystemClock.now();
            let tokens = administration.tokens_named(&name).await?;
            let facts: Vec<_> =
                tokens.iter().map(|(record, user)| TokenFact::of(record, user, now)).collect();
            output.print(&facts, |facts| {
                facts.iter().map(TokenFact::in_words).collect::<Vec<_>>().join("\n\n")
            });
        }
        Command::Revoke { name } => {
            let revoked = administration.revoke_token(&name).await?;
            output.print(&Revoked { name, revoked }, |fact| {
                format!("Revoked {}. It has no effect on sessions.", fact.name)
            });
        }
        Command::Rotate(Rotate { name, overlap, expires }) => {
            let until = SystemClock.now().plus(overlap);
            let (token, record) = administration.rotate_token(&name, expires.end(), overlap).await?;
            let user = administration.holder(&record.holder).await?;
            let made =
                Made { previous_expires_at: Some(until.to_string()), ..Made::of(token, &record, user) };
            print_once(&made, output)?;
        }
    }
    Ok(())
}

async fn create(new: Create, config: &Config, stores: &Stores, output: Output) -> anyhow::Result<()> {
    let Create { name, user, service, path, method, network, group, site, expires } = new;
    let served: Vec<_> =
        config.sites().iter().map(|site| super::check_request::authority_of(&site.public_url)).collect();
    for site in &site {
        if !served.iter().any(|known| site.eq_ignore_ascii_case(known)) {
            bail!("there is no site {site}: this gateway serves {}", served.join(" and "));
        }
    }
    if let Some(group) = group.iter().find(|group| group.trim().is_empty() || group.contains(',')) {
        bail!("{group:?} is no group: give one name with each --group");
    }
    let whom = match (&user, &service) {
        (Some(email), _) => For::User(email),
        (None, Some(service)) => For::Service(service),
        (None, None) => bail!("say whom the token is for: --for EMAIL or --service NAME"),
    };
    let scope = Scope { paths: path, methods: method, networks: network, groups: group, sites: site };
    let (token, record) = stores.administration.create_token(&name, whom, scope, expires.end()).await?;
    let user = stores.administration.holder(&record.holder).await?;
    print_once(&Made::of(token, &record, user), output)
}

/// Prints the token, which cannot be printed a second time.
fn print_once(made: &Made, output: Output) -> anyhow::Result<()> {
    if !output.json {
        let until = made
            .expires_at
            .as_ref()
            .map_or_else(|| "never expires".to_owned(), |end| format!("expires {end}"));
        output::explain(&format!(
            "The token {} acts as {} and {until}. Store it now: it is not shown again.",
            made.name, made.user
        ));
    }
    output.try_print(made, |made| made.token.clone()).with_context(|| {
        format!("cannot print the token: revoke it with `portcullis token revoke {}`", made.name)
    })
}

impl Made {
    fn of(token: String, record: &TokenRecord, user: String) -> Self {
        Self {
            token,
            name: record.name.clone(),
            user,
            expires_at: record.expires_at.map(|end| end.to_string()),
            previous_expires_at: None,
        }
    }
}

impl TokenFact {
    fn of(record: &TokenRecord, user: &str, now: Timestamp) -> Self {
        let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
        let status = if record.revoked_at.is_some() {
            "revoked"
        } else if record.expires_at.is_some_and(|end| end <= now) {
            if record.is_current { "expired" } else { "replaced" }
        } else if record.is_current {
            "active"
        } else {
            "overlapping"
        };
        Self {
            name: record.name.clone(),
            prefix: format!("pcl_{}", record.id),
            user: user.to_owned(),
            status,
            scope: record.scope.clone(),
            created_at: record.created_at.to_string(),
            expires_at: time(record.expires_at),
            revoked_at: time(record.revoked_at),
            last_used_at: time(record.last_used_at),
        }
    }

    fn limits(&self) -> Vec<String> {
        let Scope { paths, methods, networks, groups, sites } = &self.scope;
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        [("path", paths), ("method", methods), ("network", &networks), ("group", groups), ("site", sites)]
            .into_iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(what, list)| format!("{what} {}", list.join(", ")))
            .collect()
    }

    fn in_words(&self) -> String {
        let or = |time: &Option<String>, none: &str| time.clone().unwrap_or_else(|| none.to_owned());
        let mut lines = vec![
            format!("{} ({}), {}", self.name, self.prefix, self.status),
            format!("  acts as    {}", self.user),
            format!("  created    {}", self.created_at),
            format!("  expires    {}", or(&self.expires_at, "never")),
            format!("  last used  {}", or(&self.last_used_at, "never")),
        ];
        lines.extend(self.revoked_at.as_ref().map(|at| format!("  revoked    {at}")));
        let limits = self.limits();
        let limits = if limits.is_empty() { "none".to_owned() } else { limits.join("; ") };
        lines.push(format!("  limits     {limits}"));
        lines.join("\n")
    }
}

fn list(tokens: &[TokenFact]) -> String {
    if tokens.is_empty() {
        return "No tokens.".to_owned();
    }
    let rows: Vec<[String; 6]> = tokens
        .iter()
        .map(|token| {
            [
                token.name.clone(),
                token.user.clone(),
                token.status.to_owned(),
                token.expires_at.clone().unwrap_or_else(|| "never".to_owned()),
                token.last_used_at.clone().unwrap_or_else(|| "never".to_owned()),
                token.limits().join("; "),
            ]
        })
        .collect();
    output::table(["TOKEN", "USER", "STATUS", "EXPIRES", "LAST USED", "LIMITS"], &rows)
}

/// A network, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| "expected an address or a network such as 10.0.0.0/8".to_owned())
}

fn lifetime(text: &str) -> anyhow::Result<Lifetime> {
    if text == "never" {
        return Ok(Lifetime(None));
    }
    let lifetime =
        humantime::parse_duration(text).map_err(|error| anyhow!("{error}; expected 90d, or `never`"))?;
    if lifetime.is_zero() {
        bail!("it would expire at once");
    }
    Ok(Lifetime(Some(lifetime)))
}
