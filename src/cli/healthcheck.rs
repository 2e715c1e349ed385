//! `portcullis healthcheck`: whether the gateway of this configuration is healthy, for containers. Opens no store.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::output::Output;
use crate::config::Config;

/// The longest wait for a response.
const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum part of a response that is read.
const MOST: u64 = 16 * 1024;

#[derive(Debug, Args)]
pub(super) struct HealthcheckArgs {
    /// Ask whether its stores answer too (/ready), not only whether it runs (/live). Restarting it would not mend a store
    #[arg(long)]
    ready: bool,
}

#[derive(Serialize)]
struct Health {
    healthy: bool,
    path: &'static str,
    answer: String,
}

pub(super) async fn run(arguments: &HealthcheckArgs, config: &Config, output: Output) -> anyhow::Result<()> {
    let Some(address) = config.admin_listen else {
        bail!(
            "there is nothing to ask: `server.admin_listen` is off. Set it to `127.0.0.1:9180`, for example"
        );
    };
    let address = reachable(address);
    let path = if arguments.ready { "/ready" } else { "/live" };
    let asked = timeout(PATIENCE, ask(address, path)).await;
    let answer =
        asked.with_context(|| format!("{address} did not answer within {} s", PATIENCE.as_secs()))?;
    let answer = answer.with_context(|| format!("no gateway answers on {address} (server.admin_listen)"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let healthy = head.split(' ').nth(1) == Some("200");
    let body = body.trim();
    if !healthy {
        bail!("the gateway is not healthy: {body}");
    }
    output.print(&Health { healthy, path, answer: body.to_owned() }, |health| health.answer.clone());
    Ok(())
}

/// The address of a wildcard listener, as reached from this machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

async fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    socket.take(MOST).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
