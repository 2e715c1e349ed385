//! Forms that arrived just after their user's session had expired: saved, sealed, until the user has signed in again in
//! the same browser, and given out once.
//!
//! Sees no requests. The caller knows whose session it was, and whether a page of this site sent the form.

mod form;
mod room;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use sqlx::{Any, AssertSqlSafe, Executor, Row as _, any::AnyRow};

use self::room::FairSemaphore;
pub use self::{
    form::{FormId, SavedForm, SavedHead},
    room::Room,
};
use crate::{
    background::regularly,
    clock::{Clock, Timestamp},
    database::{Database, DatabaseError, Transaction},
    errors::Chain,
    random::Random,
    sealing::Sealer,
    secret::{Token, TokenHash},
    throttle::{Key, Kind, Networks},
    users::UserId,
};

/// How long a saved form can be sent.
pub const LIFETIME: Duration = Duration::from_mins(30);
/// How long it is remembered after that, to tell its user what happened to it.
const MEMORY: Duration = Duration::from_hours(24);
/// Maximum number of one user's forms: one for each of many tabs.
const MOST_OF_A_USER: i64 = 20;
/// Maximum size of one user's forms, sealed.
const MOST_BYTES_OF_A_USER: i64 = 4 << 20;
/// Maximum size of all forms, sealed.
const MOST_BYTES: i64 = 64 << 20;
/// Maximum number of one user's remembered forms, including those that have been sent or discarded.
const MOST_KNOWN_OF_A_USER: i64 = 100;
/// Forms in memory while they arrive: of users, and as many of strangers.
const MOST_AT_ONCE: usize = 32;
/// The share of one user.
const MOST_AT_ONCE_OF_A_USER: usize = 8;
/// The share of one address of strangers. A household may have twice as many, an organisation four times.
const MOST_AT_ONCE_OF_A_NETWORK: usize = 4;
const TIDY: Duration = Duration::from_mins(10);

/// The settings for saved forms.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Maximum size of a body in bytes. Zero: no form is saved.
    pub max: usize,
}

/// The saved forms.
#[derive(Clone)]
pub struct SavedForms {
    database: Database,
    sealer: Arc<Sealer>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// Shared, since this struct is cloned.
    browsers: Arc<hmac::Key>,
    of_users: Arc<FairSemaphore<UserId>>,
    of_strangers: Arc<FairSemaphore<(Kind, Key)>>,
    max: usize,
}

/// Who asks for a form.
#[derive(Clone, Copy, Debug)]
pub struct FormClaim<'a> {
    pub id: &'a FormId,
    pub user: &'a UserId,
    /// The hash of the token that [`SavedForms::browser`] gave this browser.
    pub browser: Option<&'a TokenHash>,
}

/// Why a form is not saved. Those already saved stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The user has the maximum number or size.
    User,
    /// All users together have the maximum size.
    Everybody,
}

/// The state of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Waiting {
        head: SavedHead,
        saved_at: Timestamp,
    },
    /// It has been sent or discarded, or is too old.
    Gone,
    /// It was saved in this browser for another user: shown like [`Found::Nothing`], and the browser's token is to be
    /// deleted.
    OtherUser,
    /// It does not exist, or belongs to another browser: nobody learns which.
    Nothing,
}

