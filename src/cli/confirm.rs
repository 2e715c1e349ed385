//! Asking before what cannot be taken back.

use std::io::{self, IsTerminal as _};

use anyhow::bail;

use super::output;

/// Goes on when the word is typed, or when `yes` was said beforehand. Where nobody can be asked, the answer is no.
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
