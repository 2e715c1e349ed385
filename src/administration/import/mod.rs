//! Users of another system, with their passwords, authenticators and groups as they are.

mod dumps;
mod seed;
mod table;

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use sqlx::Row as _;

use super::{Administration, AdministrationError};
use crate::{
    audit::AuditEvent,
    credentials::{HashRefusal, ImportedDevice, StoredHash},
    database::{Change, DatabaseError, Transaction},
    users::{CanonicalName, NewUser, UserId, UsersError},
};

/// How many users one transaction adds.
const BATCH: usize = 500;

/// The forms of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportFormat {
    /// A header line with any of `email,name,groups,password_hash,totp_seed,device_name,disabled`, and a line for each user.
    Csv,
    /// A JSON object with the same names on each line.
    Jsonl,
    /// `name:hash` on each line, as by `htpasswd` and passlib.
    Htpasswd,
    /// What `manage.py dumpdata auth otp_totp` writes.
    Django,
    /// The export of a realm.
    Keycloak,
}

/// A user of a file.
pub struct ImportedUser {
    pub email: String,
    pub display_name: String,
    pub groups: Vec<String>,
    pub disabled: bool,
    pub password: Option<StoredHash>,
    pub device: Option<ImportedDevice>,
}

impl fmt::Debug for ImportedUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportedUser").field("email", &self.email).finish_non_exhaustive()
    }
}

/// Why a line cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportFault {
    #[error("{0}")]
    Text(String),
    #[error("the password: {0}")]
    Hash(#[from] HashRefusal),
    #[error(transparent)]
    User(#[from] UsersError),
    #[error("{0} is in line {1} already")]
    Twice(String, u64),
}

/// One user of a file: where, and what was read there.
#[derive(Debug)]
pub struct Entry {
    /// The line, or the number of the entry, from 1 on.
    pub at: u64,
    /// As far as it could be read.
    pub email: String,
    pub user: Result<ImportedUser, ImportFault>,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    Added,
    /// There was a user of this name already, who is left as they are.
    Exists,
}

/// Reads a whole file. Every user in it is an entry, with or without a fault.
///
/// # Errors
/// A file that is not of this format at all.
pub fn read(text: &str, format: ImportFormat) -> Result<Vec<Entry>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut entries = match format {
        ImportFormat::Csv => table::csv(text)?,
        ImportFormat::Jsonl => table::jsonl(text),
        ImportFormat::Htpasswd => table::htpasswd(text),
        ImportFormat::Django => dumps::django(text)?,
        ImportFormat::Keycloak => dumps::keycloak(text)?,
    };
    let mut seen = HashMap::new();
    for entry in &mut entries {
        let Ok(user) = &entry.user else { continue };
        match user.check() {
            Err(fault) => entry.user = Err(fault.into()),
            Ok(name) => {
                if let Some(first) = seen.get(name.as_str()) {
                    entry.user = Err(ImportFault::Twice(entry.email.clone(), *first));
                } else {
                    seen.insert(name.as_str().to_owned(), entry.at);
                }
            }
        }
    }
    Ok(entries)
}

impl ImportedUser {
    fn new_user(&self) -> NewUser {
        NewUser {
            email: self.email.clone(),
            display_name: self.display_name.clone(),
            groups: self.groups.clone(),
        }
    }

    fn check(&self) -> Result<CanonicalName, UsersError> {
        self.new_user().check()
    }
}

impl Administration {
    /// Adds those users who are not there yet, each wholly or not at all; others are left as they are. `done` is called
    /// after each batch, with what became of its users, in their order.
    pub async fn import(
        &self,
        users: &[ImportedUser],
        mut done: impl FnMut(&[Became]),
    ) -> Result<(), AdministrationError> {
        for batch in users.chunks(BATCH) {
            let became = self.import_batch(batch).await?;
            done(&became);
        }
        Ok(())
    }

    /// What [`Self::import`] would do.
    pub async fn would_import(&self, users: &[ImportedUser]) -> Result<Vec<Became>, AdministrationError> {
        let rows = sqlx::query("SELECT name FROM users").fetch_all(&self.database).await;
        let rows = rows.map_err(DatabaseError::from)?;
        let known: HashSet<String> = rows
            .iter()
            .map(|row| row.try_get("name"))
            .collect::<Result<_, _>>()
            .map_err(DatabaseError::from)?;
        let became = |user: &ImportedUser| {
            user.check()
                .map(|name| if known.contains(name.as_str()) { Became::Exists } else { Became::Added })
        };
        Ok(users.iter().map(became).collect::<Result<_, UsersError>>()?)
    }

    async fn import_batch(&self, users: &[ImportedUser]) -> Result<Vec<Became>, AdministrationError> {
        let (mut became, mut added) = (Vec::with_capacity(users.len()), Vec::new());
        let mut transaction = self.database.write().await?;
        for user in users {
            let Some(known) =
                self.users.add_if_absent(&mut transaction, user.new_user(), user.disabled).await?
            else {
                became.push(Became::Exists);
                continue;
            };
            if let Some(hash) = &user.password {
                self.passwords.import(&mut transaction, &known.id, hash).await?;
            }
            if let Some(device) = &user.device {
                self.devices.import(&mut transaction, &known.id, device).await?;
            }
            self.announce(&mut transaction, &known.id).await?;
            became.push(Became::Added);
            added.push(known);
        }
        transaction.commit().await?;
        for user in &added {
            self.note(AuditEvent::UserAdded, user);
        }
        Ok(became)
    }

    async fn announce(
        &self,
        transaction: &mut Transaction,
        user: &UserId,
    ) -> Result<(), AdministrationError> {
        Ok(self.database.announce(transaction, &Change::User(user.to_string()), self.clock.now()).await?)
    }
}
