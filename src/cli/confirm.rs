//! Asks for confirmation before an irreversible step.

use std::io::{self, IsTerminal as _};

use anyhow::bail;

use super::output;

/// Returns if the word is typed, or if `yes` was given. Without a terminal, the answer is no.
pub(super) fn ask(yes: bool, what: &str, word: &str) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        bail!("nothing was changed, for there is no terminal to ask: use --yes. {what}");
    }
    output::explain(&format!("{what}\nType {word} to go on:"));
    let mut typed = String::new();
    io::stdin().read_line(&mut typed)?;
    if typed.trim() != word {
        bail!("nothing was changed");
    }
    Ok(())
}
