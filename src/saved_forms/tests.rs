//! Forms saved and given out, with a manual clock.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::join_all};
use tokio::task::unconstrained;

use super::{
    Config, FormClaim, FormId, Found, LIFETIME, MEMORY, NoRoom, Room, SavedForm, SavedForms, SavedHead,
};
use crate::{
    clock::{ManualClock, Timestamp},
    database::{
        Database,
        test_database::{On, TestDatabase, on_each_database},
    },
    random::OsRandom,
    sealing::Sealer,
    secret::TokenHash,
    throttle::Networks,
    users::UserId,
};

const BROWSER: TokenHash = TokenHash::from_bytes([1; 32]);
const OTHER: TokenHash = TokenHash::from_bytes([2; 32]);

struct Fixture {
    forms: SavedForms,
    clock: Arc<ManualClock>,
    database: Database,
    _store: TestDatabase,
}

async fn fixture(on: On) -> Fixture {
    let (store, database) = TestDatabase::new(on).await;
    let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000)));
    let sealer = Arc::new(Sealer::from_key(&[7; 32]));
    let forms =
        SavedForms::new(Config { max: 1000 }, database.clone(), sealer, clock.clone(), Arc::new(OsRandom));
    Fixture { forms, clock, database, _store: store }
}

fn form(body: &'static [u8]) -> SavedForm {
    let head = SavedHead {
        target: "/sims".into(),
        content_type: "application/x-www-form-urlencoded".into(),
        referer: None,
    };
    SavedForm { head, body: Bytes::from_static(body) }
}

fn claim<'a>(id: &'a FormId, user: &'a UserId, browser: &'a TokenHash) -> FormClaim<'a> {
    FormClaim { id, user, browser: Some(browser) }
}

async fn a_form_is_given_to_its_user_in_its_browser_once(on: On) {
    let Fixture { forms, _store, .. } = fixture(on).await;
    let ada = UserId::of("ada");
    let id = forms.save(&ada, &BROWSER, &form(b"a=1")).await.unwrap().unwrap();
    let theirs = claim(&id, &ada, &BROWSER);
    assert_eq!(forms.find(FormClaim { browser: None, ..theirs }).await.unwrap(), Found::Nothing);
    assert_eq!(forms.find(claim(&id, &ada, &OTHER)).await.unwrap(), Found::Nothing);
    assert_eq!(forms.take(claim(&id, &ada, &OTHER), "/sims").await.unwrap(), None);
    assert_eq!(forms.take(theirs, "/elsewhere").await.unwrap(), None);
    assert!(matches!(forms.find(theirs).await.unwrap(), Found::Waiting { .. }));

    let takes = join_all((0..8).map(|_| forms.take(theirs, "/sims"))).await;
    let given: Vec<_> = takes.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(given, [form(b"a=1")]);
    assert_eq!(forms.find(theirs).await.unwrap(), Found::Gone);
    // Nothing of it was sent after all.
    forms.put_back(&id).await.unwrap();
    assert_eq!(forms.take(theirs, "/sims").await.unwrap(), Some(form(b"a=1")));
    forms.discard(theirs).await.unwrap();
    forms.put_back(&id).await.unwrap();
    assert_eq!(forms.take(theirs, "/sims").await.unwrap(), None, "there is nothing left in it");
}

async fn somebody_else_in_the_same_browser_gets_nothing_of_a_form_and_changes_nothing(on: On) {
    let Fixture { forms, _store, .. } = fixture(on).await;
    let (ada, bob) = (UserId::of("ada"), UserId::of("bob"));
    let id = forms.save(&ada, &BROWSER, &form(b"a=1")).await.unwrap().unwrap();
    let bobs = claim(&id, &bob, &BROWSER);
    assert_eq!(forms.find(bobs).await.unwrap(), Found::OtherUser);
    assert_eq!(forms.take(bobs, "/sims").await.unwrap(), None);
    forms.discard(bobs).await.unwrap();
    let adas = claim(&id, &ada, &BROWSER);
    assert_eq!(forms.take(adas, "/sims").await.unwrap(), Some(form(b"a=1")));
}

async fn a_form_lasts_for_half_an_hour_and_is_known_for_a_day_more(on: On) {
    let Fixture { forms, clock, database, _store } = fixture(on).await;
    let ada = UserId::of("ada");
    let id = forms.save(&ada, &BROWSER, &form(b"a=1")).await.unwrap().unwrap();
    let theirs = claim(&id, &ada, &BROWSER);
    clock.advance(LIFETIME.checked_sub(Duration::from_millis(1)).unwrap());
    forms.purge().await.unwrap();
    assert!(matches!(forms.find(theirs).await.unwrap(), Found::Waiting { .. }));
    clock.advance(Duration::from_millis(1));
    assert_eq!(forms.find(theirs).await.unwrap(), Found::Gone);
    assert_eq!(forms.take(theirs, "/sims").await.unwrap(), None);
    forms.purge().await.unwrap();
    let row = sqlx::query("SELECT record FROM kept_forms").fetch_one(&database).await.unwrap();
    assert_eq!(sqlx::Row::try_get::<Vec<u8>, _>(&row, "record").unwrap(), b"", "what was in it is gone");
    clock.advance(MEMORY);
    forms.purge().await.unwrap();
    assert_eq!(forms.find(theirs).await.unwrap(), Found::Nothing);
}

