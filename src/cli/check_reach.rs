//! `portcullis check --reach`: which forged fields another proxy that asks this gateway lets through. Sends requests to
//! the public address, as any client could; opens no store.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::output::Output;
use crate::{
    config::Config,
    upstream::{Connector, Peer, PeerAddress},
};

/// The longest wait for a response.
const PATIENCE: Duration = Duration::from_secs(10);
/// Maximum part of a response that is read.
const MOST: u64 = 64 * 1024;
/// A path that no portal has.
const NOWHERE: &str = "/portcullis-reach";
/// A reserved name without a meaning: a gateway that receives it refuses the request.
const MARK: &str = "X-Portcullis-Reach";
/// Some of the names that portals trust.
const IDENTITY: [&str; 6] =
    ["Remote-User", "remote-groups", "Remote_User", "Remote.User", "X-Forwarded-User", "X-Original-URL"];
/// A field that proxies set, a forged value, and the gateway's text if it trusts that value.
const REPORTS: [(&str, &str, &str); 6] = [
    ("X-Forwarded-Uri", "/.portcullis/reach", "the gateway's own"),
    ("X-Forwarded-Method", "TRACE", "the method is not allowed"),
    ("X-Forwarded-Host", "portcullis-reach.invalid", "this gateway answers for"),
    ("X-Forwarded-Proto", "http", "did not come over https"),
    ("X-Portcullis-Url", "https://portcullis-reach.invalid/", "this gateway answers for"),
    ("X-Portcullis-Method", "TRACE", "the method is not allowed"),
];

#[derive(Serialize)]
struct Report {
    ok: bool,
    public_url: String,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Finding {
    ok: bool,
    what: String,
}

/// Status and body of a response.
struct Heard {
    status: u16,
    body: String,
}

/// The target of the requests.
struct Line {
    peer: Peer,
    connector: Connector,
    host: String,
}

/// `at` is the address to connect to, instead of the one that the name resolves to.
pub(super) async fn run(at: Option<SocketAddr>, config: &Config, output: Output) -> anyhow::Result<()> {
    if config.server.proxies_listen.is_none() {
        bail!("no proxy asks this gateway: `server.forward_auth_listen` is not set");
    }
    let line = Line::to_public(at, config).await?;
    let findings = findings(&line).await?;
    let report = Report {
        ok: findings.iter().all(|finding| finding.ok),
        public_url: config.web.public_url.to_string(),
        findings,
    };
    output.print(&report, |report| {
        let line =
            |finding: &Finding| format!("{}  {}", if finding.ok { "ok  " } else { "BAD " }, finding.what);
        report.findings.iter().map(line).collect::<Vec<_>>().join("\n")
    });
    if !report.ok {
        bail!("the proxy at {} lets through what it must not", report.public_url);
    }
    Ok(())
}

async fn findings(line: &Line) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut find = |ok, what: String| findings.push(Finding { ok, what });
    let own = line.ask("/.portcullis/whoami", "").await?;
    let serves = own.status == 401 && own.body.contains("There is no session.");
    find(serves, "the proxy passes /.portcullis/ on to the gateway".to_owned());
    let usual = line.ask(NOWHERE, "").await?;
    let marked = line.ask(NOWHERE, &format!("{MARK}: forged\r\n")).await?;
    find(marked.names(MARK), "the gateway is asked, and sees what clients send".to_owned());
    for name in IDENTITY {
        let heard = line.ask(NOWHERE, &format!("{name}: forged\r\n")).await?;
        let (ok, what) = if heard.names(name) {
            (true, "is refused by the gateway")
        } else if heard.status == usual.status {
            (true, "is removed by the proxy")
        } else if heard.status >= 400 {
            (true, "is refused by the proxy")
        } else {
            (false, "gets through")
        };
        find(ok, format!("a forged {name} {what}"));
    }
    for (name, value, believed) in REPORTS {
        let heard = line.ask(NOWHERE, &format!("{name}: {value}\r\n")).await?;
        let ok = !heard.body.contains(believed);
        let what = if ok {
            "is not believed"
        } else {
            "is believed: any client can say what the gateway decides about"
        };
        find(ok, format!("{name} of a client {what}"));
    }
    Ok(findings)
}

impl Heard {
    /// Whether the gateway names this field in a refusal.
    fn names(&self, name: &str) -> bool {
        self.status >= 400 && self.body.contains(&format!("the client sent {},", name.to_ascii_lowercase()))
    }
}

impl Line {
    /// The proxy's certificate is trusted as browsers would, or if it is the gateway's own.
    async fn to_public(at: Option<SocketAddr>, config: &Config) -> anyhow::Result<Self> {
        let url = &config.web.public_url;
        let host = url.authority().to_owned();
        let mut peer = Peer::parse(url).ok_or_else(|| anyhow!("{url} is no address"))?;
        if let Some(at) = at {
            peer.address = PeerAddress::Network { host: at.ip().to_string(), port: at.port() };
        }
        let mut towards = config.upstream.clone();
        (towards.upstreams, towards.ca) = (vec![url.clone()], None);
        let usual = Connector::new(&towards)?;
        let connector = match usual.try_out(&peer).await {
            Err(error) if error.is_of_tls() => {
                towards.ca = config.tls.pairs.first().map(|pair| pair.certificate.clone());
                Connector::new(&towards)?
            }
            Err(error) => return Err(error.into()),
            Ok(()) => usual,
        };
        Ok(Self { peer, connector, host })
    }

    async fn ask(&self, path: &str, fields: &str) -> anyhow::Result<Heard> {
        let answer = timeout(PATIENCE, self.exchange(path, fields)).await;
        let answer = answer.with_context(|| format!("{} did not answer", self.peer.label))??;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| anyhow!("{} does not answer in HTTP", self.peer.label))?;
        Ok(Heard {
            status,
            body: answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()),
        })
    }

    async fn exchange(&self, path: &str, fields: &str) -> anyhow::Result<String> {
        let mut stream = self.connector.stream(&self.peer).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nConnection: close\r\n{fields}\r\n",
            self.host
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // Some servers close without `close_notify`.
        let _ = stream.take(MOST).read_to_end(&mut answer).await;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}
