//! HTTP/1.1 towards the portal (RFC 9112): one request and its answer at a time on a connection.
//!
//! The task that waits for a response reads it from the socket. Request heads come in wire form. Of response heads, hop-by-hop
//! fields and those that are not the portal's to set are dropped here.

mod answer;
mod exchange;
mod io;
mod request_writer;

pub use answer::{PortalHead, parse};
pub use exchange::{AnswerError, Exchange, PortalStream};
pub use io::{Idle, PortalConnection, Transport};
pub use request_writer::{Outgoing, PortalSpans, RequestWriter};
