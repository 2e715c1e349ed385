//! What operators see: logs, one access-log line a request, metrics.

pub mod log;
