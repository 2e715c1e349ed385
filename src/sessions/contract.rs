//! The contract of `SessionStore`, checked with every store on real servers.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{RedisSessions, RevocationLog, SessionStore, SqlSessions, StoredSession};
use crate::{
    clock::{ManualClock, Timestamp},
    database::{
        Change, Database,
        test_database::{On, TestDatabase, on_each_database},
    },
    random::OsRandom,
    redis_pool::{
        self, RedisPool,
        test_fleet::{Cluster, Guarded, SentinelFleet},
        test_server::RedisServer,
    },
    sealing::Sealer,
    secret::TokenHash,
    users::UserId,
};

const INACTIVITY: Duration = Duration::from_hours(1);
const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

fn id(number: u8) -> TokenHash {
    TokenHash::from_bytes([number; 32])
}

/// The key of a user's index in Redis.
fn index(user: &str) -> String {
    format!("portcullis:u:{}", UserId::of(user))
}

fn session(number: u8, user: &str) -> StoredSession {
    StoredSession {
        id: id(number),
        user: UserId::of(user),
        record: (0..=255).rev().collect(),
        last_seen: NOW,
        expires_at: NOW.plus(12 * INACTIVITY),
        generation: 0,
    }
}

fn ids(sessions: &[StoredSession]) -> BTreeSet<TokenHash> {
    sessions.iter().map(|session| session.id).collect()
}

/// Checks the whole contract on an empty store.
async fn honours_the_contract(store: &dyn SessionStore) {
    store.ping().await.unwrap();
    what_goes_in_comes_out(store).await;
    uses_move_forward_only(store).await;
    what_is_removed_stays_removed(store).await;
    a_user_is_removed_alone_and_whole(store).await;
    purging_spares_what_is_good(store).await;
}

async fn what_goes_in_comes_out(store: &dyn SessionStore) {
    assert_eq!(store.load(&id(1)).await.unwrap(), None);
    assert_eq!(store.list(None).await.unwrap(), []);
    // An id with the characters that patterns treat specially.
    let awkward = "-_-u1";
    for put in [session(1, "u1"), session(2, "u1"), session(3, awkward)] {
        store.insert(&put).await.unwrap();
        assert_eq!(store.load(&put.id).await.unwrap(), Some(put));
    }
    assert_eq!(ids(&store.list(Some(&UserId::of("u1"))).await.unwrap()), [id(1), id(2)].into());
    assert_eq!(store.list(Some(&UserId::of(awkward))).await.unwrap(), [session(3, awkward)]);
    assert_eq!(store.list(Some(&UserId::of("u"))).await.unwrap(), []);
    assert_eq!(ids(&store.list(None).await.unwrap()), [id(1), id(2), id(3)].into());
}

async fn uses_move_forward_only(store: &dyn SessionStore) {
    let seen = async |number| store.load(&id(number)).await.unwrap().unwrap().last_seen;
    let later = NOW.plus(Duration::from_mins(1));
    let touch = async |seen: &[_]| store.touch(seen).await.unwrap();
    assert_eq!(touch(&[]).await, []);
    assert_eq!(touch(&[(id(1), later), (id(99), later), (id(2), later)]).await, [id(99)]);
    assert_eq!((seen(1).await, seen(2).await, seen(3).await), (later, later, NOW));
    assert_eq!(touch(&[(id(1), NOW)]).await, []);
    assert_eq!(seen(1).await, later);
    assert_eq!(store.load(&id(99)).await.unwrap(), None);
    let many: Vec<_> = (0..=255).map(|number| (id(number), later)).collect();
    assert_eq!(touch(&many).await.len(), 253);
    assert_eq!(seen(3).await, later);
    assert_eq!(store.list(None).await.unwrap().len(), 3);
}

async fn what_is_removed_stays_removed(store: &dyn SessionStore) {
    store.remove(&id(1)).await.unwrap();
    store.remove(&id(1)).await.unwrap();
    store.remove(&id(99)).await.unwrap();
    assert_eq!(store.touch(&[(id(1), NOW.plus(INACTIVITY))]).await.unwrap(), [id(1)]);
    assert_eq!(store.load(&id(1)).await.unwrap(), None);
    assert_eq!(ids(&store.list(Some(&UserId::of("u1"))).await.unwrap()), [id(2)].into());
    assert_eq!(ids(&store.list(None).await.unwrap()), [id(2), id(3)].into());
}

