//! `portcullis demo`: everything on one machine, with nothing to set up.

pub mod portal;

/// What the demonstration can be told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The port that the wall listens on
    #[arg(long, default_value_t = 8443)]
    port: u16,
}

/// Runs the demonstration until it is interrupted.
pub async fn run(_: Arguments) -> anyhow::Result<()> {
    Ok(())
}
