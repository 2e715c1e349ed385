//! HTTP/1.1 as it is written down (RFC 9112), for both sides: heads, framing and chunks are read in one way or refused, and
//! written by one encoder. Knows no socket, no request of ours and no policy.

pub mod answer_head;
pub mod body_part;
pub mod chunked;
pub mod encode;
pub mod fields;
pub mod framing;
pub mod head;
pub mod request_head;
pub mod spelling;
