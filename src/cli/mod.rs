//! The command line: one file a verb. Human output by default, `--json` everywhere.
//!
//! Exit status: 0 done, 1 failed, 2 wrong usage.

mod check;
mod device;
mod hash;
mod output;
mod password;
mod sealing_key;
mod serve;
mod session;
mod signing_key;
mod store;
mod user;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};

use self::output::Output;
use crate::{
    app::Stores,
    config::{Config, Problems},
    demo,
    telemetry::{log, writer::LogWriter},
};

/// Where the configuration is looked for when nothing is said.
const USUAL_PLACES: [&str; 2] = ["portcullis.toml", "/etc/portcullis/portcullis.toml"];

/// The login wall for a portal its owners cannot change.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, about, max_term_width = 100)]
struct Arguments {
    /// Configuration file; may be repeated, later files win [default: portcullis.toml, then /etc/portcullis/portcullis.toml]
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show everything on this machine: a sample portal behind the wall, with one user
    Demo(demo::Arguments),
    /// Stand before the portal
    Serve,
    /// Read the configuration and say what is wrong with it
    Check,
    /// Users
    #[command(subcommand)]
    User(user::Command),
    /// The authenticator devices of a user
    #[command(subcommand)]
    Device(device::Command),
    /// Sessions
    #[command(subcommand)]
    Session(session::Command),
    /// The keys of the signed assertion
    #[command(subcommand)]
    SigningKey(signing_key::Command),
    /// The durable store: users, devices and codes
    #[command(subcommand)]
    Store(store::Command),
    /// The keys that seal secrets at rest
    #[command(subcommand)]
    SealingKey(sealing_key::Command),
    /// Hash a password the way it is stored
    Hash(hash::Arguments),
}

/// Runs the command that was typed.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output { json: arguments.json };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(arguments, output)),
        Err(error) => Err(error).context("cannot start the runtime"),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.fail(&error);
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(arguments: Arguments, output: Output) -> anyhow::Result<()> {
    let files = arguments.config;
    match arguments.command {
        Command::Demo(arguments) => Box::pin(demo::run(&arguments, serve::stop_on_signal()?)).await,
        Command::Serve => Box::pin(serve::run(load(&files)?)).await,
        Command::Check => check::run(&load(&files)?, output),
        Command::User(command) => {
            let (stores, _log) = open(&load(&files)?).await?;
            user::run(command, &stores, output).await
        }
        Command::Device(command) => {
            let (stores, _log) = open(&load(&files)?).await?;
            device::run(command, &stores, output).await
        }
        Command::Session(command) => {
            let (stores, _log) = open(&load(&files)?).await?;
            session::run(command, &stores, output).await
        }
        Command::SigningKey(command) => {
            let config = load(&files)?;
            if config.identity.assertion.is_none() {
                bail!("nothing is signed: `identity.assertion.enabled` is false");
            }
            let (stores, _log) = open(&config).await?;
            signing_key::run(command, &stores, output).await
        }
        Command::Store(command) => {
            let config = load(&files)?;
            let _log = Flushed(log::init_for_command(&config.log)?);
            store::run(command, &config, output).await
        }
        Command::SealingKey(command) => {
            let config = load(&files)?;
            let (stores, _log) = open(&config).await?;
            sealing_key::run(command, &config.key, &stores, output).await
        }
        Command::Hash(arguments) => hash::run(&arguments, output).await,
    }
}

/// Reads the configuration; every fault is shown at once.
fn load(files: &[PathBuf]) -> anyhow::Result<Config> {
    let files = if files.is_empty() { vec![usual_file()?] } else { files.to_vec() };
    match Config::load(&files, std::env::vars_os(), &[]) {
        Ok(config) => {
            show(&config.warnings);
            Ok(config)
        }
        Err(problems) => {
            show(&problems);
            Err(problems).context("the configuration cannot be used")
        }
    }
}

fn usual_file() -> anyhow::Result<PathBuf> {
    USUAL_PLACES.iter().map(PathBuf::from).find(|path| path.exists()).with_context(|| {
        format!("no configuration: give --config FILE (looked for {})", USUAL_PLACES.join(" and "))
    })
}

fn show(problems: &Problems) {
    if !problems.is_empty() {
        output::explain(&problems.render(output::is_colourful()));
    }
}

/// Opens the stores beside a gateway that may be running.
async fn open(config: &Config) -> anyhow::Result<(Stores, Flushed)> {
    let log = Flushed(log::init_for_command(&config.log)?);
    Ok((Stores::open(config).await?, log))
}

/// A log that is written out to its end.
struct Flushed(LogWriter);

impl Drop for Flushed {
    fn drop(&mut self) {
        self.0.flush(std::time::Duration::from_secs(2));
    }
}
