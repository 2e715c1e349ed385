//! Reads passwords from a prompt or from standard input, never from an argument: those are visible in process lists.

use std::io::{self, IsTerminal as _, Read as _};

use anyhow::{Context as _, bail};
use secrecy::SecretString;
use zeroize::Zeroizing;

/// Maximum length of a line with a password.
const LONGEST: u64 = 4096;

/// Reads one password: the first line of standard input, or twice from the terminal.
pub(super) fn read(from_stdin: bool, prompt: &str) -> anyhow::Result<SecretString> {
    if from_stdin {
        let mut text = Zeroizing::new(String::new());
        io::stdin().lock().take(LONGEST).read_to_string(&mut text).context("cannot read the password")?;
        let line = text.lines().next().unwrap_or_default();
        if line.is_empty() {
            bail!("standard input holds no password");
        }
        return Ok(SecretString::from(line.to_owned()));
    }
    if !io::stdin().is_terminal() {
        bail!("there is no terminal to ask for the password: use --password-stdin");
    }
    let first = Zeroizing::new(rpassword::prompt_password(format!("{prompt}: ")).context("cannot ask")?);
    let second = Zeroizing::new(rpassword::prompt_password("Once more: ").context("cannot ask")?);
    if first != second {
        bail!("the two passwords differ");
    }
    Ok(SecretString::from(first.as_str().to_owned()))
}
