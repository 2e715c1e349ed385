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
