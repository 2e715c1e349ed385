//! `portcullis check`: what would stop `serve`, or turn browsers away, as far as files tell: configuration, certificate,
//! keys; and whether we trust the TLS of the portal's servers. Touches no store.

use anyhow::bail;
use serde::Serialize;

use super::{
    output::{self, Output},
    sources,
};
use crate::{
    clock::{Clock as _, SystemClock},
    config::Config,
    errors::Chain,
    tls,
    upstream::{Connector, Peer},
};

#[derive(Serialize)]
struct Report {
    ok: bool,
    /// Empty: the environment says it all.
    files: Vec<String>,
    public_url: String,
    listen: Vec<String>,
    upstreams: Vec<String>,
    database: String,
    certificate_expires_at: String,
    /// As it was written; absent: it is mandatory now.
    mandatory_from: Option<String>,
    warnings: usize,
}

pub(super) async fn run(config: &Config, output: Output) -> anyhow::Result<()> {
    let certificate = tls::load(&config.tls)?.certificate;
    config.key.read()?;
    let connector = Connector::new(&config.upstream)?;
    let now = SystemClock.now();
    let mut warnings: Vec<String> =
        certificate.warning(now).into_iter().chain(certificate.stranger(now)).collect();
    for peer in config.upstream.upstreams.iter().filter_map(Peer::parse) {
        match connector.try_out(&peer).await {
            Err(error) if error.is_of_tls() => return Err(error.into()),
            Err(error) => warnings.push(format!("the portal's TLS could not be tried: {}", Chain(&error))),
            Ok(()) => {}
        }
    }
    for warning in &warnings {
        output::explain(&format!("warning: {warning}"));
    }
    let faults: Vec<String> = certificate.faults(now).iter().map(ToString::to_string).collect();
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    let report = Report {
        ok: true,
        files: config.files.iter().map(|file| super::absolute(file)).collect(),
        public_url: config.web.public_url.to_string(),
        listen: config.server.listen.iter().map(ToString::to_string).collect(),
        upstreams: config.upstream.upstreams.iter().map(ToString::to_string).collect(),
        database: config.database.to_string(),
        certificate_expires_at: certificate.not_after().to_string(),
        mandatory_from: config.rollout.written(),
        warnings: config.warnings.iter().count() + warnings.len(),
    };
    output.print(&report, |report| {
        format!(
            "The configuration is good: {} on {}, in front of {}.\n\
             Read from {}. The certificate expires on {}. A second factor is mandatory {}.",
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
