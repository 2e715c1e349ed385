//! Devices: the authenticator apps that users have enrolled.
//!
//! A device is stored once a correct code has been given for it, never before; its secret is sealed for its own row.

use std::{sync::Arc, time::Duration};

use sqlx::{Row as _, any::AnyRow};

use super::{
    CodeKind, CredentialsError, RecoveryCodes, TotpSecret, VerifiedCode, check_clock,
    recovery_codes::lock,
    second_factor::secret_place,
    totp::{Code, step_at},
};
use crate::{
    clock::{Clock, Timestamp, Watermark},
    database::{Alongside, Change, Connection, Database, Transaction},
    random::Random,
    sealing::Sealer,
    secret::constant_time_eq,
    users::UserId,
};

/// Maximum length of a device's name in code points.
const MAX_NAME: usize = 64;

/// An enrolled authenticator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub id: String,
    /// The user's name for it; a user's devices have different names.
    pub name: String,
    pub created_at: Timestamp,
    /// When a code of it was last accepted; the first time is its enrolment. `None`: it was imported.
    pub last_used_at: Option<Timestamp>,
}

/// A device of another system, whose app shows its codes already.
pub struct ImportedDevice {
    secret: TotpSecret,
    name: String,
}

impl ImportedDevice {
    /// `None` if the name is empty or too long.
    pub fn new(secret: TotpSecret, name: &str) -> Option<Self> {
        Some(Self { secret, name: checked_name(name).ok()? })
    }

    #[cfg(test)]
    pub(crate) fn secret(&self) -> &TotpSecret {
        &self.secret
    }
}

/// Which devices an enrolment may add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrolmentScope {
    /// Only the first: the user has proved no second factor yet.
    FirstDevice,
    /// A further one as well.
    AnyDevice,
}

/// Why a device was not enrolled. Nothing has been stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrolRefusal {
    WrongCode,
    AlreadyEnrolled,
    NameMissing,
    NameTooLong,
    NameTaken,
    /// The user has the maximum number.
    TooMany,
    /// The user has added the maximum number in an hour.
    TooSoon,
}

/// Maximum number of one user's devices.
const MOST: i64 = 10;
/// Maximum number of devices that one user adds in an hour.
const MOST_IN_AN_HOUR: i64 = 5;

/// The devices of all users.
#[derive(Clone, Debug)]
pub struct Devices {
    database: Database,
    sealer: Arc<Sealer>,
    clock: Arc<dyn Clock>,
    watermark: Arc<Watermark>,
    random: Arc<dyn Random>,
    recovery_codes: RecoveryCodes,
    alongside: Alongside,
}

impl Devices {
    pub fn new(
        database: Database,
        sealer: Arc<Sealer>,
        clock: Arc<dyn Clock>,
        watermark: Arc<Watermark>,
        random: Arc<dyn Random>,
    ) -> Self {
        let recovery_codes =
            RecoveryCodes::new(database.clone(), sealer.clone(), clock.clone(), random.clone());
        Self { database, sealer, clock, watermark, random, recovery_codes, alongside: Alongside::nothing() }
    }

    /// The same; what is changed through it brings `alongside` with it, in the same transaction.
    #[must_use]
    pub fn carrying(mut self, alongside: Alongside) -> Self {
        self.alongside = alongside;
        self
    }

    /// The user's devices, oldest first.
    pub async fn list(&self, user: &UserId) -> Result<Vec<Device>, CredentialsError> {
        let rows = sqlx::query(
            "SELECT id, name, created_at, last_used_at FROM devices WHERE user_id = $1 ORDER BY created_at, id",
        )
        .bind(user.as_str())
        .fetch_all(&self.database)
        .await?;
        rows.iter().map(read).collect()
    }

    pub async fn count(&self, user: &UserId) -> Result<u32, CredentialsError> {
        let mut connection = self.database.acquire().await?;
        Ok(u32::try_from(count(&mut connection, user).await?).unwrap_or(u32::MAX))
    }

