//! Recovery codes: ten one-time replacements for a lost device, stored as keyed hashes.
//!
//! The text of a batch is stored, sealed, only until the user has confirmed saving it. [`super::SecondFactor`] checks
//! codes, and counts the attempts.

use std::sync::Arc;

use aws_lc_rs::hmac;
use secrecy::SecretString;
use sqlx::Row as _;
use unicode_normalization::UnicodeNormalization as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::{CredentialsError, typed::symbols};
use crate::{
    clock::Clock,
    database::{Alongside, Connection, Database, DatabaseError, Transaction},
    random::Random,
    sealing::Sealer,
    secret::hex,
    users::UserId,
};

/// Codes in a batch.
const BATCH: usize = 10;

/// Crockford's base 32: no letter that looks like a digit, and no U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Symbols of a code: 80 bits at five each.
const SYMBOLS: usize = 16;

/// The recovery codes of all users.
#[derive(Clone, Debug)]
pub struct RecoveryCodes {
    database: Database,
    sealer: Arc<Sealer>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    alongside: Alongside,
}

impl RecoveryCodes {
    pub fn new(
        database: Database,
        sealer: Arc<Sealer>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self { database, sealer, clock, random, alongside: Alongside::nothing() }
    }

    /// The same; what is changed through it brings `alongside` with it, in the same transaction.
    #[must_use]
    pub fn carrying(mut self, alongside: Alongside) -> Self {
        self.alongside = alongside;
        self
    }

    /// The batch, as long as the user has not confirmed saving it.
    pub async fn unseen(&self, user: &UserId) -> Result<Option<Vec<SecretString>>, CredentialsError> {
        let row = sqlx::query(
            "SELECT unseen_codes FROM second_factors WHERE user_id = $1 AND unseen_codes IS NOT NULL",
        )
        .bind(user.as_str())
        .fetch_optional(&self.database)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let sealed: Vec<u8> = row.try_get("unseen_codes")?;
        self.open(user, &sealed).map(Some)
    }

    /// Whether there is a batch that has not been confirmed.
    pub async fn has_unseen(&self, user: &UserId) -> Result<bool, CredentialsError> {
        let row =
            sqlx::query("SELECT user_id FROM second_factors WHERE user_id = $1 AND unseen_codes IS NOT NULL")
                .bind(user.as_str())
                .fetch_optional(&self.database)
                .await?;
        Ok(row.is_some())
    }

    /// Replaces all codes by a new batch. False if the user has no device.
    pub async fn renew(&self, user: &UserId) -> Result<bool, CredentialsError> {
        let mut transaction = self.database.write().await?;
        let has_row = lock(&mut transaction, user).await?;
        if has_row {
            self.issue(&mut transaction, user).await?;
            self.database.make_alongside(&mut transaction, &self.alongside).await?;
            self.database.announce_alongside(&mut transaction, &self.alongside, self.clock.now()).await?;
        }
        transaction.commit().await?;
        Ok(has_row)
    }

