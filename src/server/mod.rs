//! Workers, listeners and connections. Does not know what it serves.

mod connection;
mod counted;
mod flow;
mod frames;
mod io;
mod listener;
mod passage;
mod watch;
mod worker;

use std::{
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use rustls::ServerConfig;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use connection::{Connection, Interim};
pub use passage::Passage;

/// Where to listen, and how patient to be.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: Vec<SocketAddr>,
    /// Threads that serve connections; one a core by default.
    pub workers: usize,
    /// From the accepted connection to the finished TLS handshake.
    pub handshake_timeout: Duration,
    /// From the handshake to the first byte of the first request.
    pub first_byte_timeout: Duration,
    /// From the first byte of a request to the end of its head.
    pub head_timeout: Duration,
    /// Without any progress of a body, in either direction.
    pub stall_timeout: Duration,
    /// Between two requests of one connection.
    pub idle_timeout: Duration,
    /// From the signal to stop until the connections still open are cut.
    pub drain_timeout: Duration,
    /// Connections at once; further ones wait to be accepted.
    pub max_connections: usize,
}

/// Why the server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot start a worker thread")]
    Thread(#[source] std::io::Error),
    #[error("a worker stopped although nobody asked it to")]
    WorkerLost,
}

/// What answers requests. Each worker has one of its own, which never leaves its thread.
pub trait Service: 'static {
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static;

    /// Answers one request; never fails, since a failure is an answer too.
    fn call(
        self: Rc<Self>,
        request: Request<Incoming>,
        connection: Rc<Connection>,
        presence: Rc<Self::Presence>,
    ) -> impl Future<Output = Response<Self::Body>> + 'static;

    /// What the service keeps of a connection as long as it lasts.
    type Presence: 'static;

    /// A client has connected.
    fn connected(&self) -> Self::Presence;

    /// A client did not finish the TLS handshake.
    fn handshake_failed(&self);
}

/// Sockets that are bound and not served yet.
#[derive(Debug)]
pub struct Bound {
    config: Arc<Config>,
    /// One set of listeners a worker.
    listeners: Vec<Vec<TcpListener>>,
    addresses: Vec<SocketAddr>,
}

impl Bound {
    /// Binds every address once for each worker.
    pub fn new(config: &Config) -> Result<Self, ServerError> {
        let config = Arc::new(config.clone());
        let mut listeners: Vec<Vec<TcpListener>> = (0..config.workers.max(1)).map(|_| Vec::new()).collect();
        let mut addresses = Vec::new();
        for &address in &config.listen {
            let error = |source| ServerError::Listen { address, source };
            let bound = listener::bind(address, listeners.len()).map_err(error)?;
            addresses.push(bound.address);
            for (mine, listener) in listeners.iter_mut().zip(bound.listeners) {
                mine.push(listener);
            }
        }
        Ok(Self { config, listeners, addresses })
    }

    /// Where it really listens: port 0 has become a port.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until `drain` is cancelled and the connections have ended. `service` is called once on each worker.
    pub async fn serve<S: Service>(
        self,
        tls: Arc<ArcSwap<ServerConfig>>,
        drain: CancellationToken,
        service: impl Fn() -> S + Clone + Send + 'static,
    ) -> Result<(), ServerError> {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let workers = self.listeners.len();
        for (number, listeners) in self.listeners.into_iter().enumerate() {
            let start = worker::Start {
                config: Arc::clone(&self.config),
                listeners,
                tls: tls.clone(),
                drain: drain.clone(),
            };
            let (service, ended) = (service.clone(), Ended(ended.clone()));
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    let _ended = ended;
                    if let Err(error) = worker::run(start, service) {
                        tracing::error!(%error, "a worker cannot run");
                    }
                })
                .map_err(ServerError::Thread)?;
        }
        for _ in 0..workers {
            ends.recv().await;
            // A process with a worker less would limp on unseen; the supervisor starts a whole one instead.
            if !drain.is_cancelled() {
                drain.cancel();
                return Err(ServerError::WorkerLost);
            }
        }
        Ok(())
    }
}

/// Tells that a worker's thread has ended, by a panic too.
struct Ended(mpsc::UnboundedSender<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}
