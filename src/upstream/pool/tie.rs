//! Connections to the portal that are tied to one client: a user has signed in on it (NTLM, Negotiate), and the portal
//! attributes every request on it to that user. It is closed with the client's connection.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
};

use super::Lease;
use crate::secret::TokenHash;

/// The tied connection of one client. Usually there is none.
#[derive(Debug, Default)]
pub struct Tie {
    held: RefCell<Option<Held>>,
    is_known: Cell<bool>,
}

#[derive(Debug)]
struct Held {
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
    /// The connection tied to this owner, if it is still usable. One tied to another session is closed.
    pub fn lease(&self) -> Option<Lease> {
        let Held { lease, session } = self.tie.held.borrow_mut().take()?;
        (session.is_some() && session == self.session).then_some(lease).and_then(Lease::if_usable)
    }

    /// Keeps a connection for this owner only.
    pub(super) fn keep(self, lease: Lease) {
        if !self.tie.is_known.replace(true) {
            lease.know(Rc::downgrade(&self.tie));
        }
        let before = self.tie.held.borrow_mut().replace(Held { lease, session: self.session });
        drop(before);
    }
}

impl Tie {
    /// Closes the tied connection if `is_over`. Returns whether it did.
    pub(super) fn close_if(&self, is_over: impl FnOnce(&mut Lease) -> bool) -> bool {
        let mut held = self.held.borrow_mut();
        let is_over = held.as_mut().is_some_and(|held| is_over(&mut held.lease));
        let over = if is_over { held.take() } else { None };
        // Dropping a lease calls the pool, which may come back here.
        drop(held);
        over.is_some()
    }
}

/// The ties of one worker that have or had a connection.
#[derive(Debug, Default)]
pub(super) struct Ties(RefCell<Vec<Weak<Tie>>>);

impl Ties {
    pub(super) fn add(&self, tie: Weak<Tie>) {
        self.0.borrow_mut().push(tie);
    }

    /// Closes connections that are over, and drops the ties of clients that have gone.
    pub(super) fn tidy(&self, mut is_over: impl FnMut(&mut Lease) -> bool) {
        self.0.borrow_mut().retain(|tie| {
            tie.upgrade().is_some_and(|tie| {
                tie.close_if(&mut is_over);
                true
            })
        });
    }

    /// Closes one connection that `suits`. Returns whether there was one.
    pub(super) fn close_one(&self, mut suits: impl FnMut(&mut Lease) -> bool) -> bool {
        let ties = self.0.borrow();
        ties.iter().filter_map(Weak::upgrade).any(|tie| tie.close_if(&mut suits))
    }
}
