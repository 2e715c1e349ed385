//! Connections to the portal that are tied to one client: a user has signed in on it (NTLM, Negotiate), and the portal
//! attributes every request on it to that user. It is closed with the client's connection.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

use super::{Lease, Pool};
use crate::secret::TokenHash;

/// The tied connections of one client, one to each portal. Usually there is none.
#[derive(Debug, Default)]
pub struct Tie {
    held: RefCell<Vec<TiedConnection>>,
}

#[derive(Debug)]
struct TiedConnection {
    lease: Lease,
    /// The session, since a trusted proxy sends requests of many over one connection.
    session: Option<TokenHash>,
}

/// The client of a request, who becomes the owner of its connection if that gets tied.
#[derive(Clone, Debug)]
pub struct ConnectionOwner {
    pub tie: Rc<Tie>,
    /// Absent: the user is unknown, so the connection is not reused.
    pub session: Option<TokenHash>,
}

impl ConnectionOwner {
    /// The connection of this pool that is tied to this owner, if it is still usable. One tied to another session is closed.
    pub fn lease(&self, pool: &Rc<Pool>) -> Option<Lease> {
        let TiedConnection { lease, session } = self.tie.take(pool)?;
        (session.is_some() && session == self.session).then_some(lease).and_then(Lease::if_usable)
    }

    /// Keeps a connection for this owner only.
    pub(super) fn keep(self, lease: Lease) {
        lease.know(Rc::downgrade(&self.tie));
        let before = self.tie.take(lease.pool());
        self.tie.held.borrow_mut().push(TiedConnection { lease, session: self.session });
        drop(before);
    }
}

impl Tie {
    fn take(&self, pool: &Rc<Pool>) -> Option<TiedConnection> {
        let mut held = self.held.borrow_mut();
        let at = held.iter().position(|held| Rc::ptr_eq(held.lease.pool(), pool))?;
        Some(held.swap_remove(at))
    }

    /// Closes the tied connection of a pool if `is_over`. Returns whether it did.
    pub(super) fn close_if(&self, pool: &Pool, is_over: impl FnOnce(&mut Lease) -> bool) -> bool {
        let mut held = self.held.borrow_mut();
        let own = held.iter().position(|held| std::ptr::eq(Rc::as_ptr(held.lease.pool()), pool));
        let over = own
            .filter(|&at| held.get_mut(at).is_some_and(|held| is_over(&mut held.lease)))
            .map(|at| held.swap_remove(at));
        // Dropping a lease calls the pool, which may come back here.
        drop(held);
        over.is_some()
    }
}

/// The ties of one worker that have or had a connection.
#[derive(Debug, Default)]
pub(super) struct Ties(RefCell<Vec<Weak<Tie>>>);

impl Ties {
    /// Each is listed once.
    pub(super) fn add(&self, tie: Weak<Tie>) {
        let mut ties = self.0.borrow_mut();
        if !ties.iter().any(|known| known.ptr_eq(&tie)) {
            ties.push(tie);
        }
    }

    /// Closes connections that are over, and drops the ties of clients that have gone.
    pub(super) fn tidy(&self, pool: &Pool, mut is_over: impl FnMut(&mut Lease) -> bool) {
        self.0.borrow_mut().retain(|tie| {
            tie.upgrade().is_some_and(|tie| {
                tie.close_if(pool, &mut is_over);
                true
            })
        });
    }

    /// Closes one connection that `suits`. Returns whether there was one.
    pub(super) fn close_one(&self, pool: &Pool, mut suits: impl FnMut(&mut Lease) -> bool) -> bool {
        let ties = self.0.borrow();
        ties.iter().filter_map(Weak::upgrade).any(|tie| tie.close_if(pool, &mut suits))
    }
}
