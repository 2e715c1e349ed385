//! The command line: one file per verb. Human output by default, `--json` everywhere.
//!
//! Exit status: 0 done, 1 failed, 2 wrong usage.

mod check;
mod check_reach;
mod check_request;
mod confirm;
mod device;
mod hash;
mod healthcheck;
mod import;
mod mail;
mod output;
mod password;
mod rollout;
mod sealing_key;
mod serve;
mod session;
mod signing_key;
mod store;
mod token;
mod user;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, anyhow, bail};
use clap::{Parser, Subcommand};

use self::output::Output;
use crate::{
    app::Stores,
    config::{self, Config, Problems},
    database::DatabaseError,
    demo,
    telemetry::{log, writer::LogWriter},
};

/// The default paths of the configuration.
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
    /// Try Portcullis locally: a sample portal, a test user, nothing to configure
    Demo(demo::DemoArgs),
    /// Run the gateway
    Serve,
    /// Check the configuration, the certificate and the keys; or say what becomes of a request
    Check(check_request::Arguments),
    /// Add, list, change and remove users
    #[command(subcommand)]
    User(user::Command),
    /// List and remove users' authenticator devices
    #[command(subcommand)]
    Device(device::Command),
    /// Report how far everybody is with their first device, and who would be blocked when
    #[command(subcommand)]
    Rollout(rollout::Command),
    /// List and end sessions
    #[command(subcommand)]
    Session(session::Command),
    /// Create, list, rotate and revoke tokens for scripts and other machines
    #[command(subcommand)]
    Token(token::Command),
    /// Send a test mail, or list what became of mail
    #[command(subcommand)]
    Mail(mail::Command),
    /// Manage the keys that sign the assertion for the portal
    #[command(subcommand)]
    SigningKey(signing_key::Command),
    /// Inspect, migrate and copy the database
    #[command(subcommand)]
    Store(store::Command),
    /// Manage the keys that encrypt secrets in the database
    #[command(subcommand)]
    SealingKey(sealing_key::Command),
    /// Ask the running gateway whether it is healthy: exit 0 if it is, 1 if not; for containers
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Hash a password the way it is stored
    Hash(hash::HashArgs),
}

/// Runs the command.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return misuse(&error),
    };
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

/// Prints the requested help, or what is wrong with the arguments.
fn misuse(error: &clap::Error) -> ExitCode {
    // The reader has gone: there is nobody to tell.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().take_while(|argument| argument != "--").any(|argument| argument == "--json") {
        output::misused(error);
    }
    ExitCode::from(2)
}

async fn dispatch(arguments: Arguments, output: Output) -> anyhow::Result<()> {
    let files = arguments.config;
    match arguments.command {
        Command::Demo(arguments) => Box::pin(demo::run(&arguments, serve::stop_on_signal()?)).await,
        Command::Serve => Box::pin(serve::run(load(&files)?)).await,
        Command::Check(arguments) => {
            let config = load(&files)?;
            match arguments.asks() {
                _ if arguments.reach => check_reach::run(arguments.at, &config, output).await,
                Some(asks) => check_request::run(&asks, &config, output).await,
                None => check::run(&config, output).await,
            }
        }
        Command::User(command) => {
            let config = load(&files)?;
            let (stores, _log) =
                if command.makes_a_store() { open_or_make(&config).await? } else { open(&config).await? };
            user::run(command, &stores, output).await
        }
        Command::Device(command) => {
            let (stores, _log) = open(&load(&files)?).await?;
            device::run(command, &stores, output).await
        }
        Command::Rollout(command) => {
            let (stores, _log) = open(&load(&files)?).await?;
            rollout::run(command, &stores, output).await
        }
        Command::Session(command) => {
            let (stores, _log) = open(&load(&files)?).await?;
            session::run(command, &stores, output).await
        }
        Command::Token(command) => {
            let config = load(&files)?;
            let (stores, _log) = open(&config).await?;
            token::run(command, &config, &stores, output).await
        }
        Command::Mail(command) => mail::run(command, &load(&files)?, output).await,
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
        Command::Healthcheck(arguments) => healthcheck::run(&arguments, &load(&files)?, output).await,
        Command::Hash(arguments) => hash::run(&arguments, output).await,
    }
}

/// Loads the configuration; shows every fault at once.
fn load(files: &[PathBuf]) -> anyhow::Result<Config> {
    let files = if files.is_empty() { usual_files()? } else { files.to_vec() };
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

/// The first default path that exists. Empty if the environment sets everything.
fn usual_files() -> anyhow::Result<Vec<PathBuf>> {
    let there: Vec<PathBuf> = USUAL_PLACES.iter().map(PathBuf::from).filter(|path| path.exists()).collect();
    match there.as_slice() {
        [] if config::is_in_environment(std::env::vars_os()) => Ok(Vec::new()),
        [] => {
            let here = std::env::current_dir().unwrap_or_default();
            let [near, usual] = USUAL_PLACES;
            bail!(
                "no configuration: there is no {near} in {}, no {usual}, and no PORTCULLIS_… variable. Name the file with \
                 --config FILE",
                here.display()
            )
        }
        [only] => Ok(vec![only.clone()]),
        [first, passed_over, ..] => {
            let (first, passed_over) = (absolute(first), passed_over.display());
            output::explain(&format!(
                "note: reading {first}, not {passed_over}: a file in the working directory comes first"
            ));
            Ok(vec![there[0].clone()])
        }
    }
}

/// A path as it has to be written in another folder.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.into()).display().to_string()
}

/// The sources of a configuration, in words.
fn sources(config: &Config) -> String {
    if config.files.is_empty() {
        return "the environment".to_owned();
    }
    config.files.iter().map(|file| absolute(file)).collect::<Vec<_>>().join(", ")
}

fn show(problems: &Problems) {
    if !problems.is_empty() {
        output::explain(&problems.render(output::is_colourful()));
    }
}

/// Opens the stores, perhaps beside a running gateway.
async fn open(config: &Config) -> anyhow::Result<(Stores, Flushed)> {
    let log = Flushed(log::init_for_command(&config.log)?);
    let stores = Stores::open(config).await.map_err(|error| match error.downcast_ref() {
        Some(DatabaseError::Absent { .. }) => no_store(config),
        _ => error,
    })?;
    Ok((stores, log))
}

/// The same for a command that may make them.
async fn open_or_make(config: &Config) -> anyhow::Result<(Stores, Flushed)> {
    let log = Flushed(log::init_for_command(&config.log)?);
    Ok((Stores::open_or_make(config).await?, log))
}

/// The path of a missing store, and the command that makes it.
fn no_store(config: &Config) -> anyhow::Error {
    let place = match config.database.file() {
        Some(path) => format!("no database at {}", absolute(path)),
        None => format!("no tables in {}", config.database),
    };
    anyhow!(
        "{place} (storage.database, configured by {}). If this is the wrong place, name the gateway's own file with --config \
         FILE. To make a new database, run `portcullis serve`, or `portcullis user add EMAIL --init`",
        sources(config)
    )
}

/// A log that is flushed at the end.
struct Flushed(LogWriter);

impl Drop for Flushed {
    fn drop(&mut self) {
        self.0.flush(std::time::Duration::from_secs(2));
    }
}
