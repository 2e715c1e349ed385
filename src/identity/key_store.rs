//! The signing keys in the durable store: their terms in clear, their private parts sealed for their rows.
//!
//! Does not decide when a key signs.

use std::sync::Arc;

use sqlx::{Row as _, any::AnyRow};

use super::{
    rotation::Term,
    signing_key::{SigningKey, Unusable},
};
use crate::{
    clock::Timestamp,
    database::{Change as Announced, Connection, Database, DatabaseError, Transaction},
    sealing::Sealer,
};

/// The row of `facts` that is locked by changes of keys, so that two never overlap.
const LOCK: &str = "signing_keys";

#[derive(Clone, Debug)]
pub(super) struct KeyStore {
    database: Database,
    sealer: Arc<Sealer>,
}

impl KeyStore {
    pub(super) const fn new(database: Database, sealer: Arc<Sealer>) -> Self {
        Self { database, sealer }
    }

    /// All terms, in a fixed order.
    pub(super) async fn terms(&self) -> Result<Vec<Term>, DatabaseError> {
        let mut connection = self.database.acquire().await?;
        terms(&mut connection).await
    }

    /// All terms, with the key of each if it opens.
    pub(super) async fn keys(&self) -> Result<Vec<(Term, Option<SigningKey>)>, DatabaseError> {
        let mut connection = self.database.acquire().await?;
        self.open_all(&mut connection).await
    }

    /// Begins a change that no other change of keys overlaps.
    pub(super) async fn begin(&self) -> Result<KeyChange<'_>, DatabaseError> {
        let mut transaction = self.database.write().await?;
        sqlx::query(
            "INSERT INTO facts (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = facts.value",
        )
        .bind(LOCK)
        .bind(Vec::new())
        .execute(&mut *transaction)
        .await?;
        Ok(KeyChange { store: self, transaction })
    }

    /// Waits until some gateway has changed the keys.
    pub(super) async fn changed(&self) {
        self.database.signing_keys_changed().await;
    }

    pub(super) async fn erase(&self, kid: &str) -> Result<(), DatabaseError> {
        sqlx::query("DELETE FROM signing_keys WHERE kid = $1")
            .bind(kid.to_owned())
            .execute(&self.database)
            .await?;
        Ok(())
    }

    async fn open_all(
        &self,
        connection: &mut Connection,
    ) -> Result<Vec<(Term, Option<SigningKey>)>, DatabaseError> {
        let query = "SELECT kid, created_at, signs_from, retired_at, secret FROM signing_keys ORDER BY kid";
        let rows = sqlx::query(query).fetch_all(connection).await?;
        rows.iter()
            .map(|row| {
                let term = read(row)?;
                let secret: Vec<u8> = row.try_get("secret")?;
                let opened = self.sealer.open(&place(&term.kid), &secret).ok();
                let key = opened.and_then(|der| SigningKey::from_private(&der).ok());
                // The name is derived from the key: no key can have the name of another.
                let key = key.filter(|key| key.kid() == term.kid);
                Ok((term, key))
            })
            .collect()
    }
}

/// A change of keys; nothing changes before [`Self::commit`].
pub(super) struct KeyChange<'a> {
    store: &'a KeyStore,
    transaction: Transaction,
}

impl KeyChange<'_> {
    /// The terms of the keys that open.
    pub(super) async fn terms(&mut self) -> Result<Vec<Term>, DatabaseError> {
        let keys = self.store.open_all(&mut self.transaction).await?;
        Ok(keys.into_iter().filter_map(|(term, key)| key.map(|_| term)).collect())
    }

    pub(super) async fn insert(&mut self, key: &SigningKey, term: &Term) -> Result<(), InsertError> {
        let secret = self.store.sealer.seal(&place(&term.kid), key.private()?.as_ref());
        sqlx::query("INSERT INTO signing_keys (kid, secret, created_at, signs_from) VALUES ($1, $2, $3, $4)")
            .bind(term.kid.clone())
            .bind(secret)
            .bind(term.created_at.unix_millis())
            .bind(term.signs_from.unix_millis())
            .execute(&mut *self.transaction)
            .await
            .map_err(DatabaseError::from)?;
        Ok(())
    }

    /// Sets every key to retire at `at`, unless it retires earlier.
    pub(super) async fn retire_all(&mut self, at: Timestamp) -> Result<(), DatabaseError> {
        sqlx::query("UPDATE signing_keys SET retired_at = $1 WHERE retired_at IS NULL OR retired_at > $1")
            .bind(at.unix_millis())
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }

    /// Commits, and announces the change to every gateway.
    pub(super) async fn commit(mut self, now: Timestamp) -> Result<(), DatabaseError> {
        self.store.database.announce(&mut self.transaction, &Announced::SigningKeys, now).await?;
        self.transaction.commit().await
    }
}

/// Why a key could not be stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum InsertError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Key(#[from] Unusable),
}

async fn terms(connection: &mut Connection) -> Result<Vec<Term>, DatabaseError> {
    let query = "SELECT kid, created_at, signs_from, retired_at FROM signing_keys ORDER BY kid";
    sqlx::query(query).fetch_all(connection).await?.iter().map(read).collect()
}

fn read(row: &AnyRow) -> Result<Term, DatabaseError> {
    let retired_at: Option<i64> = row.try_get("retired_at")?;
    Ok(Term {
        kid: row.try_get("kid")?,
        created_at: Timestamp::from_unix_millis(row.try_get("created_at")?),
        signs_from: Timestamp::from_unix_millis(row.try_get("signs_from")?),
        retired_at: retired_at.map(Timestamp::from_unix_millis),
    })
}

/// The context that a private key is sealed for.
const fn place(kid: &str) -> [&str; 3] {
    ["signing_keys", kid, "secret"]
}
