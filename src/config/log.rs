//! `[log]`: level and format of the log.

use serde::Deserialize;
use tracing::level_filters::LevelFilter;

use super::values::{ConfigValue, Parsed};
use crate::telemetry::log;

/// `[log]`, validated.
pub(super) struct LogSettings {
    pub(super) log: log::Config,
    pub(super) access_log: bool,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    /// `error`, `warn`, `info`, `debug` or `trace`; or a filter by module, such as `info,portcullis::sessions=debug`.
    level: Parsed<Filter>,
    /// `text` for people, `json` for machines; also for the access log.
    format: Format,
    /// Whether each request is logged.
    access: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Text,
    Json,
}

impl Default for Section {
    fn default() -> Self {
        Self { level: Parsed(Filter("info".into())), format: Format::Text, access: true }
    }
}

impl Section {
    pub(super) fn validate(self) -> LogSettings {
        let format = match self.format {
            Format::Text => log::Format::Text,
            Format::Json => log::Format::Json,
        };
        LogSettings { log: log::Config { level: self.level.0.0, format }, access_log: self.access }
    }
}

/// A filter for `tracing`.
struct Filter(String);

impl ConfigValue for Filter {
    const EXPECTED: &'static str =
        "a level such as `info`, or a filter such as `info,portcullis::sessions=debug`";

    /// Stricter than `tracing`, which takes a misspelt level for a module and then logs nothing.
    fn read(text: &str) -> Result<Self, String> {
        for part in text.split(',') {
            let level = part.rsplit_once('=').map_or(part, |(_, level)| level).trim();
            if level.is_empty() || level.parse::<LevelFilter>().is_err() || log::filter(part).is_err() {
                return Err(format!(
                    "`{level}` is not a level; expected `error`, `warn`, `info`, `debug` or `trace`"
                ));
            }
        }
        Ok(Self(text.to_owned()))
    }
}
