//! `portcullis rollout …`: how far everybody is with their first device, and who would be blocked when.

use std::collections::BTreeMap;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::output::{self, Output};
use crate::{
    app::Stores,
    clock::Timestamp,
    mail::is_address,
    rollout::{Stage, StageCounts, Standing},
    users::User,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Count the users by how far they are, in all and by group
    Report(Selection),
    /// The same as it would be at an instant, if nobody did anything until then
    Preview {
        /// With its UTC offset, such as 2027-03-02T00:00:00+01:00
        #[arg(long, value_name = "INSTANT")]
        at: jiff::Timestamp,
        #[command(flatten)]
        selection: Selection,
    },
    /// Mail a reminder with their date to users who have no device
    Remind {
        /// Only members of this group; may be repeated
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// Only say who would be reminded
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Selection {
    /// List these users instead of counting
    #[arg(long, value_enum)]
    list: Option<Who>,
    /// Only members of this group; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Print comma-separated values, for spreadsheets
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Who {
    NotStarted,
    PasswordKnown,
    QrSeen,
    PutOff,
    DeviceSaved,
    /// Whoever gets no further than the page that sets up a device
    Blocked,
    /// Whoever has no device, blocked or not
    WithoutDevice,
}

impl Who {
    fn has(self, standing: Standing) -> bool {
        match self {
            Self::NotStarted => standing.stage == Stage::NotStarted,
            Self::PasswordKnown => standing.stage == Stage::PasswordKnown,
            Self::QrSeen => standing.stage == Stage::QrSeen,
            Self::PutOff => standing.stage == Stage::PutOff,
            Self::DeviceSaved => standing.stage == Stage::DeviceSaved,
            Self::Blocked => standing.is_blocked,
            Self::WithoutDevice => standing.stage != Stage::DeviceSaved,
        }
    }
}

#[derive(Serialize)]
struct CountsFact {
    /// `None`: all users.
    group: Option<String>,
    users: u64,
    not_started: u64,
    password_known: u64,
    qr_seen: u64,
    put_off: u64,
    device_saved: u64,
    blocked: u64,
}

#[derive(Serialize)]
struct ReportFact {
    /// For which instant.
    at: String,
    /// First that of all users, then those of the groups; who is in several is counted in each.
    counts: Vec<CountsFact>,
}

#[derive(Serialize)]
struct UserFact {
    email: String,
    name: String,
    groups: Vec<String>,
    stage: &'static str,
    blocked: bool,
    skips: u32,
    first_login_at: Option<String>,
}

#[derive(Serialize)]
struct RemindedFact {
    reminded: Vec<String>,
    /// Those whose name is no mail address.
    without_address: Vec<String>,
    dry_run: bool,
}

/// Whether a user is in any of these groups, or none is named.
fn is_of(groups: &[String], user: &User) -> bool {
    groups.is_empty() || groups.iter().any(|group| user.groups.contains(group))
}

async fn remind(groups: &[String], dry_run: bool, stores: &Stores, output: Output) -> anyhow::Result<()> {
    let administration = &stores.administration;
    if !dry_run && !administration.notices.outbox.is_on() {
        bail!("there is no mail server: set `mail.url` (docs/mail.md)");
    }
    let mut users = Vec::new();
    let take = &mut |user: User, standing: Standing| {
        if is_of(groups, &user) && standing.stage != Stage::DeviceSaved {
            users.push(user);
        }
    };
    administration.standings(administration.now(), take).await?;
    let (mail, none): (Vec<_>, Vec<_>) = users.into_iter().partition(|user| is_address(&user.email));
    if !dry_run {
        for (done, user) in mail.iter().enumerate() {
            administration.remind(user).await?;
            output::progress(done + 1, mail.len(), "reminders");
        }
    }
    let names = |users: Vec<User>| users.into_iter().map(|user| user.email).collect();
    let fact = RemindedFact { reminded: names(mail), without_address: names(none), dry_run };
    output.print(&fact, |fact| {
        let would = if fact.dry_run { "Would remind" } else { "Reminded" };
        let mut lines = vec![format!("{would} {} users.", fact.reminded.len())];
        if fact.dry_run {
            lines.extend(fact.reminded.iter().cloned());
        }
        if !fact.without_address.is_empty() {
            let names = fact.without_address.join(", ");
            lines.push(format!("Not those whose names aren't mail addresses: {names}."));
        }
        lines.join("\n")
    });
    Ok(())
}

pub(super) async fn run(command: Command, stores: &Stores, output: Output) -> anyhow::Result<()> {
    let (at, selection) = match command {
        Command::Remind { groups, dry_run } => return remind(&groups, dry_run, stores, output).await,
        Command::Report(selection) => (stores.administration.now(), selection),
        Command::Preview { at, selection } => (Timestamp::from_unix_millis(at.as_millisecond()), selection),
    };
    let (mut all, mut by_group, mut listed) =
        (StageCounts::default(), BTreeMap::<String, StageCounts>::new(), Vec::new());
    let mut take = |user: User, standing: Standing| {
        if !is_of(&selection.groups, &user) {
            return;
        }
        all.add(standing);
        for group in &user.groups {
            by_group.entry(group.clone()).or_default().add(standing);
        }
        if selection.list.is_some_and(|who| who.has(standing)) {
            listed.push(user_fact(user, standing));
        }
    };
    stores.administration.standings(at, &mut take).await?;
    if selection.list.is_some() {
        return list(&listed, selection.csv, output);
    }
    let groups = by_group.iter().map(|(group, counts)| fact(Some(group.clone()), counts));
    let report =
        ReportFact { at: at.to_string(), counts: std::iter::once(fact(None, &all)).chain(groups).collect() };
    if selection.csv {
        return Ok(output::print_csv(&COLUMNS, report.counts.iter().map(cells))?);
    }
    output.print(&report, |report| {
        let rows: Vec<_> = report.counts.iter().map(cells).collect();
        output::table(
            [
                "GROUP",
                "USERS",
                "NOT STARTED",
                "PASSWORD KNOWN",
                "QR SEEN",
                "PUT OFF",
                "DEVICE SAVED",
                "BLOCKED",
            ],
            &rows,
        )
    });
    Ok(())
}

/// The keys of the JSON.
const COLUMNS: [&str; 8] =
    ["group", "users", "not_started", "password_known", "qr_seen", "put_off", "device_saved", "blocked"];

fn list(users: &[UserFact], csv: bool, output: Output) -> anyhow::Result<()> {
    let row = |user: &UserFact| {
        [
            user.email.clone(),
            user.name.clone(),
            user.groups.join(";"),
            user.stage.to_owned(),
            if user.blocked { "yes" } else { "no" }.to_owned(),
            user.skips.to_string(),
            user.first_login_at.clone().unwrap_or_default(),
        ]
    };
    if csv {
        let columns = ["email", "name", "groups", "stage", "blocked", "skips", "first_login_at"];
        return Ok(output::print_csv(&columns, users.iter().map(row))?);
    }
    output.print(&users, |users| {
        let rows: Vec<_> = users.iter().map(row).collect();
        output::table(["E-MAIL", "NAME", "GROUPS", "STAGE", "BLOCKED", "SKIPS", "FIRST LOGIN"], &rows)
    });
    Ok(())
}

fn user_fact(user: User, standing: Standing) -> UserFact {
    UserFact {
        email: user.email,
        name: user.display_name,
        groups: user.groups,
        stage: standing.stage.name(),
        blocked: standing.is_blocked,
        skips: user.skips,
        first_login_at: user.first_login_at.map(|at| at.to_string()),
    }
}

fn fact(group: Option<String>, counts: &StageCounts) -> CountsFact {
    CountsFact {
        group,
        users: counts.users(),
        not_started: counts.at(Stage::NotStarted),
        password_known: counts.at(Stage::PasswordKnown),
        qr_seen: counts.at(Stage::QrSeen),
        put_off: counts.at(Stage::PutOff),
        device_saved: counts.at(Stage::DeviceSaved),
        blocked: counts.blocked,
    }
}

fn cells(fact: &CountsFact) -> [String; 8] {
    [
        fact.group.clone().unwrap_or_else(|| "(all)".to_owned()),
        fact.users.to_string(),
        fact.not_started.to_string(),
        fact.password_known.to_string(),
        fact.qr_seen.to_string(),
        fact.put_off.to_string(),
        fact.device_saved.to_string(),
        fact.blocked.to_string(),
    ]
}
