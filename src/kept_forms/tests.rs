//! Forms kept and given out, with a clock turned by hand.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;

use super::{Claim, Config, Form, FormId, Found, Head, KeptForms, LIFETIME, MEMORY};
use crate::{
    clock::{ManualClock, Timestamp},
    database::{
        Database,
        test_database::{On, TestDatabase, on_each_database},
    },
    random::OsRandom,
    sealing::Sealer,
    secret::TokenHash,
};

const BROWSER: TokenHash = TokenHash::from_bytes([1; 32]);
const OTHER: TokenHash = TokenHash::from_bytes([2; 32]);

struct Fixture {
    forms: KeptForms,
    clock: Arc<ManualClock>,
    database: Database,
    _store: TestDatabase,
}

async fn fixture(on: On) -> Fixture {
    let (store, database) = TestDatabase::new(on).await;
    let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000)));
    let sealer = Arc::new(Sealer::from_key(&[7; 32]));
    let forms =
        KeptForms::new(Config { max: 1000 }, database.clone(), sealer, clock.clone(), Arc::new(OsRandom));
    Fixture { forms, clock, database, _store: store }
}

fn form(body: &'static [u8]) -> Form {
    let head = Head {
        target: "/sims".into(),
        content_type: "application/x-www-form-urlencoded".into(),
        referer: None,
    };
    Form { head, body: Bytes::from_static(body) }
}

fn claim<'a>(id: &'a FormId, user: &'a str, browser: &'a TokenHash) -> Claim<'a> {
    Claim { id, user, browser: Some(browser) }
}

