//! The outbox on each kind of database: who takes a mail, and when it is due.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::*;
use crate::{
    clock::{Clock as _, ManualClock},
    database::test_database::{On, TestDatabase, on_each_database},
    random::OsRandom,
    sealing::Sealer,
};

on_each_database![
    each_mail_is_taken_by_one_and_again_when_its_lease_is_over,
    pauses_grow_and_the_last_attempt_is_at_the_end,
    only_so_many_of_a_kind_are_written_in_an_hour,
];

const DAY: Duration = Duration::from_hours(24);

async fn outbox(on: On) -> (TestDatabase, Outbox, Arc<ManualClock>) {
    let (guard, database) = TestDatabase::new(on).await;
    let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000)));
    let sealer = Arc::new(Sealer::from_key(&[1; 32]));
    (guard, Outbox::new(database, sealer, clock.clone(), Arc::new(OsRandom), true), clock)
}

async fn write(outbox: &Outbox, kind: &'static str, subject: &str, to: &str) {
    let letter = Letter::new("Hello");
    let draft = Draft { kind, subject, to, letter: &letter, lasts: DAY, most_an_hour: 5 };
    outbox.write(&outbox.draft(&draft)).await.unwrap();
}

async fn each_mail_is_taken_by_one_and_again_when_its_lease_is_over(on: On) {
    let (_guard, outbox, clock) = outbox(on).await;
    for number in 0..8 {
        write(&outbox, "test", &number.to_string(), &format!("user{number}@example.com")).await;
    }
    let take = || async { outbox.take(false).await.unwrap().map(|mail| mail.id) };
    let all: Vec<_> = futures_util::future::join_all((0..8).map(|_| take())).await;
    let taken: HashSet<_> = all.into_iter().flatten().collect();
    // On PostgreSQL a row that somebody else is looking at is passed over.
    assert!(!taken.is_empty());
    while take().await.is_some() {}
    clock.advance(outbox::LEASE);
    let again = outbox.take(false).await.unwrap().unwrap();
    outbox.sent(&again).await.unwrap();
    assert_eq!(outbox.backlog().await.unwrap().waiting, 7);
    // Whoever had it before can't change what has become of it.
    assert_eq!(outbox.list(Some(&again.to)).await.unwrap()[0].attempts, 2);
    assert!(again.letter.is_some());
}

async fn pauses_grow_and_the_last_attempt_is_at_the_end(on: On) {
    let (_guard, outbox, clock) = outbox(on).await;
    write(&outbox, "test", "ada", "ada@example.com").await;
    let start = clock.now();
    let mut waits = Vec::new();
    loop {
        let mail = outbox.take(false).await.unwrap().unwrap();
        if !outbox.failed(&mail, "no", false).await.unwrap() {
            break;
        }
        let due = outbox.next_due().await.unwrap().unwrap();
        waits.push(due.since(clock.now()).as_secs() / 60);
        clock.set(due);
    }
    assert_eq!(waits[..5], [1, 5, 15, 60, 60]);
    assert_eq!(clock.now().since(start), DAY);
    assert_eq!((outbox.next_due().await.unwrap(), outbox.backlog().await.unwrap().waiting), (None, 0));
    assert!(outbox.take(true).await.unwrap().is_none());
    clock.advance(7 * DAY);
    outbox.purge().await.unwrap();
    assert!(outbox.list(None).await.unwrap().is_empty());
}

async fn only_so_many_of_a_kind_are_written_in_an_hour(on: On) {
    let (_guard, outbox, clock) = outbox(on).await;
    for _ in 0..7 {
        write(&outbox, "link", "ada", "ada@example.com").await;
    }
    write(&outbox, "link", "ada", "ada@example.org").await;
    write(&outbox, "link", "bob", "ada@example.com").await;
    assert_eq!(outbox.list(None).await.unwrap().len(), 5);
    write(&outbox, "other", "ada", "ada@example.com").await;
    clock.advance(Duration::from_mins(61));
    write(&outbox, "link", "ada", "ada@example.com").await;
    assert_eq!(outbox.list(Some("ADA@example.com")).await.unwrap().len(), 7);
}
