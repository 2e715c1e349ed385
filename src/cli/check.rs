//! `portcullis check`: what would stop `serve`, or turn browsers away, as far as files show: configuration,
//! certificate, keys; and whether the TLS of the portal's servers is trusted. Opens no store.

use anyhow::bail;
use serde::Serialize;
use url::Url;

use super::{
    output::{self, Output},
    sources,
};
use crate::{
    client_certificates::ClientCertificates,
    clock::{Clock as _, SystemClock},
    config::{Config, SiteConfig},
    errors::Chain,
    tls,
    upstream::{self, Connector, Peer},
};

#[derive(Serialize)]
struct Report {
    ok: bool,
    /// Empty if the environment sets everything.
    files: Vec<String>,
    public_url: String,
    listen: Vec<String>,
    upstreams: Vec<String>,
    /// Further sites.
    sites: Vec<Site>,
    database: String,
    certificate_expires_at: String,
    /// As it was written; `None`: mandatory now.
    mandatory_from: Option<String>,
    warnings: usize,
}

#[derive(Serialize)]
struct Site {
    public_url: String,
    upstreams: Vec<String>,
}

impl Site {
    fn of(site: &SiteConfig) -> Self {
        let texts = |urls: &[Url]| urls.iter().map(ToString::to_string).collect();
        Self { public_url: site.public_url.to_string(), upstreams: texts(&site.upstream.upstreams) }
    }

    fn in_words(&self) -> String {
        format!("{}, in front of {}", self.public_url, self.upstreams.join(", "))
    }
}

pub(super) async fn run(config: &Config, output: Output) -> anyhow::Result<()> {
    let certificates = tls::load(&config.tls)?;
    config.key.read()?;
    let now = SystemClock.now();
    let mut warnings: Vec<String> =
        certificates.warnings(now).into_iter().chain(certificates.strangers(now)).collect();
    if let Some(clients) = &config.client_certificates {
        warnings.extend(ClientCertificates::new(clients)?.warnings(now));
    }
    let sites = config.sites();
    for site in &sites {
        for servers in std::iter::once(&site.upstream).chain(site.routes.iter().map(|route| &route.upstream))
        {
            warnings.extend(try_servers(servers).await?);
        }
    }
    for warning in &warnings {
        output::explain(&format!("warning: {warning}"));
    }
    let faults: Vec<String> = certificates.faults(now).iter().map(ToString::to_string).collect();
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    let mut sites = sites.iter().map(Site::of);
    let Some(first) = sites.next() else { bail!("there is no site") };
    let report = Report {
        ok: true,
        files: config.files.iter().map(|file| super::absolute(file)).collect(),
        public_url: first.public_url,
        listen: config.server.listen.iter().map(ToString::to_string).collect(),
        upstreams: first.upstreams,
        sites: sites.collect(),
        database: config.database.to_string(),
        certificate_expires_at: certificates.not_after().to_string(),
        mandatory_from: config.rollout.written(),
        warnings: config.warnings.iter().count() + warnings.len(),
    };
    output.print(&report, |report| {
        let others = report.sites.iter().fold(String::new(), |mut others, site| {
            others.extend(["Another site: ", &site.in_words(), ".\n"]);
            others
        });
        format!(
            "The configuration is good: {} on {}, in front of {}.\n\
             {others}Read from {}. The certificate expires on {}. A second factor is mandatory {}.",
            report.public_url,
            report.listen.join(", "),
            report.upstreams.join(", "),
            sources(config),
            report.certificate_expires_at,
            report.mandatory_from.as_ref().map_or_else(|| "now".to_owned(), |from| format!("from {from} on")),
        )
    });
    Ok(())
}

/// The servers of the portal that could not be tried. An error if one is not trusted.
async fn try_servers(servers: &upstream::Config) -> anyhow::Result<Vec<String>> {
    let connector = Connector::new(servers)?;
    let mut untried = Vec::new();
    for peer in servers.upstreams.iter().filter_map(Peer::parse) {
        match connector.try_out(&peer).await {
            Err(error) if error.is_of_tls() => return Err(error.into()),
            Err(error) => {
                let what = if peer.tls.is_some() {
                    "the portal's TLS could not be tried"
                } else {
                    "the portal can't be reached"
                };
                untried.push(format!("{what}: {}", Chain(&error)));
            }
            Ok(()) => {}
        }
    }
    Ok(untried)
}
