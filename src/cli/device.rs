//! `portcullis device …`: the authenticator devices of a user.

use clap::Subcommand;
use serde::Serialize;

use super::{
    confirm,
    output::{self, Output},
};
use crate::{app::Stores, credentials::Device};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List a user's devices
    List { email: String },
    /// Remove a device by id or name; the user's sessions end at once. Asks before it removes the last one
    Remove {
        email: String,
        device: String,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Serialize)]
pub(super) struct DeviceFact {
    id: String,
    name: String,
    added_at: String,
    last_used_at: Option<String>,
}

impl DeviceFact {
    pub(super) fn of(device: &Device) -> Self {
        Self {
            id: device.id.clone(),
            name: device.name.clone(),
            added_at: device.created_at.to_string(),
            last_used_at: device.last_used_at.map(|at| at.to_string()),
        }
    }
}

pub(super) async fn run(command: Command, stores: &Stores, output: Output) -> anyhow::Result<()> {
    match command {
        Command::List { email } => {
            let details = stores.administration.user_details(&email).await?;
            let devices: Vec<DeviceFact> = details.devices.iter().map(DeviceFact::of).collect();
            output.print(&devices, |devices| list(devices));
        }
        Command::Remove { email, device, yes } => {
            let details = stores.administration.user_details(&email).await?;
            if let [last] = details.devices.as_slice()
                && (last.id == device || last.name == device)
            {
                let what = format!(
                    "{} is the last device of {email}. The recovery codes go with it, and whoever has the password can \
                     enrol a new device at the next login.",
                    last.name
                );
                confirm::ask(yes, &what, "remove")?;
            }
            let removed = stores.administration.remove_device(&email, &device).await?;
            output.print(&DeviceFact::of(&removed), |device| format!("Removed {} of {email}.", device.name));
        }
    }
    Ok(())
}

pub(super) fn list(devices: &[DeviceFact]) -> String {
    if devices.is_empty() {
        return "No devices.".to_owned();
    }
    let rows: Vec<[String; 4]> = devices
        .iter()
        .map(|device| {
            let last_used = device.last_used_at.clone().unwrap_or_else(|| "never".to_owned());
            [device.id.clone(), device.name.clone(), device.added_at.clone(), last_used]
        })
        .collect();
    output::table(["DEVICE", "NAME", "ADDED", "LAST USED"], &rows)
}
