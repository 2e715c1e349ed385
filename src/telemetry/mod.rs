//! What operators see: the log, the access log, the metrics.

pub mod access_log;
pub mod log;
pub mod metrics;
mod outcome;
pub mod panics;
pub mod writer;

pub use outcome::Outcome;
