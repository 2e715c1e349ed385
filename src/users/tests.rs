//! Users in a real store.

use super::*;
use crate::{
    clock::ManualClock,
    database::test_database::{On, TestDatabase, on_each_database},
    random::{OsRandom, SeededRandom},
};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_000);

on_each_database![
    a_user_is_found_under_every_spelling,
    two_spellings_cannot_be_two_users,
    of_many_who_add_the_same_user_at_once_one_does,
    a_name_or_group_that_could_be_mistaken_is_refused,
    every_change_is_announced_with_the_change,
    everybody_is_listed_by_name,
    what_is_changed_of_a_user_is_what_is_read,
    another_users_name_cannot_be_taken,
    names_of_earlier_versions_are_renewed_once,
];

async fn users(on: On) -> (TestDatabase, Users) {
    let (store, database) = TestDatabase::new(on).await;
    (store, Users::new(database, Arc::new(ManualClock::at(NOW)), Arc::new(SeededRandom::new(1))))
}

fn ada() -> NewUser {
    NewUser {
        email: " Ada@Example.com ".to_owned(),
        display_name: "Ada Lovelace".to_owned(),
        groups: vec!["ops".to_owned(), "sim admins".to_owned(), "ops".to_owned()],
    }
}

async fn a_user_is_found_under_every_spelling(on: On) {
    let (_store, users) = users(on).await;
    let added = users.add(ada()).await.unwrap();
    assert_eq!(added.email, "Ada@Example.com");
    assert_eq!(added.groups, ["ops", "sim admins"]);
    assert_eq!(added.created_at, NOW);
    for typed in ["ada@example.com", "ADA@EXAMPLE.COM", "ａda@example.com"] {
        let name = CanonicalName::parse(typed).unwrap();
        assert_eq!(users.find(&name).await.unwrap().as_ref(), Some(&added));
    }
    assert_eq!(users.by_id(&added.id).await.unwrap().as_ref(), Some(&added));
    assert_eq!(users.find(&CanonicalName::parse("bob@example.com").unwrap()).await.unwrap(), None);
    assert_eq!(users.by_id(&UserId::generate(&OsRandom)).await.unwrap(), None);
}

async fn two_spellings_cannot_be_two_users(on: On) {
    let (_store, users) = users(on).await;
    users.add(ada()).await.unwrap();
    let again = NewUser { email: "ADA@example.COM".to_owned(), ..NewUser::default() };
    assert!(matches!(users.add(again).await, Err(UsersError::Exists)));
    assert_eq!(users.list().await.unwrap().len(), 1);
}

async fn of_many_who_add_the_same_user_at_once_one_does(on: On) {
    let (_store, users) = users(on).await;
    let mut adding = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let users = Users { random: Arc::new(OsRandom), ..users.clone() };
        adding.spawn(async move { users.add(ada()).await });
    }
    let verdicts = adding.join_all().await;
    assert_eq!(verdicts.iter().filter(|verdict| verdict.is_ok()).count(), 1);
    assert!(
        verdicts.iter().all(|verdict| matches!(verdict, Ok(_) | Err(UsersError::Exists))),
        "{verdicts:?}"
    );
    assert_eq!(users.list().await.unwrap().len(), 1);
}

async fn a_name_or_group_that_could_be_mistaken_is_refused(on: On) {
    let (_store, users) = users(on).await;
    for email in ["", "a b@example.com", "a\r\nb@example.com"] {
        let new = NewUser { email: email.to_owned(), ..ada() };
        assert!(matches!(users.add(new).await, Err(UsersError::InvalidName)), "{email:?}");
    }
    for group in ["ops,admins", "", " ", "o\r\nps", "a\0b"] {
        let new = NewUser { groups: vec![group.to_owned()], ..ada() };
        assert!(matches!(users.add(new).await, Err(UsersError::InvalidGroup(_))), "{group:?}");
    }
    let new = NewUser { display_name: "Ada\u{1b}[31m".to_owned(), ..ada() };
    assert!(matches!(users.add(new).await, Err(UsersError::InvalidDisplayName)));
    assert_eq!(users.list().await.unwrap(), []);
}

async fn every_change_is_announced_with_the_change(on: On) {
    let (_store, users) = users(on).await;
    let user = users.add(ada()).await.unwrap();
    assert!(users.set_disabled(&user.id, true).await.unwrap());
    assert!(users.by_id(&user.id).await.unwrap().unwrap().disabled);
    assert!(users.set_disabled(&user.id, false).await.unwrap());
    assert!(!users.by_id(&user.id).await.unwrap().unwrap().disabled);
    assert!(users.remove(&user.id).await.unwrap());
    assert_eq!(users.by_id(&user.id).await.unwrap(), None);
    assert!(!users.remove(&user.id).await.unwrap());
    assert!(!users.set_disabled(&user.id, true).await.unwrap());

    let (_, changes) = users.database.changes_after(0).await.unwrap();
    assert!(changes.iter().all(|change| *change == Change::User(user.id.to_string())));
    assert!(changes.len() >= 4);
}

