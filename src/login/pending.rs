//! Logins between the password and the session. They never count as a session.
//!
//! The browser holds a random token; the durable store holds the rest, sealed, under the token's hash.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Row as _};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    clock::{Clock, Timestamp},
    credentials::TotpSecret,
    database::{Database, DatabaseError},
    random::Random,
    sealing::Sealer,
    secret::{Token, TokenHash},
    sessions::Session,
    users::UserId,
};

/// Long enough to install an authenticator app on the way.
const LIFETIME: Duration = Duration::from_mins(30);

/// What a login that has proved its password waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// A code of one of the user's devices, or a recovery code.
    Code,
    /// The user's first device.
    Enrol,
    /// A further device, for a user who has just logged in with two factors.
    AddDevice,
}

/// One login in progress.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Pending {
    #[zeroize(skip)]
    pub user: UserId,
    #[zeroize(skip)]
    pub step: Step,
    /// The secret behind the QR code: the same on every look at the page, so that nobody scans twice.
    seed: Option<Vec<u8>>,
    /// Present when it was begun from a session instead of with a password.
    #[zeroize(skip)]
    #[serde(default)]
    pub parent: Option<Parent>,
    /// Whether the user asked, beside the password, to be kept signed in.
    #[zeroize(skip)]
    #[serde(default)]
    pub remember: bool,
}

/// The session that stands in for a password: what is begun from it ends with it, and becomes no younger than it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    pub session: TokenHash,
    /// When the password was given.
    pub since: Timestamp,
}

impl Pending {
    pub fn new(user: UserId, step: Step, seed: Option<&TotpSecret>) -> Self {
        Self { user, step, seed: seed.map(|seed| seed.expose().to_vec()), parent: None, remember: false }
    }

    /// The same, begun from `session`.
    #[must_use]
    pub fn from_session(mut self, session: &Session) -> Self {
        self.parent = Some(Parent { session: session.id, since: session.created_at });
        self.remember = session.remembered;
        self
    }

    /// The secret that is being bound, on the steps that bind one.
    pub fn secret(&self) -> Option<TotpSecret> {
        self.seed.as_deref().and_then(TotpSecret::from_bytes)
    }
}

/// The store of logins in progress.
#[derive(Clone, Debug)]
pub struct PendingLogins {
    database: Database,
    sealer: Arc<Sealer>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl PendingLogins {
    pub fn new(
        database: Database,
        sealer: Arc<Sealer>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self { database, sealer, clock, random }
    }

    /// Begins a login under a token that nobody has seen before.
    pub async fn begin(&self, pending: &Pending) -> Result<Token, DatabaseError> {
        let token = Token::generate(&*self.random);
        let id = token.hash();
        let plain = serde_json::to_vec(pending).map_err(|_| DatabaseError::Corrupt("a pending login"))?;
        let plain = zeroize::Zeroizing::new(plain);
        let now = self.clock.now();
        let mut transaction = self.database.write().await?;
        let free = self.database.locking_free();
        let purge = format!(
            "DELETE FROM pending_logins WHERE id_hash IN \
             (SELECT id_hash FROM pending_logins WHERE expires_at <= $1{free})"
        );
        sqlx::query(AssertSqlSafe(purge)).bind(now.unix_millis()).execute(&mut *transaction).await?;
        sqlx::query(
            "INSERT INTO pending_logins (id_hash, user_id, record, expires_at) VALUES ($1, $2, $3, $4)",
        )
        .bind(id.as_bytes().to_vec())
        .bind(pending.user.as_str().to_owned())
        .bind(self.sealer.seal(&["pending_logins", &id.to_hex()], &plain))
        .bind(now.plus(LIFETIME).unix_millis())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(token)
    }

    /// The login in progress under `id`, if there still is one.
    pub async fn load(&self, id: &TokenHash) -> Result<Option<Pending>, DatabaseError> {
        let row = sqlx::query("SELECT record FROM pending_logins WHERE id_hash = $1 AND expires_at > $2")
            .bind(id.as_bytes().to_vec())
            .bind(self.clock.now().unix_millis())
            .fetch_optional(&self.database)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let record: Vec<u8> = row.try_get("record")?;
        // One that does not open was sealed with another key: it cannot be gone on with.
        let Ok(plain) = self.sealer.open(&["pending_logins", &id.to_hex()], &record) else { return Ok(None) };
        Ok(serde_json::from_slice(&plain).ok())
    }

    /// Ends one login. False: somebody else has ended it already.
    pub async fn remove(&self, id: &TokenHash) -> Result<bool, DatabaseError> {
        let removed = sqlx::query("DELETE FROM pending_logins WHERE id_hash = $1")
            .bind(id.as_bytes().to_vec())
            .execute(&self.database)
            .await?;
        Ok(removed.rows_affected() == 1)
    }

    /// Ends every login in progress of one user.
    pub async fn remove_user(&self, user: &UserId) -> Result<(), DatabaseError> {
        sqlx::query("DELETE FROM pending_logins WHERE user_id = $1")
            .bind(user.as_str().to_owned())
            .execute(&self.database)
            .await?;
        Ok(())
    }
}
