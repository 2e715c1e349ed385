//! What operators see: logs, one access-log line a request, metrics.

pub mod access_log;
pub mod log;
pub mod metrics;
mod outcome;
pub mod panics;
pub mod writer;

pub use outcome::Outcome;
