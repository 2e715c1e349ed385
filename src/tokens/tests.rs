//! The table of tokens in a real store, and the cache in front of it.

use std::sync::Arc;

use super::*;
use crate::{
    clock::ManualClock,
    database::{
        Change, Database,
        test_database::{On, TestDatabase, on_each_database},
    },
    random::OsRandom,
    users::NewUser,
};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_000_000);
const HOUR: Duration = Duration::from_hours(1);

on_each_database![
    a_token_is_stored_as_a_hash_and_read_back_with_its_limits,
    of_many_who_make_one_of_a_name_at_once_one_does,
    a_replaced_token_lasts_for_the_overlap_and_no_longer_than_it_did,
    revoking_ends_every_token_of_a_name_and_is_announced,
    tokens_go_with_their_user_and_when_long_over,
    a_last_use_never_goes_back,
];

struct Scene {
    _store: TestDatabase,
    database: Database,
    clock: Arc<ManualClock>,
    tokens: TokenStore,
}

impl Scene {
    async fn new(on: On) -> Self {
        let (store, database) = TestDatabase::new(on).await;
        let clock = Arc::new(ManualClock::at(NOW));
        let tokens = TokenStore::new(database.clone(), clock.clone(), Arc::new(OsRandom));
        Self { _store: store, database, clock, tokens }
    }
}

fn named(name: &str) -> NewToken {
    NewToken {
        name: name.to_owned(),
        holder: Holder::Service("ci".to_owned()),
        scope: Scope::default(),
        expires_at: None,
    }
}

async fn a_token_is_stored_as_a_hash_and_read_back_with_its_limits(on: On) {
    let scene = Scene::new(on).await;
    let scope: Scope = serde_json::from_str(
        r#"{"paths":["/a/*"],"methods":["GET"],"networks":["10.0.0.0/8"],"groups":["ops"],"sites":["iot.example.com"]}"#,
    )
    .unwrap();
    let new = NewToken { scope, expires_at: Some(NOW.plus(HOUR)), ..named("t") };
    let (text, made) = scene.tokens.create(new).await.unwrap();
    let token = TokenText::parse(text.as_bytes()).unwrap();
    assert_eq!((token.id(), token.hash()), (&*made.id, made.hash));
    assert_eq!(scene.tokens.find(&made.id).await.unwrap(), Some(made.clone()));
    assert_eq!(scene.tokens.list().await.unwrap(), std::slice::from_ref(&made));
    assert_eq!(scene.tokens.find("0000000000").await.unwrap(), None);
    let over = |after| made.is_over(NOW.plus(after));
    assert_eq!((over(Duration::ZERO), over(HOUR)), (None, Some(TokenRefusal::Expired)));
    for bad in ["", "-a", "a b", "a/b", "é", &"a".repeat(65)] {
        assert!(matches!(scene.tokens.create(named(bad)).await, Err(TokensError::Name(_))), "{bad}");
        let service = NewToken { holder: Holder::Service(bad.to_owned()), ..named("ok") };
        assert!(matches!(scene.tokens.create(service).await, Err(TokensError::Service(_))), "{bad}");
    }
    let service = NewToken { holder: Holder::Service("CI".to_owned()), ..named("ok") };
    assert!(matches!(scene.tokens.create(service).await, Err(TokensError::Service(_))));
    let limited = Scope { paths: vec!["nowhere".to_owned()], ..Scope::default() };
    let limited = NewToken { scope: limited, ..named("ok") };
    assert!(matches!(scene.tokens.create(limited).await, Err(TokensError::Scope(_))));
    assert_eq!(scene.tokens.list().await.unwrap().len(), 1);
}

async fn of_many_who_make_one_of_a_name_at_once_one_does(on: On) {
    let scene = Scene::new(on).await;
    let made = futures_util::future::join_all((0..8).map(|_| scene.tokens.create(named("t")))).await;
    let (made, refused): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (1, 7));
    assert!(refused.iter().all(|refused| matches!(refused, Err(TokensError::Exists(_)))), "{refused:?}");
}

