//! Connections kept alive between requests, the newest used first; no more than the limits allow, and a queue beyond.

mod tie;

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::{Rc, Weak},
    time::Duration,
};

use http::uri::Authority;
use tokio::time::{Instant, Sleep};

use self::tie::Ties;
pub use self::tie::{ConnectionOwner, Tie};
use super::{
    ConnectError, Connector, Peer, PoolLimits, Sharing,
    http1::{Idle, PortalConnection},
    permits::ConnectionPermits,
    round_robin::RoundRobin,
    trust::Trust,
};

/// Looks at an idle connection, one a second, until it is closed: shorter than the keep-alive of the common servers
/// (Node.js: 5 s), so that we close before they do.
const IDLE_LOOKS: u32 = 4;
/// The same for one that somebody has signed in on: they would have to do so again.
const TIED_LOOKS: u32 = 60;
/// Idle connections kept a server: as many as a few connections of HTTP/2 full of streams need at once.
const MOST_IDLE: usize = 256;

/// One worker's connections to the portal.
#[derive(Debug)]
pub struct Pool {
    servers: Vec<Server>,
    turns: RoundRobin,
    permits: ConnectionPermits<Turn>,
    connector: Connector,
    sharing: Sharing,
    ties: Ties,
    /// Looks at the idle connections so far.
    looks: Cell<u32>,
    /// Looks until a connection is too old.
    max_age: u32,
    opened: Cell<u32>,
}

#[derive(Debug)]
struct Server {
    peer: Peer,
    label: Rc<str>,
    #[expect(clippy::vec_box, reason = "a connection keeps its box from one request to the next")]
    idle: RefCell<Vec<Box<PooledConnection>>>,
    trust: Trust,
}

/// A connection, and what stays with it from one request to the next.
#[derive(Debug)]
pub struct PooledConnection {
    pub connection: PortalConnection,
    /// For the wait for an answer. It is moved only when it fires: to set a timer anew for each request would cost more
    /// than to let an old one fire once in a while.
    pub timer: Pin<Box<Sleep>>,
    /// How many looks there had been when it became idle.
    idle_since: u32,
    /// How many there will have been when it is too old.
    old_at: u32,
    /// Whose it is, unless all share it.
    user: Option<Box<str>>,
    /// It is one client's: somebody has signed in on it, or is about to.
    is_tied: bool,
}

/// What a request asks of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub user: &'a str,
    /// It can be sent again should the connection turn out to be dead.
    pub repeatable: bool,
}

/// What somebody in the queue gets.
#[derive(Debug)]
enum Turn {
    Connection(Lease),
    Permit(Permit),
}

/// A connection that counts, until this is dropped.
#[derive(Debug)]
struct Permit {
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
    permit: Permit,
    /// Boxed: it is handed on from hand to hand.
    pub pooled: Box<PooledConnection>,
    /// It has carried a request before: the portal may have closed it just now.
    pub reused: bool,
}

impl Pool {
    /// `limits` are those of this worker.
    pub fn new(
        peers: Vec<Peer>,
        connector: Connector,
        limits: PoolLimits,
        sharing: Sharing,
        max_age: Duration,
    ) -> Rc<Self> {
        let (turns, permits) = (RoundRobin::new(peers.len()), ConnectionPermits::new(peers.len(), limits));
        let servers = peers
            .into_iter()
            .map(|peer| Server {
                label: Rc::from(peer.label.as_str()),
                peer,
                idle: RefCell::default(),
                trust: Trust::default(),
            })
            .collect();
        Rc::new(Self {
            servers,
            turns,
            permits,
            connector,
            sharing,
            ties: Ties::default(),
            looks: Cell::new(0),
            max_age: u32::try_from(max_age.as_secs()).unwrap_or(u32::MAX).max(1),
            opened: Cell::new(0),
        })
    }

    /// Who may use a connection again.
    pub fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// An idle connection to the server whose turn it is, if there is one and nothing has to be waited for.
    pub fn idle(self: &Rc<Self>, ask: Ask<'_>) -> Option<Lease> {
        let index = self.turns.current();
        let idle = self.take_idle(index, ask)?;
        self.turns.pass();
        Some(idle)
    }

    /// A new connection, or an idle one of the server whose turn it is unless `fresh` forbids. When all that may be are in
    /// use, somebody else's, as soon as they give it back.
    ///
    /// Servers are taken in turn; one that refuses is left alone for a while and the next one asked.
    pub async fn lease(self: &Rc<Self>, fresh: bool, ask: Ask<'_>) -> Result<Lease, ConnectError> {
        let (mut refused, mut is_full) = (None, false);
        for index in self.turns.order(Instant::now()) {
            if !fresh && let Some(idle) = self.take_idle(index, ask) {
                return Ok(idle);
            }
            let has_place =
                self.permits.take(index) || (self.close_an_idle_one(index) && self.permits.take(index));
            if !has_place {
                is_full = true;
                continue;
            }
            match self.open(self.permit(index, Count::Connection), ask).await {
                Ok(lease) => return Ok(lease),
                Err(error) => refused = Some(error),
            }
        }
        if is_full {
            return self.wait_for_one(fresh, ask).await;
        }
        Err(refused.unwrap_or_else(ConnectError::no_server))
    }

