//! Stores that are down, hang, lose data or come back: an error, never "no session", and never a stale one.

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::*;

/// The default timeout of a command.
const DEADLINE: Duration = Duration::from_millis(250);
/// For a machine that is busy with other tests.
const SLACK: Duration = Duration::from_secs(1);

async fn fails(gateway: &Gateway, id: &TokenHash) -> bool {
    gateway.sessions.load(id, Use::Counts).await.is_err()
}

/// Whether a look-up fails without waiting.
fn fails_at_once(gateway: &Gateway, id: &TokenHash) -> bool {
    fails(gateway, id).now_or_never().is_some_and(|fails| fails)
}

#[tokio::test]
async fn a_killed_redis_is_an_error_and_an_empty_one_is_no_session() {
    let mut world = World { deadline: DEADLINE, ..World::new(Kind::Redis).await };
    let gateway = world.gateway().await;
    let (cached, fresh) = (gateway.log_in("ada").await, gateway.log_in("ada").await);
    let open = gateway.live(&cached).await;
    world.redis().kill();
    let start = Instant::now();
    assert!(fails(&gateway, &fresh).await);
    assert!(start.elapsed() < DEADLINE + SLACK);
    eventually("the cache is no longer believed", async || gateway.cached(&cached, Use::Counts).is_none())
        .await;
    for id in [&cached, &fresh] {
        assert!(fails_at_once(&gateway, id));
    }
    assert!(gateway.sessions.create(login("ada"), origin()).await.is_err());
    assert!(gateway.sessions.ping().await.is_err());
    assert!(!open.ended.is_cancelled());

    world.redis().restart().await;
    let back = eventually("Redis answers", async || gateway.sessions.ping().await.is_ok()).await;
    assert!(back < BOUND);
    assert!(gateway.is_out(&cached).await && gateway.is_out(&fresh).await);
    assert!(ended(&open).await < BOUND);
    let id = gateway.log_in("ada").await;
    gateway.live(&id).await;
}

#[tokio::test]
async fn a_frozen_redis_ends_trust_within_a_second_and_loses_nothing() {
    let world = World { deadline: DEADLINE, ..World::new(Kind::Redis).await };
    let gateway = world.gateway().await;
    let id = gateway.log_in("ada").await;
    let open = gateway.live(&id).await;
    let server = world.redis.as_ref().unwrap();
    server.freeze();
    let distrust = eventually("distrust", async || gateway.cached(&id, Use::Counts).is_none()).await;
    assert!(distrust < BOUND + SLACK, "{distrust:?}");
    assert!(fails_at_once(&gateway, &id));

    server.thaw();
    let back = eventually("the session is back", async || {
        matches!(gateway.sessions.load(&id, Use::Counts).await, Ok(Some(_)))
    });
    assert!(back.await < BOUND);
    assert!(!open.ended.is_cancelled());
    eventually("the cache is believed again", async || gateway.trusted()).await;
    gateway.live(&id).await;
    assert!(gateway.cached(&id, Use::Counts).is_some());
}

#[tokio::test]
async fn an_end_that_was_missed_is_found_out_on_reconnecting() {
    let world = World::new(Kind::Redis).await;
    let gateway = world.gateway().await;
    let id = gateway.log_in("ada").await;
    let open = gateway.live(&id).await;
    let server = world.redis.as_ref().unwrap();
    // Lost silently, as by a master that fails before its replica has the write.
    server.command::<()>(&["DEL", &format!("portcullis:s:{}", id.to_hex())]).await;
    assert!(gateway.cached(&id, Use::Counts).is_some());
    server.command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    assert!(ended(&open).await < BOUND);
    eventually("the link is back", async || gateway.sessions.ping().await.is_ok()).await;
    assert!(gateway.is_out(&id).await);
}

#[tokio::test]
async fn sessions_that_the_store_has_lost_end_when_their_use_is_written_down() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let id = gateway.log_in("ada").await;
        let open = gateway.live(&id).await;
        match &world.redis {
            Some(server) => server.command::<()>(&["FLUSHALL"]).await,
            None => drop(sqlx::query("DELETE FROM sessions").execute(&gateway.database).await.unwrap()),
        }
        world.clock.advance(INACTIVITY / 2);
        assert!(gateway.cached(&id, Use::Counts).is_some());
        gateway.sessions.flush().await;
        ended(&open).await;
        assert!(gateway.is_out(&id).await);
    }
}

#[tokio::test]
async fn a_session_missing_from_its_users_index_ends_with_the_user() {
    let world = World::new(Kind::Redis).await;
    let (here, there) = (world.gateway().await, world.gateway().await);
    let id = here.log_in("ada").await;
    let open = [here.live(&id).await, there.live(&id).await];
    // As a server that is short of memory does.
    world
        .redis
        .as_ref()
        .unwrap()
        .command::<()>(&["DEL", &format!("portcullis:u:{}", UserId::of("ada"))])
        .await;
    here.sessions.revoke_user(&UserId::of("ada")).await.unwrap();
    assert!(here.cached(&id, Use::Counts).is_none());
    for live in &open {
        assert!(ended(live).await < BOUND);
    }
    assert!(here.is_out(&id).await && there.is_out(&id).await);
}

