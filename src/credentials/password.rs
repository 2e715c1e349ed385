//! Passwords: checked in the same time whether or not the user exists, set, and rehashed.
//!
//! [`super::password_policy`] decides whether a new password is good enough, `throttle` how often one may guess.

use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::Row as _;
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

use super::{Config, HashRefusal, Hashing, HashingError, MAX_FAILURES, StoredHash};
use crate::{
    clock::Clock,
    database::{Alongside, Change, Database, DatabaseError, Transaction},
    users::UserId,
};

/// Maximum length of a password in bytes of UTF-8 after normalising, unless the policy allows more code points than
/// fit.
const MAX_BYTES: usize = 1024;

/// Why a password was neither accepted nor refused, or not set.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("the password is too long")]
    TooLong,
    #[error("cannot store this hash")]
    Hash(#[from] HashRefusal),
    #[error("cannot hash the password")]
    Hashing(#[from] HashingError),
    #[error("cannot read or change the password")]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for PasswordError {
    fn from(error: sqlx::Error) -> Self {
        DatabaseError::from(error).into()
    }
}

/// Proof that a user's password was given. Only [`Passwords::verify`] makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct VerifiedPassword {
    user: UserId,
}

impl VerifiedPassword {
    pub fn user(&self) -> &UserId {
        &self.user
    }
}

/// Who enters a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Stranger,
    /// A browser in which the account has logged in before.
    Known,
}

/// The passwords of all users.
#[derive(Debug)]
pub struct Passwords {
    database: Database,
    hashing: Arc<Hashing>,
    clock: Arc<dyn Clock>,
    /// In place of the hash of users who have none, or do not exist.
    dummy: StoredHash,
    max_bytes: usize,
}

impl Passwords {
    pub fn new(database: Database, hashing: Arc<Hashing>, clock: Arc<dyn Clock>, config: &Config) -> Self {
        let dummy = hashing.dummy();
        let max_bytes = config.password_max_length.saturating_mul(char::MAX.len_utf8()).max(MAX_BYTES);
        Self { database, hashing, clock, dummy, max_bytes }
    }

    /// Checks a user's password. Every call makes one query and computes one hash, also if there is no such user.
    ///
    /// After a hundred wrong ones in a row by strangers, no stranger's is accepted until a login is finished.
    pub async fn verify(
        &self,
        user: Option<&UserId>,
        typed: SecretString,
        by: By,
    ) -> Result<Option<VerifiedPassword>, PasswordError> {
        let stored: Option<(String, i64)> =
            sqlx::query("SELECT hash, failures FROM passwords WHERE user_id = $1")
                .bind(user.map_or("", UserId::as_str))
                .fetch_optional(&self.database)
                .await?
                .map(|row| Ok::<_, sqlx::Error>((row.try_get("hash")?, row.try_get("failures")?)))
                .transpose()?;
        let (Some(user), Some((stored, failures)), Some(password)) = (user, &stored, self.normalised(&typed))
        else {
            self.hashing.verify(self.dummy.clone(), Zeroizing::default()).await?;
            return Ok(None);
        };
        let is_closed = by == By::Stranger && *failures >= MAX_FAILURES;
        let hash = StoredHash::parse(stored).map_err(|_| DatabaseError::Corrupt("a password hash"))?;
        let weak = hash.is_weaker_than_today();
        if !self.matches(hash, &password, typed.expose_secret()).await? || is_closed {
            return Ok(None);
        }
        if weak && let Err(error) = self.rehash(user, stored, password).await {
            // The password was correct all the same; the next login tries again.
            tracing::warn!(user.id = %user, %error, "a weak password hash could not be renewed");
        }
        Ok(Some(VerifiedPassword { user: user.clone() }))
    }