    /// Requests that can be answered at once.
    pub fn room(&self) -> usize {
        self.permits.most().saturating_mul(self.turns.in_use())
    }

    /// Whether another connection may become a WebSocket or a stream of events.
    pub fn has_room_for_a_stream(&self) -> bool {
        self.permits.has_room_for_a_stream()
    }

    /// Waits in the queue, no longer than opening a connection may take.
    async fn wait_for_one(self: &Rc<Self>, fresh: bool, ask: Ask<'_>) -> Result<Lease, ConnectError> {
        let turn = self.permits.wait().ok_or(ConnectError::Full)?;
        let limit = self.connector.limit();
        let permit = match tokio::time::timeout(limit, turn).await {
            Ok(Ok(Turn::Permit(permit))) => permit,
            Ok(Ok(Turn::Connection(mut lease))) => {
                if !fresh && lease.is_usable() {
                    return Ok(lease);
                }
                lease.permit
            }
            // The queue lasts as long as the pool.
            Ok(Err(_)) => return Err(ConnectError::Full),
            Err(_) => return Err(ConnectError::Late(limit)),
        };
        self.open(permit, ask).await
    }

    /// Opens a connection at a place that has been taken for it.
    async fn open(&self, permit: Permit, ask: Ask<'_>) -> Result<Lease, ConnectError> {
        let index = permit.server;
        let server = self.servers.get(index).ok_or_else(ConnectError::no_server)?;
        match self.connector.open(&server.peer).await {
            Ok(connection) => {
                self.turns.accepted(index);
                let timer = Box::pin(tokio::time::sleep_until(Instant::now()));
                let user = (self.sharing == Sharing::User).then(|| ask.user.into());
                let pooled = Box::new(PooledConnection {
                    connection,
                    timer,
                    idle_since: 0,
                    old_at: self.old_at(),
                    user,
                    is_tied: false,
                });
                Ok(Lease { permit, pooled, reused: false })
            }
            Err(error) => {
                self.turns.refused(index, Instant::now());
                Err(error)
            }
        }
    }

    /// When a connection that is opened now is too old: not all at once, or all would be opened again at once as well.
    fn old_at(&self) -> u32 {
        let number = self.opened.get();
        self.opened.set(number.wrapping_add(1));
        let early = number % (self.max_age / 4 + 1);
        self.looks.get().saturating_add(self.max_age - early)
    }

    /// The newest idle connection to a server that is still good and that this request may use.
    fn take_idle(self: &Rc<Self>, index: usize, ask: Ask<'_>) -> Option<Lease> {
        let server = self.servers.get(index)?;
        if !server.trust.allows(self.looks.get(), ask.repeatable) {
            return None;
        }
        let mut idle = server.idle.borrow_mut();
        loop {
            let at = match self.sharing {
                Sharing::User => idle.iter().rposition(|pooled| pooled.user.as_deref() == Some(ask.user))?,
                Sharing::Shared | Sharing::Once => idle.len().checked_sub(1)?,
            };
            let mut pooled = idle.remove(at);
            let look = pooled.connection.look();
            if look == Idle::Usable {
                return Some(Lease { permit: self.permit(index, Count::Connection), pooled, reused: true });
            }
            self.permits.free(index);
            if look == Idle::Spoke {
                self.spoke(index);
                return None;
            }
            // Where one has just been closed, the next one may be about to be.
            if !ask.repeatable {
                return None;
            }
        }
    }

    /// Makes room at a server by closing a connection that nobody uses and that is not for whoever asks.
    fn close_an_idle_one(&self, index: usize) -> bool {
        let Some(server) = self.servers.get(index) else { return false };
        let mut idle = server.idle.borrow_mut();
        if !idle.is_empty() {
            idle.remove(0);
            self.permits.free(index);
            return true;
        }
        drop(idle);
        self.ties.close_one(|lease| lease.permit.server == index)
    }

    fn permit(self: &Rc<Self>, server: usize, counts_as: Count) -> Permit {
        Permit { pool: Rc::clone(self), server, counts_as }
    }

    /// Closes connections that have been idle too long, or are too old; called by the worker every second.
    pub fn tidy(&self) {
        let looks = self.looks.get().wrapping_add(1);
        self.looks.set(looks);
        for (index, server) in self.servers.iter().enumerate() {
            let mut spoke = false;
            server.idle.borrow_mut().retain_mut(|pooled| {
                let look = pooled.connection.look();
                spoke |= look == Idle::Spoke;
                let stays =
                    look == Idle::Usable && looks < pooled.old_at && looks - pooled.idle_since < IDLE_LOOKS;
                if !stays {
                    // Nobody waits while a connection is idle.
                    self.permits.free(index);
                }
                stays
            });
            if spoke {
                self.spoke(index);
            }
        }
        self.ties.tidy(|lease| looks - lease.pooled.idle_since >= TIED_LOOKS || !lease.is_usable());
    }