async fn a_clock_that_is_set_back_prolongs_no_form(on: On) {
    let Fixture { forms, clock, _store, .. } = fixture(on).await;
    let ada = UserId::of("ada");
    let id = forms.save(&ada, &BROWSER, &form(b"a=1")).await.unwrap().unwrap();
    clock.set(Timestamp::from_unix_seconds(1_799_990_000));
    assert_eq!(forms.find(claim(&id, &ada, &BROWSER)).await.unwrap(), Found::Gone);
}

async fn a_record_that_was_tampered_with_is_gone(on: On) {
    let Fixture { forms, database, _store, .. } = fixture(on).await;
    let (ada, bob) = (UserId::of("ada"), UserId::of("bob"));
    let id = forms.save(&ada, &BROWSER, &form(b"a=1")).await.unwrap().unwrap();
    let second = forms.save(&ada, &BROWSER, &form(b"a=2")).await.unwrap().unwrap();
    sqlx::query("UPDATE kept_forms SET record = (SELECT record FROM kept_forms WHERE id = $1)")
        .bind(second.as_str().to_owned())
        .execute(&database)
        .await
        .unwrap();
    assert_eq!(forms.take(claim(&id, &ada, &BROWSER), "/sims").await.unwrap(), None, "another form's");
    // Moved to another user.
    sqlx::query("UPDATE kept_forms SET user_id = $1").bind(bob.to_string()).execute(&database).await.unwrap();
    assert_eq!(forms.take(claim(&second, &bob, &BROWSER), "/sims").await.unwrap(), None);
}

fn sized(bytes: usize) -> SavedForm {
    SavedForm { body: vec![0; bytes].into(), ..form(b"") }
}

async fn whoever_keeps_and_discards_all_day_leaves_no_more_than_anybody(on: On) {
    let Fixture { forms, database, clock, _store } = fixture(on).await;
    let (ada, bob) = (UserId::of("ada"), UserId::of("bob"));
    let rows = async || {
        let row =
            sqlx::query("SELECT COUNT(*) AS rows FROM kept_forms WHERE user_id = $1").bind(ada.to_string());
        sqlx::Row::try_get::<i64, _>(&row.fetch_one(&database).await.unwrap(), "rows").unwrap()
    };
    let waiting = forms.save(&ada, &BROWSER, &form(b"first")).await.unwrap().unwrap();
    let bobs = forms.save(&bob, &OTHER, &form(b"bob's")).await.unwrap().unwrap();
    for _ in 0..300 {
        clock.advance(Duration::from_secs(1));
        let id = forms.save(&ada, &BROWSER, &form(b"a=1")).await.unwrap().unwrap();
        forms.discard(claim(&id, &ada, &BROWSER)).await.unwrap();
    }
    assert_eq!(rows().await, 100);
    // The waiting forms are older than all of those, and stay.
    for (id, user, browser) in [(&waiting, &ada, BROWSER), (&bobs, &bob, OTHER)] {
        assert!(matches!(forms.find(claim(id, user, &browser)).await.unwrap(), Found::Waiting { .. }));
    }
}

async fn a_flood_stays_within_the_bounds_and_pushes_nothing_out(on: On) {
    let Fixture { forms, clock, _store, .. } = fixture(on).await;
    let (ada, bob) = (UserId::of("ada"), UserId::of("bob"));
    let small = form(b"a=1");
    let mut saved = Vec::new();
    for _ in 0..30 {
        saved.extend(forms.save(&ada, &BROWSER, &small).await.unwrap());
    }
    assert_eq!(saved.len(), 20);
    assert_eq!(saved.iter().map(FormId::as_str).collect::<BTreeSet<_>>().len(), 20);
    assert!(forms.save(&bob, &OTHER, &form(b"a=1")).await.unwrap().is_ok(), "another user has room");
    assert!(matches!(forms.find(claim(&saved[0], &ada, &BROWSER)).await.unwrap(), Found::Waiting { .. }));
    // Forms that were sent or discarded make room.
    forms.take(claim(&saved[0], &ada, &BROWSER), "/sims").await.unwrap().unwrap();
    assert!(forms.save(&ada, &BROWSER, &form(b"a=1")).await.unwrap().is_ok());
    assert!(forms.save(&ada, &BROWSER, &form(b"a=1")).await.unwrap().is_err());
    clock.advance(LIFETIME);
    assert!(forms.save(&ada, &BROWSER, &form(b"a=1")).await.unwrap().is_ok());

    assert_eq!(forms.save(&ada, &BROWSER, &sized(4 << 20)).await.unwrap(), Err(NoRoom::User));
    let large = sized((4 << 20) - 1000);
    let mut users = 0;
    while forms.save(&UserId::of(&format!("user{users}")), &OTHER, &large).await.unwrap().is_ok() {
        users += 1;
    }
    assert_eq!(users, 16, "64 MiB in all");
    assert_eq!(forms.save(&UserId::of("carol"), &OTHER, &large).await.unwrap(), Err(NoRoom::Everybody));
    assert_eq!(forms.save(&UserId::of("user0"), &OTHER, &sized(2000)).await.unwrap(), Err(NoRoom::User));
}

