//! `portcullis user …`: who may log in.

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;

use super::{
    confirm,
    device::DeviceFact,
    import,
    output::{self, Output},
    password,
    session::SessionFact,
};
use crate::{
    app::Stores,
    mail::is_address,
    users::{NewUser, User},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a user
    Add(Add),
    /// Add the users of another system, with their passwords and authenticators as they are
    Import(import::Import),
    /// Print all users, without passwords and devices
    Export(import::Export),
    /// List all users, with their devices and last logins
    List {
        /// Only those who have no second factor yet
        #[arg(long)]
        without_device: bool,
    },
    /// Show a user with devices and sessions
    Show { email: String },
    /// Send users a link by mail to set their password
    Invite(InviteArgs),
    /// Block a user; sessions end at once
    Disable { email: String },
    /// Unblock a disabled user
    Enable { email: String },
    /// Remove a user with devices, codes and sessions
    Remove {
        email: String,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
    /// Change a user's display name; open sessions keep working and follow within a second
    SetName { email: String, name: String },
    /// Put a user into these groups and no others; open sessions follow within a second
    SetGroups {
        email: String,
        /// Groups, also separated by commas; none: the user is in no group
        groups: Vec<String>,
        /// The same; may be repeated
        #[arg(long = "group", value_name = "GROUP")]
        more: Vec<String>,
    },
    /// Change the e-mail that a user logs in with; password, devices and open sessions stay
    SetEmail { email: String, new: String },
    /// Set a user's password; sessions end at once
    SetPassword {
        email: String,
        /// Read the password from standard input instead of asking
        #[arg(long)]
        password_stdin: bool,
    },
}

impl Command {
    /// Whether the command makes stores that do not exist.
    pub(super) fn makes_a_store(&self) -> bool {
        matches!(self, Self::Add(Add { init: true, .. }))
    }
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// The e-mail address (or name) that the user signs in with
    email: String,
    /// The user's full name, for the portal
    #[arg(long, default_value = "")]
    name: String,
    /// A group of the user, for the portal; may be repeated
    #[arg(long = "group")]
    groups: Vec<String>,
    /// Leave a user who already exists unchanged instead of failing
    #[arg(long)]
    if_absent: bool,
    /// Make the database and the sealing key if there are none yet
    #[arg(long)]
    init: bool,
    #[command(flatten)]
    password: FirstPassword,
}

/// Where the first password comes from; asked for if neither is given.
#[derive(Debug, Args)]
struct FirstPassword {
    /// Read the password from standard input instead of asking
    #[arg(long)]
    password_stdin: bool,
    /// Set no password, and send the user a link by mail to set one
    #[arg(long, conflicts_with = "password_stdin")]
    invite: bool,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("who").required(true).args(["emails", "all_without_password"])))]
pub(super) struct InviteArgs {
    /// The users' e-mails
    #[arg(value_name = "EMAIL")]
    emails: Vec<String>,
    /// Everybody who has no password yet and isn't disabled
    #[arg(long)]
    all_without_password: bool,
}

#[derive(Serialize)]
struct Invited {
    invited: Vec<String>,
    /// Those whose name is no mail address.
    without_address: Vec<String>,
}

#[derive(Serialize)]
struct UserFact {
    id: String,
    email: String,
    name: String,
    groups: Vec<String>,
    disabled: bool,
    /// Disabled by the user, with "this was not me" in a notice.
    frozen: bool,
    created_at: String,
    /// `None` before the first login.
    last_login_at: Option<String>,
}

#[derive(Serialize)]
struct ListedFact {
    #[serde(flatten)]
    user: UserFact,
    device_count: u32,
}

#[derive(Serialize)]
struct AddedFact {
    #[serde(flatten)]
    user: UserFact,
    /// False if the user existed already.
    added: bool,
}

#[derive(Serialize)]
struct UserDetailsFact {
    #[serde(flatten)]
    user: UserFact,
    recovery_codes_left: u32,
    devices: Vec<DeviceFact>,
    sessions: Vec<SessionFact>,
}

#[derive(Serialize)]
struct Done {
    email: String,
    done: &'static str,
}

pub(super) async fn run(command: Command, stores: &Stores, output: Output) -> anyhow::Result<()> {
    let administration = &stores.administration;
    match command {
        Command::Add(add) => self::add(add, stores, output).await?,
        Command::Import(arguments) => import::run(arguments, stores, output).await?,
        Command::Export(arguments) => import::export(&arguments, stores).await?,
        Command::List { without_device } => {
            let roster = administration.roster().await?;
            let wanted = roster.iter().filter(|(_, devices)| !without_device || *devices == 0);
            let users: Vec<ListedFact> = wanted
                .map(|(user, devices)| ListedFact { user: fact(user), device_count: *devices })
                .collect();
            output.print(&users, |users| list(users));
        }
        Command::Show { email } => show(stores, &email, output).await?,
        Command::Invite(who) => invite(who, stores, output).await?,
        Command::Disable { email } => {
            administration.set_disabled(&email, true).await?;
            done(output, email, "disabled");
        }
        Command::Enable { email } => {
            administration.set_disabled(&email, false).await?;
            done(output, email, "enabled");
        }
        Command::Remove { email, yes } => {
            let what = format!("This removes {email} with all devices, recovery codes and sessions.");
            confirm::ask(yes, &what, &email)?;
            administration.remove_user(&email).await?;
            done(output, email, "removed");
        }
        Command::SetName { email, name } => {
            let user = administration.set_name(&email, &name).await?;
            output.print(&fact(&user), |user| format!("{}: the name is now {:?}.", user.email, user.name));
        }
        Command::SetGroups { email, groups, more } => {
            let groups = groups.iter().chain(&more).flat_map(|group| group.split(','));
            let user = administration.set_groups(&email, groups.map(str::to_owned).collect()).await?;
            output.print(&fact(&user), |user| match user.groups.as_slice() {
                [] => format!("{}: in no group.", user.email),
                groups => format!("{}: the groups are now {}.", user.email, groups.join(", ")),
            });
        }
        Command::SetEmail { email, new } => {
            let user = administration.set_email(&email, &new).await?;
            output.print(&fact(&user), |user| format!("{email} now logs in as {}.", user.email));
        }
        Command::SetPassword { email, password_stdin } => {
            let password = password::read(password_stdin, &format!("New password for {email}"))?;
            administration.set_password(&email, password).await?;
            done(output, email, "password set");
        }
    }
    Ok(())
}