async fn a_user_is_removed_alone_and_whole(store: &dyn SessionStore) {
    store.insert(&session(4, "u1")).await.unwrap();
    store.insert(&session(5, "u2")).await.unwrap();
    let ended: BTreeSet<_> = store.remove_user(&UserId::of("u1")).await.unwrap().into_iter().collect();
    assert_eq!(ended, [id(2), id(4)].into());
    store.touch(&[(id(2), NOW.plus(INACTIVITY)), (id(4), NOW.plus(INACTIVITY))]).await.unwrap();
    for number in [2, 4] {
        assert_eq!(store.load(&id(number)).await.unwrap(), None);
    }
    assert_eq!(store.list(Some(&UserId::of("u1"))).await.unwrap(), []);
    assert_eq!(store.remove_user(&UserId::of("u1")).await.unwrap(), []);
    assert_eq!(store.load(&id(5)).await.unwrap(), Some(session(5, "u2")));

    store.insert(&session(6, "u1")).await.unwrap();
    let listed = store.list(Some(&UserId::of("u1"))).await.unwrap();
    // The store sets the generation.
    assert_eq!(listed, [StoredSession { generation: listed[0].generation, ..session(6, "u1") }]);
    assert_eq!(store.remove_user(&UserId::of("u1")).await.unwrap(), [id(6)]);
}

async fn purging_spares_what_is_good(store: &dyn SessionStore) {
    let good = ids(&store.list(None).await.unwrap());
    store.purge(NOW.plus(Duration::from_secs(61))).await.unwrap();
    assert_eq!(ids(&store.list(None).await.unwrap()), good);
}

/// A store in Redis, with its own revocation log.
struct StoreUnderTest {
    sessions: RedisSessions,
    _revocations: TestDatabase,
}

impl std::ops::Deref for StoreUnderTest {
    type Target = RedisSessions;

    fn deref(&self) -> &RedisSessions {
        &self.sessions
    }
}

async fn redis(config: &redis_pool::Config) -> StoreUnderTest {
    let (revocations, database) = TestDatabase::new(On::Sqlite).await;
    StoreUnderTest { sessions: redis_beside(config, database).await, _revocations: revocations }
}

async fn redis_beside(config: &redis_pool::Config, database: Database) -> RedisSessions {
    // The speed of a busy machine is not tested here.
    let config = redis_pool::Config { timeout: Duration::from_secs(5), ..config.clone() };
    let pool = RedisPool::open(&config, Arc::new(OsRandom)).await.unwrap();
    let revocations = RevocationLog::new(database, Arc::new(ManualClock::at(NOW)), 12 * INACTIVITY);
    RedisSessions::new(Arc::new(pool), revocations, Arc::new(Sealer::from_key(&[7; 32])), INACTIVITY)
}

on_each_database![
    the_database_honours_the_contract,
    the_database_purges_what_is_idle_or_too_old,
    a_session_of_no_user_keeps_no_others_from_being_read,
    an_old_dump_brings_back_no_session_that_was_ended,
    ends_are_kept_as_long_as_a_session_can_live,
    a_session_is_ended_although_redis_is_dead,
];

async fn the_database_honours_the_contract(on: On) {
    let (_store, database) = TestDatabase::new(on).await;
    let store = SqlSessions::new(database, INACTIVITY, Arc::new(ManualClock::at(NOW)));
    honours_the_contract(&store).await;
}

#[tokio::test]
async fn redis_honours_the_contract() {
    let server = RedisServer::start().await;
    honours_the_contract(&*redis(&server.config()).await).await;
    // A prefix that is also a pattern, on a server with another installation's sessions.
    let other = redis_pool::Config { key_prefix: "p*[o]?:".into(), ..server.config() };
    honours_the_contract(&*redis(&other).await).await;
}

#[tokio::test]
async fn redis_with_a_restricted_user_honours_the_contract() {
    let arguments: Vec<_> = ACL.split(' ').chain(["--requirepass", "admin"]).collect();
    let server = RedisServer::start_with(&arguments).await;
    honours_the_contract(&*redis(&restricted(server.config())).await).await;
}

/// The permissions that `redis_pool::Config` asks for.
const ACL: &str =
    "--user gate on >pass ~portcullis:* +@read +@write +@scripting +@connection -@dangerous +role";

fn restricted(config: redis_pool::Config) -> redis_pool::Config {
    redis_pool::Config { user: Some("gate".into()), password: Some("pass".into()), ..config }
}

#[tokio::test]
async fn redis_behind_sentinels_honours_the_contract() {
    let arguments: Vec<_> = ACL.split(' ').collect();
    let accounts = "user watch on >guard -@all +@connection +sentinel|get-master-addr-by-name\n";
    let watched = SentinelFleet::start_with(&arguments, accounts).await;
    let config = redis_pool::Config {
        sentinel_user: Some("watch".into()),
        sentinel_password: Some("guard".into()),
        ..restricted(watched.config())
    };
    honours_the_contract(&*redis(&config).await).await;
}

