//! Users in a real store.

use super::*;
use crate::{
    clock::ManualClock,
    database::Config,
    random::{OsRandom, SeededRandom},
};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_000);

async fn users() -> (tempfile::TempDir, Users) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("users.db").display());
    let database = Database::open(&Config { url }).await.unwrap();
    (folder, Users::new(database, Arc::new(ManualClock::at(NOW)), Arc::new(SeededRandom::new(1))))
}

fn ada() -> NewUser {
    NewUser {
        email: " Ada@Example.com ".to_owned(),
        display_name: "Ada Lovelace".to_owned(),
        groups: vec!["ops".to_owned(), "sim admins".to_owned(), "ops".to_owned()],
    }
}

#[tokio::test]
async fn a_user_is_found_under_every_spelling() {
    let (_folder, users) = users().await;
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

#[tokio::test]
async fn two_spellings_cannot_be_two_users() {
    let (_folder, users) = users().await;
    users.add(ada()).await.unwrap();
    let again = NewUser { email: "ADA@example.COM".to_owned(), ..NewUser::default() };
    assert!(matches!(users.add(again).await, Err(UsersError::Exists)));
    assert_eq!(users.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_name_or_group_that_could_be_mistaken_is_refused() {
    let (_folder, users) = users().await;
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

#[tokio::test]
async fn every_change_is_announced_with_the_change() {
    let (_folder, users) = users().await;
    let user = users.add(ada()).await.unwrap();
    assert!(users.set_disabled(&user.id, true).await.unwrap());
    assert!(users.by_id(&user.id).await.unwrap().unwrap().disabled);
    assert!(users.set_disabled(&user.id, false).await.unwrap());
    assert!(!users.by_id(&user.id).await.unwrap().unwrap().disabled);
    assert!(users.remove(&user.id).await.unwrap());
    assert_eq!(users.by_id(&user.id).await.unwrap(), None);
    assert!(!users.remove(&user.id).await.unwrap());
    assert!(!users.set_disabled(&user.id, true).await.unwrap());

    let changes = users.database.changes_after(0).await.unwrap();
    assert!(changes.iter().all(|(_, change)| *change == Change::User(user.id.to_string())));
    assert!(changes.len() >= 4);
}

#[tokio::test]
async fn everybody_is_listed_by_name() {
    let (_folder, users) = users().await;
    for email in ["carol@example.com", "Ada@example.com", "bob@example.com"] {
        users.add(NewUser { email: email.to_owned(), ..NewUser::default() }).await.unwrap();
    }
    let names: Vec<_> = users.list().await.unwrap().into_iter().map(|user| user.name.to_string()).collect();
    assert_eq!(names, ["ada@example.com", "bob@example.com", "carol@example.com"]);
}
