//! The table of tokens. Stores hashes, never a token.

use std::sync::Arc;

use sqlx::{Row as _, any::AnyRow};

use super::{Scope, TokenRefusal, TokensError, text::TokenText};
use crate::{
    access::AccessRequest,
    clock::{Clock, Timestamp},
    database::{Change, Database, DatabaseError, Transaction},
    random::Random,
    secret::TokenHash,
    users::UserId,
};

/// Who a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    User(UserId),
    /// A service of this name; it is not a user.
    Service(String),
}

/// The properties of a new token.
#[derive(Clone, Debug)]
pub struct NewToken {
    pub name: String,
    pub holder: Holder,
    pub scope: Scope,
    /// `None` if it never expires.
    pub expires_at: Option<Timestamp>,
}

/// A stored token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    pub id: String,
    pub name: String,
    /// The current token of its name; the others have been replaced or revoked.
    pub is_current: bool,
    pub hash: TokenHash,
    pub holder: Holder,
    pub scope: Scope,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// Rounded to minutes.
    pub last_used_at: Option<Timestamp>,
}

impl TokenRecord {
    /// Why the token is not valid at this time, whoever it is for; `None` if it is.
    pub fn is_over(&self, now: Timestamp) -> Option<TokenRefusal> {
        if self.revoked_at.is_some() {
            return Some(TokenRefusal::Revoked);
        }
        self.expires_at.is_some_and(|end| end <= now).then_some(TokenRefusal::Expired)
    }

    /// Whether it is valid for a request to a site, as in [`LiveToken`](super::LiveToken).
    pub fn admits(&self, request: &AccessRequest<'_>, authority: &str) -> bool {
        self.scope.admits(request, authority)
    }
}

/// The tokens of this installation, for making and ending them.
#[derive(Clone, Debug)]
pub struct TokenStore {
    pub(super) database: Database,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

/// Maximum number of characters in a name.
pub(super) const NAME_LIMIT: usize = 64;

const INSERT: &str = "INSERT INTO tokens (id, name, is_current, hash, user_id, service, scope, created_at, expires_at) \
                      VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8)";

impl TokenStore {
    pub fn new(database: Database, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self { database, clock, random }
    }

