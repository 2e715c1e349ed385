//! Connections kept alive between requests, the newest used first; no more than the limits allow, and a queue beyond.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
};

use tokio::time::{Instant, Sleep};

use super::{ConnectError, Connector, Limits, Peer, http1::Connection, places::Places, turns::Turns};

/// Looks at an idle connection, one a second, until it is closed: shorter than the keep-alive of the common servers
/// (Node.js: 5 s), so that we close before they do.
const IDLE_LOOKS: u32 = 4;
/// Idle connections kept a server: as many as a few connections of HTTP/2 full of streams need at once.
const MOST_IDLE: usize = 256;

/// One worker's connections to the portal.
#[derive(Debug)]
pub struct Pool {
    servers: Vec<Server>,
    turns: Turns,
    places: Places<Turn>,
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

/// What somebody in the queue gets.
#[derive(Debug)]
enum Turn {
    Connection(Lease),
    Place(Place),
}

/// A connection that counts, until this is dropped.
#[derive(Debug)]
struct Place {
    pool: Rc<Pool>,
    server: usize,
    counts_as: Count,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Connection,
    Stream,
    /// It counts through the connection, which is idle.
    Nothing,
}

/// A connection in use. Give it back with [`Lease::give_back`] once its answer has been read to the end; dropped, it
/// is closed.
#[derive(Debug)]
pub struct Lease {
    place: Place,
    /// Boxed: it is handed on from hand to hand.
    pub kept: Box<Kept>,
    /// It has carried a request before: the portal may have closed it just now.
    pub reused: bool,
}

impl Pool {
    /// `limits` are those of this worker.
    pub fn new(peers: Vec<Peer>, connector: Connector, limits: Limits) -> Rc<Self> {
        let (turns, places) = (Turns::new(peers.len()), Places::new(peers.len(), limits));
        let servers = peers
            .into_iter()
            .map(|peer| Server { label: Rc::from(peer.label.as_str()), peer, idle: RefCell::new(Vec::new()) })
            .collect();
        Rc::new(Self { servers, turns, places, connector, looks: Cell::new(0) })
    }

    /// An idle connection to the server whose turn it is, if there is one and nothing has to be waited for.
    pub fn idle(self: &Rc<Self>) -> Option<Lease> {
        let index = self.turns.current();
        let idle = self.take_idle(index)?;
        self.turns.pass();
        Some(idle)
    }

    /// A new connection, or an idle one of the server whose turn it is unless `fresh` forbids. When all that may be are in
    /// use, somebody else's, as soon as they give it back.
    ///
    /// Servers are taken in turn; one that refuses is left alone for a while and the next one asked.
    pub async fn lease(self: &Rc<Self>, fresh: bool) -> Result<Lease, ConnectError> {
        let (mut refused, mut is_full) = (None, false);
        for index in self.turns.order(Instant::now()) {
            if !fresh && let Some(idle) = self.take_idle(index) {
                return Ok(idle);
            }
            if !self.places.take(index) {
                is_full = true;
                continue;
            }
            match self.open(self.place(index, Count::Connection)).await {
                Ok(lease) => return Ok(lease),
                Err(error) => refused = Some(error),
            }
        }
        if is_full {
            return self.wait_for_one(fresh).await;
        }
        Err(refused.unwrap_or_else(ConnectError::no_server))
    }

    /// Whether another connection may become a WebSocket or a stream of events.
    pub fn has_room_for_a_stream(&self) -> bool {
        self.places.has_room_for_a_stream()
    }

    /// Waits in the queue, no longer than opening a connection may take.
    async fn wait_for_one(self: &Rc<Self>, fresh: bool) -> Result<Lease, ConnectError> {
        let turn = self.places.wait().ok_or(ConnectError::Full)?;
        let limit = self.connector.limit();
        match tokio::time::timeout(limit, turn).await {
            Ok(Ok(Turn::Connection(lease))) if !fresh => Ok(lease),
            Ok(Ok(Turn::Connection(Lease { place, .. }) | Turn::Place(place))) => self.open(place).await,
            // The queue lasts as long as the pool.
            Ok(Err(_)) => Err(ConnectError::Full),
            Err(_) => Err(ConnectError::Late(limit)),
        }
    }

