//! The fixture of the credential tests: a store with two users, and a manual clock.

use std::{sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, Row as _};

use crate::{
    clock::{Clock as _, ManualClock, Timestamp, Watermark},
    credentials::{Config, Devices, EnrolmentScope, RecoveryCodes, SecondFactor, TotpSecret},
    database::{
        Database,
        test_database::{On, TestDatabase},
    },
    random::OsRandom,
    sealing::Sealer,
    users::{NewUser, UserId, Users},
};

pub(super) struct Fixture {
    pub(super) database: Database,
    pub(super) clock: Arc<ManualClock>,
    watermark: Arc<Watermark>,
    pub(super) sealer: Arc<Sealer>,
    pub(super) users: Users,
    pub(super) config: Config,
    pub(super) ada: UserId,
    pub(super) bob: UserId,
    on: On,
    _store: TestDatabase,
}

/// The lifetime of a code.
pub(super) const STEP: Duration = Duration::from_secs(30);

impl Fixture {
    pub(super) async fn new(on: On) -> Self {
        let (store, database) = TestDatabase::new(on).await;
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000)));
        let users = Users::new(database.clone(), clock.clone(), Arc::new(OsRandom));
        let mut ids = Vec::new();
        for email in ["ada@example.com", "bob@example.com"] {
            let new = NewUser { email: email.to_owned(), ..NewUser::default() };
            ids.push(users.add(new).await.unwrap().id);
        }
        let (bob, ada) = (ids.pop().unwrap(), ids.pop().unwrap());
        let sealer = Arc::new(Sealer::from_key(&[7; 32]));
        let config = Config {
            password_min_length: 15,
            password_max_length: 256,
            issuer: "IoT Connectivity".to_owned(),
        };
        let watermark = Arc::new(Watermark::new(clock.clone()));
        Self { database, clock, watermark, sealer, config, users, ada, bob, on, _store: store }
    }

    pub(super) fn devices(&self) -> Devices {
        Devices::new(
            self.database.clone(),
            self.sealer.clone(),
            self.clock.clone(),
            self.watermark.clone(),
            Arc::new(OsRandom),
        )
    }

    pub(super) fn recovery_codes(&self) -> RecoveryCodes {
        RecoveryCodes::new(self.database.clone(), self.sealer.clone(), self.clock.clone(), Arc::new(OsRandom))
    }

    pub(super) fn second_factor(&self) -> SecondFactor {
        SecondFactor::new(
            self.database.clone(),
            self.sealer.clone(),
            self.clock.clone(),
            self.watermark.clone(),
        )
    }

    /// Enrols a device with a correct clock, and lets two steps pass, so that no code is used up.
    pub(super) async fn enrol(&self, user: &UserId, name: &str) -> TotpSecret {
        let secret = TotpSecret::generate(&OsRandom);
        let code = secret.code_at(self.clock.now());
        let enrolled = self.devices().enrol(user, &secret, &code, name, EnrolmentScope::AnyDevice).await;
        enrolled.unwrap().unwrap();
        self.clock.advance(2 * STEP);
        secret
    }

    /// A number from the store.
    pub(super) async fn number(&self, query: &'static str) -> i64 {
        sqlx::query(query).fetch_one(&self.database).await.unwrap().try_get(0).unwrap()
    }

    /// Changes the store directly.
    pub(super) async fn tamper(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.database).await.unwrap();
    }

    /// Makes every change of this kind fail, such as `INSERT ON changes`.
    pub(super) async fn break_off(&self, at: &str) {
        let statements = match self.on {
            On::Sqlite => {
                format!("CREATE TRIGGER stop BEFORE {at} BEGIN SELECT RAISE(ABORT, 'on purpose'); END")
            }
            On::Postgres => format!(
                "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql \
                 AS $$ BEGIN RAISE EXCEPTION 'on purpose'; END $$; \
                 CREATE TRIGGER stop BEFORE {at} FOR EACH ROW EXECUTE FUNCTION stop()"
            ),
        };
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&self.database).await.unwrap();
    }

    /// Undoes [`Self::break_off`].
    pub(super) async fn mend(&self) {
        let statement = match self.on {
            On::Sqlite => "DROP TRIGGER stop",
            On::Postgres => "DROP FUNCTION stop CASCADE",
        };
        sqlx::raw_sql(statement).execute(&self.database).await.unwrap();
    }
}
