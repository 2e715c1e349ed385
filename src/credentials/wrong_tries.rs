//! Wrong passwords and codes of an account since its user's last login: how many, and from where, for a report to the
//! user.

use std::sync::Arc;

use sqlx::Row as _;

use super::{By, CredentialsError};
use crate::{
    clock::{Clock, Timestamp},
    database::{Database, Transaction},
    users::UserId,
};

/// Networks that are listed separately; the others are summed up.
const MOST: i64 = 20;

/// The kind of proof that was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    Password(By),
    Code,
}

/// The wrong tries from one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongTries {
    /// An address, or a prefix of one; `None` for the sum of all networks that are not listed.
    pub network: Option<String>,
    pub passwords: u32,
    pub codes: u32,
    pub last: Timestamp,
}

/// The wrong tries of all users.
#[derive(Clone, Debug)]
pub struct Tries {
    database: Database,
    clock: Arc<dyn Clock>,
}

impl Tries {
    pub fn new(database: Database, clock: Arc<dyn Clock>) -> Self {
        Self { database, clock }
    }

    /// Records a wrong try.
    pub async fn note(&self, user: &UserId, network: &str, wrong: Wrong) -> Result<(), CredentialsError> {
        let (passwords, codes) = match wrong {
            Wrong::Password(_) => (1_i64, 0_i64),
            Wrong::Code => (0, 1),
        };
        let mut transaction = self.database.write().await?;
        if wrong == Wrong::Password(By::Stranger) {
            sqlx::query("UPDATE passwords SET failures = failures + 1 WHERE user_id = $1")
                .bind(user.as_str().to_owned())
                .execute(&mut *transaction)
                .await?;
        }
        let network = if has_room(&mut transaction, user, network).await? { network } else { "" };
        sqlx::query(
            "INSERT INTO wrong_tries (user_id, network, passwords, codes, first_at, last_at) \
             SELECT id, $2, $3, $4, $5, $5 FROM users WHERE id = $1 \
             ON CONFLICT (user_id, network) DO UPDATE SET passwords = wrong_tries.passwords + excluded.passwords, \
             codes = wrong_tries.codes + excluded.codes, last_at = excluded.last_at",
        )
        .bind(user.as_str().to_owned())
        .bind(network.to_owned())
        .bind(passwords)
        .bind(codes)
        .bind(self.clock.now().unix_millis())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The wrong tries to report, the latest first.
    pub async fn list(&self, user: &UserId) -> Result<Vec<WrongTries>, CredentialsError> {
        let rows = sqlx::query(
            "SELECT network, passwords, codes, last_at FROM wrong_tries WHERE user_id = $1 ORDER BY last_at DESC, network",
        )
        .bind(user.as_str().to_owned())
        .fetch_all(&self.database)
        .await?;
        let number = |row: &sqlx::any::AnyRow, column| -> Result<u32, sqlx::Error> {
            Ok(u32::try_from(row.try_get::<i64, _>(column)?).unwrap_or(u32::MAX))
        };
        rows.iter()
            .map(|row| {
                let network: String = row.try_get("network")?;
                Ok(WrongTries {
                    network: Some(network).filter(|network| !network.is_empty()),
                    passwords: number(row, "passwords")?,
                    codes: number(row, "codes")?,
                    last: Timestamp::from_unix_millis(row.try_get("last_at")?),
                })
            })
            .collect()
    }

    /// Deletes those up to this time: the user has been told.
    pub async fn forget(&self, user: &UserId, until: Timestamp) -> Result<(), CredentialsError> {
        sqlx::query("DELETE FROM wrong_tries WHERE user_id = $1 AND last_at <= $2")
            .bind(user.as_str().to_owned())
            .bind(until.unix_millis())
            .execute(&self.database)
            .await?;
        Ok(())
    }

    /// After a finished login, earlier wrong passwords are no longer in a row.
    pub async fn forgive(&self, user: &UserId) -> Result<(), CredentialsError> {
        sqlx::query("UPDATE passwords SET failures = 0 WHERE user_id = $1 AND failures > 0")
            .bind(user.as_str().to_owned())
            .execute(&self.database)
            .await?;
        Ok(())
    }
}

async fn has_room(
    transaction: &mut Transaction,
    user: &UserId,
    network: &str,
) -> Result<bool, CredentialsError> {
    let others = "SELECT COUNT(*) AS others FROM wrong_tries WHERE user_id = $1 AND network <> '' \
                  AND NOT EXISTS (SELECT 1 FROM wrong_tries WHERE user_id = $1 AND network = $2)";
    let row = sqlx::query(others)
        .bind(user.as_str().to_owned())
        .bind(network.to_owned())
        .fetch_one(&mut **transaction)
        .await?;
    Ok(row.try_get::<i64, _>("others")? < MOST)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        credentials::tests::Fixture,
        database::test_database::{On, on_each_database},
    };