#[tokio::test]
async fn a_change_feed_that_stops_ends_trust_within_a_second() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let id = gateway.log_in("ada").await;
        gateway.live(&id).await;
        gateway.database.close().await;
        let distrust = eventually("distrust", async || gateway.cached(&id, Use::Counts).is_none()).await;
        assert!(distrust < BOUND + SLACK, "{distrust:?}");
        // The session store answers, and is asked each time.
        gateway.live(&id).await;
        assert!(gateway.cached(&id, Use::Counts).is_none());
    }
}

#[tokio::test]
async fn a_closed_database_is_an_error() {
    let world = World::new(Kind::Database).await;
    let database = world.database().await;
    let store = SqlSessions::new(database.clone(), INACTIVITY, world.clock.clone());
    let gateway = world.gateway_on(Arc::new(store)).await;
    let id = gateway.log_in("ada").await;
    database.close().await;
    assert!(fails(&gateway, &id).await);
    assert!(gateway.sessions.ping().await.is_err());
}

#[tokio::test]
async fn a_user_whom_nobody_can_look_up_is_an_error() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let id = gateway.log_in("ada").await;
        *world.people.unreachable.lock().unwrap() = true;
        assert!(matches!(gateway.sessions.load(&id, Use::Counts).await, Err(SessionError::AccountStatus(_))));
        *world.people.unreachable.lock().unwrap() = false;
        gateway.live(&id).await;
    }
}

#[tokio::test]
async fn a_doubt_is_resolved_as_soon_as_somebody_can_tell() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let (ada, bob) = (gateway.log_in("ada").await, gateway.log_in("bob").await);
        let (adas, bobs) = (gateway.live(&ada).await, gateway.live(&bob).await);
        *world.people.unreachable.lock().unwrap() = true;
        world.change_user("bob", Some(profile("bob", &["new"]))).await;
        world.change_user("ada", None).await;
        eventually("nothing is cached", async || {
            [&ada, &bob].iter().all(|id| gateway.cached(id, Use::Counts).is_none())
        })
        .await;
        assert!(fails(&gateway, &ada).await && fails(&gateway, &bob).await);
        assert!(!adas.ended.is_cancelled() && !bobs.ended.is_cancelled());
        *world.people.unreachable.lock().unwrap() = false;
        assert!(ended(&adas).await < BOUND);
        assert!(!bobs.ended.is_cancelled());
    }
}

#[tokio::test]
async fn without_upkeep_nothing_is_believed_but_the_store() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.idle_gateway_on(world.store().await).await;
        let id = gateway.log_in("ada").await;
        gateway.live(&id).await;
        assert!(gateway.cached(&id, Use::Counts).is_none());
        world.store().await.remove(&id).await.unwrap();
        assert!(gateway.is_out(&id).await);
    }
}

#[tokio::test]
async fn with_a_grace_those_go_on_who_are_known_and_nobody_else() {
    let grace = Duration::from_mins(1);
    let mut world = World { deadline: DEADLINE, grace, ..World::new(Kind::Redis).await };
    let (here, there) = (world.gateway().await, world.gateway().await);
    let ids = [here.log_in("ada").await, here.log_in("ada").await, here.log_in("bob").await];
    let [kept, revoked, bobs] = &ids;
    let stranger = there.log_in("ada").await;
    for id in &ids {
        here.live(id).await;
    }
    world.redis().kill();
    eventually("the freshness is lost", async || !here.trusted()).await;
    assert!(here.sessions.on_grace());
    for id in &ids {
        here.live(id).await;
    }
    assert!(fails(&here, &stranger).await);
    assert!(here.sessions.create(login("ada"), origin()).await.is_err());

    // Ends and changed rights arrive from elsewhere, and the limits hold.
    there.sessions.revoke(revoked).await.unwrap();
    there.sessions.revoke_user(&UserId::of("bob")).await.unwrap();
    let end = eventually("their ends are known", async || {
        here.cached(revoked, Use::Counts).is_none() && here.cached(bobs, Use::Counts).is_none()
    });
    assert!(end.await < BOUND + SLACK);
    assert!(fails(&here, revoked).await && fails(&here, bobs).await);
    here.live(kept).await;
    world.clock.advance(INACTIVITY);
    assert!(here.cached(kept, Use::Counts).is_none());
}

#[tokio::test]
async fn a_grace_has_an_end() {
    let grace = Duration::from_secs(2);
    let mut world = World { deadline: DEADLINE, grace, ..World::new(Kind::Redis).await };
    let gateway = world.gateway().await;
    let id = gateway.log_in("ada").await;
    gateway.live(&id).await;
    world.redis().kill();
    eventually("the freshness is lost", async || !gateway.trusted()).await;
    gateway.live(&id).await;
    let over = eventually("the grace is over", async || gateway.cached(&id, Use::Counts).is_none()).await;
    assert!(over <= grace + SLACK, "{over:?}");
    assert!(!gateway.sessions.on_grace() && fails(&gateway, &id).await);
}

#[tokio::test]
async fn no_grace_outlives_the_feed_that_tells_of_ends() {
    let world = World { grace: Duration::from_mins(1), ..World::new(Kind::Redis).await };
    let gateway = world.gateway().await;
    let id = gateway.log_in("ada").await;
    gateway.live(&id).await;
    gateway.database.close().await;
    eventually("distrust", async || gateway.cached(&id, Use::Counts).is_none()).await;
    assert!(!gateway.sessions.on_grace());
}