    /// Whether this is the hash of the password, or, if another system made it, of what was typed: not all normalise.
    async fn matches(
        &self,
        hash: StoredHash,
        password: &Zeroizing<String>,
        typed: &str,
    ) -> Result<bool, PasswordError> {
        let as_typed = (hash.is_foreign() && password.as_str() != typed).then(|| hash.clone());
        if self.hashing.verify(hash, password.clone()).await? {
            return Ok(true);
        }
        match as_typed {
            Some(hash) => Ok(self.hashing.verify(hash, Zeroizing::new(typed.to_owned())).await?),
            None => Ok(false),
        }
    }

    /// Sets the user's password, which must have passed the policy.
    pub async fn set(&self, user: &UserId, password: SecretString) -> Result<(), PasswordError> {
        self.set_with(user, password, &Alongside::nothing()).await
    }

    /// The same, with what comes alongside in the same transaction, before the password.
    pub async fn set_with(
        &self,
        user: &UserId,
        password: SecretString,
        alongside: &Alongside,
    ) -> Result<(), PasswordError> {
        let phc = self.hash(password).await?;
        self.store(user, &phc, alongside).await
    }

    /// The PHC string that [`Self::set`] would store.
    pub async fn hash(&self, password: SecretString) -> Result<String, PasswordError> {
        let password = self.normalised(&password).ok_or(PasswordError::TooLong)?;
        Ok(self.hashing.hash(password).await?.to_text())
    }

    /// Sets the hash of a new user once `transaction` commits.
    pub async fn import(
        &self,
        transaction: &mut Transaction,
        user: &UserId,
        hash: &StoredHash,
    ) -> Result<(), PasswordError> {
        sqlx::query("INSERT INTO passwords (user_id, hash, set_at) VALUES ($1, $2, $3)")
            .bind(user.as_str())
            .bind(hash.to_text())
            .bind(self.clock.now().unix_millis())
            .execute(&mut **transaction)
            .await?;
        Ok(())
    }

