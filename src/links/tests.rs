//! Links on each kind of database: late, twice, at once, and after a change.

use super::*;
use crate::{
    clock::ManualClock,
    database::test_database::{On, TestDatabase, on_each_database},
    random::OsRandom,
    users::{NewUser, User, Users},
};

on_each_database![
    a_link_works_once_and_takes_the_others_along,
    a_change_of_name_or_password_voids_all_but_not_me,
    a_link_is_good_until_its_last_millisecond,
];

struct Scene {
    _guard: TestDatabase,
    database: Database,
    links: Links,
    users: Users,
    clock: Arc<ManualClock>,
    ada: User,
}

impl Scene {
    async fn new(on: On) -> Self {
        let (guard, database) = TestDatabase::new(on).await;
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000)));
        let users = Users::new(database.clone(), clock.clone(), Arc::new(OsRandom));
        let new = NewUser { email: "ada@example.com".into(), ..NewUser::default() };
        let ada = users.add(new).await.unwrap();
        let links = Links::new(database.clone(), clock.clone(), Arc::new(OsRandom));
        Self { _guard: guard, database, links, users, clock, ada }
    }

    async fn make(&self, purpose: LinkPurpose) -> String {
        let (token, alongside) = self.links.draft(purpose, &self.ada.id);
        self.database.make(&alongside, self.clock.now()).await.unwrap();
        token.expose()
    }

    async fn is_good(&self, token: &str) -> bool {
        self.links.find(token).await.unwrap().is_some()
    }

    async fn set_password(&self, at: i64) {
        sqlx::query(
            "INSERT INTO passwords (user_id, hash, set_at) VALUES ($1, 'x', $2) \
             ON CONFLICT (user_id) DO UPDATE SET set_at = excluded.set_at",
        )
        .bind(self.ada.id.to_string())
        .bind(at)
        .execute(&self.database)
        .await
        .unwrap();
    }
}

async fn a_link_works_once_and_takes_the_others_along(on: On) {
    let scene = Scene::new(on).await;
    let first = scene.make(LinkPurpose::Invitation).await;
    let (second, not_me) = (scene.make(LinkPurpose::Password).await, scene.make(LinkPurpose::NotMe).await);
    let link = scene.links.find(&first).await.unwrap().unwrap();
    assert_eq!((&link.user, link.purpose), (&scene.ada.id, LinkPurpose::Invitation));
    let all = (0..6)
        .map(|_| async { scene.database.make(&scene.links.use_up(&link), scene.clock.now()).await.is_ok() });
    let won = futures_util::future::join_all(all).await;
    assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
    assert!(!scene.is_good(&first).await && !scene.is_good(&second).await && scene.is_good(&not_me).await);
    let lost = scene.database.make(&scene.links.use_up(&link), scene.clock.now()).await;
    assert!(matches!(lost, Err(DatabaseError::Overtaken)));
    for text in ["", "x", &first[1..], &format!("{first}A")] {
        assert!(!scene.is_good(text).await, "{text}");
    }
    let link = scene.make(LinkPurpose::Password).await;
    scene.links.void(&scene.ada.id).await.unwrap();
    assert!(!scene.is_good(&link).await && !scene.is_good(&not_me).await);
}

async fn a_change_of_name_or_password_voids_all_but_not_me(on: On) {
    let scene = Scene::new(on).await;
    for change in 0..3 {
        let invitation = scene.make(LinkPurpose::Invitation).await;
        let (reset, not_me) = (scene.make(LinkPurpose::Password).await, scene.make(LinkPurpose::NotMe).await);
        let found = scene.links.find(&reset).await.unwrap().unwrap();
        match change {
            0 => scene.set_password(5).await,
            1 => scene.set_password(6).await,
            _ => assert!(scene.users.set_email(&scene.ada.id, "ada@example.org").await.unwrap()),
        }
        assert!(!scene.is_good(&invitation).await && !scene.is_good(&reset).await, "{change}");
        assert!(scene.is_good(&not_me).await, "{change}");
        // Also for whoever had found it good just before.
        let late = scene.database.make(&scene.links.use_up(&found), scene.clock.now()).await;
        assert!(matches!(late, Err(DatabaseError::Overtaken)), "{change}");
    }
}

async fn a_link_is_good_until_its_last_millisecond(on: On) {
    let scene = Scene::new(on).await;
    for purpose in LinkPurpose::ALL {
        let token = scene.make(purpose).await;
        scene.clock.advance(purpose.lasts().checked_sub(Duration::from_millis(1)).unwrap());
        assert!(scene.is_good(&token).await, "{purpose:?}");
        scene.clock.advance(Duration::from_millis(1));
        assert!(!scene.is_good(&token).await, "{purpose:?}");
    }
    scene.links.purge().await.unwrap();
    let left: i64 = sqlx::Row::try_get(
        &sqlx::query("SELECT COUNT(*) FROM links").fetch_one(&scene.database).await.unwrap(),
        0,
    )
    .unwrap();
    assert_eq!(left, 0);
}
