//! The pool of connections to the portal: kept alive between requests, the newest used first, limited, with a queue.

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
    reuse::Reuse,
    round_robin::RoundRobin,
};

/// Checks, one per second, after which an idle connection is closed: shorter than the keep-alive of common servers (Node.js:
/// 5 s), so that we close first.
const IDLE_LOOKS: u32 = 4;
/// The same for a tied connection, whose user would have to sign in again.
const TIED_LOOKS: u32 = 60;
/// Idle connections kept per server: enough for a few HTTP/2 clients with all streams in use.
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
    /// Checks of the idle connections so far.
    looks: Cell<u32>,
    /// Checks until a connection is too old.
    max_age: u32,
    opened: Cell<u32>,
}

#[derive(Debug)]
struct Server {
    peer: Peer,
    label: Rc<str>,
    #[expect(clippy::vec_box, reason = "a connection keeps its box from one request to the next")]
    idle: RefCell<Vec<Box<PooledConnection>>>,
    reuse: Reuse,
}

/// A connection with the state that it keeps between requests.
#[derive(Debug)]
pub struct PooledConnection {
    pub connection: PortalConnection,
    /// The response timeout. It is reset only when it fires: resetting it for each request would cost more than letting it fire
    /// once in a while.
    pub timer: Pin<Box<Sleep>>,
    /// The check at which it became idle.
    idle_since: u32,
    /// The check at which it is too old.
    old_at: u32,
    /// Its user, if connections are not shared.
    user: Option<Box<[u8]>>,
    /// It is tied to one client, who has signed in on it or is about to.
    is_tied: bool,
}

/// The request's demands on a connection.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Whose connections it may have where they are kept apart: a user's, or a token's.
    pub user: &'a [u8],
    /// It can be sent again if the connection turns out to be dead.
    pub repeatable: bool,
}

/// What a waiting request receives.
#[derive(Debug)]
enum Turn {
    Connection(Lease),
    Permit(Permit),
}

/// The permit of a connection; it counts until it is dropped.
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
    /// The idle connection counts instead.
    Nothing,
}

/// A connection in use. Return it with [`Lease::give_back`] after the end of the response; dropping it closes the connection.
#[derive(Debug)]
pub struct Lease {
    permit: Permit,
    /// Boxed, since it moves between requests.
    pub pooled: Box<PooledConnection>,
    /// It has carried a request before, so the portal may have closed it at the same moment.
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
                reuse: Reuse::default(),
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

    /// Which requests may reuse a connection.
    pub fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// An idle connection to the next server in turn, if there is one. Never waits.
    pub fn idle(self: &Rc<Self>, ask: Ask<'_>) -> Option<Lease> {
        let index = self.turns.current();
        let idle = self.take_idle(index, ask)?;
        self.turns.pass();
        Some(idle)
    }

    /// A new connection, or an idle one unless `fresh` is set. When the limit is reached, waits for one to be returned.
    ///
    /// Servers are used in turn; one that refuses is skipped for a while.
    pub async fn lease(self: &Rc<Self>, fresh: bool, ask: Ask<'_>) -> Result<Lease, ConnectError> {
        let (mut refused, mut is_full) = (None, false);
        for index in self.turns.order(Instant::now()) {
            if !fresh && let Some(idle) = self.take_idle(index, ask) {
                return Ok(idle);
            }
            let has_permit =
                self.permits.take(index) || (self.close_an_idle_one(index) && self.permits.take(index));
            if !has_permit {
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

    /// The number of concurrent requests that the pool allows.
    pub fn room(&self) -> usize {
        self.permits.most().saturating_mul(self.turns.in_use())
    }

    /// Whether another connection may become a WebSocket or an event stream.
    pub fn has_room_for_a_stream(&self) -> bool {
        self.permits.has_room_for_a_stream()
    }

    /// Waits in the queue, for no longer than the connect timeout.
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

    /// Opens a connection with a permit.
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

    /// The check at which a new connection is too old; spread out, so that connections are not all replaced at once.
    fn old_at(&self) -> u32 {
        let number = self.opened.get();
        self.opened.set(number.wrapping_add(1));
        let early = number % (self.max_age / 4 + 1);
        self.looks.get().saturating_add(self.max_age - early)
    }

    /// The newest idle connection to a server that is usable for this request.
    fn take_idle(self: &Rc<Self>, index: usize, ask: Ask<'_>) -> Option<Lease> {
        let server = self.servers.get(index)?;
        if !server.reuse.allows(self.looks.get(), ask.repeatable) {
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
            // The server may be closing the next one just now.
            if !ask.repeatable {
                return None;
            }
        }
    }

    /// Makes room at a server by closing an idle connection that this request may not use.
    fn close_an_idle_one(&self, index: usize) -> bool {
        let Some(server) = self.servers.get(index) else { return false };
        let mut idle = server.idle.borrow_mut();
        if !idle.is_empty() {
            idle.remove(0);
            self.permits.free(index);
            return true;
        }
        drop(idle);
        self.ties.close_one(self, |lease| lease.permit.server == index)
    }

    fn permit(self: &Rc<Self>, server: usize, counts_as: Count) -> Permit {
        Permit { pool: Rc::clone(self), server, counts_as }
    }

    /// Closes connections that are idle for too long or too old. The worker calls it every second.
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
                    // The queue is empty while a connection is idle.
                    self.permits.free(index);
                }
                stays
            });
            if spoke {
                self.spoke(index);
            }
        }
        self.ties.tidy(self, |lease| looks - lease.pooled.idle_since >= TIED_LOOKS || !lease.is_usable());
    }

    /// A server has sent bytes without a request.
    fn spoke(&self, index: usize) {
        let Some(server) = self.servers.get(index) else { return };
        if let Some(seconds) = server.reuse.failed(self.looks.get()) {
            tracing::warn!(
                server = &*server.label,
                "the portal sent bytes that nobody asked for: it may have taken the body of a request for another \
                 request. Their connection was closed, and for {seconds} s each request gets a connection of its own. \
                 If this comes again, set `portal.connections = \"once\"`"
            );
        }
    }

    /// A server has closed a kept-alive connection as a request was sent.
    fn lost(&self, index: usize) {
        let Some(server) = self.servers.get(index) else { return };
        if let Some(seconds) = server.reuse.failed(self.looks.get()) {
            tracing::warn!(
                server = &*server.label,
                "the portal closed a connection that it had not said it would close, as a request went out on it: for \
                 {seconds} s each request gets a connection of its own"
            );
        }
    }
}