#[tokio::test]
async fn a_cluster_of_redis_honours_the_contract() {
    let arguments: Vec<_> = ACL.split(' ').chain(["+cluster|nodes"]).collect();
    let cluster = Cluster::start_with(3, false, &arguments).await;
    honours_the_contract(&*redis(&restricted(cluster.config())).await).await;
}

#[tokio::test]
async fn redis_over_tls_honours_the_contract() {
    let server = RedisServer::start_encrypted().await;
    honours_the_contract(&*redis(&server.config()).await).await;
}

#[tokio::test]
async fn redis_behind_sentinels_over_tls_honours_the_contract() {
    let guarded = Guarded::start().await;
    honours_the_contract(&*redis(&guarded.config()).await).await;
}

#[tokio::test]
async fn a_cluster_of_redis_over_tls_honours_the_contract() {
    let cluster = Cluster::start_encrypted(3).await;
    honours_the_contract(&*redis(&cluster.config()).await).await;
}

async fn a_session_of_no_user_keeps_no_others_from_being_read(on: On) {
    let (_store, database) = TestDatabase::new(on).await;
    let store = SqlSessions::new(database.clone(), INACTIVITY, Arc::new(ManualClock::at(NOW)));
    for number in [1, 2] {
        SessionStore::insert(&store, &session(number, "u1")).await.unwrap();
    }
    sqlx::query("UPDATE sessions SET user_id = 'u1' WHERE id = $1")
        .bind(id(1).as_bytes().to_vec())
        .execute(&database)
        .await
        .unwrap();
    assert_eq!(SessionStore::load(&store, &id(1)).await.unwrap(), None);
    assert_eq!(SessionStore::list(&store, None).await.unwrap(), [session(2, "u1")]);
}

async fn the_database_purges_what_is_idle_or_too_old(on: On) {
    let (_store, database) = TestDatabase::new(on).await;
    let store = SqlSessions::new(database, INACTIVITY, Arc::new(ManualClock::at(NOW)));
    let at = |seen, expires| (NOW.plus(seen * INACTIVITY), NOW.plus(expires * INACTIVITY));
    for (number, (last_seen, expires_at)) in [(1, at(0, 12)), (2, at(9, 10)), (3, at(10, 12))] {
        store.insert(&StoredSession { last_seen, expires_at, ..session(number, "u1") }).await.unwrap();
    }
    assert_eq!(SessionStore::purge(&store, NOW.plus(10 * INACTIVITY)).await.unwrap(), 2);
    assert_eq!(ids(&SessionStore::list(&store, None).await.unwrap()), [id(3)].into());
}

#[tokio::test]
async fn redis_forgets_by_itself_what_is_idle_or_too_old() {
    let server = RedisServer::start().await;
    let store = redis(&server.config()).await;
    let put = session(1, "u1");
    SessionStore::insert(&*store, &put).await.unwrap();
    let (key, index) = (format!("portcullis:s:{}", id(1).to_hex()), index("u1"));
    let ttl = async |key: &str| server.command::<i64>(&["TTL", key]).await;
    assert!((3640..=3660).contains(&ttl(&key).await));
    assert!((43240..=43260).contains(&ttl(&index).await));

    server.command::<()>(&["PERSIST", &key]).await;
    SessionStore::touch(&*store, &[(id(1), NOW.plus(Duration::from_secs(10)))]).await.unwrap();
    assert!((3640..=3660).contains(&ttl(&key).await));
    let late = put.expires_at.minus(Duration::from_secs(100));
    SessionStore::touch(&*store, &[(id(1), late)]).await.unwrap();
    assert!((140..=160).contains(&ttl(&key).await));

    // A shorter session does not shorten the index, and a later one removes expired ids from it.
    let shorter = StoredSession { expires_at: NOW.plus(INACTIVITY), ..session(2, "u1") };
    SessionStore::insert(&*store, &shorter).await.unwrap();
    assert!((43230..=43260).contains(&ttl(&index).await));
    let later = StoredSession { last_seen: NOW.plus(2 * INACTIVITY), ..session(3, "u1") };
    SessionStore::insert(&*store, &later).await.unwrap();
    let left: Vec<String> = server.command(&["ZRANGE", &index, "0", "-1"]).await;
    assert_eq!(left, [id(1).to_hex(), id(3).to_hex()]);
}

#[tokio::test]
async fn a_session_that_could_not_be_ended_with_its_user_is_none() {
    let server = RedisServer::start().await;
    let store = redis(&server.config()).await;
    SessionStore::insert(&*store, &session(1, "u1")).await.unwrap();
    // As a server that is short of memory does.
    server.command::<()>(&["DEL", &index("u1")]).await;
    assert_eq!(SessionStore::load(&*store, &id(1)).await.unwrap(), None);
}

