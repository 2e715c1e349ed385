//! Bodies of requests that have been answered without being read to their end, on one connection of HTTP/2.

use std::cell::RefCell;

use hyper::body::Incoming;

/// They are dropped, which resets their streams, when the answers have been written. libcurl 7.88, which git uses on Debian 12,
/// fails with "Stream error in the HTTP/2 framing layer" when a reset comes in the same TLS record as the answer.
#[derive(Debug, Default)]
pub(super) struct Unread(RefCell<Vec<Incoming>>);

impl Unread {
    pub(super) fn keep(&self, body: Incoming) {
        self.0.borrow_mut().push(body);
    }

    /// Drops what was kept. True: there are resets to be written.
    pub(super) fn release(&self) -> bool {
        !self.0.take().is_empty()
    }
}