async fn forms_on_their_way_have_places_by_user_and_by_network(on: On) {
    let Fixture { forms, _store, .. } = fixture(on).await;
    let of_user = |user: u32| {
        let user = UserId::of(&user.to_string());
        unconstrained(forms.room_for_user(&user)).now_or_never().flatten()
    };
    let from = |address: &str| {
        let networks = Networks::of(address.parse().unwrap());
        unconstrained(forms.room_for_stranger(networks)).now_or_never().flatten()
    };
    let count = |room: &mut Vec<Room>, next: &dyn Fn(u32) -> Option<Room>| {
        let before = room.len();
        room.extend((0..100).map_while(next));
        room.len() - before
    };
    let mut strangers = Vec::new();
    assert_eq!(count(&mut strangers, &|_| from("192.0.2.1")), 4);
    assert_eq!(count(&mut strangers, &|_| from("::ffff:192.0.2.1")), 0);
    assert_eq!(count(&mut strangers, &|host| from(&format!("2001:db8:1:1::{host:x}"))), 4, "one /64");
    assert_eq!(count(&mut strangers, &|net| from(&format!("2001:db8:1:{:x}::1", 2 + net))), 4, "one /56");
    assert_eq!(
        count(&mut strangers, &|net| from(&format!("2001:db8:1:{:x}::1", 256 * (net + 1)))),
        8,
        "one /48"
    );
    assert_eq!(count(&mut strangers, &|net| from(&format!("198.51.100.{net}"))), 12, "all");
    let mut users = Vec::new();
    assert_eq!(count(&mut users, &|_| of_user(0)), 8, "strangers take none of theirs");
    assert_eq!(count(&mut users, &|user| of_user(1 + user)), 24);
    strangers.pop();
    assert!(from("203.0.113.1").is_some() && from("192.0.2.1").is_none());
}

async fn all_tabs_of_a_browser_are_one_browser_and_another_session_is_none_of_it(on: On) {
    let Fixture { forms, _store, .. } = fixture(on).await;
    let session = TokenHash::from_bytes([9; 32]);
    let here = |session| forms.browser(session, "iot.example.com");
    assert_eq!(here(&session), here(&session));
    assert_ne!(here(&session), here(&OTHER));
    assert_ne!(here(&session), forms.browser(&session, "crm.example.com"));
    assert_ne!(here(&session).expose(), crate::secret::Token::from_bytes([9; 32]).expose());
}

async fn a_user_who_is_put_out_leaves_no_form(on: On) {
    let Fixture { forms, _store, .. } = fixture(on).await;
    let (ada, bob) = (UserId::of("ada"), UserId::of("bob"));
    let id = forms.save(&ada, &BROWSER, &form(b"a=1")).await.unwrap().unwrap();
    let other = forms.save(&bob, &BROWSER, &form(b"a=1")).await.unwrap().unwrap();
    forms.remove_user(&ada).await.unwrap();
    assert_eq!(forms.find(claim(&id, &ada, &BROWSER)).await.unwrap(), Found::Nothing);
    assert!(matches!(forms.find(claim(&other, &bob, &BROWSER)).await.unwrap(), Found::Waiting { .. }));
}

on_each_database!(
    a_form_is_given_to_its_user_in_its_browser_once,
    somebody_else_in_the_same_browser_gets_nothing_of_a_form_and_changes_nothing,
    a_form_lasts_for_half_an_hour_and_is_known_for_a_day_more,
    a_clock_that_is_set_back_prolongs_no_form,
    a_record_that_was_tampered_with_is_gone,
    whoever_keeps_and_discards_all_day_leaves_no_more_than_anybody,
    a_flood_stays_within_the_bounds_and_pushes_nothing_out,
    forms_on_their_way_have_places_by_user_and_by_network,
    all_tabs_of_a_browser_are_one_browser_and_another_session_is_none_of_it,
    a_user_who_is_put_out_leaves_no_form,
);