    async fn store(&self, user: &UserId, phc: &str, alongside: &Alongside) -> Result<(), PasswordError> {
        let now = self.clock.now();
        let mut transaction = self.database.write().await?;
        self.database.make_alongside(&mut transaction, alongside).await?;
        sqlx::query(
            "INSERT INTO passwords (user_id, hash, set_at) VALUES ($1, $2, $3) \
             ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, set_at = excluded.set_at, \
             failures = 0",
        )
        .bind(user.as_str())
        .bind(phc)
        .bind(now.unix_millis())
        .execute(&mut *transaction)
        .await?;
        let change = Change::User(user.to_string());
        self.database.announce_with(&mut transaction, &change, alongside, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Replaces a weak hash of the same password, unless the password has changed meanwhile.
    async fn rehash(
        &self,
        user: &UserId,
        weak: &str,
        password: Zeroizing<String>,
    ) -> Result<(), PasswordError> {
        let renewed = self.hashing.hash(password).await?.to_text();
        sqlx::query("UPDATE passwords SET hash = $1 WHERE user_id = $2 AND hash = $3")
            .bind(renewed)
            .bind(user.as_str())
            .bind(weak)
            .execute(&self.database)
            .await?;
        Ok(())
    }

    /// The form that is hashed, so that the same password from another keyboard matches; `None` if it is too long.
    fn normalised(&self, password: &SecretString) -> Option<Zeroizing<String>> {
        let typed = password.expose_secret();
        // Composition shrinks no text to less than a quarter.
        if typed.len() / 4 > self.max_bytes {
            return None;
        }
        // Capacity for the worst case: growing would leave copies behind that are not wiped.
        let mut composed = Zeroizing::new(String::with_capacity(3 * typed.len()));
        composed.extend(typed.nfc());
        (composed.len() <= self.max_bytes).then_some(composed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        credentials::{hashing::tests::stalled, tests::Fixture},
        database::test_database::{On, on_each_database},
        random::OsRandom,
    };

    on_each_database![
        only_the_users_own_password_is_accepted,
        composed_and_decomposed_forms_are_one_password,
        a_password_of_1024_bytes_counts_to_its_last_byte_and_a_longer_one_is_none,
        every_kind_of_refusal_hashes,
        a_user_without_a_password_cannot_log_in_with_any,
        after_a_hundred_wrong_ones_in_a_row_none_is_right_for_strangers,
        a_weak_hash_is_renewed_by_the_right_password_alone,
        a_new_password_is_announced_and_goes_with_its_user,
    ];

    /// Of "correct horse", with lower costs than new hashes.
    const WEAK: &str =
        "$argon2id$v=19$m=1024,t=1,p=4$MDEyMzQ1Njc4OWFiY2RlZg$41rLQhXhdcRWdYZmyJFHotLW6U90fsz9374tfcqOXZw";

    fn passwords(fixture: &Fixture) -> Passwords {
        passwords_with(fixture, Hashing::start(Hashing::default_threads(), Arc::new(OsRandom)).unwrap())
    }

    fn passwords_with(fixture: &Fixture, hashing: Hashing) -> Passwords {
        Passwords::new(fixture.database.clone(), Arc::new(hashing), fixture.clock.clone(), &fixture.config)
    }

    async fn stored(fixture: &Fixture) -> String {
        sqlx::query("SELECT hash FROM passwords")
            .fetch_one(&fixture.database)
            .await
            .unwrap()
            .try_get(0)
            .unwrap()
    }

    async fn only_the_users_own_password_is_accepted(on: On) {
        let fixture = Fixture::new(on).await;
        let passwords = passwords(&fixture);
        passwords.set(&fixture.ada, "correct horse".into()).await.unwrap();
        passwords.set(&fixture.bob, "battery staple".into()).await.unwrap();
        let verified = passwords.verify(Some(&fixture.ada), "correct horse".into(), By::Known).await.unwrap();
        assert_eq!(verified.unwrap().user(), &fixture.ada);
        for wrong in ["battery staple", "Correct horse", "correct horse ", " correct horse", ""] {
            let verdict = passwords.verify(Some(&fixture.ada), wrong.into(), By::Known).await.unwrap();
            assert_eq!(verdict, None, "{wrong:?}");
        }
        passwords.set(&fixture.ada, "a new one".into()).await.unwrap();
        assert_eq!(
            passwords.verify(Some(&fixture.ada), "correct horse".into(), By::Known).await.unwrap(),
            None
        );
        assert!(passwords.verify(Some(&fixture.ada), "a new one".into(), By::Known).await.unwrap().is_some());
    }

    async fn composed_and_decomposed_forms_are_one_password(on: On) {
        let fixture = Fixture::new(on).await;
        let passwords = passwords(&fixture);
        passwords.set(&fixture.ada, "Zo\u{eb} und Bj\u{f6}rn".into()).await.unwrap();
        for (typed, accepted) in [("Zoe\u{308} und Bjo\u{308}rn", true), ("Zoe und Bjorn", false)] {
            let verdict = passwords.verify(Some(&fixture.ada), typed.into(), By::Known).await.unwrap();
            assert_eq!(verdict.is_some(), accepted, "{typed}");
        }
    }

    async fn a_password_of_1024_bytes_counts_to_its_last_byte_and_a_longer_one_is_none(on: On) {
        let fixture = Fixture::new(on).await;
        let passwords = passwords(&fixture);
        let longest = "\u{1f40e}".repeat(256);
        passwords.set(&fixture.ada, longest.as_str().into()).await.unwrap();
        assert!(
            passwords.verify(Some(&fixture.ada), longest.as_str().into(), By::Known).await.unwrap().is_some()
        );
        for wrong in [format!("{longest}x"), "x".repeat(1_000_000)] {
            assert_eq!(
                passwords.verify(Some(&fixture.ada), wrong.as_str().into(), By::Known).await.unwrap(),
                None
            );
            let refused = passwords.set(&fixture.ada, wrong.into()).await;
            assert!(matches!(refused, Err(PasswordError::TooLong)));
        }
        assert!(passwords.verify(Some(&fixture.ada), longest.into(), By::Known).await.unwrap().is_some());
    }

    /// With the queue full, every hash is refused as busy: every kind of refusal must be, or its time would distinguish
    /// it.
    async fn every_kind_of_refusal_hashes(on: On) {
        let fixture = Fixture::new(on).await;
        passwords(&fixture).set(&fixture.ada, "correct horse".into()).await.unwrap();
        let (hashing, _release) = stalled();
        let passwords = passwords_with(&fixture, hashing);
        let long = "x".repeat(1_000_000);
        for (user, password) in [
            (Some(&fixture.ada), "wrong"),
            (Some(&fixture.ada), long.as_str()),
            (Some(&fixture.bob), "has none"),
            (None, "unknown"),
            (None, long.as_str()),
        ] {
            let verdict = passwords.verify(user, password.into(), By::Stranger).await;
            assert!(matches!(verdict, Err(PasswordError::Hashing(HashingError::Busy))));
        }
    }

    async fn after_a_hundred_wrong_ones_in_a_row_none_is_right_for_strangers(on: On) {
        let fixture = Fixture::new(on).await;
        let passwords = passwords(&fixture);
        passwords.set(&fixture.ada, "correct horse".into()).await.unwrap();
        let right = async |by| {
            passwords.verify(Some(&fixture.ada), "correct horse".into(), by).await.unwrap().is_some()
        };
        fixture.tamper("UPDATE passwords SET failures = 99").await;
        assert!(right(By::Stranger).await);
        fixture.tamper("UPDATE passwords SET failures = 100").await;
        assert!(!right(By::Stranger).await);
        assert!(right(By::Known).await);
        // A new password starts at zero failures.
        passwords.set(&fixture.ada, "correct horse".into()).await.unwrap();
        assert!(right(By::Stranger).await);
    }

    async fn a_user_without_a_password_cannot_log_in_with_any(on: On) {
        let fixture = Fixture::new(on).await;
        let passwords = passwords(&fixture);
        for user in [None, Some(&fixture.ada), Some(&UserId::generate(&OsRandom))] {
            for password in ["", "x"] {
                assert_eq!(passwords.verify(user, password.into(), By::Known).await.unwrap(), None);
            }
        }
    }

    async fn a_weak_hash_is_renewed_by_the_right_password_alone(on: On) {
        let fixture = Fixture::new(on).await;
        let passwords = passwords(&fixture);
        passwords.store(&fixture.ada, WEAK, &Alongside::nothing()).await.unwrap();
        assert_eq!(passwords.verify(Some(&fixture.ada), "wrong".into(), By::Known).await.unwrap(), None);
        assert_eq!(stored(&fixture).await, WEAK);
        assert!(
            passwords.verify(Some(&fixture.ada), "correct horse".into(), By::Known).await.unwrap().is_some()
        );
        let renewed = stored(&fixture).await;
        assert!(!StoredHash::parse(&renewed).unwrap().is_weaker_than_today());
        assert!(
            passwords.verify(Some(&fixture.ada), "correct horse".into(), By::Known).await.unwrap().is_some()
        );
        assert_eq!(stored(&fixture).await, renewed);
    }

    async fn a_new_password_is_announced_and_goes_with_its_user(on: On) {
        let fixture = Fixture::new(on).await;
        let passwords = passwords(&fixture);
        let before = fixture.database.latest_change().await.unwrap();
        passwords.set(&fixture.ada, "correct horse".into()).await.unwrap();
        let (_, changes) = fixture.database.changes_after(before).await.unwrap();
        assert_eq!(changes.last(), Some(&Change::User(fixture.ada.to_string())));

        fixture.users.remove(&fixture.ada).await.unwrap();
        assert_eq!(
            passwords.verify(Some(&fixture.ada), "correct horse".into(), By::Known).await.unwrap(),
            None
        );
        let left = sqlx::query("SELECT COUNT(*) FROM passwords").fetch_one(&fixture.database).await;
        assert_eq!(left.unwrap().try_get::<i64, _>(0).unwrap(), 0);
    }
}
