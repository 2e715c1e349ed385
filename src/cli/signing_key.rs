//! `portcullis signing-key …`: the keys of the signed assertion.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::{self, Output};
use crate::{
    app::Stores,
    clock::{Clock as _, SystemClock},
    identity::{ListedKey, Rotation, Term},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the keys: which one signs, and until when each is published
    List,
    /// Make the next key now; it is published for an hour before it signs
    Rotate(RotateSigningKey),
}

#[derive(Debug, Args)]
pub(super) struct RotateSigningKey {
    /// Somebody may have the keys: give all of them up, and sign with a new one in ten seconds
    #[arg(long)]
    compromised: bool,
}

#[derive(Serialize)]
struct KeyFact {
    kid: String,
    state: &'static str,
    created_at: String,
    signs_from: String,
    published_until: Option<String>,
}

impl KeyFact {
    fn of(key: &ListedKey) -> Self {
        Self {
            kid: key.term.kid.clone(),
            state: key.state.name(),
            created_at: key.term.created_at.to_string(),
            signs_from: key.term.signs_from.to_string(),
            published_until: key.published_until.map(|until| until.to_string()),
        }
    }
}

#[derive(Serialize)]
struct Rotated {
    kid: String,
    signs_from: String,
    /// False if the next key had been made before.
    made: bool,
}

impl Rotated {
    fn of(term: Term, made: bool) -> Self {
        Self { kid: term.kid, signs_from: term.signs_from.to_string(), made }
    }
}

pub(super) async fn run(command: Command, stores: &Stores, output: Output) -> anyhow::Result<()> {
    let (keys, now) = (&stores.signing_keys, SystemClock.now());
    match command {
        Command::List => {
            let listed = keys.list(now).await?;
            let facts: Vec<KeyFact> = listed.iter().map(KeyFact::of).collect();
            output.print(&facts, |facts| list(facts));
        }
        Command::Rotate(RotateSigningKey { compromised: true }) => {
            let rotated = Rotated::of(keys.replace_all(now).await?, true);
            output.print(&rotated, |Rotated { kid, signs_from, .. }| {
                format!(
                    "From {signs_from} on {kid} signs and no other key is published.\n\
                     Portals may remember the old keys for as long as they keep what they fetched: restart them, or \
                     wait for that long."
                )
            });
        }
        Command::Rotate(RotateSigningKey { compromised: false }) => {
            let rotated = match keys.rotate(now).await? {
                Rotation::Made(term) => Rotated::of(term, true),
                Rotation::Waiting(term) => Rotated::of(term, false),
            };
            output.print(&rotated, |Rotated { kid, signs_from, made }| {
                let made = if *made { "Made" } else { "There is a next key already:" };
                format!("{made} {kid}; it is published now and signs from {signs_from} on.")
            });
        }
    }
    Ok(())
}

fn list(keys: &[KeyFact]) -> String {
    if keys.is_empty() {
        return "No keys: the gateway makes the first one when it starts.".to_owned();
    }
    let rows: Vec<[String; 4]> = keys
        .iter()
        .map(|key| {
            let until = key.published_until.clone().unwrap_or_else(|| "-".to_owned());
            [key.kid.clone(), key.state.to_owned(), key.signs_from.clone(), until]
        })
        .collect();
    output::table(["KEY", "STATE", "SIGNS FROM", "PUBLISHED UNTIL"], &rows)
}