async fn a_replaced_token_lasts_for_the_overlap_and_no_longer_than_it_did(on: On) {
    let scene = Scene::new(on).await;
    let short = NewToken { expires_at: Some(NOW.plus(HOUR)), ..named("t") };
    let (_, first) = scene.tokens.create(short).await.unwrap();
    scene.clock.advance(HOUR / 4);
    let (_, second) = scene.tokens.rotate("t", None, 2 * HOUR).await.unwrap();
    scene.clock.advance(HOUR / 4);
    let (_, third) = scene.tokens.rotate("t", None, HOUR).await.unwrap();
    let named = scene.tokens.named("t").await.unwrap();
    let ends: Vec<_> =
        named.iter().map(|record| (record.id.clone(), record.is_current, record.expires_at)).collect();
    let expected = [
        (third.id, true, None),
        (second.id, false, Some(NOW.plus(HOUR / 2 + HOUR))),
        (first.id, false, Some(NOW.plus(HOUR))),
    ];
    assert_eq!(ends, expected);
    assert!(matches!(scene.tokens.rotate("other", None, HOUR).await, Err(TokensError::NoToken(_))));
}

async fn revoking_ends_every_token_of_a_name_and_is_announced(on: On) {
    let scene = Scene::new(on).await;
    let (_, first) = scene.tokens.create(named("t")).await.unwrap();
    let (_, second) = scene.tokens.rotate("t", None, HOUR).await.unwrap();
    let before = scene.database.latest_change().await.unwrap();
    assert_eq!(scene.tokens.revoke("t").await.unwrap(), 2);
    let (_, mut heard) = scene.database.changes_after(before).await.unwrap();
    let mut announced = [first, second].map(|record| Change::Token(record.id));
    heard.sort_by_key(|change| format!("{change:?}"));
    announced.sort_by_key(|change| format!("{change:?}"));
    assert_eq!(heard, announced);
    for record in scene.tokens.named("t").await.unwrap() {
        assert_eq!(record.is_over(NOW), Some(TokenRefusal::Revoked));
    }
    assert!(matches!(scene.tokens.revoke("t").await, Err(TokensError::Revoked(_))));
    assert!(matches!(scene.tokens.revoke("other").await, Err(TokensError::NoToken(_))));
    assert!(matches!(scene.tokens.rotate("t", None, HOUR).await, Err(TokensError::NoToken(_))));
    // The name is free again, and its new token is a different one.
    let (_, again) = scene.tokens.create(named("t")).await.unwrap();
    assert_eq!(scene.tokens.named("t").await.unwrap()[0], again);
    assert_eq!(scene.tokens.revoke("t").await.unwrap(), 1);
}

async fn tokens_go_with_their_user_and_when_long_over(on: On) {
    let scene = Scene::new(on).await;
    let users = Users::new(scene.database.clone(), scene.clock.clone(), Arc::new(OsRandom));
    let ada = users.add(NewUser { email: "ada@example.com".into(), ..NewUser::default() }).await.unwrap();
    scene.tokens.create(NewToken { holder: Holder::User(ada.id.clone()), ..named("ada") }).await.unwrap();
    scene.tokens.create(named("revoked")).await.unwrap();
    scene.tokens.revoke("revoked").await.unwrap();
    scene.tokens.create(named("replaced")).await.unwrap();
    scene.tokens.rotate("replaced", None, Duration::ZERO).await.unwrap();
    scene.tokens.create(NewToken { expires_at: Some(NOW), ..named("expired") }).await.unwrap();
    let names = async || {
        let list = scene.tokens.list().await.unwrap();
        list.into_iter().map(|record| record.name).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["ada", "expired", "replaced", "replaced", "revoked"]);
    users.remove(&ada.id).await.unwrap();
    scene.tokens.purge(NOW).await.unwrap();
    assert_eq!(names().await, ["expired", "replaced", "replaced", "revoked"]);
    scene.tokens.purge(NOW.plus(Duration::from_millis(1))).await.unwrap();
    // An expired token keeps its name, so that it can be rotated.
    assert_eq!(names().await, ["expired", "replaced"]);
}

async fn a_last_use_never_goes_back(on: On) {
    let scene = Scene::new(on).await;
    let (_, made) = scene.tokens.create(named("t")).await.unwrap();
    for (at, last) in [(HOUR, HOUR), (HOUR / 2, HOUR), (2 * HOUR, 2 * HOUR)] {
        scene.tokens.note_use(&made.id, NOW.plus(at)).await.unwrap();
        let found = scene.tokens.find(&made.id).await.unwrap().unwrap();
        assert_eq!(found.last_used_at, Some(NOW.plus(last)));
    }
}