    /// Stores the device with `secret`, if `code` proves that it has it; and recovery codes, if the user has none. The
    /// code is used up.
    pub async fn enrol(
        &self,
        user: &UserId,
        secret: &TotpSecret,
        code: &str,
        name: &str,
        enrolment: EnrolmentScope,
    ) -> Result<Result<VerifiedCode, EnrolRefusal>, CredentialsError> {
        let name = match checked_name(name) {
            Ok(name) => name,
            Err(refusal) => return Ok(Err(refusal)),
        };
        check_clock(&self.watermark)?;
        let now = step_at(self.clock.now());
        let step = Code::parse(code).and_then(|code| secret.matching_step(&code, [now, now - 1, now + 1]));
        let Some(step) = step else { return Ok(Err(EnrolRefusal::WrongCode)) };

        let mut transaction = self.database.write().await?;
        make_and_lock(&mut transaction, user).await?;
        let devices = count(&mut transaction, user).await?;
        if devices > 0 && enrolment == EnrolmentScope::FirstDevice {
            transaction.rollback().await?;
            return Ok(Err(EnrolRefusal::AlreadyEnrolled));
        }
        if let Some(refusal) = self.refusal(&mut transaction, user, secret, &name).await? {
            transaction.rollback().await?;
            return Ok(Err(refusal));
        }
        let used_at = Some(self.clock.now());
        self.insert(&mut transaction, user, secret, &name, (step - now, used_at)).await?;
        // Only a first device starts at zero failures: a further one must not re-enable blocked devices.
        sqlx::query(
            "UPDATE second_factors SET failures = CASE WHEN $1 = 0 THEN 0 ELSE failures END, \
             last_step = CASE WHEN last_step < $2 THEN $2 ELSE last_step END WHERE user_id = $3",
        )
        .bind(devices)
        .bind(step)
        .bind(user.as_str())
        .execute(&mut *transaction)
        .await?;
        self.recovery_codes.issue_if_none(&mut transaction, user).await?;
        self.announce(&mut transaction, user).await?;
        transaction.commit().await?;
        Ok(Ok(VerifiedCode::new(user.clone(), CodeKind::Totp)))
    }

    /// Makes what comes alongside, and announces both.
    async fn announce(&self, transaction: &mut Transaction, user: &UserId) -> Result<(), CredentialsError> {
        self.database.make_alongside(transaction, &self.alongside).await?;
        let change = Change::User(user.to_string());
        Ok(self.database.announce_with(transaction, &change, &self.alongside, self.clock.now()).await?)
    }

    /// Stores the device of a new user once `transaction` commits.
    pub async fn import(
        &self,
        transaction: &mut Transaction,
        user: &UserId,
        device: &ImportedDevice,
    ) -> Result<(), CredentialsError> {
        make_and_lock(transaction, user).await?;
        self.insert(transaction, user, &device.secret, &device.name, (0, None)).await
    }

