//! `portcullis session …`: lists and ends sessions.

use anyhow::bail;
use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;

use super::{
    confirm,
    output::{self, Output},
};
use crate::{app::Stores, sessions::SessionSummary};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List sessions, of all users or of one
    List { email: Option<String> },
    /// End sessions; they are gone on every gateway within a second
    Revoke(Revoke),
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["id", "user", "all"])))]
pub(super) struct Revoke {
    /// The first eight or more digits of a session's id
    id: Option<String>,
    /// Every session of this user
    #[arg(long, value_name = "EMAIL")]
    user: Option<String>,
    /// Every session of everybody; asks first
    #[arg(long)]
    all: bool,
    /// Don't ask
    #[arg(long, requires = "all")]
    yes: bool,
}

#[derive(Serialize)]
pub(super) struct SessionFact {
    id: String,
    user: String,
    created_at: String,
    last_seen_at: String,
    expires_at: String,
    client_ip: String,
    device: String,
    user_agent: String,
    amr: Vec<&'static str>,
    remembered: bool,
}

#[derive(Serialize)]
struct Ended {
    /// `None` if the session store did not answer, so that they could not be counted.
    ended: Option<usize>,
}

impl SessionFact {
    pub(super) fn of(session: &SessionSummary) -> Self {
        Self {
            id: session.id.short(),
            user: session.name.clone(),
            created_at: session.created_at.to_string(),
            last_seen_at: session.last_seen.to_string(),
            expires_at: session.expires_at.to_string(),
            client_ip: session.origin.client_ip.to_string(),
            device: session.origin.device(),
            user_agent: session.origin.user_agent.clone(),
            amr: session.amr.iter().map(|method| method.amr()).collect(),
            remembered: session.remembered,
        }
    }
}

pub(super) async fn run(command: Command, stores: &Stores, output: Output) -> anyhow::Result<()> {
    let administration = &stores.administration;
    match command {
        Command::List { email } => {
            let sessions = administration.sessions(email.as_deref()).await?;
            let facts: Vec<SessionFact> = sessions.iter().map(SessionFact::of).collect();
            output.print(&facts, |facts| list(facts));
        }
        Command::Revoke(which) => {
            let ended = match which {
                Revoke { id: Some(id), .. } => administration.revoke_session(&id).await.map(|_| Some(1))?,
                Revoke { user: Some(email), .. } => Some(administration.revoke_user(&email).await?),
                Revoke { all: true, yes, .. } => {
                    let what = "This signs everybody out, at every gateway; they all have to sign in again.";
                    confirm::ask(yes, what, "all")?;
                    administration.revoke_all().await?
                }
                Revoke { .. } => bail!("say which session"),
            };
            output.print(&Ended { ended }, |fact| counted(fact.ended));
        }
    }
    Ok(())
}

fn counted(ended: Option<usize>) -> String {
    match ended {
        Some(1) => "Ended 1 session.".to_owned(),
        Some(ended) => format!("Ended {ended} sessions."),
        None => "Ended every session. Redis did not answer, so they were not counted.".to_owned(),
    }
}

pub(super) fn list(sessions: &[SessionFact]) -> String {
    if sessions.is_empty() {
        return "No sessions.".to_owned();
    }
    let rows: Vec<[String; 6]> = sessions
        .iter()
        .map(|session| {
            [
                session.id.clone(),
                session.user.clone(),
                session.created_at.clone(),
                session.last_seen_at.clone(),
                session.client_ip.clone(),
                session.device.clone(),
            ]
        })
        .collect();
    output::table(["SESSION", "USER", "SINCE", "LAST SEEN", "FROM", "DEVICE"], &rows)
}
