//! Signing keys in a real store, with one gateway and with several.

use std::{sync::Arc, time::Duration};

use sqlx::Row as _;

use super::{HANDOVER, NOTICE, Rotation, SigningKeys, State};
use crate::{
    audit::Audit,
    clock::Timestamp,
    database::{
        Database,
        test_database::{On, TestDatabase, on_each_database},
    },
    sealing::Sealer,
};

pub(super) const START: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
pub(super) const ROTATION: Duration = Duration::from_hours(30 * 24);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);

pub(super) struct KeyFixture {
    pub(super) sealer: Arc<Sealer>,
    database: Database,
    _store: TestDatabase,
}

impl KeyFixture {
    pub(super) async fn new(on: On) -> Self {
        let (store, database) = TestDatabase::new(on).await;
        Self { sealer: Arc::new(Sealer::from_key(&[7; 32])), database, _store: store }
    }

    /// The keys of one more gateway.
    pub(super) fn keys(&self) -> SigningKeys {
        let audit = Arc::new(Audit::new(Box::new(|_| ())));
        SigningKeys::new(self.database.clone(), Arc::clone(&self.sealer), audit)
    }

    async fn change(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.database).await.unwrap();
    }

    async fn stored(&self) -> i64 {
        let row = sqlx::query("SELECT COUNT(*) AS n FROM signing_keys").fetch_one(&self.database);
        row.await.unwrap().try_get("n").unwrap()
    }
}

on_each_database![
    the_first_key_signs_at_once_and_outlives_a_restart,
    gateways_that_make_a_key_at_the_same_time_make_one,
    no_key_signs_before_every_gateway_has_published_it_for_an_hour,
    a_key_is_erased_when_nobody_needs_it_any_more,
    compromised_keys_are_gone_everywhere_after_the_handover,
    a_store_that_fails_leaves_the_keys_in_memory,
    a_key_that_somebody_put_into_the_store_is_neither_used_nor_published,
    private_keys_are_sealed_in_the_store,
];

fn signer(keys: &SigningKeys, now: Timestamp) -> String {
    keys.signer(now).unwrap().key.kid().to_owned()
}

/// The names of the published keys.
fn published(keys: &SigningKeys, now: Timestamp) -> Vec<String> {
    let listed = serde_json::to_value(keys.public(now)).unwrap();
    let kid = |key: &serde_json::Value| key["kid"].as_str().unwrap().to_owned();
    listed["keys"].as_array().unwrap().iter().map(kid).collect()
}

async fn the_first_key_signs_at_once_and_outlives_a_restart(on: On) {
    let fixture = KeyFixture::new(on).await;
    let keys = fixture.keys();
    keys.keep(START, ROTATION).await.unwrap();
    let first = signer(&keys, START);
    assert_eq!(published(&keys, START), std::slice::from_ref(&first));
    let again = fixture.keys();
    assert!(again.signer(START).is_none(), "nothing is known before it is read");
    again.keep(START.plus(DAY), ROTATION).await.unwrap();
    assert_eq!(signer(&again, START.plus(DAY)), first);
    assert_eq!(fixture.stored().await, 1);
}

async fn gateways_that_make_a_key_at_the_same_time_make_one(on: On) {
    let fixture = KeyFixture::new(on).await;
    let change = START.plus(ROTATION);
    let gateways: Vec<_> = std::iter::repeat_with(|| Arc::new(fixture.keys())).take(8).collect();
    for (now, expected) in [(START, 1), (change.minus(NOTICE), 2)] {
        let mut keeping = tokio::task::JoinSet::new();
        for keys in &gateways {
            let keys = Arc::clone(keys);
            keeping.spawn(async move { keys.keep(now, ROTATION).await.unwrap() });
        }
        keeping.join_all().await;
        assert_eq!(fixture.stored().await, expected);
        let same = published(&gateways[0], now);
        assert!(gateways.iter().all(|keys| published(keys, now) == same));
    }
    let before = signer(&gateways[0], change.minus(SECOND));
    for keys in &gateways {
        assert_eq!(signer(keys, change.minus(SECOND)), before);
        assert_ne!(signer(keys, change), before);
        assert_eq!(signer(keys, change), signer(&gateways[0], change));
    }
}

async fn no_key_signs_before_every_gateway_has_published_it_for_an_hour(on: On) {
    let fixture = KeyFixture::new(on).await;
    let (one, other) = (fixture.keys(), fixture.keys());
    for keys in [&one, &other] {
        keys.keep(START, ROTATION).await.unwrap();
    }
    let Rotation::Made(term) = one.rotate(START).await.unwrap() else { panic!("there was none yet") };
    assert_eq!(term.signs_from, START.plus(NOTICE));
    for keys in [&one, &other] {
        keys.keep(START.plus(SECOND), ROTATION).await.unwrap();
        assert!(published(keys, START.plus(SECOND)).contains(&term.kid));
        assert_ne!(signer(keys, term.signs_from.minus(SECOND)), term.kid);
        assert_eq!(signer(keys, term.signs_from), term.kid);
    }
    // A repeated request, by any gateway.
    assert_eq!(other.rotate(START.plus(SECOND)).await.unwrap(), Rotation::Waiting(term));
    assert_eq!(fixture.stored().await, 2);
}

async fn a_key_is_erased_when_nobody_needs_it_any_more(on: On) {
    let fixture = KeyFixture::new(on).await;
    let keys = fixture.keys();
    keys.keep(START, ROTATION).await.unwrap();
    let old = signer(&keys, START);
    keys.rotate(START).await.unwrap();
    let unpublished = START.plus(2 * NOTICE);
    for (now, is_published, stored) in
        [(unpublished.minus(SECOND), true, 2), (unpublished, false, 2), (unpublished.plus(DAY), false, 1)]
    {
        keys.keep(now, ROTATION).await.unwrap();
        assert_eq!(published(&keys, now).contains(&old), is_published, "{now}");
        assert_eq!(fixture.stored().await, stored, "{now}");
    }
}

