//! One configuration file: its TOML, and the position of each key in the text.
//!
//! Does not know which keys are valid.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use figment::value::{Dict, Value};
use toml::de::{DeTable, DeValue};

/// The starts of the parser's messages after it has lost track of the brackets.
const ASTRAY: [&str; 5] =
    ["unclosed", "missing comma", "unexpected `=`", "invalid inline", "extra assignment"];

/// A file that was read, with its text for showing positions.
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    text: String,
}

/// How far the path of a key could be followed in a file.
pub(super) struct Spot {
    /// How many steps of the path the file has.
    pub(super) depth: usize,
    /// The range of the last step's key.
    pub(super) key: Range<usize>,
    /// The range of its value.
    pub(super) value: Range<usize>,
}

impl SourceFile {
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let text = String::from_utf8(fs::read(path)?).map_err(|fault| {
            let kind = if fault.as_bytes().contains(&0) { "UTF-16" } else { "another encoding" };
            io::Error::new(io::ErrorKind::InvalidData, format!("it is in {kind}; save it as UTF-8"))
        })?;
        Ok(Self { path: path.into(), text })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The values of the file, and each place where it is not TOML. After a bracket that does not close, any value
    /// would be a guess: there the faults end, and the file has no values.
    pub(super) fn values(&self) -> (Dict, Vec<toml::de::Error>) {
        let (table, mut faults) = DeTable::parse_recoverable(&self.text);
        faults.sort_by_key(|fault| fault.span().map(|span| span.start));
        let astray = |fault: &toml::de::Error| ASTRAY.iter().any(|words| fault.message().starts_with(words));
        match faults.iter().position(astray) {
            Some(first) => {
                faults.truncate(first + 1);
                (Dict::new(), faults)
            }
            None => (dict(table.get_ref()), faults),
        }
    }

    /// Follows a path of keys and indexes as far as the file goes; `None` if it lacks even the first step.
    pub(super) fn locate(&self, path: &[String]) -> Option<Spot> {
        let (table, _) = DeTable::parse_recoverable(&self.text);
        let mut spot = None;
        let mut value = &DeValue::Table(table.into_inner());
        for (depth, step) in (1..).zip(path) {
            let (key, next) = match value {
                DeValue::Table(table) => match table.iter().find(|(key, _)| key.get_ref() == step) {
                    Some((key, next)) => (key.span(), next),
                    None => break,
                },
                DeValue::Array(array) => {
                    match step.parse::<usize>().ok().and_then(|index| array.get(index)) {
                        Some(next) => (next.span(), next),
                        None => break,
                    }
                }
                _ => break,
            };
            spot = Some(Spot { depth, key, value: next.span() });
            value = next.get_ref();
        }
        spot
    }
}

/// Parses a TOML value, such as `4`, `true` or `["a", "b"]`.
pub(super) fn parse_value(text: &str) -> Option<Value> {
    DeValue::parse(text).ok().map(|parsed| value(parsed.get_ref()))
}

fn dict(table: &DeTable<'_>) -> Dict {
    table.iter().map(|(key, entry)| (key.get_ref().clone().into_owned(), value(entry.get_ref()))).collect()
}

/// A date becomes text, as the environment has to write one.
fn value(from: &DeValue<'_>) -> Value {
    match from {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
            Ok(number) => Value::from(number),
            Err(_) => Value::from(f64::INFINITY),
        },
        DeValue::Float(digits) => Value::from(digits.as_str().parse::<f64>().unwrap_or(f64::NAN)),
        DeValue::Boolean(yes) => Value::from(*yes),
        DeValue::Datetime(instant) => Value::from(instant.to_string()),
        DeValue::Array(elements) => {
            elements.iter().map(|element| value(element.get_ref())).collect::<Vec<_>>().into()
        }
        DeValue::Table(table) => Value::from(dict(table)),
    }
}