    /// Opens a connection at a place that has been taken for it.
    async fn open(&self, place: Place) -> Result<Lease, ConnectError> {
        let index = place.server;
        let server = self.servers.get(index).ok_or_else(ConnectError::no_server)?;
        match self.connector.open(&server.peer).await {
            Ok(connection) => {
                self.turns.accepted(index);
                let timer = Box::pin(tokio::time::sleep_until(Instant::now()));
                let kept = Box::new(Kept { connection, timer, idle_since: 0 });
                Ok(Lease { place, kept, reused: false })
            }
            Err(error) => {
                self.turns.refused(index, Instant::now());
                Err(error)
            }
        }
    }

    /// The newest idle connection to a server that is still good.
    fn take_idle(self: &Rc<Self>, index: usize) -> Option<Lease> {
        let mut idle = self.servers.get(index)?.idle.borrow_mut();
        loop {
            let mut kept = idle.pop()?;
            if kept.connection.is_usable() {
                return Some(Lease { place: self.place(index, Count::Connection), kept, reused: true });
            }
            self.places.free(index);
        }
    }

    fn place(self: &Rc<Self>, server: usize, counts_as: Count) -> Place {
        Place { pool: Rc::clone(self), server, counts_as }
    }

    /// Closes connections that have been idle too long; called by the worker every second.
    pub fn tidy(&self) {
        let looks = self.looks.get().wrapping_add(1);
        self.looks.set(looks);
        for (index, server) in self.servers.iter().enumerate() {
            server.idle.borrow_mut().retain_mut(|kept| {
                let stays = looks.wrapping_sub(kept.idle_since) < IDLE_LOOKS && kept.connection.is_usable();
                if !stays {
                    // Nobody waits while a connection is idle.
                    self.places.free(index);
                }
                stays
            });
        }
    }
}

impl Lease {
    /// Which server it leads to, for logs.
    pub fn label(&self) -> Rc<str> {
        let server = self.place.pool.servers.get(self.place.server);
        server.map_or_else(|| Rc::from(""), |server| Rc::clone(&server.label))
    }

    /// Says that the connection is a WebSocket or a stream of events from now on, which is nobody's place in the queue.
    /// False when there are too many.
    pub fn becomes_stream(&mut self) -> bool {
        let has_room = self.place.pool.places.begin_stream();
        if has_room {
            self.place.leave();
            self.place.counts_as = Count::Stream;
        }
        has_room
    }

    /// Keeps the connection for another request.
    pub fn give_back(self) {
        let Self { mut place, mut kept, .. } = self;
        if place.counts_as != Count::Connection {
            return;
        }
        let pool = Rc::clone(&place.pool);
        if let Some(first) = pool.places.next() {
            // Should they be gone after all, their place goes with them.
            let _ = first.send(Turn::Connection(Self { place, kept, reused: true }));
        } else if let Some(server) = pool.servers.get(place.server) {
            let mut idle = server.idle.borrow_mut();
            if idle.len() < MOST_IDLE {
                kept.idle_since = pool.looks.get();
                idle.push(kept);
                place.counts_as = Count::Nothing;
            }
        }
    }
}

impl Place {
    /// Stops counting, and lets the first in the queue count instead.
    fn leave(&mut self) {
        let places = &self.pool.places;
        match std::mem::replace(&mut self.counts_as, Count::Nothing) {
            Count::Connection => {
                places.free(self.server);
                if let Some(first) = places.next()
                    && places.take(self.server)
                {
                    let _ = first.send(Turn::Place(self.pool.place(self.server, Count::Connection)));
                }
            }
            Count::Stream => places.end_stream(),
            Count::Nothing => {}
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}
