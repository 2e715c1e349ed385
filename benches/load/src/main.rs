//! Asks a server of HTTP/1.1 over TLS 1.3 again and again on connections that are kept, and says how often and how fast.
//!
//! It shares its core with the portal, so all that it does takes something away from what a quick server could show: two
//! system calls a request, and no list of anything. Whatever is not the answer 200 with a `Content-Length` ends the run.

mod link;

use std::{
    env, fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    crypto::aws_lc_rs::{default_provider, kx_group},
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::TLS13,
};

use crate::link::{Failure, Link};

const USAGE: &str = "portcullis-load ADDRESS AUTHORITY PATH CONNECTIONS SECONDS [NAME=VALUE | NAME=@FILE]

Prints `figures REQUESTS MICROSECONDS P99 BYTES`: answers, the time they took in all, that of a request in microseconds,
and the bytes of the answers. What comes last is a cookie; with a file, each request has the first word of its next line.";
/// Nothing may come for so long.
const GIVE_UP: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// What to do.
struct Plan {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    connections: usize,
    lasts: Duration,
    /// Heads, ready for the wire.
    requests: Vec<Vec<u8>>,
}

/// What came of it.
struct Figures {
    lasted: Duration,
    bytes: u64,
    /// Of each request.
    latencies: Vec<Duration>,
}

fn main() -> ExitCode {
    let Some(plan) = Plan::parse(env::args().skip(1).collect()) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match plan.and_then(|plan| run(&plan)) {
        Ok(figures) => {
            let said = writeln!(std::io::stdout(), "{figures}");
            ExitCode::from(u8::from(said.is_err()))
        }
        Err(failure) => {
            eprintln!("portcullis-load: {failure}");
            ExitCode::FAILURE
        }
    }
}

impl Plan {
    /// `None` when the words make no sense.
    fn parse(words: Vec<String>) -> Option<Result<Self, Failure>> {
        let mut words = words.into_iter();
        let address: SocketAddr = words.next()?.parse().ok()?;
        let (authority, path) = (words.next()?, words.next()?);
        let connections = words.next()?.parse().ok()?;
        let lasts = Duration::try_from_secs_f64(words.next()?.parse().ok()?).ok()?;
        let cookie = words.next();
        Some(Self::prepare(address, &authority, &path, cookie.as_deref()).map(|(tls, requests)| Self {
            address,
            tls,
            connections,
            lasts,
            requests,
        }))
    }

    fn prepare(
        address: SocketAddr,
        authority: &str,
        path: &str,
        cookie: Option<&str>,
    ) -> Result<(Arc<ClientConfig>, Vec<Vec<u8>>), Failure> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(authority)? {
            roots.add(certificate?)?;
        }
        // The same for everybody: what not every server has would be paid for by those that do.
        let mut provider = default_provider();
        provider.kx_groups = vec![kx_group::X25519];
        let tls = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let begin = format!("GET {path} HTTP/1.1\r\nHost: localhost:{}\r\n", address.port());
        let with = |cookie: &str| format!("{begin}Cookie: {cookie}\r\n\r\n").into_bytes();
        let requests = match cookie.map(|cookie| (cookie, cookie.split_once("=@"))) {
            None => vec![format!("{begin}\r\n").into_bytes()],
            Some((cookie, None)) => vec![with(cookie)],
            Some((_, Some((name, file)))) => {
                let values = fs::read_to_string(file)?;
                let values = values.lines().filter_map(|line| line.split_whitespace().next());
                values.map(|value| with(&format!("{name}={value}"))).collect()
            }
        };
        if requests.is_empty() {
            return Err(Failure::NoCookies);
        }
        Ok((Arc::new(tls), requests))
    }
}

fn run(plan: &Plan) -> Result<Figures, Failure> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut links = Vec::with_capacity(plan.connections);
    for number in 0..plan.connections {
        let link = connect(plan)?;
        epoll::add(&epoll, link.socket(), EventData::new_u64(number as u64), EventFlags::IN)?;
        links.push(link);
    }

    let mut requests = plan.requests.iter().cycle();
    let mut next = || requests.next().map_or(&[][..], Vec::as_slice);
    let mut latencies = Vec::with_capacity(1 << 20);
    let mut space = vec![0; 64 * 1024];
    let began = Instant::now();
    for link in &mut links {
        link.ask(next(), began)?;
    }
    let mut ready = Vec::with_capacity(plan.connections);
    loop {
        epoll::wait(&epoll, spare_capacity(&mut ready), Some(&GIVE_UP))?;
        if ready.is_empty() {
            return Err(Failure::Silence);
        }
        for event in ready.drain(..) {
            let Some(link) = usize::try_from(event.data.u64()).ok().and_then(|number| links.get_mut(number))
            else {
                continue;
            };
            if let Some(asked) = link.read(&mut space)? {
                let now = Instant::now();
                latencies.push(now - asked);
                link.ask(next(), now)?;
            }
        }
        let lasted = began.elapsed();
        if lasted >= plan.lasts {
            let bytes = links.iter().map(Link::received).sum();
            return Ok(Figures { lasted, bytes, latencies });
        }
    }
}

fn connect(plan: &Plan) -> Result<Link, Failure> {
    let mut socket = TcpStream::connect(plan.address)?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    let mut tls = ClientConnection::new(Arc::clone(&plan.tls), name)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    socket.set_nonblocking(true)?;
    Ok(Link::new(socket, tls))
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let p99 = sorted.get(sorted.len() * 99 / 100).map_or(0, Duration::as_micros);
        write!(f, "figures {} {} {p99} {}", sorted.len(), self.lasted.as_micros(), self.bytes)
    }
}
