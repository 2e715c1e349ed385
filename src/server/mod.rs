//! Workers, listeners and client connections. What is served is up to the [`Service`].

mod client;
mod coalescing;
mod connection;
mod deadlines;
mod flow;
mod frame_budget;
mod health;
mod http1;
mod http2;
mod io;
mod listener;
mod load;
mod memory;
mod monitor;
mod networks;
mod plain;
pub mod proxy_protocol;
mod slow_reader;
mod state;
#[cfg(test)]
mod tests;
mod timeouts;
mod tracked_body;
mod tunnel_guard;
mod unread;
mod watchdog;
mod worker;

use std::{net::SocketAddr, rc::Rc, sync::Arc, thread, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

pub use self::{
    client::{ConnectionHandle, Interim},
    health::{Health, Hung},
    listener::{ListenAddress, NO_ADDRESS},
    load::{Load, LoadLevel},
    tunnel_guard::TunnelGuard,
};
use self::{
    health::Heartbeat,
    listener::{Listening, SocketFile},
    networks::NetworkLimits,
    watchdog::Watchdog,
};
use crate::{
    tls::Acceptance,
    web::{gate::Refusal, incoming::Incoming, reply::Reply},
};

/// How long the workers may take to end after their drain.
const LAST_TURNS: Duration = Duration::from_secs(5);

/// Addresses, limits and timeouts.
///
/// # What a connection can hold at most
///
/// An idle one takes 14 KiB, for the socket and TLS keys. The worst case is the sum of the bounds below. Beyond them the client
/// has to wait; one that makes the gateway wait is disconnected after `stall_timeout`.
///
/// | of each connection | KiB | bound |
/// |---|---|---|
/// | a record of TLS that is not whole yet; until the handshake is over, its messages | 18; 64 | rustls |
/// | encrypted, not taken by the client | 64 | rustls |
/// | HTTP/1.1: read ahead; the head of the answer | 32; 128 | `http1::wire`; the bound of a portal's head |
/// | HTTP/2: bodies that nobody has read yet | 256 | `CONNECTION_WINDOW` |
/// | HTTP/2: answers that are ready in the same turn | 16 | `coalescing` |
///
/// | of each request at work: one on HTTP/1.1, `STREAMS` on HTTP/2 | KiB | bound |
/// |---|---|---|
/// | its head | 16 | the request gate |
/// | the start of its body, as long as it might have to be sent again | 64 | `proxy::replay` |
/// | a piece of the answer's body on its way | 64 | `upstream::http1` |
/// | HTTP/2: of an answer that is not taken | 64 | `SEND_BUFFER` |
///
/// So an HTTP/1.1 connection stays below 420 KiB and an HTTP/2 connection below 14 MiB, which takes a signed-in user with 64
/// uploads and 64 unread downloads: requests without a session are refused as they are read, and only a few of our own pages are
/// rendered at a time. All connections together are bounded by `max_memory`: near it, requests without a session are refused,
/// new connections get fewer streams, and finally are refused (`load`).
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: Vec<ListenAddress>,
    /// The mode of Unix sockets.
    pub socket_mode: u32,
    /// Where plain HTTP is led to HTTPS.
    pub redirect_listen: Vec<SocketAddr>,
    /// Plain HTTP/1.1, for trusted proxies alone; absent: nowhere.
    pub proxies_listen: Option<SocketAddr>,
    /// Threads that serve connections; by default one per core.
    pub workers: usize,
    /// From accepting a connection to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// From the handshake to the first byte of the first request.
    pub first_byte_timeout: Duration,
    /// From the first byte of a request to the end of its head.
    pub head_timeout: Duration,
    /// How long a body may make no progress, in either direction.
    pub stall_timeout: Duration,
    /// Minimum rate of a body in either direction, in bytes per second of waiting for the client, measured over
    /// `stall_timeout`. Zero: any progress is enough.
    pub min_rate: u32,
    /// Largest request head, in bytes.
    pub max_header_size: usize,
    /// Between two requests of one connection.
    pub idle_timeout: Duration,
    /// From the stop signal until the remaining connections are cut.
    pub drain_timeout: Duration,
    /// Concurrent connections; further ones wait to be accepted.
    pub max_connections: usize,
    /// Concurrent connections per client network; further ones are closed before their handshake.
    pub max_connections_per_network: usize,
    /// Networks without that limit: a proxy's connections carry many clients.
    pub trusted_proxies: Vec<IpNet>,
    /// Balancers whose connections begin with a header that tells the client; nobody else's may.
    pub proxy_protocol: Vec<IpNet>,
    /// Resident bytes of the process near which requests without a session, and finally new connections, are refused.
    /// Absent: a share of the memory of the machine or the control group.
    pub max_memory: Option<u64>,
}

