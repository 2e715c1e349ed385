//! The faults and warnings of a configuration: collected, sorted, and shown with their lines.
//!
//! The texts arrive with their secrets masked; nothing else is shown.

use std::{fmt, ops::Range, path::PathBuf};

use annotate_snippets::{
    AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str,
};
use serde::Serialize;

/// Whether a problem stops the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Fault,
    Warning,
}

/// Where the value is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Location {
    /// A file; without a position if the problem concerns the whole file.
    File { path: PathBuf, position: Option<Position> },
    /// An environment variable or a command-line flag, by name.
    Setting(String),
    /// Nowhere: a missing key, and no file where it could have been.
    Nowhere,
}

/// A range in the text of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In bytes.
    #[serde(skip)]
    pub span: Range<usize>,
}

impl Position {
    pub(super) fn new(text: &str, span: Range<usize>) -> Self {
        let before = text.get(..span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            span,
        }
    }
}

/// One fault or warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub severity: Severity,
    /// The path of the key, such as `server.listen[0]`; empty if the problem concerns no key.
    pub key: String,
    pub place: Location,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl Problem {
    fn title(&self) -> String {
        if self.key.is_empty() { self.message.clone() } else { format!("{}: {}", self.key, self.message) }
    }
}

/// All problems in the order of the files, with the texts to show them in.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    list: Vec<Problem>,
    sources: Vec<(PathBuf, String)>,
}

impl Problems {
    /// `sources` are the files in the order they were read, with their secrets masked.
    pub(super) fn new(mut list: Vec<Problem>, sources: Vec<(PathBuf, String)>) -> Self {
        list.sort_by_key(|problem| match &problem.place {
            Location::File { path, position } => {
                let file = sources.iter().position(|(source, _)| source == path).unwrap_or(sources.len());
                (file, position.as_ref().map_or(0, |position| position.span.start))
            }
            Location::Setting(_) | Location::Nowhere => (usize::MAX, 0),
        });
        Self { list, sources }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    /// The report for a person, with colours only if asked for.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let reports: Vec<_> =
            self.list.iter().map(|problem| renderer.render(&[self.report(problem)])).collect();
        reports.join("\n\n")
    }

    fn report<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let level = match problem.severity {
            Severity::Fault => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(problem.title());
        match &problem.place {
            Location::File { path, position } => {
                let source = self.sources.iter().find(|(source, _)| source == path);
                let shown = path.display().to_string();
                match (source, position) {
                    (Some((_, text)), Some(position)) => title.element(
                        Snippet::source(text)
                            .path(shown)
                            .annotation(AnnotationKind::Primary.span(position.span.clone())),
                    ),
                    _ => title.element(Origin::path(shown)),
                }
            }
            Location::Setting(name) => {
                let note = format!("set by {}", normalize_untrusted_str(name));
                title.element(Level::NOTE.message(note))
            }
            Location::Nowhere => title.elements(std::iter::empty::<Element<'_>>()),
        }
    }
}

impl fmt::Display for Problems {
    /// The same report, without colour.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}