    /// Makes a token. The text is shown only this once.
    pub async fn create(&self, new: NewToken) -> Result<(String, TokenRecord), TokensError> {
        check_name(&new.name)?;
        if let Holder::Service(service) = &new.holder {
            check_service(service)?;
        }
        new.scope.limits().map_err(TokensError::Scope)?;
        let mut transaction = self.database.write().await?;
        let made = self.insert(&mut transaction, new).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// Replaces the current token of this name, which stays valid for `overlap`.
    pub async fn rotate(
        &self,
        name: &str,
        expires_at: Option<Timestamp>,
        overlap: std::time::Duration,
    ) -> Result<(String, TokenRecord), TokensError> {
        let now = self.clock.now();
        let mut transaction = self.database.write().await?;
        let old = self.current(&mut transaction, name).await?;
        let last = now.plus(overlap);
        let ends = old.expires_at.map_or(last, |end| end.min(last));
        sqlx::query("UPDATE tokens SET is_current = NULL, expires_at = $1 WHERE id = $2")
            .bind(ends.unix_millis())
            .bind(old.id.as_str())
            .execute(&mut *transaction)
            .await?;
        let new = NewToken { name: old.name, holder: old.holder, scope: old.scope, expires_at };
        let made = self.insert(&mut transaction, new).await?;
        self.database.announce(&mut transaction, &Change::Token(old.id), now).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// Ends every token of this name. Returns how many were valid.
    pub async fn revoke(&self, name: &str) -> Result<usize, TokensError> {
        let now = self.clock.now();
        let mut transaction = self.database.write().await?;
        let query = format!("SELECT * FROM tokens WHERE name = $1 ORDER BY id{}", self.database.locking());
        let rows = sqlx::query(sqlx::AssertSqlSafe(query)).bind(name).fetch_all(&mut *transaction).await?;
        let records = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        if records.is_empty() {
            return Err(TokensError::NoToken(name.to_owned()));
        }
        let good: Vec<_> = records.into_iter().filter(|record| record.revoked_at.is_none()).collect();
        if good.is_empty() {
            return Err(TokensError::Revoked(name.to_owned()));
        }
        sqlx::query(
            "UPDATE tokens SET is_current = NULL, revoked_at = $1 WHERE name = $2 AND revoked_at IS NULL",
        )
        .bind(now.unix_millis())
        .bind(name)
        .execute(&mut *transaction)
        .await?;
        for record in &good {
            self.database.announce(&mut transaction, &Change::Token(record.id.clone()), now).await?;
        }
        transaction.commit().await?;
        Ok(good.into_iter().filter(|record| record.expires_at.is_none_or(|end| end > now)).count())
    }

    /// Every token that has had this name, the latest first.
    pub async fn named(&self, name: &str) -> Result<Vec<TokenRecord>, TokensError> {
        let rows = sqlx::query("SELECT * FROM tokens WHERE name = $1 ORDER BY is_current, created_at DESC")
            .bind(name)
            .fetch_all(&self.database)
            .await?;
        let mut records = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        // The two kinds of database sort NULL differently.
        records.sort_by_key(|record| (!record.is_current, std::cmp::Reverse(record.created_at)));
        Ok(records)
    }

    /// All tokens, by name, including ended ones that are still remembered.
    pub async fn list(&self) -> Result<Vec<TokenRecord>, TokensError> {
        let rows =
            sqlx::query("SELECT * FROM tokens ORDER BY name, created_at").fetch_all(&self.database).await?;
        rows.iter().map(read).collect()
    }

    pub(super) async fn find(&self, id: &str) -> Result<Option<TokenRecord>, TokensError> {
        let row = sqlx::query("SELECT * FROM tokens WHERE id = $1")
            .bind(id.to_owned())
            .fetch_optional(&self.database)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Stores when a token was last used. Not announced.
    pub(super) async fn note_use(&self, id: &str, at: Timestamp) -> Result<(), TokensError> {
        sqlx::query(
            "UPDATE tokens SET last_used_at = $1 WHERE id = $2 AND (last_used_at IS NULL OR last_used_at < $1)",
        )
        .bind(at.unix_millis())
        .bind(id.to_owned())
        .execute(&self.database)
        .await?;
        Ok(())
    }

    /// Deletes tokens that ended before this time; they are unknown from then on.
    pub(super) async fn purge(&self, before: Timestamp) -> Result<(), TokensError> {
        sqlx::query("DELETE FROM tokens WHERE revoked_at < $1 OR (is_current IS NULL AND expires_at < $1)")
            .bind(before.unix_millis())
            .execute(&self.database)
            .await?;
        Ok(())
    }

    async fn current(&self, transaction: &mut Transaction, name: &str) -> Result<TokenRecord, TokensError> {
        let query =
            format!("SELECT * FROM tokens WHERE name = $1 AND is_current = 1{}", self.database.locking());
        let row = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(name.to_owned())
            .fetch_optional(&mut **transaction)
            .await?;
        row.as_ref().map(read).transpose()?.ok_or_else(|| TokensError::NoToken(name.to_owned()))
    }

    pub(super) async fn insert(
        &self,
        transaction: &mut Transaction,
        new: NewToken,
    ) -> Result<(String, TokenRecord), TokensError> {
        let NewToken { name, holder, scope, expires_at } = new;
        let (text, token) = TokenText::generate(&*self.random);
        let record = TokenRecord {
            id: token.id().to_owned(),
            name,
            is_current: true,
            hash: token.hash(),
            holder,
            scope,
            created_at: self.clock.now(),
            expires_at,
            revoked_at: None,
            last_used_at: None,
        };
        let (user, service) = match &record.holder {
            Holder::User(user) => (Some(user.as_str().to_owned()), None),
            Holder::Service(name) => (None, Some(name.clone())),
        };
        sqlx::query(INSERT)
            .bind(record.id.clone())
            .bind(record.name.clone())
            .bind(record.hash.as_bytes().to_vec())
            .bind(user)
            .bind(service)
            .bind(
                serde_json::to_string(&record.scope)
                    .map_err(|_| DatabaseError::Corrupt("a token's scope"))?,
            )
            .bind(record.created_at.unix_millis())
            .bind(record.expires_at.map(Timestamp::unix_millis))
            .execute(&mut **transaction)
            .await
            .map_err(|error| match error.as_database_error() {
                Some(cause) if cause.is_unique_violation() => TokensError::Exists(record.name.clone()),
                _ => error.into(),
            })?;
        Ok((text, record))
    }
}

/// Names appear in commands, logs and addresses.
fn check_name(name: &str) -> Result<(), TokensError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let is_name = (1..=NAME_LIMIT).contains(&name.len()) && name.bytes().all(fits) && !name.starts_with('-');
    if is_name { Ok(()) } else { Err(TokensError::Name(name.to_owned())) }
}

/// The same in lower case: portals do not distinguish names by case.
fn check_service(name: &str) -> Result<(), TokensError> {
    if is_service(name) { Ok(()) } else { Err(TokensError::Service(name.to_owned())) }
}

/// Whether a service may have this name.
pub fn is_service(name: &str) -> bool {
    check_name(name).is_ok() && !name.bytes().any(|byte| byte.is_ascii_uppercase())
}

pub(super) fn read(row: &AnyRow) -> Result<TokenRecord, TokensError> {
    let time = |column: &str| -> Result<Option<Timestamp>, TokensError> {
        Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_unix_millis))
    };
    let user: Option<String> = row.try_get("user_id")?;
    let service: Option<String> = row.try_get("service")?;
    let holder = match (user, service) {
        (Some(user), None) => {
            Holder::User(UserId::parse(&user).ok_or(DatabaseError::Corrupt("a user's id"))?)
        }
        (None, Some(service)) => Holder::Service(service),
        _ => return Err(DatabaseError::Corrupt("whom a token is for").into()),
    };
    let hash: Vec<u8> = row.try_get("hash")?;
    let hash = <[u8; 32]>::try_from(hash).map_err(|_| DatabaseError::Corrupt("a token's hash"))?;
    let scope: String = row.try_get("scope")?;
    Ok(TokenRecord {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        is_current: row.try_get::<Option<i64>, _>("is_current")?.is_some(),
        hash: TokenHash::from_bytes(hash),
        holder,
        scope: serde_json::from_str(&scope).map_err(|_| DatabaseError::Corrupt("a token's scope"))?,
        created_at: Timestamp::from_unix_millis(row.try_get("created_at")?),
        expires_at: time("expires_at")?,
        revoked_at: time("revoked_at")?,
        last_used_at: time("last_used_at")?,
    })
}