async fn compromised_keys_are_gone_everywhere_after_the_handover(on: On) {
    let fixture = KeyFixture::new(on).await;
    let (one, other) = (fixture.keys(), fixture.keys());
    one.keep(START, ROTATION).await.unwrap();
    one.rotate(START).await.unwrap();
    let new = one.replace_all(START).await.unwrap();
    let over = START.plus(HANDOVER);
    assert_eq!(new.signs_from, over);
    for keys in [&one, &other] {
        keys.keep(START.plus(SECOND), ROTATION).await.unwrap();
        assert_eq!(published(keys, START.plus(SECOND)).len(), 3);
        assert_ne!(signer(keys, over.minus(SECOND)), new.kid);
        assert_eq!(signer(keys, over), new.kid);
        assert_eq!(published(keys, over), std::slice::from_ref(&new.kid));
    }
    let states: Vec<_> =
        one.list(over).await.unwrap().into_iter().map(|key| (key.term.kid, key.state)).collect();
    assert_eq!(states.iter().filter(|(_, state)| *state == State::Retired).count(), 2);
    assert!(states.contains(&(new.kid.clone(), State::Signing)));

    // An operator in a hurry repeats it.
    let newer = other.replace_all(START.plus(5 * SECOND)).await.unwrap();
    one.keep(over, ROTATION).await.unwrap();
    assert_eq!(signer(&one, over), new.kid);
    assert_eq!(signer(&one, over.plus(5 * SECOND)), newer.kid);
    assert_eq!(published(&one, over.plus(5 * SECOND)), [newer.kid]);
}

async fn a_store_that_fails_leaves_the_keys_in_memory(on: On) {
    let fixture = KeyFixture::new(on).await;
    let keys = fixture.keys();
    keys.keep(START, ROTATION).await.unwrap();
    keys.rotate(START).await.unwrap();
    keys.keep(START, ROTATION).await.unwrap();
    let (first, generation) = (signer(&keys, START), keys.generation());
    fixture.change("ALTER TABLE signing_keys RENAME TO gone").await;
    let later = START.plus(NOTICE);
    assert!(keys.keep(later, ROTATION).await.is_err());
    assert_eq!((signer(&keys, START), keys.generation()), (first, generation));
    assert_ne!(signer(&keys, later), signer(&keys, START), "the change is made without the store");
    assert_eq!(published(&keys, later).len(), 2);
    fixture.change("ALTER TABLE gone RENAME TO signing_keys").await;
    keys.keep(later, ROTATION).await.unwrap();
}

async fn a_key_that_somebody_put_into_the_store_is_neither_used_nor_published(on: On) {
    let fixture = KeyFixture::new(on).await;
    let keys = fixture.keys();
    keys.keep(START, ROTATION).await.unwrap();
    let good = signer(&keys, START);
    let strangers = KeyFixture { sealer: Arc::new(Sealer::from_key(&[8; 32])), ..KeyFixture::new(on).await };
    strangers.keys().keep(START, ROTATION).await.unwrap();
    let row = sqlx::query("SELECT kid, secret FROM signing_keys").fetch_one(&strangers.database);
    let row = row.await.unwrap();
    let (kid, sealed): (String, Vec<u8>) = (row.try_get("kid").unwrap(), row.try_get("secret").unwrap());
    let insert = "INSERT INTO signing_keys (kid, secret, created_at, signs_from) VALUES ($1, $2, 0, $3)";
    let later = START.plus(SECOND);
    sqlx::query(insert)
        .bind(kid)
        .bind(sealed)
        .bind(later.unix_millis())
        .execute(&fixture.database)
        .await
        .unwrap();
    // A key of ours does not open under another name either.
    sqlx::query(
        "INSERT INTO signing_keys SELECT 'renamed', secret, created_at, signs_from, NULL FROM signing_keys",
    )
    .execute(&fixture.database)
    .await
    .unwrap_err();
    let copy = "INSERT INTO signing_keys SELECT 'renamed', secret, created_at, signs_from + 1, NULL \
                FROM signing_keys WHERE kid = $1";
    sqlx::query(copy).bind(good.clone()).execute(&fixture.database).await.unwrap();
    keys.keep(later, ROTATION).await.unwrap();
    assert_eq!((signer(&keys, later), published(&keys, later)), (good.clone(), vec![good]));

    // If no key opens, there is a new one.
    fixture.change("UPDATE signing_keys SET secret = substr(secret, 1, 1)").await;
    let fresh = fixture.keys();
    fresh.keep(later, ROTATION).await.unwrap();
    assert_eq!(published(&fresh, later), [signer(&fresh, later)]);
}

async fn private_keys_are_sealed_in_the_store(on: On) {
    let fixture = KeyFixture::new(on).await;
    let keys = fixture.keys();
    keys.keep(START, ROTATION).await.unwrap();
    let key = keys.signer(START).unwrap().key;
    let private = key.private().unwrap();
    let row = sqlx::query("SELECT secret FROM signing_keys").fetch_one(&fixture.database).await.unwrap();
    let stored: Vec<u8> = row.try_get("secret").unwrap();
    let hidden = &private.as_ref()[8..32];
    assert!(!stored.windows(hidden.len()).any(|window| window == hidden));
    assert!(fixture.sealer.open(&["signing_keys", key.kid(), "secret"], &stored).is_ok());
}
