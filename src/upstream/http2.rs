//! HTTP/2 towards the portal, for gRPC: one connection per server, shared by all requests, opened on demand and replaced when
//! it is no longer usable. hyper keeps to the server's limit of streams.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use http::uri::Authority;
use http_body::Body;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::Mutex, time::Instant};

use super::{ConnectError, Connector, Peer, round_robin::RoundRobin};

/// How long an idle connection is kept.
const IDLE_LIMIT: Duration = Duration::from_mins(1);
/// Flow-control window of a stream: what a server may send of a response that is not read.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Flow-control window of a connection: clients that do not read must not block the others.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Concurrent requests until the server has sent its limit; more would only be refused.
const BEFORE_SETTINGS: usize = 1;
const SEND_BUFFER: usize = 64 * 1024;
const MOST_HEAD_BYTES: u32 = 64 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// One worker's connections. `B` is the body of requests.
#[derive(Debug)]
pub struct Http2<B> {
    servers: Vec<Server<B>>,
    turns: RoundRobin,
    connector: Connector,
    max_age: Duration,
}

#[derive(Debug)]
struct Server<B> {
    peer: Peer,
    label: Rc<str>,
    current: RefCell<Option<SendRequest<B>>>,
    /// The number of connections before it.
    number: Cell<u64>,
    /// Locked while a connection is opened, so that only one is.
    opening: Mutex<()>,
    last_used: Cell<Instant>,
    opened: Cell<Instant>,
}

/// A handle to send one request.
#[derive(Debug)]
pub struct Sender<B> {
    pub sender: SendRequest<B>,
    /// The server's name in logs.
    pub label: Rc<str>,
    /// The host in requests to it; absent: the public host.
    pub named: Option<Authority>,
    /// The scheme in requests to it.
    pub scheme: &'static str,
    server: usize,
    number: u64,
}

impl<B> Http2<B>
where
    B: Body<Data = Bytes, Error: Into<Error>> + Unpin + 'static,
{
    pub fn new(peers: Vec<Peer>, connector: Connector, max_age: Duration) -> Self {
        let turns = RoundRobin::new(peers.len());
        let servers = peers.into_iter().map(|peer| Server {
            label: Rc::from(peer.label.as_str()),
            peer,
            current: RefCell::new(None),
            number: Cell::new(0),
            opening: Mutex::new(()),
            last_used: Cell::new(Instant::now()),
            opened: Cell::new(Instant::now()),
        });
        Self { servers: servers.collect(), turns, connector, max_age }
    }

    /// A connection to the next server in turn, opened on demand; servers that refuse are skipped. `alone` asks for one that is
    /// not shared.
    pub async fn sender(&self, alone: bool) -> Result<Sender<B>, ConnectError> {
        let mut refused = None;
        for index in self.turns.order(Instant::now()) {
            let Some(server) = self.servers.get(index) else { continue };
            match server.sender(&self.connector, alone).await {
                Ok(sender) => {
                    self.turns.accepted(index);
                    server.last_used.set(Instant::now());
                    let scheme = if server.peer.tls.is_some() { "https" } else { "http" };
                    let label = Rc::clone(&server.label);
                    // Not a shared one.
                    let number = if alone { u64::MAX } else { server.number.get() };
                    let named = server.peer.named.clone();
                    return Ok(Sender { sender, label, named, scheme, server: index, number });
                }
                Err(error) => {
                    self.turns.refused(index, Instant::now());
                    refused = Some(error);
                }
            }
        }
        Err(refused.unwrap_or_else(ConnectError::no_server))
    }

    /// Drops a connection on which the server accepts no more requests. Those in progress may finish.
    pub fn retire(&self, sender: &Sender<B>) {
        if let Some(server) = self.servers.get(sender.server)
            && server.number.get() == sender.number
        {
            server.current.take();
        }
    }

    /// Closes connections that are idle for too long or too old. The worker calls it every second.
    pub fn tidy(&self) {
        for server in &self.servers {
            if server.last_used.get().elapsed() >= IDLE_LIMIT || server.opened.get().elapsed() >= self.max_age
            {
                // It closes after the requests in progress.
                server.current.take();
            }
        }
    }
}

impl<B> Server<B>
where
    B: Body<Data = Bytes, Error: Into<Error>> + Unpin + 'static,
{
    fn open_one(&self) -> Option<SendRequest<B>> {
        let current = self.current.borrow();
        current.as_ref().filter(|sender| !sender.is_closed()).cloned()
    }

    async fn sender(&self, connector: &Connector, alone: bool) -> Result<SendRequest<B>, ConnectError> {
        if alone {
            return self.open(connector).await;
        }
        if let Some(sender) = self.open_one() {
            return Ok(sender);
        }
        let _opening = self.opening.lock().await;
        if let Some(sender) = self.open_one() {
            return Ok(sender);
        }
        let sender = self.open(connector).await?;
        self.current.replace(Some(sender.clone()));
        self.number.set(self.number.get() + 1);
        self.opened.set(Instant::now());
        Ok(sender)
    }

    async fn open(&self, connector: &Connector) -> Result<SendRequest<B>, ConnectError> {
        let transport = connector.open_http2(&self.peer).await?;
        let (sender, connection) = Builder::new(Tasks)
            .timer(TokioTimer::new())
            .initial_max_send_streams(BEFORE_SETTINGS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(MOST_HEAD_BYTES)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(TokioIo::new(transport))
            .await
            .map_err(|source| ConnectError::Handshake { peer: self.peer.label.clone(), source })?;
        tokio::task::spawn_local(async move {
            // Requests on this connection learn of the error themselves.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

/// Runs hyper's tasks on the calling worker.
#[derive(Clone, Copy, Debug)]
struct Tasks;

impl<F: Future + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}

/// Whether the server has certainly not processed the request (RFC 9113 §8.7), so that it may be sent again in any case.
pub fn was_refused(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    error.source().and_then(|source| source.downcast_ref::<h2::Error>()).is_some_and(|error| {
        // A GOAWAY ends only requests after the last one that the server processed.
        error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}