#[tokio::test]
async fn nothing_but_a_session_is_a_session_to_redis() {
    let server = RedisServer::start().await;
    let store = redis(&server.config()).await;
    for (number, command) in [(1, "SET"), (2, "HSET")] {
        let key = format!("portcullis:s:{}", id(number).to_hex());
        let value: &[&str] = if command == "HSET" { &["user", "u1"] } else { &["x"] };
        server.command::<()>(&[&[command, &key], value].concat()).await;
        server.command::<()>(&["ZADD", &index("u1"), "9e15", &id(number).to_hex()]).await;
        assert!(!matches!(SessionStore::load(&*store, &id(number)).await, Ok(Some(_))));
    }
}

/// Ends sessions, and restores an old dump.
async fn an_old_dump_brings_back_no_session_that_was_ended(on: On) {
    let server = RedisServer::start().await;
    let (_store, database) = TestDatabase::new(on).await;
    let store = redis_beside(&server.config(), database.clone()).await;
    for (number, user) in [(1, "u1"), (2, "u1"), (3, "u2"), (4, "u3")] {
        SessionStore::insert(&store, &session(number, user)).await.unwrap();
    }
    let mut dump = Vec::new();
    for key in server.command::<Vec<String>>(&["KEYS", "*"]).await {
        let bytes: Vec<u8> = server.command(&["DUMP", &key]).await;
        dump.push((key, bytes));
    }
    SessionStore::remove(&store, &id(1)).await.unwrap();
    // Redis loses everything, even whose sessions it had.
    server.command::<()>(&["FLUSHALL"]).await;
    assert_eq!(SessionStore::remove_user(&store, &UserId::of("u2")).await.unwrap(), []);
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port())).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for (key, bytes) in &dump {
        let mut restore = redis::cmd("RESTORE");
        restore.arg(key).arg(0).arg(bytes).arg("REPLACE");
        restore.query_async::<()>(&mut connection).await.unwrap();
    }
    let another = redis_beside(&server.config(), database).await;
    for store in [&store, &another] {
        for (number, good) in [(1, false), (2, true), (3, false), (4, true)] {
            let found = SessionStore::load(store, &id(number)).await.unwrap();
            assert_eq!(found, good.then(|| session(number, if number == 2 { "u1" } else { "u3" })));
        }
        assert_eq!(ids(&SessionStore::list(store, None).await.unwrap()), [id(2), id(4)].into());
        assert_eq!(SessionStore::list(store, Some(&UserId::of("u2"))).await.unwrap(), []);
    }
    // The user may log in again, and the sealed generation of the new session does not fit the old one.
    SessionStore::insert(&store, &session(5, "u2")).await.unwrap();
    assert!(SessionStore::load(&store, &id(5)).await.unwrap().is_some());
    let key = |number| format!("portcullis:s:{}", id(number).to_hex());
    let young: Vec<u8> = server.command(&["HGET", &key(5), "generation"]).await;
    let mut forge = redis::cmd("HSET");
    forge.arg(key(3)).arg("generation").arg(young).query_async::<()>(&mut connection).await.unwrap();
    assert_eq!(SessionStore::load(&store, &id(3)).await.unwrap(), None);
}

async fn ends_are_kept_as_long_as_a_session_can_live(on: On) {
    let server = RedisServer::start().await;
    let (_store, database) = TestDatabase::new(on).await;
    let store = redis_beside(&server.config(), database.clone()).await;
    SessionStore::remove(&store, &id(1)).await.unwrap();
    assert_eq!(SessionStore::purge(&store, NOW.plus(11 * INACTIVITY)).await.unwrap(), 0);
    assert_eq!(SessionStore::purge(&store, NOW.plus(12 * INACTIVITY)).await.unwrap(), 1);
}

async fn a_session_is_ended_although_redis_is_dead(on: On) {
    let mut server = RedisServer::start().await;
    let (_store, database) = TestDatabase::new(on).await;
    let position = database.latest_change().await.unwrap();
    let store = redis_beside(&server.config(), database.clone()).await;
    SessionStore::insert(&store, &session(1, "u1")).await.unwrap();
    server.kill();
    SessionStore::remove(&store, &id(1)).await.unwrap();
    SessionStore::remove_user(&store, &UserId::of("u2")).await.unwrap();
    let (_, told) = database.changes_after(position).await.unwrap();
    assert_eq!(told, [Change::Session(id(1)), Change::User(UserId::of("u2").to_string())]);
}
