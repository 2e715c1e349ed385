//! Setting up the log.

/// How much is logged and in what form.
#[derive(Clone, Debug)]
pub struct Config {
    /// A `tracing` filter: `info`, `warn,portcullis=debug`.
    pub level: String,
    pub format: Format,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Reads a filter as `tracing` understands it.
pub fn filter(level: &str) -> Result<tracing_subscriber::EnvFilter, tracing_subscriber::filter::ParseError> {
    tracing_subscriber::EnvFilter::builder().parse(level)
}
