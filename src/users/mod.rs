//! Users: who may log in, their names and groups, in the durable store.
//!
//! Knows no credentials; those refer to a user's id and are deleted with the user.

mod id;
mod name;

use std::sync::Arc;

use futures_util::TryStreamExt as _;
pub use id::{SERVICE, UserId};
pub use name::{CanonicalName, is_invisible};
use sqlx::{Row as _, any::AnyRow};

use crate::{
    clock::{Clock, Timestamp},
    database::{Alongside, Change, Database, DatabaseError, Transaction},
    random::Random,
};

/// Maximum length of display names and group names in bytes.
const MAX_TEXT_BYTES: usize = 254;

/// Records that all names are in the current form of [`CanonicalName`].
const NAMES: &str = "names";
/// Disabled by the user; 1 is by an operator.
const FROZEN: i64 = 2;

/// A person who may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub name: CanonicalName,
    /// As typed, without invisible characters.
    pub email: String,
    /// Empty if none was given.
    pub display_name: String,
    /// Without duplicates, in the order given.
    pub groups: Vec<String>,
    pub disabled: bool,
    /// Disabled by its own user, with "this was not me".
    pub frozen: bool,
    pub created_at: Timestamp,
    /// When a login was last finished.
    pub last_login_at: Option<Timestamp>,
    /// When a first factor was accepted for the first time.
    pub first_login_at: Option<Timestamp>,
    /// When the QR code of a first device was shown for the first time.
    pub qr_seen_at: Option<Timestamp>,
    /// How often the first device was put off.
    pub skips: u32,
}

#[cfg(test)]
impl User {
    /// A user for tests, by a name of at most 21 letters.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            id: UserId::of(name),
            name: CanonicalName::parse(name).expect("a name"),
            email: name.to_owned(),
            display_name: String::new(),
            groups: Vec::new(),
            disabled: false,
            frozen: false,
            created_at: Timestamp::from_unix_seconds(0),
            last_login_at: None,
            first_login_at: None,
            qr_seen_at: None,
            skips: 0,
        }
    }
}

/// The properties of a new user. The canonical name is derived from the e-mail.
#[derive(Clone, Debug, Default)]
pub struct NewUser {
    pub email: String,
    pub display_name: String,
    pub groups: Vec<String>,
}

/// Why users could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    #[error("this user already exists")]
    Exists,
    #[error("the e-mail is empty, too long, or contains white space or control characters")]
    InvalidName,
    #[error("names that begin with `service:` are for services, which have tokens and no password")]
    NameOfService,
    #[error("the display name is too long or contains control characters")]
    InvalidDisplayName,
    #[error("the group {0:?} is empty, too long, or contains a comma or control characters")]
    InvalidGroup(String),
    #[error("cannot read or change users")]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for UsersError {
    fn from(error: sqlx::Error) -> Self {
        DatabaseError::from(error).into()
    }
}

impl NewUser {
    /// Whether a user can have these properties, and the canonical name.
    pub fn check(&self) -> Result<CanonicalName, UsersError> {
        checked_display_name(&self.display_name)?;
        checked_groups(self.groups.clone())?;
        name_of_user(&self.email)
    }
}

/// The users of this installation.
#[derive(Clone, Debug)]
pub struct Users {
    database: Database,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    alongside: Alongside,
}

impl Users {
    pub fn new(database: Database, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self { database, clock, random, alongside: Alongside::nothing() }
    }

    /// The same; what is changed through it brings `alongside` with it, in the same transaction.
    #[must_use]
    pub fn carrying(mut self, alongside: Alongside) -> Self {
        self.alongside = alongside;
        self
    }

    pub async fn add(&self, new: NewUser) -> Result<User, UsersError> {
        let mut transaction = self.database.write().await?;
        let user = self.add_if_absent(&mut transaction, new, false).await?.ok_or(UsersError::Exists)?;
        self.database.announce(&mut transaction, &Change::User(user.id.to_string()), user.created_at).await?;
        transaction.commit().await?;
        Ok(user)
    }