    /// Deletes the text of the batch: the user has saved it.
    pub async fn acknowledge(&self, user: &UserId) -> Result<(), CredentialsError> {
        let mut transaction = self.database.write().await?;
        forget(&mut transaction, user).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The number of unused codes.
    pub async fn remaining(&self, user: &UserId) -> Result<u32, CredentialsError> {
        let mut connection = self.database.acquire().await?;
        let count = count(&mut connection, user).await?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Makes a batch if no code is left. The user's row must be locked.
    pub(super) async fn issue_if_none(
        &self,
        transaction: &mut Transaction,
        user: &UserId,
    ) -> Result<(), CredentialsError> {
        if count(transaction, user).await? == 0 {
            self.issue(transaction, user).await?;
        }
        Ok(())
    }

    async fn issue(
        &self,
        transaction: &mut Transaction,
        user: &UserId,
    ) -> Result<Vec<SecretString>, CredentialsError> {
        sqlx::query("DELETE FROM recovery_codes WHERE user_id = $1")
            .bind(user.as_str())
            .execute(&mut **transaction)
            .await?;
        let mut codes = Vec::with_capacity(BATCH);
        let mut text = Zeroizing::new(String::with_capacity(BATCH * 20));
        for _ in 0..BATCH {
            let code = generate(&*self.random);
            sqlx::query("INSERT INTO recovery_codes (user_id, hash) VALUES ($1, $2)")
                .bind(user.as_str())
                .bind(hash(&self.sealer, user, &code))
                .execute(&mut **transaction)
                .await?;
            let shown = shown(&code);
            text.push_str(&shown);
            text.push('\n');
            codes.push(SecretString::from(shown.as_str()));
        }
        sqlx::query("UPDATE second_factors SET unseen_codes = $1, unseen_since = $2, recovery_failures = 0 WHERE user_id = $3")
            .bind(self.sealer.seal(&place(user), text.as_bytes()))
            .bind(self.clock.now().unix_millis())
            .bind(user.as_str())
            .execute(&mut **transaction)
            .await?;
        Ok(codes)
    }

    fn open(&self, user: &UserId, sealed: &[u8]) -> Result<Vec<SecretString>, CredentialsError> {
        let text = self.sealer.open(&place(user), sealed)?;
        let text = std::str::from_utf8(&text).map_err(|_| DatabaseError::Corrupt("recovery codes"))?;
        Ok(text.lines().map(SecretString::from).collect())
    }
}

/// Locks the user's row until the end of the transaction, so that changes of one user's devices and codes queue. False
/// if there is no row, and so no device.
pub(super) async fn lock(transaction: &mut Transaction, user: &UserId) -> Result<bool, CredentialsError> {
    let locked = sqlx::query("UPDATE second_factors SET failures = failures WHERE user_id = $1")
        .bind(user.as_str())
        .execute(&mut **transaction)
        .await?;
    Ok(locked.rows_affected() == 1)
}

/// Uses up the code that was typed, if it is one of the user's. Of concurrent attempts, only one deletes the row. A
/// user with a code has saved the batch: its text is deleted.
pub(super) async fn redeem(
    transaction: &mut Transaction,
    sealer: &Sealer,
    user: &UserId,
    typed: &str,
) -> Result<bool, CredentialsError> {
    let Some(code) = parse(typed) else { return Ok(false) };
    let deleted = sqlx::query("DELETE FROM recovery_codes WHERE user_id = $1 AND hash = $2")
        .bind(user.as_str())
        .bind(hash(sealer, user, &code))
        .execute(&mut **transaction)
        .await?;
    if deleted.rows_affected() != 1 {
        return Ok(false);
    }
    forget(transaction, user).await?;
    Ok(true)
}

async fn forget(connection: &mut Connection, user: &UserId) -> Result<(), CredentialsError> {
    sqlx::query("UPDATE second_factors SET unseen_codes = NULL, unseen_since = NULL WHERE user_id = $1")
        .bind(user.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

async fn count(connection: &mut Connection, user: &UserId) -> Result<i64, CredentialsError> {
    let row = sqlx::query("SELECT COUNT(*) AS codes FROM recovery_codes WHERE user_id = $1")
        .bind(user.as_str())
        .fetch_one(connection)
        .await?;
    Ok(row.try_get("codes")?)
}

fn place(user: &UserId) -> [&str; 3] {
    ["second_factors", user.as_str(), "unseen_codes"]
}

/// 16 symbols without dashes.
fn generate(random: &dyn Random) -> Zeroizing<String> {
    let mut bytes = random.bytes::<SYMBOLS>();
    let symbols = bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
    let mut code = Zeroizing::new(String::with_capacity(SYMBOLS));
    code.extend(symbols);
    bytes.zeroize();
    code
}

/// The code in groups of four.
fn shown(code: &str) -> Zeroizing<String> {
    let mut shown = Zeroizing::new(String::with_capacity(SYMBOLS + 3));
    for (at, c) in code.chars().enumerate() {
        if at > 0 && at % 4 == 0 {
            shown.push('-');
        }
        shown.push(c);
    }
    shown
}

/// Parses the 16 symbols of a typed code: in any case, width and script of digits, with any separators.
fn parse(typed: &str) -> Option<Zeroizing<String>> {
    let mut code = Zeroizing::new(String::with_capacity(SYMBOLS));
    for c in symbols(typed).nfkc() {
        let symbol = meant(c.to_ascii_uppercase());
        if code.len() == SYMBOLS || !ALPHABET.contains(&u8::try_from(symbol).ok()?) {
            return None;
        }
        code.push(symbol);
    }
    (code.len() == SYMBOLS).then_some(code)
}

/// The symbol that a similar letter, or one of another script, stands for.
fn meant(letter: char) -> char {
    match letter {
        'O' | 'О' | 'о' | 'Ο' | 'ο' => '0',
        'I' | 'L' | 'ı' | 'І' | 'і' | 'Ι' | 'ι' => '1',
        'А' | 'а' | 'Α' | 'α' => 'A',
        'В' | 'в' | 'Β' => 'B',
        'С' | 'с' => 'C',
        'Е' | 'е' | 'Ε' => 'E',
        'Н' | 'н' | 'Η' => 'H',
        'К' | 'к' | 'Κ' | 'κ' => 'K',
        'М' | 'м' | 'Μ' => 'M',
        'Ν' => 'N',
        'Р' | 'р' | 'Ρ' | 'ρ' => 'P',
        'Т' | 'т' | 'Τ' | 'τ' => 'T',
        'Х' | 'х' | 'Χ' | 'χ' => 'X',
        'Ζ' => 'Z',
        other => other,
    }
}

/// The hash includes the user, so that a row copied to another user is useless there.
fn hash(sealer: &Sealer, user: &UserId, code: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, sealer.derive("recovery codes").as_slice());
    let mut context = hmac::Context::with_key(&key);
    context.update(user.as_str().as_bytes());
    context.update(b"\0");
    context.update(code.as_bytes());
    hex(context.sign().as_ref())
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::{
        credentials::{CodeCheck, tests::Fixture},
        database::test_database::{On, on_each_database},
        random::OsRandom,
    };

    on_each_database![
        the_first_device_brings_ten_codes_that_are_shown_until_confirmed,
        a_code_works_once_and_for_its_user_alone,
        a_batch_stays_good_until_its_user_asks_for_another,
        whoever_uses_a_code_has_saved_them,
        confirmed_codes_stay_good_however_old,
        the_store_holds_no_code_in_clear,
    ];

    const HOUR: Duration = Duration::from_hours(1);

    fn texts(codes: Option<Vec<SecretString>>) -> Vec<String> {
        codes.unwrap().iter().map(|code| code.expose_secret().to_owned()).collect()
    }

    async fn redeems(fixture: &Fixture, user: &UserId, typed: &str) -> bool {
        let verdict = fixture.second_factor().redeem_recovery(user, typed).await.unwrap();
        matches!(verdict, CodeCheck::Accepted(_))
    }

    async fn the_first_device_brings_ten_codes_that_are_shown_until_confirmed(on: On) {
        let fixture = Fixture::new(on).await;
        let recovery_codes = fixture.recovery_codes();
        assert!(recovery_codes.unseen(&fixture.ada).await.unwrap().is_none());
        assert_eq!(recovery_codes.remaining(&fixture.ada).await.unwrap(), 0);

        fixture.enrol(&fixture.ada, "Phone").await;
        let codes = texts(recovery_codes.unseen(&fixture.ada).await.unwrap());
        assert_eq!(codes.iter().collect::<HashSet<_>>().len(), BATCH);
        assert!(codes.iter().all(|code| code.len() == 19 && code.split('-').all(|group| group.len() == 4)));
        assert_eq!(texts(recovery_codes.unseen(&fixture.ada).await.unwrap()), codes);
        assert!(recovery_codes.unseen(&fixture.bob).await.unwrap().is_none());

        recovery_codes.acknowledge(&fixture.ada).await.unwrap();
        assert!(recovery_codes.unseen(&fixture.ada).await.unwrap().is_none());
        assert_eq!(recovery_codes.remaining(&fixture.ada).await.unwrap(), 10);
        assert_eq!(
            fixture.number("SELECT COUNT(*) FROM second_factors WHERE unseen_codes IS NOT NULL").await,
            0
        );
        // A second device leaves them unchanged.
        fixture.enrol(&fixture.ada, "Tablet").await;
        assert!(recovery_codes.unseen(&fixture.ada).await.unwrap().is_none());
        assert!(redeems(&fixture, &fixture.ada, &codes[0]).await);
    }

    async fn a_code_works_once_and_for_its_user_alone(on: On) {
        let fixture = Fixture::new(on).await;
        fixture.enrol(&fixture.ada, "Phone").await;
        fixture.enrol(&fixture.bob, "Phone").await;
        let codes = texts(fixture.recovery_codes().unseen(&fixture.ada).await.unwrap());
        assert!(!redeems(&fixture, &fixture.bob, &codes[0]).await);
        assert!(redeems(&fixture, &fixture.ada, &codes[0]).await);
        assert!(!redeems(&fixture, &fixture.ada, &codes[0]).await);
        assert!(redeems(&fixture, &fixture.ada, &codes[1]).await);
        assert_eq!(fixture.recovery_codes().remaining(&fixture.ada).await.unwrap(), 8);
        // A row copied to another user is useless there.
        fixture
            .tamper(
                "UPDATE recovery_codes SET user_id = (SELECT id FROM users WHERE name = 'bob@example.com')",
            )
            .await;
        assert!(!redeems(&fixture, &fixture.bob, &codes[2]).await);
    }

    async fn a_batch_stays_good_until_its_user_asks_for_another(on: On) {
        let fixture = Fixture::new(on).await;
        let recovery_codes = fixture.recovery_codes();
        assert!(
            !recovery_codes.renew(&fixture.ada).await.unwrap(),
            "there is nothing to recover without a device"
        );
        assert_eq!(recovery_codes.remaining(&fixture.ada).await.unwrap(), 0);

        fixture.enrol(&fixture.ada, "Phone").await;
        let old = texts(recovery_codes.unseen(&fixture.ada).await.unwrap());
        fixture.clock.advance(1000 * HOUR);
        assert_eq!(texts(recovery_codes.unseen(&fixture.ada).await.unwrap()), old);
        assert!(recovery_codes.renew(&fixture.ada).await.unwrap());
        let fresh = texts(recovery_codes.unseen(&fixture.ada).await.unwrap());
        assert!(fresh.iter().all(|code| !old.contains(code)));
        assert_eq!(texts(recovery_codes.unseen(&fixture.ada).await.unwrap()), fresh);
        assert!(!redeems(&fixture, &fixture.ada, &old[0]).await);
        assert!(
            recovery_codes.has_unseen(&fixture.ada).await.unwrap(),
            "a wrong code says nothing of the right ones"
        );
        assert!(redeems(&fixture, &fixture.ada, &fresh[0]).await);
        assert_eq!(recovery_codes.remaining(&fixture.ada).await.unwrap(), 9);
    }

    async fn whoever_uses_a_code_has_saved_them(on: On) {
        let fixture = Fixture::new(on).await;
        fixture.enrol(&fixture.ada, "Phone").await;
        fixture.enrol(&fixture.bob, "Phone").await;
        let recovery_codes = fixture.recovery_codes();
        let codes = texts(recovery_codes.unseen(&fixture.ada).await.unwrap());
        assert!(redeems(&fixture, &fixture.ada, &codes[0]).await);
        assert!(!recovery_codes.has_unseen(&fixture.ada).await.unwrap());
        assert!(recovery_codes.unseen(&fixture.ada).await.unwrap().is_none());
        assert!(redeems(&fixture, &fixture.ada, &codes[1]).await);
        assert!(recovery_codes.has_unseen(&fixture.bob).await.unwrap());
    }

    async fn confirmed_codes_stay_good_however_old(on: On) {
        let fixture = Fixture::new(on).await;
        fixture.enrol(&fixture.ada, "Phone").await;
        let codes = texts(fixture.recovery_codes().unseen(&fixture.ada).await.unwrap());
        fixture.recovery_codes().acknowledge(&fixture.ada).await.unwrap();
        fixture.clock.advance(1000 * HOUR);
        assert!(fixture.recovery_codes().unseen(&fixture.ada).await.unwrap().is_none());
        assert!(redeems(&fixture, &fixture.ada, &codes[7]).await);
    }

    async fn the_store_holds_no_code_in_clear(on: On) {
        let fixture = Fixture::new(on).await;
        fixture.enrol(&fixture.ada, "Phone").await;
        let codes = texts(fixture.recovery_codes().unseen(&fixture.ada).await.unwrap());
        let stored = sqlx::query("SELECT unseen_codes FROM second_factors")
            .fetch_one(&fixture.database)
            .await
            .unwrap()
            .try_get::<Vec<u8>, _>(0)
            .unwrap();
        let bare = codes[0].replace('-', "");
        for text in [codes[0].as_bytes(), bare.as_bytes()] {
            assert!(!stored.windows(text.len()).any(|window| window == text));
        }
        fixture
            .tamper(
                "UPDATE second_factors SET user_id = (SELECT id FROM users WHERE name = 'bob@example.com')",
            )
            .await;
        let moved = fixture.recovery_codes().unseen(&fixture.bob).await;
        assert!(matches!(moved, Err(CredentialsError::Sealed(_))));
    }

    #[test]
    fn each_symbol_of_a_code_is_one_of_32_and_left_to_chance() {
        let codes: Vec<_> = (0..2000).map(|_| generate(&OsRandom)).collect();
        for at in 0..SYMBOLS {
            let seen: HashSet<u8> = codes.iter().map(|code| code.as_bytes()[at]).collect();
            assert_eq!(seen.len(), 32, "symbol {at}");
        }
    }

    #[test]
    fn codes_are_read_as_people_type_them() {
        let code = generate(&OsRandom);
        let shown = shown(&code);
        for typed in [
            shown.to_string(),
            code.to_string(),
            shown.to_lowercase(),
            format!("  {} ", shown.replace('-', " ")),
            shown.replace('-', "\u{2013}"),
            code.replace('0', "o").replace('1', "l"),
            code.replace('0', "O").replace('1', "I"),
            code.replace('0', "\u{41e}").replace('A', "\u{410}").replace('C', "\u{421}"),
            code.chars().map(|c| char::from_u32(u32::from(c) + 0xfee0).unwrap()).collect(),
            code.replace('2', "\u{662}").replace('7', "\u{96d}"),
            format!("\u{feff}{}\u{200b}.", shown.replace('-', "\u{2011}")),
            shown.replace('-', "_"),
        ] {
            assert_eq!(parse(&typed).as_deref(), Some(&*code), "{typed}");
        }
        for typed in ["", "-", &code[1..], &format!("{}U", &code[1..]), &format!("{}é", &code[1..])] {
            assert!(parse(typed).is_none(), "{typed}");
        }
        assert!(parse(&format!("{}0", &*code)).is_none());
        assert!(parse(&"0".repeat(1_000_000)).is_none());
    }
}