impl SavedForms {
    pub fn new(
        config: Config,
        database: Database,
        sealer: Arc<Sealer>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let browsers = sealer.derive("browsers of forms");
        let browsers = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, browsers.as_slice()));
        let of_users = Arc::new(FairSemaphore::new(MOST_AT_ONCE));
        let of_strangers = Arc::new(FairSemaphore::new(MOST_AT_ONCE));
        Self { database, sealer, clock, random, browsers, of_users, of_strangers, max: config.max }
    }

    /// Maximum size of a body; zero: no form is saved.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Memory for a user's form; `None` if too many are arriving for too long.
    pub async fn room_for_user(&self, user: &UserId) -> Option<Room> {
        self.of_users.room([(user.clone(), MOST_AT_ONCE_OF_A_USER)]).await
    }

    /// Memory for a stranger's form. It takes none from users.
    pub async fn room_for_stranger(&self, networks: Networks) -> Option<Room> {
        let shares = networks.keys().map(|(kind, key, times)| {
            ((kind, key), MOST_AT_ONCE_OF_A_NETWORK.saturating_mul(usize::try_from(times).unwrap_or(1)))
        });
        self.of_strangers.room(shares).await
    }

    /// The token by which the browser is recognised later at this site. The same for all tabs of the session, whichever comes first.
    pub fn browser(&self, session: &TokenHash, site: &str) -> Token {
        let mut bytes = [0; 32];
        let of_session = [session.as_bytes().as_slice(), site.as_bytes()].concat();
        bytes.copy_from_slice(hmac::sign(&self.browsers, &of_session).as_ref());
        Token::from_bytes(bytes)
    }

    /// Saves a form, unless there are too many.
    pub async fn save(
        &self,
        user: &UserId,
        browser: &TokenHash,
        form: &SavedForm,
    ) -> Result<Result<FormId, NoRoom>, DatabaseError> {
        let id = FormId::generate(&*self.random);
        let record = self.sealer.seal(&place(&id, user), &form.encode());
        let size = i64::try_from(record.len()).unwrap_or(i64::MAX);
        let now = self.clock.now();
        // Checked once without the lock: a refused form must not lock out writers.
        if let Err(full) = self.room_for(size, user, now, &self.database).await? {
            return Ok(Err(full));
        }
        let mut transaction = self.database.write().await?;
        // So that concurrent forms of one user are counted one by one.
        let one_by_one = format!("SELECT id FROM users WHERE id = $1{}", self.database.locking());
        sqlx::query(AssertSqlSafe(one_by_one))
            .bind(user.to_string())
            .fetch_optional(&mut *transaction)
            .await?;
        if let Err(full) = self.room_for(size, user, now, &mut *transaction).await? {
            return Ok(Err(full));
        }
        sqlx::query(
            "DELETE FROM kept_forms WHERE id IN (SELECT id FROM kept_forms WHERE user_id = $1 \
             ORDER BY CASE WHEN kept_at > $2 AND taken_at IS NULL THEN 0 ELSE 1 END, kept_at DESC, id \
             LIMIT 1000 OFFSET $3)",
        )
        .bind(user.to_string())
        .bind(now.minus(LIFETIME).unix_millis())
        .bind(MOST_KNOWN_OF_A_USER - 1)
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "INSERT INTO kept_forms (id, browser, user_id, record, size, kept_at) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(id.as_str().to_owned())
        .bind(browser.as_bytes().to_vec())
        .bind(user.to_string())
        .bind(record)
        .bind(size)
        .bind(now.unix_millis())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Ok(id))
    }

    /// Whether this many more bytes can be saved for a user.
    async fn room_for<'c>(
        &self,
        size: i64,
        user: &UserId,
        now: Timestamp,
        connection: impl Executor<'c, Database = Any>,
    ) -> Result<Result<(), NoRoom>, DatabaseError> {
        let live = sqlx::query(
            "SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) AS bytes, \
             CAST(COALESCE(SUM(CASE WHEN user_id = $1 THEN size ELSE 0 END), 0) AS BIGINT) AS own_bytes, \
             CAST(COALESCE(SUM(CASE WHEN user_id = $1 THEN 1 ELSE 0 END), 0) AS BIGINT) AS own \
             FROM kept_forms WHERE kept_at > $2 AND taken_at IS NULL",
        )
        .bind(user.to_string())
        .bind(now.minus(LIFETIME).unix_millis())
        .fetch_one(connection)
        .await?;
        let (bytes, own_bytes): (i64, i64) = (live.try_get("bytes")?, live.try_get("own_bytes")?);
        let own: i64 = live.try_get("own")?;
        Ok(if own >= MOST_OF_A_USER || own_bytes.saturating_add(size) > MOST_BYTES_OF_A_USER {
            Err(NoRoom::User)
        } else if bytes.saturating_add(size) > MOST_BYTES {
            Err(NoRoom::Everybody)
        } else {
            Ok(())
        })
    }

    /// The state of a form. Writes nothing: called for pages that are only viewed.
    pub async fn find(&self, claim: FormClaim<'_>) -> Result<Found, DatabaseError> {
        let Some(row) = self.row(claim).await? else { return Ok(Found::Nothing) };
        if row.user != *claim.user {
            return Ok(Found::OtherUser);
        }
        Ok(match self.open(claim, &row) {
            Some(form) => Found::Waiting { head: form.head, saved_at: row.saved_at },
            None => Found::Gone,
        })
    }

    /// Gives a form out, once, if it was sent to `target`.
    pub async fn take(&self, claim: FormClaim<'_>, target: &str) -> Result<Option<SavedForm>, DatabaseError> {
        let Some(row) = self.row(claim).await?.filter(|row| row.user == *claim.user) else {
            return Ok(None);
        };
        let Some(form) = self.open(claim, &row).filter(|form| form.head.target == target) else {
            return Ok(None);
        };
        let taken = sqlx::query("UPDATE kept_forms SET taken_at = $2 WHERE id = $1 AND taken_at IS NULL")
            .bind(claim.id.as_str().to_owned())
            .bind(self.clock.now().unix_millis())
            .execute(&self.database)
            .await?;
        Ok((taken.rows_affected() == 1).then_some(form))
    }

    /// Takes back a form of which nothing has been sent.
    pub async fn put_back(&self, id: &FormId) -> Result<(), DatabaseError> {
        sqlx::query("UPDATE kept_forms SET taken_at = NULL WHERE id = $1")
            .bind(id.as_str().to_owned())
            .execute(&self.database)
            .await?;
        Ok(())
    }

    /// Deletes the content of a form that has been sent.
    pub async fn forget(&self, id: &FormId) -> Result<(), DatabaseError> {
        self.empty(id).await
    }

    /// Deletes the content of a form that its user discards.
    pub async fn discard(&self, claim: FormClaim<'_>) -> Result<(), DatabaseError> {
        let row = self.row(claim).await?;
        if row.is_some_and(|row| row.user == *claim.user && !row.record.is_empty()) {
            self.empty(claim.id).await?;
        }
        Ok(())
    }

    /// Deletes all forms once `transaction` commits.
    pub async fn remove_all(&self, transaction: &mut Transaction) -> Result<(), DatabaseError> {
        sqlx::query("DELETE FROM kept_forms").execute(&mut **transaction).await?;
        Ok(())
    }

    /// Deletes all forms of a user.
    pub async fn remove_user(&self, user: &UserId) -> Result<(), DatabaseError> {
        sqlx::query("DELETE FROM kept_forms WHERE user_id = $1")
            .bind(user.to_string())
            .execute(&self.database)
            .await?;
        Ok(())
    }

    /// Deletes old forms at intervals, for ever.
    pub async fn maintain(self) {
        let mut turns = regularly(TIDY);
        loop {
            turns.tick().await;
            if let Err(error) = self.purge().await {
                tracing::warn!(error = %Chain(&error), "cannot purge forms that are too old");
            }
        }
    }

    pub(super) async fn purge(&self) -> Result<(), DatabaseError> {
        let now = self.clock.now();
        sqlx::query("DELETE FROM kept_forms WHERE kept_at <= $1")
            .bind(now.minus(LIFETIME + MEMORY).unix_millis())
            .execute(&self.database)
            .await?;
        sqlx::query("UPDATE kept_forms SET record = $2, size = 0 WHERE kept_at <= $1 AND size > 0")
            .bind(now.minus(LIFETIME).unix_millis())
            .bind(Vec::<u8>::new())
            .execute(&self.database)
            .await?;
        Ok(())
    }

    async fn row(&self, claim: FormClaim<'_>) -> Result<Option<Stored>, DatabaseError> {
        let Some(browser) = claim.browser else { return Ok(None) };
        let row = sqlx::query(
            "SELECT user_id, record, kept_at, taken_at FROM kept_forms WHERE id = $1 AND browser = $2",
        )
        .bind(claim.id.as_str().to_owned())
        .bind(browser.as_bytes().to_vec())
        .fetch_optional(&self.database)
        .await?;
        row.map(|row| Stored::read(&row)).transpose()
    }

    /// The form, while it can be sent.
    fn open(&self, claim: FormClaim<'_>, row: &Stored) -> Option<SavedForm> {
        let now = self.clock.now();
        // From the future: the clock was set back, and the form's age is unknown.
        if row.taken || row.saved_at > now || now.since(row.saved_at) >= LIFETIME {
            return None;
        }
        let plain = self.sealer.open(&place(claim.id, claim.user), &row.record).ok()?;
        SavedForm::decode(&plain)
    }

    async fn empty(&self, id: &FormId) -> Result<(), DatabaseError> {
        sqlx::query(
            "UPDATE kept_forms SET record = $2, size = 0, taken_at = COALESCE(taken_at, $3) WHERE id = $1",
        )
        .bind(id.as_str().to_owned())
        .bind(Vec::<u8>::new())
        .bind(self.clock.now().unix_millis())
        .execute(&self.database)
        .await?;
        Ok(())
    }
}

struct Stored {
    user: UserId,
    record: Vec<u8>,
    saved_at: Timestamp,
    taken: bool,
}

impl Stored {
    fn read(row: &AnyRow) -> Result<Self, DatabaseError> {
        Ok(Self {
            user: UserId::parse(&row.try_get::<String, _>("user_id")?)
                .ok_or(DatabaseError::Corrupt("a user's id"))?,
            record: row.try_get("record")?,
            saved_at: Timestamp::from_unix_millis(row.try_get("kept_at")?),
            taken: row.try_get::<Option<i64>, _>("taken_at")?.is_some(),
        })
    }
}

fn place<'a>(id: &'a FormId, user: &'a UserId) -> [&'a str; 3] {
    ["kept_forms", id.as_str(), user.as_str()]
}
