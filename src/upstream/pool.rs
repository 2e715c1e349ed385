//! Connections kept alive between requests, the newest used first, and servers that refused left alone for a while.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::{ConnectError, Connector, Peer, http1::Connection};

/// Looks at an idle connection, one a second, until it is closed: shorter than the keep-alive of the common servers
/// (Node.js: 5 s), so that we close before they do.
const IDLE_LOOKS: u32 = 4;
/// Idle connections kept a server: as many as a few connections of HTTP/2 full of streams need at once.
const MOST_IDLE: usize = 256;
/// How long a server that refused a connection is asked last.
const LEFT_ALONE: Duration = Duration::from_secs(3);

/// One worker's connections to the portal.
#[derive(Debug)]
pub struct Pool {
    servers: Vec<Server>,
    connector: Connector,
    next: Cell<usize>,
    /// Looks at the idle connections so far.
    looks: Cell<u32>,
}

#[derive(Debug)]
struct Server {
    peer: Peer,
    label: Rc<str>,
    #[expect(clippy::vec_box, reason = "a connection keeps its box from one request to the next")]
    idle: RefCell<Vec<Box<Kept>>>,
    refused_at: Cell<Option<Instant>>,
}

/// A connection, and what stays with it from one request to the next.
#[derive(Debug)]
pub struct Kept {
    pub connection: Connection,
    /// For the wait for an answer. It is moved only when it fires: to set a timer anew for each request would cost more
    /// than to let an old one fire once in a while.
    pub timer: Pin<Box<Sleep>>,
    /// How many looks there had been when it became idle.
    idle_since: u32,
}

/// A connection in use. Give it back with [`Lease::give_back`] once its answer has been read to the end; dropped, it
/// is closed.
#[derive(Debug)]
pub struct Lease {
    pool: Rc<Pool>,
    server: usize,
    /// Boxed: it is handed on from hand to hand.
    pub kept: Box<Kept>,
    /// It has carried a request before: the portal may have closed it just now.
    pub reused: bool,
}

impl Pool {
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
        Rc::new(Self { servers, connector, next: Cell::new(0), looks: Cell::new(0) })
    }

    /// An idle connection to the server whose turn it is, if there is one and nothing has to be waited for.
    pub fn idle(self: &Rc<Self>) -> Option<Lease> {
        let index = self.next.get() % self.servers.len().max(1);
        let idle = self.server(index)?.take_idle()?;
        self.next.set(index + 1);
        Some(self.lease_of(index, idle, true))
    }

    /// A new connection, or an idle one of the server whose turn it is unless `fresh` forbids.
    ///
    /// Servers are taken in turn; one that refuses is left alone for a while and the next one asked.
    pub async fn lease(self: &Rc<Self>, fresh: bool) -> Result<Lease, ConnectError> {
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
            if !fresh && let Some(idle) = server.take_idle() {
                return Ok(self.lease_of(index, idle, true));
            }
            match self.connector.open(&server.peer).await {
                Ok(connection) => {
                    server.refused_at.set(None);
                    let timer = Box::pin(tokio::time::sleep_until(Instant::now()));
                    let kept = Box::new(Kept { connection, timer, idle_since: 0 });
                    return Ok(self.lease_of(index, kept, false));
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

    fn lease_of(self: &Rc<Self>, server: usize, kept: Box<Kept>, reused: bool) -> Lease {
        Lease { pool: Rc::clone(self), server, kept, reused }
    }

    fn server(&self, index: usize) -> Option<&Server> {
        self.servers.get(index)
    }

    /// Closes connections that have been idle too long; called by the worker every second.
    pub fn tidy(&self) {
        let looks = self.looks.get().wrapping_add(1);
        self.looks.set(looks);
        for server in &self.servers {
            server.idle.borrow_mut().retain_mut(|kept| {
                looks.wrapping_sub(kept.idle_since) < IDLE_LOOKS && kept.connection.is_usable()
            });
        }
    }
}

impl Server {
    fn is_left_alone(&self, now: Instant) -> bool {
        self.refused_at.get().is_some_and(|at| now.duration_since(at) < LEFT_ALONE)
    }

    /// The newest idle connection that is still good.
    fn take_idle(&self) -> Option<Box<Kept>> {
        let mut idle = self.idle.borrow_mut();
        std::iter::from_fn(|| idle.pop())
            .find_map(|mut newest| newest.connection.is_usable().then_some(newest))
    }
}

impl Lease {
    /// Which server it leads to, for logs.
    pub fn label(&self) -> Rc<str> {
        self.pool.servers.get(self.server).map_or_else(|| Rc::from(""), |server| Rc::clone(&server.label))
    }

    /// Keeps the connection for another request.
    pub fn give_back(mut self) {
        if let Some(server) = self.pool.servers.get(self.server) {
            let mut idle = server.idle.borrow_mut();
            if idle.len() < MOST_IDLE {
                self.kept.idle_since = self.pool.looks.get();
                idle.push(self.kept);
            }
        }
    }
}
