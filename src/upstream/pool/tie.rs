//! A connection to the portal that belongs to one client: somebody has signed in on it, or is about to (NTLM, Negotiate), and
//! the portal takes whatever comes over it for theirs. It is closed with the client's connection.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
};

use super::Lease;
use crate::secret::TokenHash;

/// What one client's connection has at the portal for itself. Nothing, usually.
#[derive(Debug, Default)]
pub struct Tie {
    held: RefCell<Option<Held>>,
    is_known: Cell<bool>,
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    /// A trusted proxy sends requests of many sessions over one connection.
    session: Option<TokenHash>,
}

/// For whom a request is sent: what comes of its connection if that gets tied.
#[derive(Clone, Debug)]
pub struct ConnectionOwner {
    pub tie: Rc<Tie>,
    /// Absent: nobody knows whose it is, so it is nobody's again.
    pub session: Option<TokenHash>,
}

impl ConnectionOwner {
    /// The connection that is this owner's and nobody else's, if it is still good. Somebody else's is closed.
    pub fn lease(&self) -> Option<Lease> {
        let Held { lease, session } = self.tie.held.borrow_mut().take()?;
        (session.is_some() && session == self.session).then_some(lease).and_then(Lease::if_usable)
    }

    /// Keeps a connection for this owner alone.
    pub(super) fn keep(self, lease: Lease) {
        if !self.tie.is_known.replace(true) {
            lease.know(Rc::downgrade(&self.tie));
        }
        let before = self.tie.held.borrow_mut().replace(Held { lease, session: self.session });
        drop(before);
    }
}

impl Tie {
    /// Closes what it holds if `is_over` says so. Whether it has closed anything.
    pub(super) fn close_if(&self, is_over: impl FnOnce(&mut Lease) -> bool) -> bool {
        let mut held = self.held.borrow_mut();
        let is_over = held.as_mut().is_some_and(|held| is_over(&mut held.lease));
        let over = if is_over { held.take() } else { None };
        // It tells the pool of its end, which may look here again.
        drop(held);
        over.is_some()
    }
}

/// The ties of one worker that hold anything, or did.
#[derive(Debug, Default)]
pub(super) struct Ties(RefCell<Vec<Weak<Tie>>>);

impl Ties {
    pub(super) fn add(&self, tie: Weak<Tie>) {
        self.0.borrow_mut().push(tie);
    }

    /// Closes what is over, and forgets the clients that are gone.
    pub(super) fn tidy(&self, mut is_over: impl FnMut(&mut Lease) -> bool) {
        self.0.borrow_mut().retain(|tie| {
            tie.upgrade().is_some_and(|tie| {
                tie.close_if(&mut is_over);
                true
            })
        });
    }

    /// Closes one for which `suits` holds. Whether there was one.
    pub(super) fn close_one(&self, mut suits: impl FnMut(&mut Lease) -> bool) -> bool {
        let ties = self.0.borrow();
        ties.iter().filter_map(Weak::upgrade).any(|tie| tie.close_if(&mut suits))
    }
}
