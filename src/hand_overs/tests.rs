//! Codes that are shown too late, twice or elsewhere, and what the store knows of them.

use super::*;
use crate::{
    clock::ManualClock,
    database::test_database::{On, TestDatabase},
    random::OsRandom,
};

const SITE: &str = "crm.example.com";

struct Scene {
    _database: TestDatabase,
    all: HandOvers,
    clock: Arc<ManualClock>,
    browser: TokenHash,
    session: Token,
}

impl Scene {
    async fn new() -> Self {
        Self::on(On::Sqlite).await
    }

    async fn on(kind: On) -> Self {
        let (guard, database) = TestDatabase::new(kind).await;
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000)));
        let sealer = Sealer::from_key(&[1; 32]);
        let all = HandOvers::new(database, &sealer, clock.clone(), Arc::new(OsRandom));
        let browser = Token::generate(&OsRandom).hash();
        Self { _database: guard, all, clock, browser, session: Token::generate(&OsRandom) }
    }

    async fn make(&self) -> Token {
        let Self { browser, session, .. } = self;
        self.all.make(HandOver { site: SITE, browser, session, target: "/a?b=c" }).await.unwrap()
    }

    async fn take(&self, code: &Token) -> Option<Arrived> {
        self.all.take(code, &self.browser, SITE).await.unwrap()
    }
}

#[tokio::test]
async fn a_code_is_good_once_and_for_what_it_was_made() {
    let scene = Scene::new().await;
    let code = scene.make().await;
    let arrived = Arrived { session: scene.session.clone(), target: "/a?b=c".to_owned() };
    assert_eq!(scene.take(&code).await, Some(arrived));
    assert_eq!(scene.take(&code).await, None, "a second time");
    assert_eq!(scene.take(&Token::generate(&OsRandom)).await, None, "one that nobody made");

    let other = Token::generate(&OsRandom).hash();
    for (browser, site) in [(&other, SITE), (&scene.browser, "iot.example.com"), (&other, "")] {
        let code = scene.make().await;
        assert_eq!(scene.all.take(&code, browser, site).await.unwrap(), None, "{browser:?} {site}");
        assert_eq!(scene.take(&code).await, None, "it has been shown in the wrong place");
    }
    for (waits, is_good) in [(Duration::from_millis(29_999), true), (LIFETIME, false)] {
        let code = scene.make().await;
        scene.clock.advance(waits);
        assert_eq!(scene.take(&code).await.is_some(), is_good, "{waits:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_show_a_code_at_once_one_arrives() {
    for on in [On::Sqlite, On::Postgres] {
        let scene = Scene::on(on).await;
        let code = scene.make().await;
        let arrivals = futures_util::future::join_all((0..20).map(|_| {
            let (all, code, browser) = (scene.all.clone(), code.clone(), scene.browser);
            tokio::spawn(async move { all.take(&code, &browser, SITE).await.unwrap().is_some() })
        }));
        let arrived = arrivals.await.into_iter().filter(|arrived| *arrived.as_ref().unwrap()).count();
        assert_eq!(arrived, 1);
    }
}

#[tokio::test]
async fn nobody_reads_a_session_out_of_the_store() {
    let scene = Scene::new().await;
    let code = scene.make().await;
    let row = sqlx::query("SELECT * FROM hand_overs").fetch_one(&scene.all.database).await.unwrap();
    let record: Vec<u8> = row.get("record");
    let has = |secret: &[u8]| record.windows(secret.len()).any(|window| window == secret);
    assert!(!has(scene.session.as_bytes()) && !has(code.as_bytes()) && !has(b"/a?b=c"));
    assert_ne!(row.get::<String, _>("id"), crate::secret::hex(code.as_bytes()));
    // Stored under the name of another code it does not open.
    let other = scene.all.codes.generate(&OsRandom);
    sqlx::query("UPDATE hand_overs SET id = $1")
        .bind(other.hash().to_hex())
        .execute(&scene.all.database)
        .await
        .unwrap();
    assert_eq!(scene.take(&other).await, None);
}

#[tokio::test]
async fn where_a_session_was_used_is_kept_as_long_as_the_session() {
    let scene = Scene::new().await;
    let [one, two] = [1, 2].map(|byte| TokenHash::from_bytes([byte; 32]));
    let end = scene.clock.now().plus(Duration::from_mins(1));
    for (session, site) in
        [(&one, "b.example"), (&one, "a.example"), (&one, "b.example"), (&two, "a.example")]
    {
        scene.all.note(session, site, end).await.unwrap();
        scene.clock.advance(Duration::from_millis(1));
    }
    let sites = scene.all.sites_of(&[one, two, TokenHash::from_bytes([3; 32])]).await.unwrap();
    assert_eq!(sites[&one], ["b.example", "a.example"]);
    assert_eq!(sites[&two], ["a.example"]);
    assert_eq!(sites.len(), 2);
    scene.make().await;
    scene.clock.advance(Duration::from_mins(1));
    scene.all.purge().await.unwrap();
    assert!(scene.all.sites_of(&[one, two]).await.unwrap().is_empty());
    assert!(
        sqlx::query("SELECT id FROM hand_overs").fetch_all(&scene.all.database).await.unwrap().is_empty()
    );
}

#[tokio::test]
async fn a_code_that_nobody_made_costs_the_store_nothing() {
    let scene = Scene::new().await;
    let code = scene.make().await;
    sqlx::query("DROP TABLE hand_overs").execute(&scene.all.database).await.unwrap();
    for place in 0..TOKEN {
        let mut bytes = *code.as_bytes();
        bytes[place] ^= 1;
        assert_eq!(scene.take(&Token::from_bytes(bytes)).await, None, "{place}");
    }
    assert_eq!(scene.take(&Token::generate(&OsRandom)).await, None);
    assert!(scene.all.take(&code, &scene.browser, SITE).await.is_err(), "its own is asked for");
}
