//! What the tests of all credentials start from: a store with two users, and a clock turned by hand.

use std::sync::Arc;

use crate::{
    clock::{ManualClock, Timestamp},
    credentials::Config,
    database::{self, Database},
    random::OsRandom,
    sealing::Sealer,
    users::{NewUser, UserId, Users},
};

pub(super) struct Fixture {
    pub(super) database: Database,
    pub(super) clock: Arc<ManualClock>,
    pub(super) sealer: Arc<Sealer>,
    pub(super) users: Users,
    pub(super) config: Config,
    pub(super) ada: UserId,
    pub(super) bob: UserId,
    _folder: tempfile::TempDir,
}

impl Fixture {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("credentials.db").display());
        let database = Database::open(&database::Config { url }).await.unwrap();
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
        Self { database, clock, sealer, config, users, ada, bob, _folder: folder }
    }
}
