//! `portcullis check`: what would stop `serve`, as far as files tell: configuration, certificate, keys. Touches no store.

use serde::Serialize;

use super::output::Output;
use crate::{config::Config, tls, upstream::Connector};

#[derive(Serialize)]
struct Report {
    ok: bool,
    public_url: String,
    listen: Vec<String>,
    upstreams: Vec<String>,
    database: String,
    warnings: usize,
}

pub(super) fn run(config: &Config, output: Output) -> anyhow::Result<()> {
    tls::load(&config.tls)?;
    config.key.read()?;
    Connector::new(&config.upstream)?;
    let report = Report {
        ok: true,
        public_url: config.web.public_url.to_string(),
        listen: config.server.listen.iter().map(ToString::to_string).collect(),
        upstreams: config.upstream.upstreams.iter().map(ToString::to_string).collect(),
        database: config.database.to_string(),
        warnings: config.warnings.iter().count(),
    };
    output.print(&report, |report| {
        format!(
            "The configuration is good: {} on {}, before {}.",
            report.public_url,
            report.listen.join(", "),
            report.upstreams.join(", "),
        )
    });
    Ok(())
}
