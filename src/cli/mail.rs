//! `portcullis mail …`: tries the mail server step by step, and lists what became of mail.

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use serde::Serialize;

use super::output::{self, Output};
use crate::{
    clock::{Clock as _, SystemClock},
    config::Config,
    errors::Chain,
    mail::{Letter, Listed, MailStep, MailTransport, SmtpError, test_message},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Send a test mail now, and say each step and what failed
    Test { address: String },
    /// List the mail of the last seven days: sent, waiting, given up
    List {
        /// Only mail to this address
        address: Option<String>,
    },
}

#[derive(Serialize)]
struct Tested {
    server: String,
    to: String,
    /// The steps that were done.
    steps: Vec<&'static str>,
}

#[derive(Serialize)]
struct MailFact {
    id: String,
    to: String,
    about: String,
    state: String,
    made_at: String,
    /// When it is tried next; absent once it has been sent or given up.
    next_attempt_at: Option<String>,
    attempts: i64,
    last_error: Option<String>,
}

pub(super) async fn run(command: Command, config: &Config, output: Output) -> anyhow::Result<()> {
    match command {
        Command::Test { address } => test(&address, config, output).await,
        Command::List { address } => {
            let (stores, _log) = super::open(config).await?;
            let mail = stores.administration.notices.outbox.list(address.as_deref()).await?;
            let facts: Vec<_> = mail.iter().map(fact).collect();
            output.print(&facts, |facts| list(facts));
            Ok(())
        }
    }
}

async fn test(address: &str, config: &Config, output: Output) -> anyhow::Result<()> {
    let Some(mail) = &config.mail else {
        return Err(anyhow!("no mail is sent: mail.url is not set"));
    };
    let to = address.parse().with_context(|| format!("{address} is not a mail address"))?;
    let letter = Letter::new(format!("Test mail from {}", mail.portal_name))
        .paragraph("This is a test. If you can read it, the gateway can send mail.")
        .paragraph(format!("It was sent with `portcullis mail test` for https://{}.", mail.host));
    let message = test_message(&letter, mail, &to, SystemClock.now()).map_err(|reason| anyhow!(reason))?;
    let transport = MailTransport::new(mail)?;
    let mut steps = Vec::new();
    let mut done = |step: MailStep| {
        if !output.json {
            output::explain(&format!("  {:<20} ok", step.words()));
        }
        steps.push(step.words());
    };
    if !output.json {
        let user = mail.user.as_ref().map(|user| format!(" as {user}")).unwrap_or_default();
        output::explain(&format!("{}{user}, from {}", mail.server, mail.from));
    }
    let sent = async {
        let mut connection = transport.connect(&mut done).await?;
        connection.send(&to, &message, &mut done).await?;
        connection.quit().await;
        Ok(())
    };
    if let Err(error) = sent.await {
        return Err(explained(&error, output));
    }
    let tested = Tested { server: mail.server.to_string(), to: address.to_owned(), steps };
    output.print(&tested, |tested| format!("{} has accepted a mail to {}.", tested.server, tested.to));
    Ok(())
}

fn explained(error: &SmtpError, output: Output) -> anyhow::Error {
    if !output.json {
        output::explain(&format!("  {:<20} FAILED", error.step.words()));
    }
    let advice = error.advice().map(|advice| format!("\nhint: {advice}")).unwrap_or_default();
    anyhow!("cannot send mail: {}{advice}", Chain(error))
}

fn fact(mail: &Listed) -> MailFact {
    MailFact {
        id: mail.id.clone(),
        to: mail.to.clone(),
        about: mail.kind.clone(),
        state: mail.state.clone(),
        made_at: mail.made_at.to_string(),
        next_attempt_at: (mail.state == "waiting").then(|| mail.due_at.to_string()),
        attempts: mail.attempts,
        last_error: mail.last_error.clone(),
    }
}

fn list(mail: &[MailFact]) -> String {
    if mail.is_empty() {
        return "No mail in the last seven days.".to_owned();
    }
    let row = |mail: &MailFact| {
        [
            mail.made_at.clone(),
            mail.to.clone(),
            mail.about.clone(),
            mail.state.clone(),
            mail.attempts.to_string(),
            mail.last_error.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<[String; 6]> = mail.iter().map(row).collect();
    output::table(["WRITTEN", "TO", "ABOUT", "STATE", "ATTEMPTS", "LAST ERROR"], &rows)
}
