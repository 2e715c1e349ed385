//! HTTP/1.1 towards the portal (RFC 9112): one request and its answer at a time on a connection.
//!
//! No task of its own and no channel: whoever waits for the answer reads it from the socket. The head of a request comes as
//! bytes, ready for the wire; of an answer, the fields of one hop end here, and those that are not the portal's to say.

mod answer;
mod exchange;
mod io;
mod upload;

pub use answer::{Head, parse};
pub use exchange::{AnswerError, Exchange, Upgraded};
pub use io::{Connection, Idle, Transport};
pub use upload::{Names, Outgoing, Upload};
