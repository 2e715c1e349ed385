//! The log: its filter and its form. An event is one line, whatever it quotes.
//!
//! Does not write access-log lines, which go directly to the same writer.

use std::io::{self, IsTerminal as _, Write};

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry,
    filter::ParseError,
    fmt::{self, MakeWriter},
    layer::SubscriberExt as _,
};

use super::writer::{LogWriter, is_disruptive};

/// Filter and form of the log.
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

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("invalid log level or filter")]
    Filter(#[from] ParseError),
    #[error("cannot start the thread that writes the log")]
    Thread(#[source] io::Error),
    #[error("the log is already set up")]
    SetUpBefore(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Logs every event of this process to standard output, in colour on a terminal. Flush the writer before exit.
pub fn init(config: &Config) -> Result<LogWriter, LogError> {
    let colour = config.format == Format::Text && io::stdout().is_terminal();
    let writer = LogWriter::start(io::stdout()).map_err(LogError::Thread)?;
    tracing::subscriber::set_global_default(subscriber(config, writer.clone(), colour)?)?;
    Ok(writer)
}

/// Logs to standard error what a command leaves out of its task, and the audit trail; the command prints its own
/// errors.
pub fn init_for_command(config: &Config) -> Result<LogWriter, LogError> {
    let writer = LogWriter::start(io::stderr()).map_err(LogError::Thread)?;
    let config = Config { level: "off,portcullis::sessions=warn,audit=info".to_owned(), ..config.clone() };
    tracing::subscriber::set_global_default(subscriber(&config, writer.clone(), false)?)?;
    Ok(writer)
}

/// Parses a filter as `tracing` does. The audit trail stays on at any level, unless it is named itself.
pub fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    let names_audit = level.split(',').any(|part| part.trim().starts_with("audit"));
    let filter = EnvFilter::builder().parse(level)?;
    Ok(if names_audit { filter } else { filter.add_directive("audit=info".parse()?) })
}

fn subscriber(
    config: &Config,
    writer: LogWriter,
    colour: bool,
) -> Result<impl Subscriber + Send + Sync + use<>, ParseError> {
    let layer = fmt::layer().with_ansi(colour).with_writer(Events { writer, colour });
    let layer = match config.format {
        Format::Text => layer.boxed(),
        Format::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
    };
    Ok(Registry::default().with(layer.with_filter(filter(&config.level)?)))
}

/// Collects each event into one text.
struct Events {
    writer: LogWriter,
    colour: bool,
}

impl<'a> MakeWriter<'a> for Events {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Events {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.writer.line(one_line(&String::from_utf8_lossy(event), self.colour));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Escapes characters that would start a second line. With colour, escape characters come from the formatter itself: it
/// has already escaped those in values.
fn one_line(event: &str, colour: bool) -> String {
    let event = event.strip_suffix('\n').unwrap_or(event);
    let mut line = String::with_capacity(event.len() + 1);
    for character in event.chars() {
        if is_disruptive(character) && !(colour && character == '\x1b') {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use tracing::{debug, info, warn};

    use super::{
        super::writer::tests::{Memory, PATIENCE},
        *,
    };

    fn logged(level: &str, format: Format, act: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = LogWriter::start(memory.clone()).unwrap();
        let config = Config { level: level.into(), format };
        let subscriber = subscriber(&config, writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, act);
        assert!(writer.flush(PATIENCE));
        memory.text()
    }

    #[test]
    fn only_what_the_filter_lets_through_is_logged() {
        let text = logged("warn", Format::Text, || {
            info!("quiet");
            warn!(user.id = 7, "loud");
        });
        assert!(text.contains("WARN") && text.contains("loud user.id=7"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn a_module_can_be_louder_than_the_rest() {
        let text = logged("warn,portcullis=debug", Format::Text, || debug!("detail"));
        assert!(text.contains("detail"), "{text}");
    }

    #[test]
    fn json_events_are_flat_objects() {
        let text = logged("info", Format::Json, || info!(client.ip = "192.0.2.1", "hello"));
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["message"], "hello");
        assert_eq!(event["client.ip"], "192.0.2.1");
        assert_eq!(event["level"], "INFO");
    }

    #[test]
    fn a_value_cannot_forge_a_second_line() {
        for format in [Format::Text, Format::Json] {
            let text = logged("info", format, || {
                info!(user = %"a\r\nINFO forged\x1b[31m\u{202e}\u{85}\u{2028}", "login failed\nfor");
            });
            assert_eq!(text.lines().count(), 1, "{text:?}");
            assert_eq!(text.trim_end_matches('\n').chars().find(|&c| is_disruptive(c)), None, "{text:?}");
        }
    }
}