    /// Removes a device; with the last one go the recovery codes and the count of failures. False if the user has no
    /// such device.
    pub async fn remove(&self, user: &UserId, device: &str) -> Result<bool, CredentialsError> {
        let mut transaction = self.database.write().await?;
        lock(&mut transaction, user).await?;
        let removed = sqlx::query("DELETE FROM devices WHERE user_id = $1 AND id = $2")
            .bind(user.as_str())
            .bind(device)
            .execute(&mut *transaction)
            .await?;
        if removed.rows_affected() == 0 {
            transaction.rollback().await?;
            return Ok(false);
        }
        if count(&mut transaction, user).await? == 0 {
            for statement in [
                "DELETE FROM recovery_codes WHERE user_id = $1",
                "DELETE FROM second_factors WHERE user_id = $1",
            ] {
                sqlx::query(statement).bind(user.as_str()).execute(&mut *transaction).await?;
            }
        }
        self.announce(&mut transaction, user).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Why a user, whose row is locked, may not add a device with this secret and name.
    async fn refusal(
        &self,
        transaction: &mut Transaction,
        user: &UserId,
        secret: &TotpSecret,
        name: &str,
    ) -> Result<Option<EnrolRefusal>, CredentialsError> {
        let devices = sqlx::query("SELECT id, name, secret, created_at FROM devices WHERE user_id = $1")
            .bind(user.as_str())
            .fetch_all(&mut **transaction)
            .await?;
        let hour_ago = self.clock.now().minus(Duration::from_hours(1)).unix_millis();
        let (mut in_all, mut lately, mut taken) = (0, 0, false);
        for device in &devices {
            let (id, sealed): (String, Vec<u8>) = (device.try_get("id")?, device.try_get("secret")?);
            let known = self.sealer.open(&secret_place(user, &id), &sealed);
            // The same form was submitted twice at once.
            if known.is_ok_and(|known| constant_time_eq(&known, secret.expose())) {
                return Ok(Some(EnrolRefusal::AlreadyEnrolled));
            }
            in_all += 1;
            lately += i64::from(device.try_get::<i64, _>("created_at")? > hour_ago);
            taken |= device.try_get::<String, _>("name")? == name;
        }
        Ok(if in_all >= MOST {
            Some(EnrolRefusal::TooMany)
        } else if lately >= MOST_IN_AN_HOUR {
            Some(EnrolRefusal::TooSoon)
        } else {
            taken.then_some(EnrolRefusal::NameTaken)
        })
    }

    async fn insert(
        &self,
        transaction: &mut Transaction,
        user: &UserId,
        secret: &TotpSecret,
        name: &str,
        (drift, last_used_at): (i64, Option<Timestamp>),
    ) -> Result<(), CredentialsError> {
        // Only digits: an operator types it in a command, where a leading dash would make it an option.
        let id = format!("{:032x}", u128::from_be_bytes(self.random.bytes()));
        sqlx::query(
            "INSERT INTO devices (id, user_id, name, secret, drift, created_at, last_used_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(id.as_str())
        .bind(user.as_str())
        .bind(name)
        .bind(self.sealer.seal(&secret_place(user, &id), secret.expose()))
        .bind(drift)
        .bind(self.clock.now().unix_millis())
        .bind(last_used_at.map(Timestamp::unix_millis))
        .execute(&mut **transaction)
        .await?;
        Ok(())
    }
}

/// Makes the user's row if there is none, and locks it until the end of the transaction. In one statement: between two,
/// the row could go with the user's last device.
async fn make_and_lock(transaction: &mut Transaction, user: &UserId) -> Result<(), CredentialsError> {
    sqlx::query(
        "INSERT INTO second_factors (user_id, failures, last_step) VALUES ($1, 0, -1) \
         ON CONFLICT (user_id) DO UPDATE SET failures = second_factors.failures",
    )
    .bind(user.as_str())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn count(connection: &mut Connection, user: &UserId) -> Result<i64, CredentialsError> {
    let row = sqlx::query("SELECT COUNT(*) AS devices FROM devices WHERE user_id = $1")
        .bind(user.as_str())
        .fetch_one(connection)
        .await?;
    Ok(row.try_get("devices")?)
}

fn read(row: &AnyRow) -> Result<Device, CredentialsError> {
    let last_used_at: Option<i64> = row.try_get("last_used_at")?;
    Ok(Device {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        created_at: Timestamp::from_unix_millis(row.try_get("created_at")?),
        last_used_at: last_used_at.map(Timestamp::from_unix_millis),
    })
}

/// One line with single spaces.
fn checked_name(typed: &str) -> Result<String, EnrolRefusal> {
    let visible: String = typed.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let name = visible.split_whitespace().collect::<Vec<_>>().join(" ");
    match name.chars().count() {
        0 => Err(EnrolRefusal::NameMissing),
        1..=MAX_NAME => Ok(name),
        _ => Err(EnrolRefusal::NameTooLong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        credentials::tests::{Fixture, STEP},
        database::test_database::{On, on_each_database},
        random::OsRandom,
        users::NewUser,
    };

    on_each_database![
        nothing_counts_before_a_right_code_and_the_same_secret_can_be_tried_again,
        who_has_a_device_does_not_enrol_a_first_one,
        one_secret_makes_one_device,
        devices_are_added_a_few_an_hour_and_no_more_than_ten,
        of_many_first_devices_at_once_one_is_enrolled,
        a_name_is_needed_and_tells_devices_apart,
        removing_the_last_device_removes_the_codes_too,
        a_removed_user_leaves_nothing_behind,
        a_user_can_be_removed_while_they_enrol,
        an_enrolment_that_breaks_off_leaves_nothing_behind,
    ];

    async fn names(fixture: &Fixture, user: &UserId) -> Vec<String> {
        fixture.devices().list(user).await.unwrap().into_iter().map(|device| device.name).collect()
    }

    async fn nothing_counts_before_a_right_code_and_the_same_secret_can_be_tried_again(on: On) {
        let fixture = Fixture::new(on).await;
        let (devices, secret) = (fixture.devices(), TotpSecret::generate(&OsRandom));
        let late = secret.code_at(fixture.clock.now().minus(2 * STEP));
        let early = secret.code_at(fixture.clock.now().plus(2 * STEP));
        for wrong in ["", "12345", "abcdef", late.as_str(), early.as_str()] {
            let refused =
                devices.enrol(&fixture.ada, &secret, wrong, "Phone", EnrolmentScope::FirstDevice).await;
            assert_eq!(refused.unwrap(), Err(EnrolRefusal::WrongCode), "{wrong}");
            assert_eq!(devices.count(&fixture.ada).await.unwrap(), 0);
            assert_eq!(fixture.number("SELECT COUNT(*) FROM second_factors").await, 0);
        }
        let code = secret.code_at(fixture.clock.now());
        let enrolled =
            devices.enrol(&fixture.ada, &secret, &code, " My\n phone ", EnrolmentScope::FirstDevice).await;
        assert_eq!(enrolled.unwrap().unwrap().kind(), CodeKind::Totp);
        let listed = devices.list(&fixture.ada).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].name, "My phone");
        assert_eq!(listed[0].created_at, fixture.clock.now());
        assert_eq!(listed[0].last_used_at, Some(fixture.clock.now()));
        assert_eq!(devices.count(&fixture.bob).await.unwrap(), 0);
    }

    async fn one_secret_makes_one_device(on: On) {
        let fixture = Fixture::new(on).await;
        let (devices, secret) = (fixture.devices(), TotpSecret::generate(&OsRandom));
        let code = secret.code_at(fixture.clock.now());
        let enrol = |user, name| devices.enrol(user, &secret, &code, name, EnrolmentScope::AnyDevice);
        let ada = &fixture.ada;
        let at_once = [enrol(ada, "A"), enrol(ada, "B"), enrol(ada, "C"), enrol(ada, "D")];
        let enrolled = futures_util::future::join_all(at_once).await.into_iter().map(Result::unwrap);
        assert_eq!(enrolled.flatten().count(), 1);
        assert_eq!(enrol(ada, "E").await.unwrap(), Err(EnrolRefusal::AlreadyEnrolled));
        assert_eq!(devices.count(ada).await.unwrap(), 1);
        enrol(&fixture.bob, "A").await.unwrap().unwrap();
    }

    async fn devices_are_added_a_few_an_hour_and_no_more_than_ten(on: On) {
        let fixture = Fixture::new(on).await;
        let devices = fixture.devices();
        let enrol = async |name: String| {
            let secret = TotpSecret::generate(&OsRandom);
            let code = secret.code_at(fixture.clock.now());
            devices.enrol(&fixture.ada, &secret, &code, &name, EnrolmentScope::AnyDevice).await.unwrap().err()
        };
        for number in 0..MOST {
            if number > 0 && number % MOST_IN_AN_HOUR == 0 {
                assert_eq!(enrol(format!("{number}")).await, Some(EnrolRefusal::TooSoon));
                fixture.clock.advance(Duration::from_hours(1));
            }
            assert_eq!(enrol(format!("{number}")).await, None);
        }
        for _ in 0..2 {
            assert_eq!(enrol("another".into()).await, Some(EnrolRefusal::TooMany));
            fixture.clock.advance(Duration::from_hours(24));
        }
        // Removing one makes room.
        let oldest = devices.list(&fixture.ada).await.unwrap().swap_remove(0);
        devices.remove(&fixture.ada, &oldest.id).await.unwrap();
        assert_eq!(enrol("another".into()).await, None);
    }

    async fn who_has_a_device_does_not_enrol_a_first_one(on: On) {
        let fixture = Fixture::new(on).await;
        fixture.enrol(&fixture.ada, "Phone").await;
        let secret = TotpSecret::generate(&OsRandom);
        let code = secret.code_at(fixture.clock.now());
        let devices = fixture.devices();
        for (enrolment, refusal) in [
            (EnrolmentScope::FirstDevice, Some(EnrolRefusal::AlreadyEnrolled)),
            (EnrolmentScope::AnyDevice, None),
        ] {
            let verdict = devices.enrol(&fixture.ada, &secret, &code, "Tablet", enrolment).await.unwrap();
            assert_eq!(verdict.err(), refusal);
        }
        assert_eq!(names(&fixture, &fixture.ada).await, ["Phone", "Tablet"]);
    }

    async fn of_many_first_devices_at_once_one_is_enrolled(on: On) {
        let fixture = Fixture::new(on).await;
        let mut enrolments = tokio::task::JoinSet::new();
        for number in 0..20 {
            let (devices, user) = (fixture.devices(), fixture.ada.clone());
            let now = fixture.clock.now();
            enrolments.spawn(async move {
                let secret = TotpSecret::generate(&OsRandom);
                let (code, name) = (secret.code_at(now), format!("Phone {number}"));
                devices.enrol(&user, &secret, &code, &name, EnrolmentScope::FirstDevice).await.unwrap()
            });
        }
        let verdicts = enrolments.join_all().await;
        assert_eq!(verdicts.iter().filter(|verdict| verdict.is_ok()).count(), 1);
        assert_eq!(fixture.devices().count(&fixture.ada).await.unwrap(), 1);
        assert_eq!(fixture.recovery_codes().remaining(&fixture.ada).await.unwrap(), 10);
    }

    async fn a_name_is_needed_and_tells_devices_apart(on: On) {
        let fixture = Fixture::new(on).await;
        fixture.enrol(&fixture.ada, "Phone").await;
        let secret = TotpSecret::generate(&OsRandom);
        let code = secret.code_at(fixture.clock.now());
        for (name, refusal) in [
            ("", EnrolRefusal::NameMissing),
            (" \t\0\n", EnrolRefusal::NameMissing),
            (&*"ß".repeat(65), EnrolRefusal::NameTooLong),
            (" Phone ", EnrolRefusal::NameTaken),
        ] {
            let verdict =
                fixture.devices().enrol(&fixture.ada, &secret, &code, name, EnrolmentScope::AnyDevice).await;
            assert_eq!(verdict.unwrap().unwrap_err(), refusal, "{name:?}");
        }
        assert_eq!(names(&fixture, &fixture.ada).await, ["Phone"]);
        // Another user's names do not matter.
        fixture.enrol(&fixture.bob, "Phone").await;
    }

    async fn removing_the_last_device_removes_the_codes_too(on: On) {
        let fixture = Fixture::new(on).await;
        fixture.enrol(&fixture.ada, "Phone").await;
        fixture.enrol(&fixture.ada, "Tablet").await;
        fixture.enrol(&fixture.bob, "Phone").await;
        let devices = fixture.devices();
        let ids: Vec<_> =
            devices.list(&fixture.ada).await.unwrap().into_iter().map(|device| device.id).collect();
        let before = fixture.database.latest_change().await.unwrap();
        assert!(!devices.remove(&fixture.bob, &ids[0]).await.unwrap());
        assert!(!devices.remove(&fixture.ada, "no such device").await.unwrap());
        assert_eq!(fixture.database.latest_change().await.unwrap(), before);

        assert!(devices.remove(&fixture.ada, &ids[0]).await.unwrap());
        assert_eq!(fixture.recovery_codes().remaining(&fixture.ada).await.unwrap(), 10);
        assert!(devices.remove(&fixture.ada, &ids[1]).await.unwrap());
        assert_eq!(fixture.recovery_codes().remaining(&fixture.ada).await.unwrap(), 0);
        assert!(fixture.recovery_codes().unseen(&fixture.ada).await.unwrap().is_none());
        assert!(!devices.remove(&fixture.ada, &ids[1]).await.unwrap());
        let (_, changes) = fixture.database.changes_after(before).await.unwrap();
        assert_eq!(changes.len(), 2);
        assert!(changes.iter().all(|change| *change == Change::User(fixture.ada.to_string())));
        assert_eq!(fixture.recovery_codes().remaining(&fixture.bob).await.unwrap(), 10);
    }

    async fn a_removed_user_leaves_nothing_behind(on: On) {
        let fixture = Fixture::new(on).await;
        fixture.enrol(&fixture.ada, "Phone").await;
        fixture.users.remove(&fixture.ada).await.unwrap();
        for query in [
            "SELECT COUNT(*) FROM devices",
            "SELECT COUNT(*) FROM second_factors",
            "SELECT COUNT(*) FROM recovery_codes",
        ] {
            assert_eq!(fixture.number(query).await, 0, "{query}");
        }
        let secret = TotpSecret::generate(&OsRandom);
        let code = secret.code_at(fixture.clock.now());
        let devices = fixture.devices();
        let enrolled =
            devices.enrol(&fixture.ada, &secret, &code, "Phone", EnrolmentScope::FirstDevice).await;
        assert!(enrolled.is_err());
    }

    async fn a_user_can_be_removed_while_they_enrol(on: On) {
        let fixture = Fixture::new(on).await;
        for round in 0..20 {
            let new = NewUser { email: format!("{round}@example.com"), ..NewUser::default() };
            let user = fixture.users.add(new).await.unwrap().id;
            fixture.enrol(&user, "Phone").await;
            let now = fixture.clock.now();
            let mut enrolments = tokio::task::JoinSet::new();
            for number in 0..4 {
                let (devices, user) = (fixture.devices(), user.clone());
                enrolments.spawn(async move {
                    let secret = TotpSecret::generate(&OsRandom);
                    let (code, name) = (secret.code_at(now), format!("Phone {number}"));
                    // The database refuses it if the user is gone.
                    drop(devices.enrol(&user, &secret, &code, &name, EnrolmentScope::AnyDevice).await);
                });
            }
            tokio::task::yield_now().await;
            assert!(fixture.users.remove(&user).await.unwrap());
            enrolments.join_all().await;
        }
        assert_eq!(fixture.number("SELECT COUNT(*) FROM devices").await, 0);
        assert_eq!(fixture.number("SELECT COUNT(*) FROM second_factors").await, 0);
    }

    async fn an_enrolment_that_breaks_off_leaves_nothing_behind(on: On) {
        let fixture = Fixture::new(on).await;
        fixture.break_off("INSERT ON changes").await;
        let secret = TotpSecret::generate(&OsRandom);
        let code = secret.code_at(fixture.clock.now());
        let devices = fixture.devices();
        let broken = devices.enrol(&fixture.ada, &secret, &code, "Phone", EnrolmentScope::FirstDevice).await;
        assert!(broken.is_err());
        assert_eq!(devices.count(&fixture.ada).await.unwrap(), 0);
        assert_eq!(fixture.number("SELECT COUNT(*) FROM second_factors").await, 0);
        assert_eq!(fixture.recovery_codes().remaining(&fixture.ada).await.unwrap(), 0);
        fixture.mend().await;
        let enrolled =
            devices.enrol(&fixture.ada, &secret, &code, "Phone", EnrolmentScope::FirstDevice).await;
        assert!(enrolled.unwrap().is_ok());
    }
}
