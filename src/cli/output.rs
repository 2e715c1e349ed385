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

/// Prints comma-separated values (RFC 4180). A cell that a spreadsheet would take for a formula gets an apostrophe before it.
pub(super) fn print_csv<const N: usize>(
    heads: &[&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let line = |cells: &mut dyn Iterator<Item = &str>| cells.map(csv_cell).collect::<Vec<_>>().join(",");
    write!(out, "{}\r\n", line(&mut heads.iter().copied()))?;
    for row in rows {
        write!(out, "{}\r\n", line(&mut row.iter().map(String::as_str)))?;
    }
    out.flush()
}

fn csv_cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
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
