//! `portcullis sealing-key …`: the keys that seal secrets at rest, and their rotation.

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{
    confirm,
    output::{self, Output},
};
use crate::{
    app::Stores,
    audit::{AuditEvent, Context},
    random::OsRandom,
    sealing::{KeyId, KeySource, Keys},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the keys, and how many records each has sealed
    List,
    /// Make a new key and seal with it from now on; running gateways notice within a second
    Rotate(RotateSealingKey),
    /// Re-seal every record that was sealed with an older key
    Reseal,
    /// Remove a key that no longer seals anything; asks first, and prints it to be kept with older copies
    Remove(Remove),
}

#[derive(Debug, Args)]
pub(super) struct RotateSealingKey {
    /// Make the key, for opening only: copy the file to every gateway before the next step
    #[arg(long, conflicts_with = "activate")]
    prepare: bool,
    /// Seal with the key that was prepared
    #[arg(long)]
    activate: bool,
    #[command(flatten)]
    changed: Changed,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The key's name, as in the list
    key: String,
    /// Don't ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    changed: Changed,
}

/// How changed keys are stored.
#[derive(Debug, Args)]
struct Changed {
    /// Change nothing; print the new keys, to be stored where this command cannot write
    #[arg(long)]
    print: bool,
}

impl Changed {
    /// Stores keys at their source, or returns them for the operator to store.
    fn keep(&self, keys: &Keys, source: &KeySource) -> anyhow::Result<Option<String>> {
        if self.print {
            return Ok(Some(keys.text().trim_end().to_owned()));
        }
        source.write(keys).context(
            "nothing was changed. Run again with `--print` and store the output where the key comes from, on every gateway",
        )?;
        Ok(None)
    }
}

#[derive(Serialize)]
struct KeyFact {
    key: String,
    state: &'static str,
    records: u64,
}

#[derive(Serialize)]
struct RotatedFact {
    key: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<String>,
}

#[derive(Serialize)]
struct ResealedFact {
    resealed: u64,
    left: u64,
}

#[derive(Serialize)]
struct RemovedFact {
    removed: String,
    /// The line of the key, which opens older copies of the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<String>,
}

pub(super) async fn run(
    command: Command,
    source: &KeySource,
    stores: &Stores,
    output: Output,
) -> anyhow::Result<()> {
    match command {
        Command::List => {
            let counts = records(stores).await?;
            let ids = keys(source)?.ids();
            let fact = |(at, id): (usize, &KeyId)| KeyFact {
                key: id.to_string(),
                state: if at == 0 { "sealing" } else { "opening" },
                records: counts.get(&Some(*id)).copied().unwrap_or(0),
            };
            let facts: Vec<KeyFact> = ids.iter().enumerate().map(fact).collect();
            output.print(&facts, |facts| list(facts));
        }
        Command::Rotate(RotateSealingKey { prepare, activate, changed }) => {
            let mut keys = keys(source)?;
            let added = if activate { None } else { Some(keys.prepare(&OsRandom)) };
            let active = if prepare { None } else { keys.activate() };
            let Some(id) = active.or(added) else {
                bail!("no prepared key to activate: run `sealing-key rotate --prepare` first");
            };
            let state = if prepare { "opening" } else { "sealing" };
            let fact = RotatedFact { key: id.to_string(), state, keys: changed.keep(&keys, source)? };
            if !changed.print {
                let made = added.map(|id| (AuditEvent::SealingKeyMade, id));
                let activated = active.map(|id| (AuditEvent::SealingKeyActivated, id));
                for (event, id) in made.into_iter().chain(activated) {
                    note(stores, event, id);
                }
            }
            output.print(&fact, |fact| rotated(fact, source));
        }
        Command::Reseal => {
            let resealed = reseal(stores).await?;
            let now = stores.sealer.sealing_key();
            let counts = records(stores).await?;
            let left = counts.iter().filter(|(id, _)| **id != Some(now)).map(|(_, count)| count).sum();
            output.print(&ResealedFact { resealed, left }, |fact| {
                let left = match fact.left {
                    0 => "Nothing is sealed with an older key any more.".to_owned(),
                    left => format!("{left} are left: sessions in Redis, until they expire."),
                };
                format!("Re-sealed {} records. {left}", fact.resealed)
            });
        }
        Command::Remove(arguments) => remove(&arguments, source, stores, output).await?,
    }
    Ok(())
}