impl Config {
    /// One worker's share of the connection limit.
    fn connections_per_worker(&self) -> usize {
        (self.max_connections / self.workers.max(1)).max(1)
    }
}

/// Why the server cannot start, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot listen on {address}")]
    Listen {
        address: ListenAddress,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot start a worker thread")]
    Thread(#[source] std::io::Error),
    #[error("a worker thread ended unexpectedly")]
    WorkerLost,
    #[error("a worker thread did not stop in time")]
    WorkerHung,
}

/// Answers requests. Each worker has its own, which never leaves its thread.
pub trait Service: 'static {
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static;

    /// Answers one request. It cannot fail: a failure is an answer, too.
    fn call(
        self: Rc<Self>,
        request: Box<Request<Incoming>>,
        connection: Rc<ConnectionHandle>,
        context: Rc<Self::Context>,
    ) -> impl Future<Output = Reply<Self::Body>> + 'static;

    /// What the service keeps for each connection.
    type Context: 'static;

    /// Answers bytes that are not a valid request; `read` is what has come of them. The connection closes afterwards.
    fn refuse(self: Rc<Self>, refusal: Refusal, read: &[u8], peer: SocketAddr) -> Reply<Self::Body>;

    /// Answers a request over plain HTTP, where `redirect_listen` has that served.
    fn answer_plain(self: Rc<Self>, asked: PlainAsked, client: SocketAddr) -> Response<Bytes> {
        let _ = (asked, client);
        Response::new(Bytes::new())
    }

    /// A client has connected; `trusted`: it is a proxy with many clients.
    fn connected(&self, trusted: bool, door: Door) -> Self::Context;

    /// A client has finished the TLS handshake. `shown` is its certificate and what it sent beside it: it has the key, and that
    /// is all that is known. `asked`: it could have shown one.
    fn secured(&self, context: &Self::Context, shown: Option<&[CertificateDer<'_>]>, asked: bool) {
        let _ = (context, shown, asked);
    }

    /// A client did not finish the TLS handshake.
    fn handshake_failed(&self);

    /// A connection was closed right after it had been accepted.
    fn refused(&self, reason: Refused);
}

/// Where a connection comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// For everybody, with TLS.
    Public,
    /// For trusted proxies, which have ended TLS.
    Proxies,
    /// For browsers that are to come by HTTPS.
    Redirect,
}

/// What is asked for over plain HTTP, and whether a body follows.
pub type PlainAsked = Result<(Box<Request<()>>, bool), Refusal>;

/// Why a connection is closed before its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its network has too many already.
    Network,
    /// The gateway has no memory left for it.
    Overload,
    /// The header that tells the client is not there, is not a right one, or is not the peer's to send.
    ProxyProtocol,
}

/// Bound sockets that are not served yet.
#[derive(Debug)]
pub struct Bound {
    config: Arc<Config>,
    /// One set of listeners per worker.
    listeners: Vec<Vec<(Door, Listening)>>,
    addresses: Vec<ListenAddress>,
    /// Removed when serving is over.
    files: Vec<SocketFile>,
    proxies_address: Option<SocketAddr>,
    redirect_addresses: Vec<SocketAddr>,
    health: Arc<Health>,
    load: Arc<Load>,
}

