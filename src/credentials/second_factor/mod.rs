//! Checks the second factor: a code of any of the user's devices, or a recovery code.
//!
//! Each user has a counter of failures per kind, incremented before the result is known, and a watermark below which no
//! code is accepted again. Both change in the transaction that decides.

use std::sync::Arc;

use sqlx::Row as _;

use super::{
    CredentialsError, MAX_FAILURES, check_clock, recovery_codes,
    totp::{Code, TotpSecret, step_at},
};
use crate::{
    clock::{Clock, Watermark},
    database::{Alongside, Connection, Database, DatabaseError, Transaction},
    sealing::Sealer,
    users::UserId,
};

/// At its enrolment, the device's clock was found to be a step ahead of ours.
const AHEAD: i64 = 1;

/// The kind of code that proved the second factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeKind {
    Totp,
    Recovery,
}

/// Proof that a user's second factor was given. Only this module makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct VerifiedCode {
    user: UserId,
    kind: CodeKind,
}

impl VerifiedCode {
    pub(super) fn new(user: UserId, kind: CodeKind) -> Self {
        Self { user, kind }
    }

    /// For tests of code that takes such a proof.
    #[cfg(test)]
    pub(crate) fn of(user: &UserId, kind: CodeKind) -> Self {
        Self::new(user.clone(), kind)
    }

    pub fn user(&self) -> &UserId {
        &self.user
    }

    pub fn kind(&self) -> CodeKind {
        self.kind
    }
}

/// The result for a code.
#[derive(Debug, PartialEq, Eq)]
pub enum CodeCheck {
    Accepted(VerifiedCode),
    Wrong,
    /// The code is correct, and has been accepted before. Not a failure: sending a form twice is not a guess.
    Used,
    /// Too many failures in a row: no code of this kind is accepted any more. For one-time codes, until all of the
    /// user's devices have been removed and one is enrolled again; for recovery codes, until there are new ones.
    Off,
}

/// The result for a code before the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstCode {
    Right,
    Wrong,
    /// Correct, and accepted before.
    Used,
}

/// The second factors of all users.
#[derive(Clone, Debug)]
pub struct SecondFactor {
    database: Database,
    sealer: Arc<Sealer>,
    clock: Arc<dyn Clock>,
    watermark: Arc<Watermark>,
    alongside: Alongside,
}

impl SecondFactor {
    pub fn new(
        database: Database,
        sealer: Arc<Sealer>,
        clock: Arc<dyn Clock>,
        watermark: Arc<Watermark>,
    ) -> Self {
        Self { database, sealer, clock, watermark, alongside: Alongside::nothing() }
    }

    /// The same; what is changed through it brings `alongside` with it, in the same transaction.
    #[must_use]
    pub fn carrying(mut self, alongside: Alongside) -> Self {
        self.alongside = alongside;
        self
    }