async fn remove(
    arguments: &Remove,
    source: &KeySource,
    stores: &Stores,
    output: Output,
) -> anyhow::Result<()> {
    let Remove { key, yes, changed } = arguments;
    let id = KeyId::parse(key).ok_or_else(|| anyhow!("{key} is not a key: see `sealing-key list`"))?;
    let count = records(stores).await?.get(&Some(id)).copied().unwrap_or(0);
    if count > 0 {
        bail!("{count} records are sealed with {key}: run `portcullis sealing-key reseal` first");
    }
    let mut keys = keys(source)?;
    let line = keys.line(id);
    let (Some(line), true) = (line, keys.remove(id)) else {
        bail!("{key} is not in {source}, or is the key that seals");
    };
    if changed.print {
        output::explain(
            "Keep the present keys with older copies of the database: what was sealed then opens with nothing else.",
        );
        let fact = RemovedFact { removed: key.clone(), keep: None, keys: changed.keep(&keys, source)? };
        output.print(&fact, |fact| fact.keys.clone().unwrap_or_default());
        return Ok(());
    }
    let what = format!(
        "This removes {key} from {source}. Older copies of the database may be sealed with it and open with nothing else: the \
         key is printed, to be kept with them."
    );
    confirm::ask(*yes, &what, key)?;
    let fact = RemovedFact { removed: key.clone(), keep: Some(line.trim_end().to_owned()), keys: None };
    // A key that could not be shown is not removed.
    let shown = output.try_print(&fact, |fact| {
        format!(
            "{}\n\nKeep this line with older copies of the database: added to the key file, it opens what was sealed with {key}.",
            fact.keep.as_deref().unwrap_or_default()
        )
    });
    shown.context("nothing was removed: the key to keep cannot be printed")?;
    changed.keep(&keys, source)?;
    note(stores, AuditEvent::SealingKeyRemoved, id);
    if !output.json {
        output::explain(&format!("Removed {key}. Copy {source} to every gateway."));
    }
    Ok(())
}

fn note(stores: &Stores, event: AuditEvent, key: KeyId) {
    let key = key.to_string();
    stores.administration.audit.record(event, &Context { key: Some(&key), ..Context::default() });
}

/// The keys of a store that has been opened with them.
fn keys(source: &KeySource) -> anyhow::Result<Keys> {
    source.read()?.ok_or_else(|| anyhow!("{source} is gone"))
}

/// The result of a rotation; with `--print` only the keys, so that they can be redirected to a file.
fn rotated(RotatedFact { key, state, keys }: &RotatedFact, source: &KeySource) -> String {
    match keys {
        Some(keys) => keys.clone(),
        None if *state == "opening" => format!(
            "Made {key}. Copy {source} to every gateway, then run `portcullis sealing-key rotate --activate` and\n\
             copy it once more."
        ),
        None => format!("{key} seals from now on. Next: `portcullis sealing-key reseal`."),
    }
}

async fn reseal(stores: &Stores) -> anyhow::Result<u64> {
    let (sealer, now) = (&stores.sealer, stores.sealer.sealing_key());
    let again = |place: &[&str], record: &[u8]| {
        // A record that does not open is left for the owner of its key.
        let foreign = sealer.key_of(place, record).ok()? != now;
        let plain = foreign.then(|| sealer.open(place, record).ok())??;
        Some(sealer.seal(place, &plain))
    };
    let mut resealed = 0;
    // Until a pass finds none: a gateway may have sealed with the old key until a moment ago.
    loop {
        match stores.database.visit_sealed(again).await? {
            0 => return Ok(resealed),
            some => resealed += some,
        }
    }
}

/// How many records each key has sealed, and how many none of our keys opens.
async fn records(stores: &Stores) -> anyhow::Result<BTreeMap<Option<KeyId>, u64>> {
    let mut counts = BTreeMap::new();
    let mut note = |place: &[&str], record: &[u8]| {
        *counts.entry(stores.sealer.key_of(place, record).ok()).or_insert(0) += 1;
        None
    };
    stores.database.visit_sealed(&mut note).await?;
    for (place, record) in stores.administration.sessions.sealed_elsewhere().await? {
        let _: Option<Vec<u8>> = note(&[place[0].as_str(), place[1].as_str()], &record);
    }
    Ok(counts)
}

fn list(keys: &[KeyFact]) -> String {
    let rows: Vec<[String; 3]> =
        keys.iter().map(|key| [key.key.clone(), key.state.to_owned(), key.records.to_string()]).collect();
    output::table(["KEY", "STATE", "RECORDS"], &rows)
}
