//! Connections kept alive between requests, the newest used first, and servers that refused left alone for a while.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
};

use tokio::time::{Instant, Sleep};

use super::{ConnectError, Connector, Peer, http1::Connection, turns::Turns};

/// Looks at an idle connection, one a second, until it is closed: shorter than the keep-alive of the common servers
/// (Node.js: 5 s), so that we close before they do.
const IDLE_LOOKS: u32 = 4;
/// Idle connections kept a server.
const MOST_IDLE: usize = 64;

/// One worker's connections to the portal.
#[derive(Debug)]
pub struct Pool {
    servers: Vec<Server>,
    turns: Turns,
    connector: Connector,
    /// Looks at the idle connections so far.
    looks: Cell<u32>,
}

#[derive(Debug)]
struct Server {
    peer: Peer,
    label: Rc<str>,
    #[expect(clippy::vec_box, reason = "a connection keeps its box from one request to the next")]
    idle: RefCell<Vec<Box<Kept>>>,
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
        let turns = Turns::new(peers.len());
        let servers = peers
            .into_iter()
            .map(|peer| Server { label: Rc::from(peer.label.as_str()), peer, idle: RefCell::new(Vec::new()) })
            .collect();
        Rc::new(Self { servers, turns, connector, looks: Cell::new(0) })
    }

    /// An idle connection to the server whose turn it is, if there is one and nothing has to be waited for.
    pub fn idle(self: &Rc<Self>) -> Option<Lease> {
        let index = self.turns.current();
        let idle = self.server(index)?.take_idle()?;
        self.turns.pass();
        Some(self.lease_of(index, idle, true))
    }

    /// A new connection, or an idle one of the server whose turn it is unless `fresh` forbids.
    ///
    /// Servers are taken in turn; one that refuses is left alone for a while and the next one asked.
    pub async fn lease(self: &Rc<Self>, fresh: bool) -> Result<Lease, ConnectError> {
        let mut refused = None;
        for index in self.turns.order(Instant::now()) {
            let Some(server) = self.server(index) else { continue };
            if !fresh && let Some(idle) = server.take_idle() {
                return Ok(self.lease_of(index, idle, true));
            }
            match self.connector.open(&server.peer).await {
                Ok(connection) => {
                    self.turns.accepted(index);
                    let timer = Box::pin(tokio::time::sleep_until(Instant::now()));
                    let kept = Box::new(Kept { connection, timer, idle_since: 0 });
                    return Ok(self.lease_of(index, kept, false));
                }
                Err(error) => {
                    self.turns.refused(index, Instant::now());
                    refused = Some(error);
                }
            }
        }
        Err(refused.unwrap_or_else(ConnectError::no_server))
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