impl Bound {
    /// Binds every address once for each worker.
    pub fn new(config: &Config) -> Result<Self, ServerError> {
        let config = Arc::new(config.clone());
        let mut listeners: Vec<Vec<_>> = (0..config.workers.max(1)).map(|_| Vec::new()).collect();
        let (mut addresses, mut proxies_address, mut redirect_addresses) = (Vec::new(), None, Vec::new());
        let mut files = Vec::new();
        let doors = config.listen.iter().map(|address| (Door::Public, address.clone()));
        let doors =
            doors.chain(config.proxies_listen.map(|address| (Door::Proxies, ListenAddress::Tcp(address))));
        let redirects =
            config.redirect_listen.iter().map(|&address| (Door::Redirect, ListenAddress::Tcp(address)));
        for (door, address) in doors.chain(redirects) {
            let bound = listener::bind(&address, config.socket_mode, listeners.len());
            let bound = bound.map_err(|source| ServerError::Listen { address, source })?;
            files.extend(bound.file);
            match door {
                Door::Public => addresses.push(bound.address),
                Door::Proxies => proxies_address = bound.address.tcp(),
                Door::Redirect => redirect_addresses.extend(bound.address.tcp()),
            }
            for (mine, listener) in listeners.iter_mut().zip(bound.sockets) {
                mine.push((door, listener));
            }
        }
        let health = Arc::new(Health::new(listeners.len()));
        let load = Arc::new(Load::new(&config));
        Ok(Self { config, listeners, addresses, files, proxies_address, redirect_addresses, health, load })
    }

    /// The bound address, with the port that the kernel chose for port 0.
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// The same of the ports for plain HTTP.
    pub fn redirect_addresses(&self) -> &[SocketAddr] {
        &self.redirect_addresses
    }

    /// The same of the port for proxies.
    pub fn proxies_address(&self) -> Option<SocketAddr> {
        self.proxies_address
    }

    /// The health of the threads, once it serves.
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// The load of the gateway, once it serves.
    pub fn load(&self) -> Arc<Load> {
        Arc::clone(&self.load)
    }

    /// Serves until `drain` is cancelled and the connections have ended. `service` is called once on each worker. The
    /// calling runtime is the control runtime, which is watched like the workers.
    ///
    /// A worker that dies ends all of them: its listener dies with it, and so do the connections in that listener's queue. A
    /// process that is one worker short would go unnoticed; this way the service manager restarts it.
    pub async fn serve<S: Service>(
        self,
        tls: Arc<ArcSwap<Acceptance>>,
        drain: CancellationToken,
        service: impl Fn() -> S + Clone + Send + 'static,
    ) -> Result<(), ServerError> {
        memory::forgo_huge_pages();
        let _files = self.files;
        let trusted = self.config.trusted_proxies.clone();
        let networks = NetworkLimits::new(self.config.max_connections_per_network, trusted);
        let _watchdog =
            Watchdog::start(Arc::clone(&self.health), Arc::clone(&self.load)).map_err(ServerError::Thread)?;
        let (ended, mut ends) = mpsc::unbounded_channel();
        for (listeners, heartbeat) in self.listeners.into_iter().zip(self.health.workers()) {
            let start = worker::Start {
                config: Arc::clone(&self.config),
                listeners,
                tls: tls.clone(),
                drain: drain.clone(),
                heartbeat: Arc::clone(heartbeat),
                networks: Arc::clone(&networks),
                load: Arc::clone(&self.load),
            };
            let service = service.clone();
            let ended = Ended { heartbeat: Arc::clone(heartbeat), told: ended.clone() };
            thread::Builder::new()
                .name(heartbeat.name().to_owned())
                .spawn(move || {
                    let _ended = ended;
                    if let Err(error) = worker::run(start, service) {
                        tracing::error!(%error, "a worker cannot run");
                    }
                })
                .map_err(ServerError::Thread)?;
        }
        drop(ended);
        let lost = tokio::select! {
            biased;
            () = drain.cancelled() => false,
            _ = ends.recv() => !drain.is_cancelled(),
        };
        if lost {
            tracing::error!("a worker died: the gateway stops, so that a whole one can be started");
            drain.cancel();
        }
        let limit = Instant::now() + self.config.drain_timeout + LAST_TURNS;
        // The channel closes when the last one has ended.
        while let Some(()) =
            tokio::time::timeout_at(limit, ends.recv()).await.map_err(|_| ServerError::WorkerHung)?
        {}
        if lost { Err(ServerError::WorkerLost) } else { Ok(()) }
    }
}

/// Reports the end of a worker's thread, also after a panic.
struct Ended {
    heartbeat: Arc<Heartbeat>,
    told: mpsc::UnboundedSender<()>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.heartbeat.end();
        let _ = self.told.send(());
    }
}
