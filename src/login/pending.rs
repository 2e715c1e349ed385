//! Logins between the password and the session. They never count as a session.
//!
//! The browser holds a random token; the durable store holds the rest, sealed, under the token's hash.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Row as _};
use zeroize::Zeroizing;

use crate::{
    clock::Clock,
    credentials::TotpSecret,
    database::{Database, DatabaseError, Transaction},
    random::Random,
    sealing::Sealer,
    secret::{Token, TokenHash},
    sessions::{PasswordProof, Session},
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
pub struct Pending {
    /// The password that it began with.
    pub password: PasswordProof,
    pub step: Step,
    /// The secret behind the QR code: the same on every look at the page, so that nobody scans twice.
    seed: Option<Zeroizing<Vec<u8>>>,
    /// The session whose password it goes on with, and with which it ends.
    pub parent: Option<TokenHash>,
    /// Whether the user asked, beside the password, to be kept signed in.
    pub remember: bool,
}

/// What is sealed of a login in progress beside its password.
#[derive(Serialize, Deserialize)]
struct Rest {
    step: Step,
    seed: Option<Zeroizing<Vec<u8>>>,
    parent: Option<TokenHash>,
    remember: bool,
}

impl Pending {
    pub(super) fn new(password: PasswordProof, step: Step, seed: Option<&TotpSecret>) -> Self {
        let seed = seed.map(|seed| Zeroizing::new(seed.expose().to_vec()));
        Self { password, step, seed, parent: None, remember: false }
    }

    /// The same, begun from `session`.
    #[must_use]
    pub(super) fn begun_from(mut self, session: &Session) -> Self {
        self.parent = Some(session.id);
        self.remember = session.remembered;
        self
    }

    pub fn user(&self) -> &UserId {
        self.password.user()
    }

    /// The secret that is being bound, on the steps that bind one.
    pub fn secret(&self) -> Option<TotpSecret> {
        self.seed.as_deref().and_then(|seed| TotpSecret::from_bytes(seed))
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
        let Pending { password, step, seed, parent, remember } = pending;
        let rest = Rest { step: *step, seed: seed.clone(), parent: *parent, remember: *remember };
        let record = password
            .seal_with(&self.sealer, &["pending_logins", &id.to_hex()], &rest)
            .map_err(|_| DatabaseError::Corrupt("a pending login"))?;
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
        .bind(pending.user().as_str().to_owned())
        .bind(record)
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
        let place = ["pending_logins", &id.to_hex()];
        let opened = PasswordProof::open_with(&self.sealer, &place, &record);
        Ok(opened.map(|(password, rest)| {
            let Rest { step, seed, parent, remember } = rest;
            Pending { password, step, seed, parent, remember }
        }))
    }

    /// Ends one login. False: somebody else has ended it already.
    pub async fn remove(&self, id: &TokenHash) -> Result<bool, DatabaseError> {
        let removed = sqlx::query("DELETE FROM pending_logins WHERE id_hash = $1")
            .bind(id.as_bytes().to_vec())
            .execute(&self.database)
            .await?;
        Ok(removed.rows_affected() == 1)
    }

    /// Ends every login in progress once `transaction` commits.
    pub async fn remove_all(&self, transaction: &mut Transaction) -> Result<(), DatabaseError> {
        sqlx::query("DELETE FROM pending_logins").execute(&mut **transaction).await?;
        Ok(())
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
