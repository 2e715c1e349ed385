//! `portcullis serve`: runs the gateway until it is stopped.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::sources;
use crate::{
    app::App,
    config::Config,
    telemetry::{log, panics},
};

/// How long flushing the log may take at the end.
const LAST_LINES: std::time::Duration = std::time::Duration::from_secs(2);

pub(super) async fn run(config: Config) -> anyhow::Result<()> {
    let lines = log::init(&config.log)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), configuration = sources(&config), "starting");
    let (public_url, mandatory_from) = (config.web.public_url.clone(), config.rollout.written());
    let app = Box::pin(App::build(config, &lines)).await?;
    panics::report(app.metrics());
    let users = app.stores().administration.users.count().await?;
    tracing::info!(
        %public_url,
        users,
        certificate_expires = %app.certificates().not_after(),
        mandatory_from = mandatory_from.as_deref().unwrap_or("now"),
        "serving"
    );
    if users == 0 {
        tracing::warn!("there are no users yet: add one with `portcullis user add EMAIL`");
    }
    for address in app.addresses() {
        tracing::info!(%address, "listening");
    }
    for address in app.redirect_addresses() {
        tracing::info!(%address, "leading plain HTTP to HTTPS");
    }
    let served = app.serve(stop_on_signal()?).await;
    lines.flush(LAST_LINES);
    served
}

/// A token that is cancelled by SIGTERM or SIGINT.
pub(super) fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let drain = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let told = drain.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: no new connections, those open may finish");
        told.cancel();
    });
    Ok(drain)
}
