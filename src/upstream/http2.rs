//! HTTP/2 towards the portal, for what cannot do without it: one connection a server, shared by all requests, opened when
//! it is needed and replaced when it is of no more use. The server's limit of streams is kept by the protocol.

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

/// How long a connection without a request is kept.
const IDLE_LIMIT: Duration = Duration::from_mins(1);
/// What a server may send of one answer that its client does not take.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Of all answers together: clients that take nothing must not hold up the others.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Requests at once until the server has said how many it takes: more would only be refused.
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
    /// How many there have been before it.
    number: Cell<u64>,
    /// Held while a connection is opened, so that no two are.
    opening: Mutex<()>,
    last_used: Cell<Instant>,
    opened: Cell<Instant>,
}

/// A way to send one request.
#[derive(Debug)]
pub struct Sender<B> {
    pub sender: SendRequest<B>,
    /// Which server it leads to, for logs.
    pub label: Rc<str>,
    /// What a request to it names as its host; absent: the host that users know.
    pub named: Option<Authority>,
    /// How a request to it names the protocol.
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

    /// The connection of the server whose turn it is, opened if need be; of the next one when it refuses. `alone` asks for one
    /// that nobody else gets.
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
                    // None of those that are shared.
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

    /// Lets go of a connection on which the server takes nothing more. What is in progress on it may end.
    pub fn retire(&self, sender: &Sender<B>) {
        if let Some(server) = self.servers.get(sender.server)
            && server.number.get() == sender.number
        {
            server.current.take();
        }
    }

    /// Closes connections that have been idle too long, or are too old; called by the worker every second.
    pub fn tidy(&self) {
        for server in &self.servers {
            if server.last_used.get().elapsed() >= IDLE_LIMIT || server.opened.get().elapsed() >= self.max_age
            {
                // With requests in progress, it ends after them.
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
            // Its end reaches whoever waits for an answer on it.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

/// Runs the protocol's own tasks on the calling worker.
#[derive(Clone, Copy, Debug)]
struct Tasks;

impl<F: Future + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}

/// Whether the server has certainly done nothing about a request (RFC 9113 §8.7): it may be sent again, whatever it is.
pub fn was_refused(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    error.source().and_then(|source| source.downcast_ref::<h2::Error>()).is_some_and(|error| {
        // Of those in progress, a GOAWAY ends only the requests beyond the last that was looked at.
        error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}
