//! The documentation against the repository and the program: links lead somewhere, commands and settings exist, and the
//! install page, done line by line, ends in a gateway that serves.
//!
//! A block of shell is run by `walkthrough` unless its fence says `not run:` and why. Those are parsed, and the program's
//! commands in them are checked, all the same.

#[cfg(test)]
mod commands;
#[cfg(test)]
mod links;
#[cfg(test)]
mod page;
#[cfg(test)]
#[path = "../../src/database/test_server.rs"]
#[expect(dead_code, reason = "the library's tests need more of it")]
mod postgres;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod walkthrough;

/// The program that is documented.
#[cfg(test)]
const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis");

#[cfg(test)]
fn expect_none(breaches: &[String], rule: &str) {
    assert!(breaches.is_empty(), "{rule}:\n  {}", breaches.join("\n  "));
}
