//! `portcullis user import` and `user export`: users from another system, and to it.

use std::{
    fs::{self, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::output::{self, Output};
use crate::{
    administration::import::{self, Became, Entry, ImportedUser},
    app::Stores,
    credentials::StoredHash,
    random::{OsRandom, Random},
};

/// No capitals, and nothing that is read as something else.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A header line with any of: email,name,groups,password_hash,totp_seed,device_name,disabled
    Csv,
    /// A JSON object with the same names on each line
    Jsonl,
    /// `name:hash` on each line, as htpasswd writes it
    Htpasswd,
    /// The same, as passlib's tools write it
    Passlib,
    /// What `manage.py dumpdata auth otp_totp` writes
    Django,
    /// The export of a realm, with its users
    Keycloak,
}

impl From<Format> for import::ImportFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Csv => Self::Csv,
            Format::Jsonl => Self::Jsonl,
            Format::Htpasswd | Format::Passlib => Self::Htpasswd,
            Format::Django => Self::Django,
            Format::Keycloak => Self::Keycloak,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file; `-` reads standard input
    file: PathBuf,
    #[arg(long, value_enum)]
    format: Format,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Write what became of each line to this new file, as comma-separated values
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Give users without a password one, and write it to this new file, which only you can read
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    generate_passwords: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Print a JSON object on each line instead of comma-separated values
    #[arg(long)]
    jsonl: bool,
}

#[derive(Serialize)]
struct ImportFact {
    added: u64,
    /// Those who were there already, unchanged.
    existed: u64,
    refused: Vec<RefusedFact>,
    dry_run: bool,
}

#[derive(Serialize)]
struct RefusedFact {
    line: u64,
    email: String,
    reason: String,
}

#[derive(Serialize)]
struct ExportedFact {
    email: String,
    name: String,
    groups: Vec<String>,
    disabled: bool,
}

pub(super) async fn run(import: Import, stores: &Stores, output: Output) -> anyhow::Result<()> {
    let text = read(&import.file)?;
    let entries = import::read(&text, import.format.into());
    let entries = entries.map_err(anyhow::Error::msg).with_context(|| named(&import.file))?;
    let report = import.report.as_deref().map(new_file).transpose()?;
    let (mut users, mut places, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for Entry { at, email, user } in entries {
        match user {
            Ok(user) => {
                places.push((at, email));
                users.push(user);
            }
            Err(fault) => refused.push(RefusedFact { line: at, email, reason: fault.to_string() }),
        }
    }
    let administration = &stores.administration;
    let became = if import.dry_run {
        administration.would_import(&users).await?
    } else {
        if let Some(file) = &import.generate_passwords {
            generate_passwords(file, &mut users, stores).await?;
        }
        let (mut became, all) = (Vec::with_capacity(users.len()), users.len());
        let add = administration.import(&users, |batch: &[Became]| {
            became.extend_from_slice(batch);
            output::progress(became.len(), all, "users");
        });
        add.await.context("stopped; run the same command again: it goes on where it stopped")?;
        became
    };
    if let Some(file) = report {
        write_report(file, &places, &became, &refused).context("cannot write the report")?;
    }
    let count =
        |what| u64::try_from(became.iter().filter(|became| **became == what).count()).unwrap_or(u64::MAX);
    let fact = ImportFact {
        added: count(Became::Added),
        existed: count(Became::Exists),
        refused,
        dry_run: import.dry_run,
    };
    output.print(&fact, text_of);
    if !fact.refused.is_empty() {
        bail!("{} of the users could not be imported", fact.refused.len());
    }
    Ok(())
}

fn text_of(fact: &ImportFact) -> String {
    let mut lines: Vec<String> = fact
        .refused
        .iter()
        .map(|RefusedFact { line, email, reason }| match email.as_str() {
            "" => format!("line {line}: {reason}"),
            email => format!("line {line}: {email}: {reason}"),
        })
        .collect();
    let would = if fact.dry_run { "would be " } else { "" };
    lines.push(format!(
        "{} {would}added, {} already there and left as they are, {} refused.",
        fact.added,
        fact.existed,
        fact.refused.len()
    ));
    lines.join("\n")
}

fn named(file: &Path) -> String {
    format!("cannot import {}", file.display())
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text)
    } else {
        fs::File::open(file).and_then(|mut open| open.read_to_string(&mut text))
    };
    read.with_context(|| named(file))?;
    Ok(text)
}

/// Never one that exists: it may be the file that is imported, or the passwords of another run.
fn new_file(file: &Path) -> anyhow::Result<fs::File> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    made.with_context(|| format!("cannot make {}", file.display()))
}

/// For each user who is new and has no password. The file is complete before anybody is added.
async fn generate_passwords(file: &Path, users: &mut [ImportedUser], stores: &Stores) -> anyhow::Result<()> {
    let mut out = new_file(file)?;
    let became = stores.administration.would_import(users).await?;
    let mut lines = vec![output::csv_line(&["email", "password"])];
    for (user, _) in users
        .iter_mut()
        .zip(became)
        .filter(|(user, became)| *became == Became::Added && user.password.is_none())
    {
        let password = generated();
        let hash = stores.administration.passwords.hash(password.clone()).await?;
        user.password = Some(StoredHash::parse(&hash)?);
        lines.push(output::csv_line(&[&user.email, password.expose_secret()]));
    }
    out.write_all(lines.concat().as_bytes())
        .and_then(|()| out.sync_all())
        .with_context(|| format!("cannot write {}", file.display()))
}

/// 100 random bits.
fn generated() -> SecretString {
    let bytes = (&OsRandom as &dyn Random).bytes::<20>();
    let letters = bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
    let mut password = String::with_capacity(24);
    for (at, letter) in letters.enumerate() {
        if at > 0 && at % 5 == 0 {
            password.push('-');
        }
        password.push(letter);
    }
    password.into()
}

fn write_report(
    mut file: fs::File,
    places: &[(u64, String)],
    became: &[Became],
    refused: &[RefusedFact],
) -> std::io::Result<()> {
    let mut rows: Vec<(u64, &str, &str, &str)> = places
        .iter()
        .zip(became)
        .map(|((line, email), became)| {
            let word = if *became == Became::Added { "added" } else { "existed" };
            (*line, email.as_str(), word, "")
        })
        .chain(refused.iter().map(|fact| (fact.line, fact.email.as_str(), "refused", fact.reason.as_str())))
        .collect();
    rows.sort_by_key(|row| row.0);
    let mut text = output::csv_line(&["line", "email", "became", "reason"]);
    for (line, email, became, reason) in rows {
        text.push_str(&output::csv_line(&[&line.to_string(), email, became, reason]));
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Prints every user, without passwords and devices, so that [`run`] reads it back.
pub(super) async fn export(export: &Export, stores: &Stores) -> anyhow::Result<()> {
    let users = stores.administration.users().await?;
    let mut text = String::new();
    if !export.jsonl {
        text.push_str(&output::csv_line(&["email", "name", "groups", "disabled"]));
    }
    for user in users {
        if export.jsonl {
            let fact = ExportedFact {
                email: user.email,
                name: user.display_name,
                groups: user.groups,
                disabled: user.disabled,
            };
            text.push_str(&serde_json::to_string(&fact)?);
            text.push('\n');
        } else {
            let disabled = if user.disabled { "true" } else { "false" };
            text.push_str(&output::csv_line(&[
                &user.email,
                &user.display_name,
                &user.groups.join(";"),
                disabled,
            ]));
        }
    }
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}