    /// Checks a one-time code against every device of the user; together that is one attempt. Fails while the clock is
    /// behind its former value.
    pub async fn verify_code(&self, user: &UserId, typed: &str) -> Result<CodeCheck, CredentialsError> {
        check_clock(&self.watermark)?;
        let mut transaction = self.database.write().await?;
        let Some(last_step) = count_attempt(&mut transaction, user, CodeKind::Totp).await? else {
            return off(transaction).await;
        };
        let check = match Code::parse(typed) {
            Some(code) => self.accept(&mut transaction, user, &code, last_step).await?,
            None => CodeCheck::Wrong,
        };
        let forgiven = match check {
            CodeCheck::Accepted(_) => Some("UPDATE second_factors SET failures = 0 WHERE user_id = $1"),
            // Takes the increment back.
            CodeCheck::Used => Some("UPDATE second_factors SET failures = failures - 1 WHERE user_id = $1"),
            CodeCheck::Wrong | CodeCheck::Off => None,
        };
        if let Some(statement) = forgiven {
            sqlx::query(statement).bind(user.as_str()).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(check)
    }

    /// Checks a one-time code that comes before the password, and uses it up if it is correct. Does not change the
    /// counters: a wrong code blocks nobody, and a correct one forgives nothing. An unknown user has no device.
    pub async fn verify_first(
        &self,
        user: Option<&UserId>,
        typed: &str,
    ) -> Result<FirstCode, CredentialsError> {
        check_clock(&self.watermark)?;
        // The same query, which finds nothing.
        let Some(user) = user.cloned().or_else(UserId::nobody) else {
            return Ok(FirstCode::Wrong);
        };
        let mut connection = self.database.acquire().await?;
        let row = sqlx::query("SELECT failures, last_step FROM second_factors WHERE user_id = $1")
            .bind(user.as_str())
            .fetch_optional(&mut connection)
            .await?;
        let (failures, last_step): (i64, i64) = match row {
            Some(row) => (row.try_get("failures")?, row.try_get("last_step")?),
            None => (0, -1),
        };
        let Some(code) = Code::parse(typed).filter(|_| failures < MAX_FAILURES) else {
            return Ok(FirstCode::Wrong);
        };
        if self.matching_device(&mut connection, &user, &code, last_step).await?.is_none() {
            return Ok(FirstCode::Wrong);
        }
        drop(connection);
        let mut transaction = self.database.write().await?;
        let check = self.accept(&mut transaction, &user, &code, last_step).await?;
        transaction.commit().await?;
        Ok(match check {
            CodeCheck::Accepted(_) => FirstCode::Right,
            _ => FirstCode::Used,
        })
    }

    /// Checks a recovery code, and uses it up.
    pub async fn redeem_recovery(&self, user: &UserId, typed: &str) -> Result<CodeCheck, CredentialsError> {
        let mut transaction = self.database.write().await?;
        if count_attempt(&mut transaction, user, CodeKind::Recovery).await?.is_none() {
            return off(transaction).await;
        }
        let accepted = recovery_codes::redeem(&mut transaction, &self.sealer, user, typed).await?;
        if accepted {
            sqlx::query("UPDATE second_factors SET recovery_failures = 0 WHERE user_id = $1")
                .bind(user.as_str())
                .execute(&mut *transaction)
                .await?;
            self.database.make_alongside(&mut transaction, &self.alongside).await?;
            self.database.announce_alongside(&mut transaction, &self.alongside, self.clock.now()).await?;
        }
        transaction.commit().await?;
        Ok(if accepted { proof(user, CodeKind::Recovery) } else { CodeCheck::Wrong })
    }

    /// Uses up a correct code.
    async fn accept(
        &self,
        transaction: &mut Transaction,
        user: &UserId,
        code: &Code,
        last_step: i64,
    ) -> Result<CodeCheck, CredentialsError> {
        let Some((device, step)) = self.matching_device(transaction, user, code, last_step).await? else {
            return Ok(CodeCheck::Wrong);
        };
        let raised =
            sqlx::query("UPDATE second_factors SET last_step = $1 WHERE user_id = $2 AND last_step < $1")
                .bind(step)
                .bind(user.as_str())
                .execute(&mut **transaction)
                .await?;
        if raised.rows_affected() != 1 {
            return Ok(CodeCheck::Used);
        }
        sqlx::query("UPDATE devices SET last_used_at = $1 WHERE id = $2")
            .bind(self.clock.now().unix_millis())
            .bind(device)
            .execute(&mut **transaction)
            .await?;
        Ok(proof(user, CodeKind::Totp))
    }

    /// The device that shows this code in this step, the one before, or (if its clock is known to be ahead) the next
    /// one. Steps up to `last_step` are used up, whichever device used them, and are checked last.
    async fn matching_device(
        &self,
        connection: &mut Connection,
        user: &UserId,
        code: &Code,
        last_step: i64,
    ) -> Result<Option<(String, i64)>, CredentialsError> {
        let now = step_at(self.clock.now());
        let devices = sqlx::query("SELECT id, secret, drift FROM devices WHERE user_id = $1")
            .bind(user.as_str())
            .fetch_all(connection)
            .await?;
        // All are opened before any is tried: one that does not open must not leave wrong guesses uncounted while
        // correct ones are accepted.
        let mut opened = Vec::with_capacity(devices.len());
        for device in devices {
            let id: String = device.try_get("id")?;
            let sealed: Vec<u8> = device.try_get("secret")?;
            let secret = self.sealer.open(&secret_place(user, &id), &sealed)?;
            let secret =
                TotpSecret::from_bytes(&secret).ok_or(DatabaseError::Corrupt("a device's secret"))?;
            opened.push((id, secret, device.try_get::<i64, _>("drift")?));
        }
        let matching = |spent: bool| {
            opened.iter().find_map(|(id, secret, drift)| {
                let newest = if *drift == AHEAD { now + 1 } else { now };
                let steps = (now - 1..=newest).filter(|&step| (step <= last_step) == spent);
                secret.matching_step(code, steps).map(|step| (id.clone(), step))
            })
        };
        Ok(matching(false).or_else(|| matching(true)))
    }
}

/// The context that a device's secret is sealed for.
pub(super) fn secret_place<'a>(user: &'a UserId, device: &'a str) -> [&'a str; 4] {
    ["devices", user.as_str(), device, "secret"]
}

/// Counts a failure, which a success takes back, and locks the user's row until the transaction ends. Returns the last
/// accepted step; `None` if the devices are blocked.
async fn count_attempt(
    transaction: &mut Transaction,
    user: &UserId,
    kind: CodeKind,
) -> Result<Option<i64>, CredentialsError> {
    let statement = match kind {
        CodeKind::Totp => {
            "INSERT INTO second_factors (user_id, failures, last_step) VALUES ($1, 1, -1) \
             ON CONFLICT (user_id) DO UPDATE SET failures = second_factors.failures + 1 \
             RETURNING failures, last_step"
        }
        CodeKind::Recovery => {
            "INSERT INTO second_factors (user_id, failures, recovery_failures, last_step) VALUES ($1, 0, 1, -1) \
             ON CONFLICT (user_id) DO UPDATE SET recovery_failures = second_factors.recovery_failures + 1 \
             RETURNING recovery_failures AS failures, last_step"
        }
    };
    let row = sqlx::query(statement).bind(user.as_str()).fetch_one(&mut **transaction).await?;
    let failures: i64 = row.try_get("failures")?;
    Ok((failures <= MAX_FAILURES).then_some(row.try_get("last_step")?))
}

/// The counter does not change: it says that the devices are blocked, not how often somebody tried.
async fn off(transaction: Transaction) -> Result<CodeCheck, CredentialsError> {
    transaction.rollback().await?;
    Ok(CodeCheck::Off)
}

fn proof(user: &UserId, kind: CodeKind) -> CodeCheck {
    CodeCheck::Accepted(VerifiedCode::new(user.clone(), kind))
}

#[cfg(test)]
mod tests;