async fn a_form_is_given_to_its_user_in_its_browser_once(on: On) {
    let Fixture { forms, _store, .. } = fixture(on).await;
    let id = forms.keep("ada", &BROWSER, &form(b"a=1")).await.unwrap().unwrap();
    let theirs = claim(&id, "ada", &BROWSER);
    assert_eq!(forms.find(Claim { browser: None, ..theirs }).await.unwrap(), Found::Nothing);
    assert_eq!(forms.find(claim(&id, "ada", &OTHER)).await.unwrap(), Found::Nothing);
    assert_eq!(forms.take(claim(&id, "ada", &OTHER), "/sims").await.unwrap(), None);
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

async fn somebody_else_in_the_same_browser_ends_a_form(on: On) {
    let Fixture { forms, _store, .. } = fixture(on).await;
    let found = forms.keep("ada", &BROWSER, &form(b"a=1")).await.unwrap().unwrap();
    assert_eq!(forms.find(claim(&found, "bob", &BROWSER)).await.unwrap(), Found::Nothing);
    assert_eq!(forms.find(claim(&found, "ada", &BROWSER)).await.unwrap(), Found::Gone);
    let taken = forms.keep("ada", &BROWSER, &form(b"a=1")).await.unwrap().unwrap();
    assert_eq!(forms.take(claim(&taken, "bob", &BROWSER), "/sims").await.unwrap(), None);
    assert_eq!(forms.take(claim(&taken, "ada", &BROWSER), "/sims").await.unwrap(), None);
}

async fn a_form_lasts_for_half_an_hour_and_is_known_for_a_day_more(on: On) {
    let Fixture { forms, clock, database, _store } = fixture(on).await;
    let id = forms.keep("ada", &BROWSER, &form(b"a=1")).await.unwrap().unwrap();
    let theirs = claim(&id, "ada", &BROWSER);
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
    let id = forms.keep("ada", &BROWSER, &form(b"a=1")).await.unwrap().unwrap();
    clock.set(Timestamp::from_unix_seconds(1_799_990_000));
    assert_eq!(forms.find(claim(&id, "ada", &BROWSER)).await.unwrap(), Found::Gone);
}

async fn a_record_that_was_tampered_with_is_gone(on: On) {
    let Fixture { forms, database, _store, .. } = fixture(on).await;
    let id = forms.keep("ada", &BROWSER, &form(b"a=1")).await.unwrap().unwrap();
    let second = forms.keep("ada", &BROWSER, &form(b"a=2")).await.unwrap().unwrap();
    sqlx::query("UPDATE kept_forms SET record = (SELECT record FROM kept_forms WHERE id = $1)")
        .bind(second.as_str().to_owned())
        .execute(&database)
        .await
        .unwrap();
    assert_eq!(forms.take(claim(&id, "ada", &BROWSER), "/sims").await.unwrap(), None, "another form's");
    // Passed off as another user's.
    sqlx::query("UPDATE kept_forms SET user_id = 'bob'").execute(&database).await.unwrap();
    assert_eq!(forms.take(claim(&second, "bob", &BROWSER), "/sims").await.unwrap(), None);
}

async fn a_flood_stays_within_the_bounds_and_pushes_nothing_out(on: On) {
    let Fixture { forms, clock, _store, .. } = fixture(on).await;
    let small = form(b"a=1");
    let mut kept = Vec::new();
    for _ in 0..30 {
        kept.extend(forms.keep("ada", &BROWSER, &small).await.unwrap());
    }
    assert_eq!(kept.len(), 20);
    assert_eq!(kept.iter().map(FormId::as_str).collect::<BTreeSet<_>>().len(), 20);
    assert!(forms.keep("bob", &OTHER, &form(b"a=1")).await.unwrap().is_some(), "another user has room");
    assert!(matches!(forms.find(claim(&kept[0], "ada", &BROWSER)).await.unwrap(), Found::Waiting { .. }));
    // What is sent or over makes room.
    forms.take(claim(&kept[0], "ada", &BROWSER), "/sims").await.unwrap().unwrap();
    assert!(forms.keep("ada", &BROWSER, &form(b"a=1")).await.unwrap().is_some());
    assert!(forms.keep("ada", &BROWSER, &form(b"a=1")).await.unwrap().is_none());
    clock.advance(LIFETIME);
    assert!(forms.keep("ada", &BROWSER, &form(b"a=1")).await.unwrap().is_some());

    let large = Form { body: vec![0; 16 << 20].into(), ..form(b"") };
    let mut users = 0;
    while forms.keep(&format!("user {users}"), &OTHER, &large).await.unwrap().is_some() {
        users += 1;
    }
    assert_eq!(users, 3, "64 MiB in all");
    let room: Vec<_> = (0..40).map_while(|_| forms.room()).collect();
    assert_eq!(room.len(), 32);
}

async fn all_tabs_of_a_browser_are_one_browser_and_another_session_is_none_of_it(on: On) {
    let Fixture { forms, _store, .. } = fixture(on).await;
    let session = TokenHash::from_bytes([9; 32]);
    assert_eq!(forms.browser(&session), forms.browser(&session));
    assert_ne!(forms.browser(&session), forms.browser(&OTHER));
    assert_ne!(forms.browser(&session).expose(), crate::secret::Token::from_bytes([9; 32]).expose());
}

async fn a_user_who_is_put_out_leaves_no_form(on: On) {
    let Fixture { forms, _store, .. } = fixture(on).await;
    let id = forms.keep("ada", &BROWSER, &form(b"a=1")).await.unwrap().unwrap();
    let other = forms.keep("bob", &BROWSER, &form(b"a=1")).await.unwrap().unwrap();
    forms.remove_user("ada").await.unwrap();
    assert_eq!(forms.find(claim(&id, "ada", &BROWSER)).await.unwrap(), Found::Nothing);
    assert!(matches!(forms.find(claim(&other, "bob", &BROWSER)).await.unwrap(), Found::Waiting { .. }));
}

on_each_database!(
    a_form_is_given_to_its_user_in_its_browser_once,
    somebody_else_in_the_same_browser_ends_a_form,
    a_form_lasts_for_half_an_hour_and_is_known_for_a_day_more,
    a_clock_that_is_set_back_prolongs_no_form,
    a_record_that_was_tampered_with_is_gone,
    a_flood_stays_within_the_bounds_and_pushes_nothing_out,
    all_tabs_of_a_browser_are_one_browser_and_another_session_is_none_of_it,
    a_user_who_is_put_out_leaves_no_form,
);
