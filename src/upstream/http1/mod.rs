//! HTTP/1.1 towards the portal (RFC 9112): one request and its answer at a time on a connection.
//!
//! No task of its own and no channel: whoever waits for the answer reads it from the socket. The head of a request comes as
//! bytes, ready for the wire; of an answer, the fields of one hop end here, and those that are not the portal's to say.

mod answer;
mod exchange;
mod io;
mod request_writer;

pub use answer::{PortalHead, parse};
pub use exchange::{AnswerError, Exchange, PortalStream};
pub use io::{Idle, PortalConnection, Transport};
pub use request_writer::{Outgoing, PortalSpans, RequestWriter};
