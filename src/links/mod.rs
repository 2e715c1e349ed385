//! Links in mail: each opens one thing for one user, once, for a while.
//!
//! The store has only the hash of the token. A link that sets a password is void as soon as the user's password or e-mail
//! is another than when it was made. To look at one changes nothing: programs that check mail open every link in it.

use std::{sync::Arc, time::Duration};

use sqlx::Row as _;

use crate::{
    background::regularly,
    clock::{Clock, Timestamp},
    database::{Alongside, BoundValue, Database, DatabaseError},
    errors::Chain,
    random::Random,
    secret::{Token, TokenHash},
    users::UserId,
};

/// How often expired links are deleted.
const TIDY: Duration = Duration::from_hours(1);

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkPurpose {
    /// Sets a first password.
    Invitation,
    /// Sets a new password.
    Password,
    /// Freezes the account: "this was not me".
    NotMe,
}

impl LinkPurpose {
    const ALL: [Self; 3] = [Self::Invitation, Self::Password, Self::NotMe];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invitation => "invitation",
            Self::Password => "password",
            Self::NotMe => "not_me",
        }
    }

    pub const fn lasts(self) -> Duration {
        match self {
            Self::Password => Duration::from_mins(15),
            Self::Invitation | Self::NotMe => Duration::from_hours(7 * 24),
        }
    }
}

/// A link that is good now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    id: TokenHash,
    pub user: UserId,
    pub purpose: LinkPurpose,
}

/// The links of this installation.
#[derive(Clone)]
pub struct Links {
    database: Database,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

/// A thief who changes the password must not make the owner's "this was not me" void, so that one is bound to neither.
const IS_GOOD: &str = "expires_at > $2 AND (purpose = 'not_me' OR (user_name = \
     (SELECT name FROM users WHERE users.id = links.user_id) AND password_set_at = \
     COALESCE((SELECT set_at FROM passwords WHERE passwords.user_id = links.user_id), 0)))";

impl Links {
    pub fn new(database: Database, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self { database, clock, random }
    }

    /// A new token, and what makes it a link in the transaction of its mail.
    pub fn draft(&self, purpose: LinkPurpose, user: &UserId) -> (Token, Alongside) {
        const MAKE: &str = "INSERT INTO links \
             (id, user_id, purpose, user_name, password_set_at, expires_at) \
             SELECT $1, users.id, $2, users.name, \
             COALESCE((SELECT set_at FROM passwords WHERE passwords.user_id = users.id), 0), $3 \
             FROM users WHERE users.id = $4";
        let token = Token::generate(&*self.random);
        let mut alongside = Alongside::nothing();
        let values = vec![
            BoundValue::Text(token.hash().to_hex()),
            BoundValue::Text(purpose.as_str().to_owned()),
            BoundValue::Number(self.clock.now().plus(purpose.lasts()).unix_millis()),
            BoundValue::Text(user.to_string()),
        ];
        alongside.add(MAKE, values);
        (token, alongside)
    }

    /// The link of this token, if it is good. Changes nothing.
    pub async fn find(&self, token: &str) -> Result<Option<Link>, DatabaseError> {
        let Some(id) = Token::parse(token).map(|token| token.hash()) else { return Ok(None) };
        let query = format!("SELECT user_id, purpose FROM links WHERE id = $1 AND {IS_GOOD}");
        let row = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(id.to_hex())
            .bind(self.clock.now().unix_millis())
            .fetch_optional(&self.database)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let (user, purpose): (String, String) = (row.try_get("user_id")?, row.try_get("purpose")?);
        let purpose = LinkPurpose::ALL.into_iter().find(|known| known.as_str() == purpose);
        Ok(UserId::parse(&user).zip(purpose).map(|(user, purpose)| Link { id, user, purpose }))
    }

    /// What uses a link up: nothing else of the transaction happens if it is not good any more. Has to come before the
    /// change that the link allows. All others that set a password of the user go with it.
    pub fn use_up(&self, link: &Link) -> Alongside {
        const USE: &str = "DELETE FROM links WHERE id = $1 AND expires_at > $2 \
             AND (purpose = 'not_me' OR (user_name = \
             (SELECT name FROM users WHERE users.id = links.user_id) AND password_set_at = \
             COALESCE((SELECT set_at FROM passwords WHERE passwords.user_id = links.user_id), 0)))";
        const OTHERS: &str = "DELETE FROM links WHERE user_id = $1 AND purpose <> 'not_me'";
        let mut alongside = Alongside::nothing();
        let now: Timestamp = self.clock.now();
        alongside
            .require(USE, vec![BoundValue::Text(link.id.to_hex()), BoundValue::Number(now.unix_millis())]);
        if link.purpose != LinkPurpose::NotMe {
            alongside.add(OTHERS, vec![BoundValue::Text(link.user.to_string())]);
        }
        alongside
    }

    /// Voids every link of a user: an operator has looked after the account.
    pub async fn void(&self, user: &UserId) -> Result<(), DatabaseError> {
        sqlx::query("DELETE FROM links WHERE user_id = $1")
            .bind(user.as_str())
            .execute(&self.database)
            .await?;
        Ok(())
    }

    /// Deletes expired links at intervals, for ever.
    pub async fn maintain(self) {
        let mut turns = regularly(TIDY);
        loop {
            turns.tick().await;
            if let Err(error) = self.purge().await {
                tracing::warn!(error = %Chain(&error), "cannot purge expired links");
            }
        }
    }

    async fn purge(&self) -> Result<(), DatabaseError> {
        sqlx::query("DELETE FROM links WHERE expires_at <= $1")
            .bind(self.clock.now().unix_millis())
            .execute(&self.database)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
