//! The HTTP/1.1 message format (RFC 9112), for clients and for the portal: heads, framing and chunks. What has two readings is
//! refused; bodies are written by one encoder. No sockets, no request of ours, no policy:
//! [`read_ahead`] reads from any stream.

pub mod answer_head;
pub mod body_part;
pub mod chunked;
pub mod encode;
pub mod fields;
pub mod framing;
pub mod head;
pub mod read_ahead;
pub mod request_head;
pub mod spelling;
