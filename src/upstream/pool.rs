//! Connections kept alive between requests, the newest used first, and servers that refused left alone for a while.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use hyper::client::conn::http1::SendRequest;
use tokio::time::{Instant, Sleep};

use super::{ConnectError, Connector, Peer};

/// With the second between two looks still shorter than the keep-alive of the common servers (Node.js: 5 s), so that we
/// close before they do.
const IDLE_LIMIT: Duration = Duration::from_secs(3);
/// Idle connections kept a server.
const MOST_IDLE: usize = 64;
/// How long a server that refused a connection is asked last.
const LEFT_ALONE: Duration = Duration::from_secs(3);

/// One worker's connections to the portal. `B` is the body of requests.
#[derive(Debug)]
pub struct Pool<B> {
    servers: Vec<Server<B>>,
    connector: Connector,
    next: Cell<usize>,
}

#[derive(Debug)]
struct Server<B> {
    peer: Peer,
    label: Rc<str>,
    idle: RefCell<Vec<Idle<B>>>,
    refused_at: Cell<Option<Instant>>,
}

#[derive(Debug)]
struct Idle<B> {
    sender: SendRequest<B>,
    timer: Pin<Box<Sleep>>,
    since: Instant,
}

/// A connection in use. Give it back with [`Lease::give_back`] once its answer has been read to the end; dropped, it
/// is closed.
#[derive(Debug)]
pub struct Lease<B> {
    pool: Rc<Pool<B>>,
    server: usize,
    pub sender: SendRequest<B>,
    /// For the wait for an answer. It stays with the connection, and is moved only when it fires: to set a timer anew for
    /// each request would cost more than to let an old one fire once in a while.
    pub timer: Pin<Box<Sleep>>,
    /// It has carried a request before: the portal may have closed it just now.
    pub reused: bool,
}

impl<B> Pool<B>
where
    B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static,
{
    pub fn new(peers: Vec<Peer>, connector: Connector) -> Rc<Self> {
        let servers = peers
            .into_iter()
            .map(|peer| Server {
                label: Rc::from(peer.label.as_str()),
                peer,
                idle: RefCell::new(Vec::new()),
                refused_at: Cell::new(None),
            })
            .collect();
        Rc::new(Self { servers, connector, next: Cell::new(0) })
    }

    /// An idle connection to the server whose turn it is, if there is one and nothing has to be waited for.
    pub fn idle(self: &Rc<Self>) -> Option<Lease<B>> {
        let index = self.next.get() % self.servers.len().max(1);
        let sender = self.server(index)?.take_ready()?;
        self.next.set(index + 1);
        Some(self.lease_of(index, sender, true))
    }

    /// A new connection, or an idle one of the server whose turn it is unless `fresh` forbids.
    ///
    /// Servers are taken in turn; one that refuses is left alone for a while and the next one asked.
    pub async fn lease(self: &Rc<Self>, fresh: bool) -> Result<Lease<B>, ConnectError> {
        let count = self.servers.len();
        let first = self.next.get() % count.max(1);
        self.next.set(first + 1);
        let mut order: Vec<usize> = (0..count).map(|step| (first + step) % count).collect();
        let now = Instant::now();
        if count > 1 {
            // Stable: those left alone keep their order, behind the others.
            order.sort_by_key(|&server| self.server(server).is_some_and(|server| server.is_left_alone(now)));
        }
        let mut refused = None;
        for index in order {
            let Some(server) = self.server(index) else { continue };
            if !fresh && let Some(sender) = server.take_idle().await {
                return Ok(self.lease_of(index, sender, true));
            }
            match self.connector.open(&server.peer).await {
                Ok(sender) => {
                    server.refused_at.set(None);
                    let now = Instant::now();
                    let timer = Box::pin(tokio::time::sleep_until(now));
                    return Ok(self.lease_of(index, Idle { sender, timer, since: now }, false));
                }
                Err(error) => {
                    server.refused_at.set(Some(Instant::now()));
                    refused = Some(error);
                }
            }
        }
        Err(refused.unwrap_or_else(|| ConnectError::Connect {
            peer: "no server".to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        }))
    }

    fn lease_of(self: &Rc<Self>, server: usize, idle: Idle<B>, reused: bool) -> Lease<B> {
        Lease { pool: Rc::clone(self), server, sender: idle.sender, timer: idle.timer, reused }
    }

    fn server(&self, index: usize) -> Option<&Server<B>> {
        self.servers.get(index)
    }

    /// Closes connections that have been idle too long; called by the worker every second.
    pub fn tidy(&self) {
        let now = Instant::now();
        for server in &self.servers {
            server
                .idle
                .borrow_mut()
                .retain(|idle| !idle.sender.is_closed() && now.duration_since(idle.since) < IDLE_LIMIT);
        }
    }
}

impl<B> Server<B> {
    fn is_left_alone(&self, now: Instant) -> bool {
        self.refused_at.get().is_some_and(|at| now.duration_since(at) < LEFT_ALONE)
    }

    /// The newest idle connection, if its protocol has noticed already that its last answer was read.
    fn take_ready(&self) -> Option<Idle<B>> {
        let mut idle = self.idle.borrow_mut();
        idle.last()?.sender.is_ready().then(|| idle.pop())?
    }

    /// The newest idle connection that is still open.
    async fn take_idle(&self) -> Option<Idle<B>> {
        loop {
            let mut newest = self.idle.borrow_mut().pop()?;
            // Its protocol may need one more turn.
            if newest.sender.is_ready() || newest.sender.ready().await.is_ok() {
                return Some(newest);
            }
        }
    }
}

impl<B> Lease<B> {
    /// Which server it leads to, for logs.
    pub fn label(&self) -> Rc<str> {
        self.pool.servers.get(self.server).map_or_else(|| Rc::from(""), |server| Rc::clone(&server.label))
    }

    /// Keeps the connection for another request.
    pub fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        if let Some(server) = self.pool.servers.get(self.server) {
            let mut idle = server.idle.borrow_mut();
            if idle.len() < MOST_IDLE {
                idle.push(Idle { sender: self.sender, timer: self.timer, since: Instant::now() });
            }
        }
    }
}
