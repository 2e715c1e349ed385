//! Tokens that users make for themselves. Each user has their own names, so that nobody learns those of others: the
//! stored name is `NAME/USER-ID`, which no operator can give.

use std::time::Duration;

use super::{
    Holder, NewToken, Scope, TokenRecord, TokenStore, TokensError,
    store::{NAME_LIMIT, read},
};
use crate::{clock::Timestamp, users::UserId};

/// Separates the name and the user id.
const SEPARATOR: char = '/';
/// Maximum number of one user's current tokens.
const MOST: i64 = 20;
/// The same, including ended tokens as long as they are remembered.
const MOST_REMEMBERED: i64 = 100;

/// The settings for users' own tokens.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub self_service: bool,
    /// The maximum lifetime of a token.
    pub max_lifetime: Duration,
}

/// A token that a user asks for.
#[derive(Clone, Debug)]
pub struct NewOwnToken {
    /// The name as typed.
    pub name: String,
    pub paths: Vec<String>,
    pub expires_at: Timestamp,
}

impl TokenRecord {
    /// Whether the user has made it.
    pub fn is_own(&self) -> bool {
        self.name.contains(SEPARATOR)
    }

    /// The name that the user gave it.
    pub fn own_name(&self) -> &str {
        self.name.split(SEPARATOR).next().unwrap_or_default()
    }
}

impl TokenStore {
    /// Makes a token for its user. The text is shown only this once.
    pub async fn create_own(
        &self,
        user: &UserId,
        new: NewOwnToken,
    ) -> Result<(String, TokenRecord), TokensError> {
        let name = own_name(&new.name).ok_or_else(|| TokensError::Name(new.name.clone()))?;
        let name = format!("{name}{SEPARATOR}{user}");
        let scope = Scope { paths: new.paths, ..Scope::default() };
        scope.limits().map_err(TokensError::Scope)?;
        let mut transaction = self.database.write().await?;
        // Serializes concurrent calls for one user.
        let lock = format!("SELECT id FROM users WHERE id = $1{}", self.database.locking());
        sqlx::query(sqlx::AssertSqlSafe(lock))
            .bind(user.as_str().to_owned())
            .fetch_optional(&mut *transaction)
            .await?;
        let (current, all): (i64, i64) =
            sqlx::query_as("SELECT COUNT(is_current), COUNT(*) FROM tokens WHERE user_id = $1")
                .bind(user.as_str().to_owned())
                .fetch_one(&mut *transaction)
                .await?;
        if current >= MOST || all >= MOST_REMEMBERED {
            return Err(TokensError::TooMany);
        }
        let holder = Holder::User(user.clone());
        let new = NewToken { name, holder, scope, expires_at: Some(new.expires_at) };
        let made = self.insert(&mut transaction, new).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// The user's current tokens, by name.
    pub async fn of_user(&self, user: &UserId) -> Result<Vec<TokenRecord>, TokensError> {
        let rows = sqlx::query("SELECT * FROM tokens WHERE user_id = $1 AND is_current = 1 ORDER BY name")
            .bind(user.as_str().to_owned())
            .fetch_all(&self.database)
            .await?;
        rows.iter().map(read).collect()
    }

    /// Ends a token that the user has made. `None` if the user has no such token any more.
    pub async fn revoke_own(&self, user: &UserId, id: &str) -> Result<Option<TokenRecord>, TokensError> {
        let is_own = |record: &TokenRecord| record.is_own() && record.holder == Holder::User(user.clone());
        let Some(record) = self.find(id).await?.filter(is_own) else { return Ok(None) };
        match self.revoke(&record.name).await {
            Ok(_) => Ok(Some(record)),
            Err(TokensError::Revoked(_) | TokensError::NoToken(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Normalises a typed name: words joined by a character that is safe in commands and logs.
pub fn own_name(typed: &str) -> Option<String> {
    let name = typed.split_whitespace().collect::<Vec<_>>().join("-");
    let fits = |char: char| char.is_alphanumeric() || matches!(char, '.' | '_' | '-');
    let is_name =
        (1..=NAME_LIMIT).contains(&name.chars().count()) && name.chars().all(fits) && !name.starts_with('-');
    is_name.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_was_typed_without_what_commands_and_logs_cannot_have() {
        for (typed, name) in [
            ("laptop", Some("laptop")),
            ("  My old  laptop ", Some("My-old-laptop")),
            ("Büro", Some("Büro")),
            ("ci_2.0", Some("ci_2.0")),
            ("", None),
            (" \t", None),
            ("-rf", None),
            ("a/b", None),
            ("a\nb", Some("a-b")),
            ("a\u{202e}b", None),
            ("<b>", None),
            (&"a".repeat(64), Some(&"a".repeat(64))),
            (&"a".repeat(65), None),
        ] {
            assert_eq!(own_name(typed).as_deref(), name, "{typed:?}");
        }
    }
}
