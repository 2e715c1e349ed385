//! Mail: an outbox in the database that survives restarts and a dead server, and whoever empties it.
//!
//! A mail is written in the transaction of the change that it is about ([`Outbox::draft`]), and sent later by one gateway
//! at a time, at least once: one that dies between the server's answer and its note sends the mail again, with the same
//! Message-ID.

mod letter;
mod outbox;
mod sender;
mod smtp;
#[cfg(test)]
mod tests;

use std::{fmt, path::PathBuf};

use lettre::{Address, Message};
use secrecy::SecretString;

use crate::clock::Timestamp;

pub use self::{
    letter::{Letter, date},
    outbox::{Backlog, Draft, Listed, Outbox},
    sender::MailSender,
    smtp::{MailFault, MailStep, MailTransport, MailTransportError, Smtp, SmtpError},
};

/// How mail is sent.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: MailServer,
    pub user: Option<String>,
    pub password: Option<SecretString>,
    /// PEM file with the authority that signed the server's certificate; absent: the public authorities.
    pub ca: Option<PathBuf>,
    /// An address, perhaps with a name: `IoT <no-reply@example.com>`.
    pub from: String,
    pub reply_to: Option<String>,
    /// Who is told when a user says "this was not me".
    pub operator: Option<String>,
    /// The gateway's name towards the server, and in the id of each mail.
    pub host: String,
    pub portal_name: String,
}

/// A mail server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailServer {
    pub host: String,
    pub port: u16,
    pub tls: Tls,
}

/// When a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// From the start.
    Implicit,
    /// After `STARTTLS`, which the server must offer.
    StartTls,
    Never,
}

impl fmt::Display for MailServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Whether mail can be sent to this text: a user's name need not be an address.
pub fn is_address(text: &str) -> bool {
    text.parse::<Address>().is_ok()
}

/// Whether this is an address, perhaps with a name in front.
pub fn is_mailbox(text: &str) -> bool {
    text.parse::<lettre::message::Mailbox>().is_ok()
}

/// A mail that is sent at once, past the outbox.
pub fn test_message(
    letter: &Letter,
    config: &Config,
    to: &Address,
    now: Timestamp,
) -> Result<Message, Box<dyn std::error::Error + Send + Sync>> {
    letter.message(config, &format!("test-{}", now.unix_millis()), to, now)
}