async fn add(add: Add, stores: &Stores, output: Output) -> anyhow::Result<()> {
    let administration = &stores.administration;
    let known = if add.if_absent { administration.find(&add.email).await? } else { None };
    let added = known.is_none();
    let user = match known {
        Some(user) => user,
        None => {
            let password = if add.password.invite {
                can_invite(stores)?;
                None
            } else {
                Some(password::read(add.password.password_stdin, &format!("Password for {}", add.email))?)
            };
            let new = NewUser { email: add.email, display_name: add.name, groups: add.groups };
            let user = administration.add_user(new, password).await?;
            if add.password.invite {
                administration.invite(&user).await?;
            }
            user
        }
    };
    output.print(&AddedFact { user: fact(&user), added }, |fact| {
        let email = &fact.user.email;
        if fact.added {
            format!("Added {email}.")
        } else {
            format!("{email} already exists: nothing changed.")
        }
    });
    Ok(())
}

fn can_invite(stores: &Stores) -> anyhow::Result<()> {
    if !stores.administration.notices.outbox.is_on() {
        bail!("cannot invite anybody: no mail is sent, because mail.url is not set");
    }
    Ok(())
}

async fn invite(who: InviteArgs, stores: &Stores, output: Output) -> anyhow::Result<()> {
    can_invite(stores)?;
    let administration = &stores.administration;
    let mut users = Vec::new();
    if who.all_without_password {
        users = administration.users.without_password().await?;
    }
    for email in &who.emails {
        let user = administration.find(email).await?;
        users.push(user.with_context(|| format!("there is no user {email}: nobody was invited"))?);
    }
    let (mail, none): (Vec<_>, Vec<_>) = users.into_iter().partition(|user| is_address(&user.email));
    for user in &mail {
        administration.invite(user).await?;
    }
    let names = |users: Vec<User>| users.into_iter().map(|user| user.email).collect();
    let invited = Invited { invited: names(mail), without_address: names(none) };
    output.print(&invited, |invited| {
        let without = match invited.without_address.as_slice() {
            [] => String::new(),
            names => {
                format!("\nNot invited, because their names aren't mail addresses: {}.", names.join(", "))
            }
        };
        match invited.invited.as_slice() {
            [one] => format!("Invited {one}.{without}"),
            all => format!("Invited {} users.{without}", all.len()),
        }
    });
    Ok(())
}

async fn show(stores: &Stores, email: &str, output: Output) -> anyhow::Result<()> {
    let details = stores.administration.user_details(email).await?;
    let fact = UserDetailsFact {
        user: fact(&details.user),
        recovery_codes_left: details.recovery_left,
        devices: details.devices.iter().map(DeviceFact::of).collect(),
        sessions: details.sessions.iter().map(SessionFact::of).collect(),
    };
    output.print(&fact, |fact| {
        let user = &fact.user;
        format!(
            "{}\n  name            {}\n  groups          {}\n  state           {}\n  added           {}\n  last login      {}\n  recovery codes  {} left\n\n{}\n\n{}",
            user.email,
            user.name,
            user.groups.join(", "),
            state(user),
            user.created_at,
            last_login(user),
            fact.recovery_codes_left,
            super::device::list(&fact.devices),
            super::session::list(&fact.sessions),
        )
    });
    Ok(())
}

fn fact(user: &User) -> UserFact {
    UserFact {
        id: user.id.as_str().to_owned(),
        email: user.email.clone(),
        name: user.display_name.clone(),
        groups: user.groups.clone(),
        disabled: user.disabled,
        frozen: user.frozen,
        created_at: user.created_at.to_string(),
        last_login_at: user.last_login_at.map(|at| at.to_string()),
    }
}

fn list(users: &[ListedFact]) -> String {
    let row = |ListedFact { user, device_count }: &ListedFact| {
        let devices = match device_count {
            0 => "none".to_owned(),
            1 => "1 device".to_owned(),
            _ => format!("{device_count} devices"),
        };
        let groups = user.groups.join(",");
        [user.email.clone(), user.name.clone(), groups, state(user).to_owned(), devices, last_login(user)]
    };
    let rows: Vec<[String; 6]> = users.iter().map(row).collect();
    output::table(["E-MAIL", "NAME", "GROUPS", "STATE", "SECOND FACTOR", "LAST LOGIN"], &rows)
}

fn last_login(user: &UserFact) -> String {
    user.last_login_at.clone().unwrap_or_else(|| "never".to_owned())
}

fn state(user: &UserFact) -> &'static str {
    match (user.disabled, user.frozen) {
        (true, true) => "blocked by its user",
        (true, false) => "disabled",
        (false, _) => "enabled",
    }
}

fn done(output: Output, email: String, done: &'static str) {
    output.print(&Done { email, done }, |fact| format!("{}: {}.", fact.email, fact.done));
}
