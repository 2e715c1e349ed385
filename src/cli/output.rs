//! The output of commands: text in columns for people, JSON for scripts, errors with their whole chain.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::config::Problems;

/// The format of the output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Prints `fact` as JSON, or the text that `text` makes of it.
    pub(super) fn print<T: Serialize>(self, fact: &T, text: impl FnOnce(&T) -> String) {
        // The reader has gone: there is nobody to tell.
        let _ = self.try_print(fact, text);
    }

    /// The same, with an error if it could not be written.
    pub(super) fn try_print<T: Serialize>(self, fact: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        let line = if self.json {
            // Our own structs of strings and numbers can always be serialized.
            serde_json::to_string_pretty(fact).unwrap_or_default()
        } else {
            text(fact)
        };
        writeln!(io::stdout().lock(), "{line}")
    }

    /// Prints why a command failed.
    pub(super) fn fail(self, error: &anyhow::Error) {
        if self.json {
            let fact = match error.downcast_ref::<Problems>() {
                Some(problems) => {
                    let problems: Vec<_> = problems.iter().collect();
                    serde_json::json!({ "error": error.to_string(), "problems": problems })
                }
                None => {
                    let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
                    serde_json::json!({ "error": error.to_string(), "causes": causes })
                }
            };
            let _ = writeln!(io::stdout().lock(), "{fact:#}");
        }
        // The problems of a configuration have been shown already, each with its line.
        if error.is::<Problems>() {
            explain(&format!("error: {error}"));
        } else {
            explain(&format!("error: {error:#}"));
        }
    }
}

/// Prints a usage error as JSON. In text mode clap has printed it.
pub(super) fn misused(error: &clap::Error) {
    let text = error.render().to_string();
    let (what, usage) = match error.kind() {
        clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => ("a command is missing", &*text),
        _ => text.split_once("\n\n").unwrap_or((&text, "")),
    };
    let what: Vec<&str> = what.trim_start_matches("error: ").split_whitespace().collect();
    let fact = serde_json::json!({ "error": what.join(" "), "causes": [], "usage": usage.trim() });
    let _ = writeln!(io::stdout().lock(), "{fact:#}");
}

/// Prints an explanation for people to standard error.
pub(super) fn explain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text.trim_end());
}

/// Whether standard error is a terminal with colours.
pub(super) fn is_colourful() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// A line of comma-separated values (RFC 4180).
pub(super) fn csv_line(cells: &[&str]) -> String {
    let quoted = |cell: &&str| {
        let is_plain = cell.trim() == *cell && !cell.contains(['"', ',', '\n', '\r']);
        if is_plain { (*cell).to_owned() } else { format!("\"{}\"", cell.replace('"', "\"\"")) }
    };
    cells.iter().map(quoted).collect::<Vec<_>>().join(",") + "\r\n"
}

/// Prints comma-separated values for a spreadsheet. A cell that it would take for a formula gets an apostrophe before it.
pub(super) fn print_csv<const N: usize>(
    heads: &[&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(csv_line(heads).as_bytes())?;
    for row in rows {
        let row = row.map(|cell| {
            if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{cell}") } else { cell }
        });
        out.write_all(csv_line(&row.each_ref().map(String::as_str)).as_bytes())?;
    }
    out.flush()
}

/// Says on a terminal how much is done.
pub(super) fn progress(done: usize, all: usize, what: &str) {
    let mut err = io::stderr().lock();
    if err.is_terminal() {
        let end = if done == all { "\n" } else { "" };
        let _ = write!(err, "\r{done} of {all} {what}{end}");
        let _ = err.flush();
    }
}

/// Columns as wide as their widest cell.
pub(super) fn table<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heads.map(|head| head.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let padded: Vec<String> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(heads)];
    lines.extend(rows.iter().map(|row| line(std::array::from_fn(|at| row[at].as_str()))));
    lines.join("\n")
}