impl Lease {
    /// The server's name in logs.
    pub fn label(&self) -> Rc<str> {
        let server = self.permit.pool.servers.get(self.permit.server);
        server.map_or_else(|| Rc::from(""), |server| Rc::clone(&server.label))
    }

    /// The scheme and `Host` of requests to the server, where that is not the public host.
    pub fn named(&self) -> Option<(&'static str, &Authority)> {
        let peer = &self.permit.pool.servers.get(self.permit.server)?.peer;
        let scheme = if peer.tls.is_some() { "https" } else { "http" };
        peer.named.as_ref().map(|named| (scheme, named))
    }

    /// Counts the connection as a WebSocket or an event stream from now on, which frees its permit. False when there are too
    /// many.
    pub fn becomes_stream(&mut self) -> bool {
        let has_room = self.permit.pool.permits.begin_stream();
        if has_room {
            self.permit.leave();
            self.permit.counts_as = Count::Stream;
        }
        has_room
    }

    /// Returns the connection to the pool.
    pub fn give_back(self) {
        let Self { mut permit, mut pooled, reused } = self;
        let pool = Rc::clone(&permit.pool);
        let Some(server) = pool.servers.get(permit.server) else { return };
        let looks = pool.looks.get();
        if reused {
            server.reuse.worked(looks);
        }
        if permit.counts_as != Count::Connection || looks >= pooled.old_at || !server.reuse.keeps(looks) {
            return;
        }
        if pooled.user.is_some() {
            // The waiting request may be another user's: it gets the permit only.
            if pool.permits.is_waited_for() {
                return;
            }
        } else if let Some(first) = pool.permits.next() {
            // If the receiver has gone, the lease is dropped with its permit.
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

    /// Keeps the connection for its owner only.
    pub(super) fn give_to(mut self, owner: ConnectionOwner) {
        let pool = Rc::clone(&self.permit.pool);
        if self.permit.counts_as == Count::Connection && !pool.permits.is_waited_for() {
            self.pooled.idle_since = pool.looks.get();
            self.reused = true;
            owner.keep(self);
        }
    }

    /// Ties the connection to one client, who is signing in on it.
    pub(super) fn tie(&mut self) {
        self.pooled.is_tied = true;
    }

    /// Whether the connection is tied to one client.
    pub(super) fn is_tied(&self) -> bool {
        self.pooled.is_tied
    }

    /// Reports that the server sent bytes without a request.
    pub(super) fn spoke(&self) {
        self.permit.pool.spoke(self.permit.server);
    }

    /// Reports that the server closed a kept-alive connection.
    pub(super) fn lost(&self) {
        self.permit.pool.lost(self.permit.server);
    }

    fn pool(&self) -> &Rc<Pool> {
        &self.permit.pool
    }

    /// Registers a holder of tied connections with the pool.
    pub(super) fn know(&self, tie: Weak<Tie>) {
        self.permit.pool.ties.add(tie);
    }

    /// Returns it if it can carry another request.
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
    /// Stops counting, and passes the permit to the first in the queue.
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