    /// A server has sent what nobody asked for.
    fn spoke(&self, index: usize) {
        let Some(server) = self.servers.get(index) else { return };
        if let Some(seconds) = server.trust.disappoint(self.looks.get()) {
            tracing::warn!(
                server = &*server.label,
                "the portal sent bytes that nobody asked for: it may have taken the body of a request for another \
                 request. Their connection was closed, and for {seconds} s each request gets a connection of its own. \
                 If this comes again, set `portal.connections = \"once\"`"
            );
        }
    }

    /// A server has closed a connection that it had kept open, just when a request was sent.
    fn lost(&self, index: usize) {
        let Some(server) = self.servers.get(index) else { return };
        if let Some(seconds) = server.trust.disappoint(self.looks.get()) {
            tracing::warn!(
                server = &*server.label,
                "the portal closed a connection that it had not said it would close, as a request went out on it: for \
                 {seconds} s each request gets a connection of its own"
            );
        }
    }
}

impl Lease {
    /// Which server it leads to, for logs.
    pub fn label(&self) -> Rc<str> {
        let server = self.permit.pool.servers.get(self.permit.server);
        server.map_or_else(|| Rc::from(""), |server| Rc::clone(&server.label))
    }

    /// How the server is asked, and what `Host` says to it, where that is not the host that users know.
    pub fn named(&self) -> Option<(&'static str, &Authority)> {
        let peer = &self.permit.pool.servers.get(self.permit.server)?.peer;
        let scheme = if peer.tls.is_some() { "https" } else { "http" };
        peer.named.as_ref().map(|named| (scheme, named))
    }

    /// Says that the connection is a WebSocket or a stream of events from now on, which is nobody's place in the queue.
    /// False when there are too many.
    pub fn becomes_stream(&mut self) -> bool {
        let has_room = self.permit.pool.permits.begin_stream();
        if has_room {
            self.permit.leave();
            self.permit.counts_as = Count::Stream;
        }
        has_room
    }

    /// Keeps the connection for another request.
    pub fn give_back(self) {
        let Self { mut permit, mut pooled, reused } = self;
        let pool = Rc::clone(&permit.pool);
        let Some(server) = pool.servers.get(permit.server) else { return };
        let looks = pool.looks.get();
        if reused {
            server.trust.confirm(looks);
        }
        if permit.counts_as != Count::Connection || looks >= pooled.old_at || !server.trust.keeps(looks) {
            return;
        }
        if pooled.user.is_some() {
            // Whoever waits may be somebody else: what they get is the place.
            if pool.permits.is_waited_for() {
                return;
            }
        } else if let Some(first) = pool.permits.next() {
            // Should they be gone after all, their place goes with them.
            let _ = first.send(Turn::Connection(Self { permit, pooled, reused: true }));
            return;
        }
        let mut idle = server.idle.borrow_mut();
        if idle.len() < MOST_IDLE {
            pooled.idle_since = looks;
            idle.push(pooled);
            permit.counts_as = Count::Nothing;
        }
    }

    /// Keeps the connection for one owner alone.
    pub(super) fn give_to(mut self, owner: ConnectionOwner) {
        let pool = Rc::clone(&self.permit.pool);
        if self.permit.counts_as == Count::Connection && !pool.permits.is_waited_for() {
            self.pooled.idle_since = pool.looks.get();
            self.reused = true;
            owner.keep(self);
        }
    }

    /// Says that the connection is one client's from now on: somebody signs in on it.
    pub(super) fn tie(&mut self) {
        self.pooled.is_tied = true;
    }

    /// Whether the connection is one client's.
    pub(super) fn is_tied(&self) -> bool {
        self.pooled.is_tied
    }

    /// Reports that more came over the connection than was asked for.
    pub(super) fn spoke(&self) {
        self.permit.pool.spoke(self.permit.server);
    }

    /// Reports that the server closed the connection although it had kept it open.
    pub(super) fn lost(&self) {
        self.permit.pool.lost(self.permit.server);
    }

    /// Has the pool know who holds tied connections.
    pub(super) fn know(&self, tie: Weak<Tie>) {
        self.permit.pool.ties.add(tie);
    }

    /// Gives it out if it can carry another request.
    pub(super) fn if_usable(mut self) -> Option<Self> {
        self.is_usable().then_some(self)
    }

    fn is_usable(&mut self) -> bool {
        let look = self.pooled.connection.look();
        if look == Idle::Spoke {
            self.spoke();
        }
        look == Idle::Usable
    }
}

impl Permit {
    /// Stops counting, and lets the first in the queue count instead.
    fn leave(&mut self) {
        let permits = &self.pool.permits;
        match std::mem::replace(&mut self.counts_as, Count::Nothing) {
            Count::Connection => {
                permits.free(self.server);
                if let Some(first) = permits.next()
                    && permits.take(self.server)
                {
                    let _ = first.send(Turn::Permit(self.pool.permit(self.server, Count::Connection)));
                }
            }
            Count::Stream => permits.end_stream(),
            Count::Nothing => {}
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.leave();
    }
}
