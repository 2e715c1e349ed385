//! `portcullis store …`: the durable store, its schema, and copying it.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{
    confirm,
    output::{self, Output},
};
use crate::{
    config::{self, Config},
    database::{Database, DatabaseError, TableRows},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show which database is used, its schema version and how many rows it holds
    Status,
    /// Bring the database schema to this version, as every other command does by itself
    Migrate,
    /// Copy everything into another database, which must be empty; stop the gateways first
    Copy(Copy),
}

#[derive(Debug, Args)]
pub(super) struct Copy {
    /// Where to: postgres://user@host/database, or sqlite:PATH
    #[arg(long, value_name = "URL")]
    to: String,
    /// A file that holds the password of the target
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// PEM file with the authority that signed the target's certificate
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Don't ask, even if a gateway is running
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
struct StatusFact {
    store: String,
    schema: i64,
    /// The version of this program.
    newest: i64,
    pending_migrations: i64,
    /// `None` if the schema is of another version.
    tables: Option<Vec<TableFact>>,
}

#[derive(Serialize)]
struct TableFact {
    table: &'static str,
    rows: i64,
}

#[derive(Serialize)]
struct CopiedFact {
    from: String,
    to: String,
    tables: Vec<TableFact>,
}

pub(super) async fn run(command: Command, config: &Config, output: Output) -> anyhow::Result<()> {
    match command {
        Command::Status => {
            let status = status(config).await?;
            output.print(&status, shown);
        }
        Command::Migrate => {
            let database =
                Database::open_existing(&config.database).await.map_err(|error| explained(error, config))?;
            database.close().await;
            let status = status(config).await?;
            output.print(&status, |status| format!("{}: schema version {}.", status.store, status.schema));
        }
        Command::Copy(arguments) => copy(arguments, config, output).await?,
    }
    Ok(())
}

async fn status(config: &Config) -> anyhow::Result<StatusFact> {
    let database = existing(config).await?;
    let (schema, newest) = database.versions().await?;
    let tables = if schema == newest { Some(table_facts(database.rows().await?)) } else { None };
    database.close().await;
    let pending_migrations = (newest - schema).max(0);
    Ok(StatusFact { store: config.database.to_string(), schema, newest, pending_migrations, tables })
}

/// Opens the store without making or migrating one.
async fn existing(config: &Config) -> anyhow::Result<Database> {
    Database::existing(&config.database).await.map_err(|error| explained(error, config))
}

fn explained(error: DatabaseError, config: &Config) -> anyhow::Error {
    match error {
        DatabaseError::Absent { .. } => super::no_store(config),
        error => error.into(),
    }
}

fn table_facts(rows: Vec<TableRows>) -> Vec<TableFact> {
    rows.into_iter().map(|TableRows { table, rows, .. }| TableFact { table, rows }).collect()
}

fn shown(status: &StatusFact) -> String {
    let pending = match status.newest - status.schema {
        0 => String::new(),
        1.. => format!(", {} to be made: run `portcullis store migrate`", status.pending_migrations),
        _ => format!(", and this program knows versions up to {} only", status.newest),
    };
    let mut text = format!("{}\nschema version {}{pending}", status.store, status.schema);
    if let Some(tables) = &status.tables {
        let rows: Vec<[String; 2]> =
            tables.iter().map(|fact| [fact.table.to_owned(), fact.rows.to_string()]).collect();
        text = format!("{text}\n\n{}", output::table(["TABLE", "ROWS"], &rows));
    }
    text
}

async fn copy(arguments: Copy, config: &Config, output: Output) -> anyhow::Result<()> {
    let own = &config.database;
    let (password, ca) = (arguments.password_file, arguments.ca);
    let to = config::other_store(&arguments.to, own, password.as_deref(), ca)
        .map_err(|reason| anyhow!("--to {reason}"))?;
    if to.to_string() == own.to_string() {
        return Err(anyhow!("the target is the store itself"));
    }
    existing(config).await?.close().await;
    if !arguments.yes && Database::is_in_use(own).await? {
        let what = format!(
            "{own} is in use, probably by a running gateway. Stop it first: changes made after this point are not in the copy."
        );
        confirm::ask(false, &what, "copy")?;
    }
    let source = existing(config).await?;
    let target = Database::open(&to).await.context("the target")?;
    let show = |done| {
        if !output.json {
            progress(done);
        }
    };
    let copied = source.copy_into(&target, show).await?;
    source.close().await;
    target.close().await;
    let fact = CopiedFact { from: own.to_string(), to: to.to_string(), tables: table_facts(copied) };
    output.print(&fact, |fact| {
        format!(
            "Copied everything from {} to {} and verified the row counts. The source is unchanged.\n\
             Now set `storage.database` to the target and start the gateways, with the same key file. Changes made\n\
             to the source after this point are not in the copy.",
            fact.from, fact.to
        )
    });
    Ok(())
}

/// A progress bar on a terminal, otherwise a line per table.
fn progress(done: TableRows) {
    const WIDTH: i64 = 30;
    let TableRows { table, rows, copied } = done;
    let mut out = io::stderr().lock();
    let finished = copied >= rows;
    // The reader has gone: there is nobody to tell.
    let _ = if io::stderr().is_terminal() {
        let filled = if rows == 0 { WIDTH } else { WIDTH * copied / rows };
        let bar: String = (0..WIDTH).map(|at| if at < filled { '#' } else { ' ' }).collect();
        let end = if finished { "\n" } else { "" };
        write!(out, "\r{table:<16} [{bar}] {copied}/{rows}{end}")
    } else if finished {
        writeln!(out, "{table}: {copied} of {rows}")
    } else {
        Ok(())
    };
}
