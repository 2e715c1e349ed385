//! `portcullis hash`: hashes a password as it is stored, for preparing users elsewhere.

use std::sync::Arc;

use clap::Args;
use secrecy::ExposeSecret as _;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{output::Output, password};
use crate::{credentials::Hashing, random::OsRandom};

#[derive(Debug, Args)]
pub(super) struct HashArgs {
    /// Read the password from standard input instead of asking
    #[arg(long)]
    password_stdin: bool,
}

#[derive(Serialize)]
struct Hashed {
    hash: String,
}

pub(super) async fn run(arguments: &HashArgs, output: Output) -> anyhow::Result<()> {
    let password = password::read(arguments.password_stdin, "Password")?;
    let hashing = Hashing::start(std::num::NonZeroUsize::MIN, Arc::new(OsRandom))?;
    let hash = hashing.hash(Zeroizing::new(password.expose_secret().to_owned())).await?;
    output.print(&Hashed { hash: hash.to_text() }, |hashed| hashed.hash.clone());
    Ok(())
}