    on_each_database![
        what_was_tried_is_told_by_network_until_it_has_been_told,
        networks_beyond_a_few_are_told_together,
        wrong_passwords_in_a_row_end_with_a_login,
    ];

    const PASSWORD: Wrong = Wrong::Password(By::Stranger);

    fn tries(fixture: &Fixture) -> Tries {
        Tries::new(fixture.database.clone(), fixture.clock.clone())
    }

    async fn what_was_tried_is_told_by_network_until_it_has_been_told(on: On) {
        let fixture = Fixture::new(on).await;
        let tries = tries(&fixture);
        for (network, wrong) in [("192.0.2.1", PASSWORD), ("192.0.2.2", PASSWORD), ("192.0.2.1", Wrong::Code)]
        {
            tries.note(&fixture.ada, network, wrong).await.unwrap();
            fixture.clock.advance(Duration::from_secs(1));
        }
        let told = tries.list(&fixture.ada).await.unwrap();
        let brief: Vec<_> =
            told.iter().map(|from| (from.network.as_deref().unwrap(), from.passwords, from.codes)).collect();
        assert_eq!(brief, [("192.0.2.1", 1, 1), ("192.0.2.2", 1, 0)]);
        assert_eq!(tries.list(&fixture.bob).await.unwrap(), []);
        // Tries that arrive while the page is shown are reported the next time.
        tries.note(&fixture.ada, "192.0.2.2", PASSWORD).await.unwrap();
        tries.forget(&fixture.ada, told[0].last).await.unwrap();
        assert_eq!(tries.list(&fixture.ada).await.unwrap()[0].passwords, 2);
        fixture.users.remove(&fixture.ada).await.unwrap();
        tries.note(&fixture.ada, "192.0.2.1", PASSWORD).await.unwrap();
        assert_eq!(fixture.number("SELECT COUNT(*) FROM wrong_tries").await, 0);
    }

    async fn networks_beyond_a_few_are_told_together(on: On) {
        let fixture = Fixture::new(on).await;
        let tries = tries(&fixture);
        for number in 0..30 {
            tries.note(&fixture.ada, &format!("192.0.2.{number}"), PASSWORD).await.unwrap();
        }
        tries.note(&fixture.ada, "192.0.2.3", PASSWORD).await.unwrap();
        let told = tries.list(&fixture.ada).await.unwrap();
        let of = |network: Option<&str>| {
            told.iter().find(|from| from.network.as_deref() == network).map(|from| from.passwords)
        };
        assert_eq!((told.len(), of(None), of(Some("192.0.2.3"))), (21, Some(10), Some(2)));
    }

    async fn wrong_passwords_in_a_row_end_with_a_login(on: On) {
        let fixture = Fixture::new(on).await;
        let tries = tries(&fixture);
        fixture.tamper("INSERT INTO passwords (user_id, hash, set_at) SELECT id, 'x', 0 FROM users").await;
        for _ in 0..3 {
            tries.note(&fixture.ada, "192.0.2.1", PASSWORD).await.unwrap();
        }
        tries.note(&fixture.ada, "192.0.2.1", Wrong::Password(By::Known)).await.unwrap();
        tries.note(&fixture.ada, "192.0.2.1", Wrong::Code).await.unwrap();
        let in_a_row = "SELECT MAX(failures) FROM passwords";
        assert_eq!(fixture.number(in_a_row).await, 3);
        tries.forgive(&fixture.ada).await.unwrap();
        assert_eq!(fixture.number(in_a_row).await, 0);
    }
}
