//! `portcullis sealing-key …`: the keys that seal secrets at rest, and the change from one to the next.

use std::{collections::BTreeMap, path::Path};

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::{self, Output};
use crate::{
    app::Stores,
    random::OsRandom,
    sealing::{KeyFile, KeyId},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the keys, and how many records each has sealed
    List,
    /// Make a key and seal with it from now on; running gateways notice within a second
    Rotate(Rotate),
    /// Seal every record again that another key than the present one has sealed
    Reseal,
    /// Remove a key with which nothing is sealed any more
    Remove {
        /// As in the list
        key: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// Make the key, for opening only: copy the file to every gateway before the next step
    #[arg(long, conflicts_with = "activate")]
    prepare: bool,
    /// Seal with the key that was prepared
    #[arg(long)]
    activate: bool,
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
}

#[derive(Serialize)]
struct ResealedFact {
    resealed: u64,
    left: u64,
}

#[derive(Serialize)]
struct RemovedFact {
    removed: String,
}

pub(super) async fn run(
    command: Command,
    key_file: &Path,
    stores: &Stores,
    output: Output,
) -> anyhow::Result<()> {
    match command {
        Command::List => {
            let counts = records(stores).await?;
            let ids = KeyFile::read(key_file)?.ids();
            let fact = |(at, id): (usize, &KeyId)| KeyFact {
                key: id.to_string(),
                state: if at == 0 { "sealing" } else { "opening" },
                records: counts.get(&Some(*id)).copied().unwrap_or(0),
            };
            let facts: Vec<KeyFact> = ids.iter().enumerate().map(fact).collect();
            output.print(&facts, |facts| list(facts));
        }
        Command::Rotate(Rotate { prepare, activate }) => {
            let mut file = KeyFile::read(key_file)?;
            let added = if activate { None } else { Some(file.prepare(&OsRandom)) };
            let active = if prepare { None } else { file.activate() };
            let Some(id) = active.or(added) else {
                bail!("there is no key to seal with but the one that does: begin with `rotate --prepare`");
            };
            file.write(key_file)?;
            let state = if prepare { "opening" } else { "sealing" };
            output.print(&RotatedFact { key: id.to_string(), state }, |fact| {
                if prepare {
                    format!(
                        "Made {}. Copy {} to every gateway, then run `portcullis sealing-key rotate --activate` and\n\
                         copy it once more.",
                        fact.key,
                        key_file.display()
                    )
                } else {
                    format!("{} seals from now on. Next: `portcullis sealing-key reseal`.", fact.key)
                }
            });
        }
        Command::Reseal => {
            let resealed = reseal(stores).await?;
            let now = stores.sealer.sealing_key();
            let counts = records(stores).await?;
            let left = counts.iter().filter(|(id, _)| **id != Some(now)).map(|(_, count)| count).sum();
            output.print(&ResealedFact { resealed, left }, |fact| {
                let left = match fact.left {
                    0 => "Nothing is sealed with another key any more.".to_owned(),
                    left => format!("{left} are left: sessions in Redis last until they expire."),
                };
                format!("Sealed {} records again. {left}", fact.resealed)
            });
        }
        Command::Remove { key } => {
            let id = KeyId::parse(&key).ok_or_else(|| anyhow!("{key} is no key; see `sealing-key list`"))?;
            let count = records(stores).await?.get(&Some(id)).copied().unwrap_or(0);
            if count > 0 {
                bail!("{count} records are sealed with {key}: run `portcullis sealing-key reseal` first");
            }
            let mut file = KeyFile::read(key_file)?;
            if !file.remove(id) {
                bail!("{key} is not in {}, or is the key that seals", key_file.display());
            }
            file.write(key_file)?;
            output.print(&RemovedFact { removed: key }, |fact| {
                format!("Removed {}. Copy {} to every gateway.", fact.removed, key_file.display())
            });
        }
    }
    Ok(())
}

async fn reseal(stores: &Stores) -> anyhow::Result<u64> {
    let (sealer, now) = (&stores.sealer, stores.sealer.sealing_key());
    let again = |place: &[&str], record: &[u8]| {
        // What does not open is left for whoever has its key.
        let foreign = sealer.key_of(place, record).ok()? != now;
        let plain = foreign.then(|| sealer.open(place, record).ok())??;
        Some(sealer.seal(place, &plain))
    };
    let mut resealed = 0;
    // Until a look finds nothing: a gateway may have sealed with the old key until a moment ago.
    loop {
        match stores.database.visit_sealed(again).await? {
            0 => return Ok(resealed),
            some => resealed += some,
        }
    }
}

/// How many records each key has sealed, and how many no key of ours opens.
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