async fn what_is_changed_of_a_user_is_what_is_read(on: On) {
    let (_store, users) = users(on).await;
    let ada = users.add(ada()).await.unwrap();
    assert!(users.set_display_name(&ada.id, " Ada King\u{200b} ").await.unwrap());
    assert!(users.set_groups(&ada.id, vec!["dev".into(), "o\u{200b}ps".into(), "dev".into()]).await.unwrap());
    assert!(users.set_email(&ada.id, "\u{feff}Ada.King@Example.com ").await.unwrap());
    let changed = users.by_id(&ada.id).await.unwrap().unwrap();
    assert_eq!(
        (changed.display_name.as_str(), changed.groups.as_slice()),
        ("Ada King", &["dev".into(), "ops".into()][..])
    );
    assert_eq!(
        (changed.email.as_str(), changed.name.as_str()),
        ("Ada.King@Example.com", "ada.king@example.com")
    );
    assert_eq!(users.find(&ada.name).await.unwrap(), None, "the old name is nobody's");
    assert!(users.set_groups(&ada.id, Vec::new()).await.unwrap());
    assert_eq!(users.by_id(&ada.id).await.unwrap().unwrap().groups, [""; 0]);

    for refused in ["a\0b", &"x".repeat(255)] {
        assert!(matches!(
            users.set_display_name(&ada.id, refused).await,
            Err(UsersError::InvalidDisplayName)
        ));
    }
    assert!(matches!(users.set_groups(&ada.id, vec!["a,b".into()]).await, Err(UsersError::InvalidGroup(_))));
    assert!(matches!(users.set_email(&ada.id, "\u{200b}").await, Err(UsersError::InvalidName)));
    let nobody = UserId::generate(&OsRandom);
    assert!(!users.set_email(&nobody, "x@example.com").await.unwrap());
    let (_, announced) = users.database.changes_after(0).await.unwrap();
    let of_ada = |change: &&Change| **change == Change::User(ada.id.to_string());
    assert_eq!(announced.iter().filter(of_ada).count(), 5, "each change is announced");
}

async fn another_users_name_cannot_be_taken(on: On) {
    let (_store, users) = users(on).await;
    let ada = users.add(ada()).await.unwrap();
    let bob = NewUser { email: "bob@example.com".into(), ..NewUser::default() };
    let bob = Users { random: Arc::new(OsRandom), ..users.clone() }.add(bob).await.unwrap();
    for taken in ["ada@example.com", "ADA@example.com\u{200b}", "ａda@example.com"] {
        assert!(matches!(users.set_email(&bob.id, taken).await, Err(UsersError::Exists)), "{taken}");
    }
    assert_eq!(users.by_id(&bob.id).await.unwrap(), Some(bob));
    assert!(users.set_email(&ada.id, "ADA@EXAMPLE.com").await.unwrap(), "the user's own, spelt anew");
}

async fn names_of_earlier_versions_are_renewed_once(on: On) {
    let (_store, users) = users(on).await;
    let users = Users { random: Arc::new(OsRandom), ..users };
    users.add(ada()).await.unwrap();
    let stored = [
        ("zwsp@example.com\u{200b}", "zwsp@example.com"),
        ("idn@b\u{fc}cher.example", "idn@xn--bcher-kva.example"),
        ("\u{feff}ada@example.com", "\u{feff}ada@example.com"),
    ];
    let mut ids = Vec::new();
    for (number, (name, _)) in stored.iter().enumerate() {
        let new = NewUser { email: format!("user{number}@example.com"), ..NewUser::default() };
        let user = users.add(new).await.unwrap();
        sqlx::query("UPDATE users SET name = $1, email = $1 WHERE id = $2")
            .bind(*name)
            .bind(user.id.as_str())
            .execute(&users.database)
            .await
            .unwrap();
        ids.push(user.id);
    }
    users.renew_names().await.unwrap();
    for (id, (_, name)) in ids.iter().zip(stored) {
        assert_eq!(users.by_id(id).await.unwrap().unwrap().name.as_str(), name);
    }
    // Names that are written by others later are not converted again.
    sqlx::query("UPDATE users SET name = 'A' WHERE id = $1")
        .bind(ids[0].as_str())
        .execute(&users.database)
        .await
        .unwrap();
    users.renew_names().await.unwrap();
    assert_eq!(users.by_id(&ids[0]).await.unwrap().unwrap().name.as_str(), "A");
}

async fn everybody_is_listed_by_name(on: On) {
    let (_store, users) = users(on).await;
    for email in ["carol@example.com", "Ada@example.com", "bob@example.com"] {
        users.add(NewUser { email: email.to_owned(), ..NewUser::default() }).await.unwrap();
    }
    let names: Vec<_> = users.list().await.unwrap().into_iter().map(|user| user.name.to_string()).collect();
    assert_eq!(names, ["ada@example.com", "bob@example.com", "carol@example.com"]);
}