    /// Adds a user once `transaction` commits. `None`: there is one of this name. Not announced.
    pub async fn add_if_absent(
        &self,
        transaction: &mut Transaction,
        new: NewUser,
        disabled: bool,
    ) -> Result<Option<User>, UsersError> {
        let user = User {
            id: UserId::generate(&*self.random),
            name: name_of_user(&new.email)?,
            email: seen(&new.email),
            display_name: checked_display_name(&new.display_name)?,
            groups: checked_groups(new.groups)?,
            disabled,
            frozen: false,
            created_at: self.clock.now(),
            last_login_at: None,
            first_login_at: None,
            qr_seen_at: None,
            skips: 0,
        };
        let added = sqlx::query(
            "INSERT INTO users (id, name, email, display_name, group_names, disabled, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO NOTHING",
        )
        .bind(user.id.as_str())
        .bind(user.name.as_str())
        .bind(user.email.as_str())
        .bind(user.display_name.as_str())
        .bind(user.groups.join(","))
        .bind(i64::from(disabled))
        .bind(user.created_at.unix_millis())
        .execute(&mut **transaction)
        .await?;
        Ok((added.rows_affected() == 1).then_some(user))
    }

    pub async fn find(&self, name: &CanonicalName) -> Result<Option<User>, UsersError> {
        let row = sqlx::query("SELECT * FROM users WHERE name = $1")
            .bind(name.as_str())
            .fetch_optional(&self.database)
            .await?;
        row.map(|row| read(&row)).transpose()
    }

