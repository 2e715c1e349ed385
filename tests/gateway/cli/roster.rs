//! The list of users: who has a second factor, and who came when.

use std::time::{Duration, Instant};

use portcullis::clock::Clock as _;

use super::{ADA, BOB, json, portcullis, succeeded};
use crate::support::{PASSWORD, TestGateway};

#[tokio::test]
async fn the_list_says_who_has_a_second_factor_and_who_logged_in_last() {
    let (gateway, browser) =
        TestGateway::builder().set("second_factor.mandatory_from", "2090-01-01T00:00:00Z").start().await;
    for email in [ADA, BOB, "cyd@example.com"] {
        gateway.add_user(email).await;
    }
    browser.log_in(ADA).await;
    // A password alone counts as a login while that is enough, and one that was refused never does.
    let bob = gateway.browser();
    let page = bob.visit("/").await;
    let page = bob.sign_in(&page, BOB).await;
    let first = gateway.clock.now().to_string();
    bob.submit(&page, &[("skip", "1")]).await;
    gateway.browser().submit_password("cyd@example.com", "not the password").await;
    gateway.browser().submit_password(BOB, PASSWORD).await;

    let listed = json(&gateway, &["user", "list"]).await;
    let facts: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|user| (&user["device_count"], &user["last_login_at"]))
        .collect();
    let (none, at_first) = (serde_json::Value::Null, serde_json::Value::from(first.as_str()));
    assert_eq!(facts, [(&1.into(), &at_first), (&0.into(), &at_first), (&0.into(), &none)]);
    let without = json(&gateway, &["user", "list", "--without-device"]).await;
    let emails: Vec<_> =
        without.as_array().unwrap().iter().map(|user| user["email"].as_str().unwrap()).collect();
    assert_eq!(emails, [BOB, "cyd@example.com"]);
    let text = portcullis(&gateway, &["user", "list"]).await;
    succeeded(&text, "SECOND FACTOR  LAST LOGIN");
    assert!(text.out.contains(&format!("1 device       {first}")), "{text:?}");
    assert!(
        text.out.lines().any(|line| line.starts_with("cyd") && line.ends_with("none           never")),
        "{text:?}"
    );

    // Each finished login counts, and it outlives the session.
    gateway.clock.advance(Duration::from_mins(5));
    let later = gateway.clock.now().to_string();
    gateway.browser().log_in_to("/", ADA).await;
    json(&gateway, &["session", "revoke", "--user", ADA]).await;
    assert_eq!(json(&gateway, &["user", "show", ADA]).await["last_login_at"], later.as_str());
}

#[tokio::test]
async fn thousands_of_users_are_listed_at_once() {
    let (gateway, _) = TestGateway::start().await;
    let mut transaction = gateway.stores().database.write().await.unwrap();
    sqlx::query(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) \
         INSERT INTO users (id, name, email, display_name, group_names, disabled, created_at) \
         SELECT printf('%021dA', i), 'user' || i || '@example.com', 'user' || i || '@example.com', '', 'ops', 0, 0 FROM n",
    )
    .execute(&mut *transaction)
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    let began = Instant::now();
    let listed = json(&gateway, &["user", "list", "--without-device"]).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(5000));
    // An optimised program on a quiet machine takes a tenth of that.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
