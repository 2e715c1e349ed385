//! Files with a line for each user: CSV, JSON, `name:hash`.

use std::collections::HashMap;

use serde::Deserialize;

use super::{Entry, ImportFault, ImportedUser, seed};
use crate::credentials::StoredHash;

/// The columns of a CSV file, in any order.
pub(super) const NAMES: [&str; 7] =
    ["email", "name", "groups", "password_hash", "totp_seed", "device_name", "disabled"];

/// The texts of one user.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Texts {
    email: String,
    name: String,
    groups: Groups,
    password_hash: String,
    totp_seed: String,
    device_name: String,
    disabled: Flag,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Groups {
    /// Separated by semicolons.
    Joined(String),
    List(Vec<String>),
}

impl Default for Groups {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Flag {
    Bool(bool),
    Text(String),
}

impl Default for Flag {
    fn default() -> Self {
        Self::Bool(false)
    }
}

impl Texts {
    fn user(self) -> Result<ImportedUser, ImportFault> {
        let disabled = match self.disabled {
            Flag::Bool(disabled) => disabled,
            Flag::Text(text) => match &*text.trim().to_ascii_lowercase() {
                "" | "0" | "false" | "no" | "f" => false,
                "1" | "true" | "yes" | "t" => true,
                _ => return Err(ImportFault::Text(format!("`disabled` is {text:?}; write true or false"))),
            },
        };
        let groups = match self.groups {
            Groups::List(groups) => groups,
            Groups::Joined(text) => {
                text.split(';').map(str::trim).filter(|group| !group.is_empty()).map(str::to_owned).collect()
            }
        };
        Ok(ImportedUser {
            email: self.email.trim().to_owned(),
            display_name: self.name,
            groups,
            disabled,
            password: password(&self.password_hash)?,
            device: match &*self.totp_seed {
                "" if self.device_name.trim().is_empty() => None,
                "" => return Err(ImportFault::Text("the device has a name and no `totp_seed`".to_owned())),
                given => Some(seed::device(given, &self.device_name)?),
            },
        })
    }
}

/// The hash, unless it is empty or stands for none: `!` and `*` as in `/etc/shadow`.
pub(super) fn password(text: &str) -> Result<Option<StoredHash>, ImportFault> {
    match text.trim() {
        text if text.is_empty() || text.starts_with(['!', '*']) => Ok(None),
        text => Ok(Some(StoredHash::parse(text)?)),
    }
}

pub(super) fn csv(text: &str) -> Result<Vec<Entry>, String> {
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let heads: Vec<String> = match reader.headers() {
        Ok(heads) => heads.iter().map(|head| head.trim().to_ascii_lowercase()).collect(),
        Err(error) => return Err(format!("the header line cannot be read: {error}")),
    };
    let known = NAMES.join(",");
    if let Some(other) = heads.iter().find(|head| !NAMES.contains(&head.as_str())) {
        return Err(format!("the first line names the columns, any of {known}; {other:?} is none of them"));
    }
    if let Some(twice) = heads.iter().enumerate().find(|(at, head)| heads[..*at].contains(head)) {
        return Err(format!("the column `{}` is there twice", twice.1));
    }
    if !heads.iter().any(|head| head == "email") {
        return Err(format!("the first line names no column `email`; it has any of {known}"));
    }
    let mut entries = Vec::new();
    for record in reader.into_records() {
        entries.push(match record {
            Ok(record) => {
                let at = record.position().map_or(0, csv::Position::line);
                let cells: HashMap<&str, &str> = heads.iter().map(String::as_str).zip(&record).collect();
                let cell = |name| cells.get(name).map_or(String::new(), |cell: &&str| (*cell).to_owned());
                let texts = Texts {
                    email: cell("email"),
                    name: cell("name"),
                    groups: Groups::Joined(cell("groups")),
                    password_hash: cell("password_hash"),
                    totp_seed: cell("totp_seed"),
                    device_name: cell("device_name"),
                    disabled: Flag::Text(cell("disabled")),
                };
                Entry { at, email: texts.email.trim().to_owned(), user: texts.user() }
            }
            Err(error) => {
                let at = error.position().map_or(0, csv::Position::line);
                let fault = match error.kind() {
                    csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                        format!("has {len} columns; the header line has {expected_len}")
                    }
                    _ => error.to_string(),
                };
                Entry { at, email: String::new(), user: Err(ImportFault::Text(fault)) }
            }
        });
    }
    Ok(entries)
}

pub(super) fn jsonl(text: &str) -> Vec<Entry> {
    let entry = |(at, line): (u64, &str)| match serde_json::from_str::<Texts>(line) {
        Ok(texts) => Entry { at, email: texts.email.trim().to_owned(), user: texts.user() },
        Err(error) => Entry { at, email: String::new(), user: Err(ImportFault::Text(error.to_string())) },
    };
    lines(text).map(entry).collect()
}

pub(super) fn htpasswd(text: &str) -> Vec<Entry> {
    let entry = |(at, line): (u64, &str)| {
        let Some((name, hash)) = line.split_once(':') else {
            let fault = ImportFault::Text("is not `name:hash`".to_owned());
            return Entry { at, email: String::new(), user: Err(fault) };
        };
        // passlib's tools may leave more fields behind, as /etc/shadow has.
        let hash = hash.split(':').next().unwrap_or_default();
        let texts = Texts { email: name.to_owned(), password_hash: hash.to_owned(), ..Texts::default() };
        Entry { at, email: name.trim().to_owned(), user: texts.user() }
    };
    lines(text).filter(|(_, line)| !line.starts_with('#')).map(entry).collect()
}

/// The lines with text, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty())
}