    pub async fn by_id(&self, id: &UserId) -> Result<Option<User>, UsersError> {
        let row = sqlx::query("SELECT * FROM users WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.database)
            .await?;
        row.map(|row| read(&row)).transpose()
    }

    /// A user, with the number of their devices.
    pub async fn with_devices(&self, id: &UserId) -> Result<Option<(User, i64)>, UsersError> {
        let row = sqlx::query(
            "SELECT users.*, (SELECT COUNT(*) FROM devices WHERE user_id = users.id) AS devices \
             FROM users WHERE id = $1",
        )
        .bind(id.as_str())
        .fetch_optional(&self.database)
        .await?;
        row.map(|row| Ok((read(&row)?, row.try_get("devices")?))).transpose()
    }

    /// Takes each user, by name, with the number of their devices, and holds none of them.
    pub async fn each(&self, mut take: impl FnMut(User, u32)) -> Result<(), UsersError> {
        let mut rows = sqlx::query(
            "SELECT users.*, (SELECT COUNT(*) FROM devices WHERE user_id = users.id) AS devices \
             FROM users ORDER BY name",
        )
        .fetch(&self.database);
        while let Some(row) = rows.try_next().await? {
            let devices: i64 = row.try_get("devices")?;
            take(read(&row)?, u32::try_from(devices).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    /// All users, by name.
    pub async fn list(&self) -> Result<Vec<User>, UsersError> {
        let rows = sqlx::query("SELECT * FROM users ORDER BY name").fetch_all(&self.database).await?;
        rows.iter().map(read).collect()
    }

    /// Records that a login has been finished. Not announced.
    pub async fn note_login(&self, id: &UserId) -> Result<(), UsersError> {
        self.note(id, "UPDATE users SET last_login_at = $1 WHERE id = $2").await
    }

    /// Records the first login, with a first factor at least. Not announced.
    pub async fn note_first_login(&self, id: &UserId) -> Result<(), UsersError> {
        let statement = "UPDATE users SET first_login_at = $1 WHERE id = $2 AND first_login_at IS NULL";
        self.note(id, statement).await
    }

    /// Records that the QR code of a first device was shown. Not announced.
    pub async fn note_qr_seen(&self, id: &UserId) -> Result<(), UsersError> {
        let statement = "UPDATE users SET qr_seen_at = $1 WHERE id = $2 AND qr_seen_at IS NULL";
        self.note(id, statement).await
    }

    async fn note(&self, id: &UserId, statement: &'static str) -> Result<(), UsersError> {
        sqlx::query(statement)
            .bind(self.clock.now().unix_millis())
            .bind(id.as_str())
            .execute(&self.database)
            .await?;
        Ok(())
    }

    /// Counts that the first device was put off. False if that has been done `most` times already. Not announced.
    pub async fn put_off(&self, id: &UserId, most: Option<u32>) -> Result<bool, UsersError> {
        let counted = sqlx::query("UPDATE users SET skips = skips + 1 WHERE id = $1 AND skips < $2")
            .bind(id.as_str())
            .bind(i64::from(most.unwrap_or(u32::MAX)))
            .execute(&self.database)
            .await?;
        Ok(counted.rows_affected() == 1)
    }

    /// The users who have no password yet and are not disabled, by name.
    pub async fn without_password(&self) -> Result<Vec<User>, UsersError> {
        let rows = sqlx::query(
            "SELECT users.* FROM users LEFT JOIN passwords ON passwords.user_id = users.id \
             WHERE passwords.user_id IS NULL AND users.disabled = 0 ORDER BY users.name",
        )
        .fetch_all(&self.database)
        .await?;
        rows.iter().map(read).collect()
    }

    pub async fn count(&self) -> Result<i64, UsersError> {
        Ok(sqlx::query("SELECT COUNT(*) FROM users").fetch_one(&self.database).await?.try_get(0)?)
    }

    /// Disables or enables a user. False if there is no such user.
    pub async fn set_disabled(&self, id: &UserId, disabled: bool) -> Result<bool, UsersError> {
        let statement = sqlx::query("UPDATE users SET disabled = $1 WHERE id = $2")
            .bind(i64::from(disabled))
            .bind(id.as_str());
        self.change(id, statement, self.database.write().await?).await
    }

    /// Disables a user who has said "this was not me". False if there is no such user.
    pub async fn freeze(&self, id: &UserId) -> Result<bool, UsersError> {
        let statement =
            sqlx::query("UPDATE users SET disabled = $1 WHERE id = $2").bind(FROZEN).bind(id.as_str());
        self.change(id, statement, self.database.write().await?).await
    }

    /// Sets the display name. False if there is no such user.
    pub async fn set_display_name(&self, id: &UserId, name: &str) -> Result<bool, UsersError> {
        let statement = sqlx::query("UPDATE users SET display_name = $1 WHERE id = $2")
            .bind(checked_display_name(name)?)
            .bind(id.as_str());
        self.change(id, statement, self.database.write().await?).await
    }

    /// Replaces the groups. False if there is no such user.
    pub async fn set_groups(&self, id: &UserId, groups: Vec<String>) -> Result<bool, UsersError> {
        let statement = sqlx::query("UPDATE users SET group_names = $1 WHERE id = $2")
            .bind(checked_groups(groups)?.join(","))
            .bind(id.as_str());
        self.change(id, statement, self.database.write().await?).await
    }

    /// Changes the e-mail, by which the user also logs in. False if there is no such user.
    pub async fn set_email(&self, id: &UserId, email: &str) -> Result<bool, UsersError> {
        let name = name_of_user(email)?;
        let statement = sqlx::query("UPDATE users SET name = $1, email = $2 WHERE id = $3")
            .bind(name.as_str().to_owned())
            .bind(seen(email))
            .bind(id.as_str());
        self.change(id, statement, self.database.write().await?).await
    }

    /// Once per store: converts names that an earlier version stored to their current form.
    pub async fn renew_names(&self) -> Result<(), UsersError> {
        if self.database.fact(NAMES).await?.is_some() {
            return Ok(());
        }
        for user in self.list().await? {
            let name = CanonicalName::parse(user.name.as_str());
            if name.as_ref() == Some(&user.name) {
                continue;
            }
            match self.set_email(&user.id, &user.email).await {
                Ok(_) => {
                    tracing::info!(user.id = %user.id, "brought the user's name into its canonical form");
                }
                Err(UsersError::Exists | UsersError::InvalidName | UsersError::NameOfService) => {
                    tracing::warn!(
                        user.id = %user.id,
                        user.name = user.name.as_str(),
                        "this user cannot log in: without invisible characters, the name is another user's or empty"
                    );
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.database.note_fact(NAMES, b"2").await?)
    }

    /// Removes a user with their password, devices and codes. False if there is no such user.
    pub async fn remove(&self, id: &UserId) -> Result<bool, UsersError> {
        let mut transaction = self.database.write().await?;
        // In the order in which an enrolment locks, so that neither deadlocks the other.
        sqlx::query("DELETE FROM second_factors WHERE user_id = $1")
            .bind(id.as_str())
            .execute(&mut *transaction)
            .await?;
        // Everything else that refers to the user is declared ON DELETE CASCADE.
        let statement = sqlx::query("DELETE FROM users WHERE id = $1").bind(id.as_str());
        self.change(id, statement, transaction).await
    }

    async fn change(
        &self,
        id: &UserId,
        statement: sqlx::query::Query<'_, sqlx::Any, sqlx::any::AnyArguments>,
        mut transaction: Transaction,
    ) -> Result<bool, UsersError> {
        let changed = statement.execute(&mut *transaction).await.map_err(taken)?;
        let found = changed.rows_affected() == 1;
        if found {
            self.database.make_alongside(&mut transaction, &self.alongside).await?;
        }
        let change = Change::User(id.to_string());
        self.database.announce_with(&mut transaction, &change, &self.alongside, self.clock.now()).await?;
        transaction.commit().await?;
        Ok(found)
    }
}

/// The portal knows services by such a name: no user may impersonate one.
fn name_of_user(email: &str) -> Result<CanonicalName, UsersError> {
    let name = CanonicalName::parse(email).ok_or(UsersError::InvalidName)?;
    if name.as_str().starts_with(SERVICE) { Err(UsersError::NameOfService) } else { Ok(name) }
}

fn taken(error: sqlx::Error) -> UsersError {
    match error.as_database_error() {
        Some(cause) if cause.is_unique_violation() => UsersError::Exists,
        _ => error.into(),
    }
}

/// The visible part of a text.
fn seen(typed: &str) -> String {
    let seen: String = typed.chars().filter(|&c| !is_invisible(c)).collect();
    seen.trim().to_owned()
}

/// Selects the form of letters and emoji, and so is part of a name that people read.
fn joins(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0020}'..='\u{e007f}')
}

fn read(row: &AnyRow) -> Result<User, UsersError> {
    let id: String = row.try_get("id")?;
    let groups: String = row.try_get("group_names")?;
    let time = |column| row.try_get::<Option<i64>, _>(column).map(|at| at.map(Timestamp::from_unix_millis));
    Ok(User {
        id: UserId::parse(&id).ok_or(DatabaseError::Corrupt("a user's id"))?,
        name: CanonicalName::from_stored(row.try_get("name")?),
        email: row.try_get("email")?,
        display_name: row.try_get("display_name")?,
        groups: groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect(),
        disabled: row.try_get::<i64, _>("disabled")? != 0,
        frozen: row.try_get::<i64, _>("disabled")? == FROZEN,
        created_at: Timestamp::from_unix_millis(row.try_get("created_at")?),
        last_login_at: time("last_login_at")?,
        first_login_at: time("first_login_at")?,
        qr_seen_at: time("qr_seen_at")?,
        skips: u32::try_from(row.try_get::<i64, _>("skips")?).unwrap_or(u32::MAX),
    })
}

fn checked_display_name(typed: &str) -> Result<String, UsersError> {
    let name: String = typed.chars().filter(|&c| !is_invisible(c) || joins(c)).collect();
    let name = name.trim_matches(|c: char| c.is_whitespace() || is_invisible(c));
    if name.len() > MAX_TEXT_BYTES || name.contains(char::is_control) {
        return Err(UsersError::InvalidDisplayName);
    }
    Ok(name.to_owned())
}

/// A comma would turn one group into two wherever groups are sent as a list.
fn checked_groups(typed: Vec<String>) -> Result<Vec<String>, UsersError> {
    let mut groups: Vec<String> = Vec::with_capacity(typed.len());
    for group in typed {
        let name = seen(&group);
        let refused = |c: char| c == ',' || c.is_control();
        if name.is_empty() || name.len() > MAX_TEXT_BYTES || name.contains(refused) {
            return Err(UsersError::InvalidGroup(group));
        }
        if !groups.contains(&name) {
            groups.push(name);
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests;
