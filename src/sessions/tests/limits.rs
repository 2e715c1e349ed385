//! Idle and absolute limits, and clocks that jump.

use super::*;

/// A minute less than the allowed inactivity.
const NEARLY: Duration = Duration::from_mins(59);
const DAY: Duration = Duration::from_hours(24);

#[tokio::test]
async fn a_session_nobody_uses_is_over_on_every_path() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let id = gateway.log_in("ada").await;
        let open = gateway.live(&id).await;
        world.clock.advance(NEARLY);
        assert!(gateway.cached(&id, Use::Counts).is_some());
        world.clock.advance(INACTIVITY);
        assert!(gateway.cached(&id, Use::Counts).is_none());
        assert!(gateway.is_out(&id).await);
        assert!(open.ended.is_cancelled());
        assert!(!gateway.sessions.touch(&open));
    }
}

#[tokio::test]
async fn what_is_open_ends_with_the_limits_though_nobody_asks() {
    for kind in STORES {
        for limit in [INACTIVITY, EXPIRATION] {
            let world = World::new(kind).await;
            let gateway = world.gateway().await;
            let id = gateway.log_in("ada").await;
            let open = gateway.live(&id).await;
            world.clock.advance(limit);
            // Lifetimes are checked once a second.
            assert!(ended(&open).await < 2 * BOUND);
        }
    }
}

#[tokio::test]
async fn a_session_is_over_at_its_age_however_busy() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let id = gateway.log_in("ada").await;
        for _ in 0..23 {
            gateway.live(&id).await;
            world.clock.advance(EXPIRATION / 24);
        }
        gateway.live(&id).await;
        world.clock.advance(EXPIRATION / 24);
        assert!(gateway.cached(&id, Use::Counts).is_none());
        assert!(gateway.is_out(&id).await);
    }
}

/// A user who asks to be kept signed in.
async fn log_in_for_long(gateway: &Gateway) -> TokenHash {
    let new = NewSession { remembered: true, ..login("ada") };
    gateway.sessions.create(new, origin()).await.unwrap().hash()
}

#[tokio::test]
async fn a_remembered_session_lasts_unused_to_its_end_and_no_longer_on_every_gateway() {
    for kind in STORES {
        let world = World { remember_me: Some(30 * DAY), ..World::new(kind).await };
        let (here, there) = (world.gateway().await, world.gateway().await);
        let (kept, usual) = (log_in_for_long(&here).await, here.log_in("ada").await);
        let open = here.live(&kept).await;
        world.clock.advance(INACTIVITY);
        here.sessions.cache.sweep(here.sessions.clock.now());
        assert!(here.cached(&kept, Use::Counts).is_some());
        assert!(here.is_out(&usual).await);
        let listed = there.sessions.list(Some(&UserId::of("ada"))).await.unwrap();
        assert_eq!(
            listed.iter().map(|session| (session.id, session.remembered)).collect::<Vec<_>>(),
            [(kept, true)]
        );
        // An hour less than thirty days.
        world.clock.advance(29 * DAY + 22 * INACTIVITY);
        here.sessions.store.purge(world.clock.now()).await.unwrap();
        there.live(&kept).await;
        assert!(!open.ended.is_cancelled());
        assert_eq!(here.sessions.ran_out(&kept).await.unwrap(), None);
        world.clock.advance(INACTIVITY);
        assert!(here.is_out(&kept).await && there.is_out(&kept).await);
        assert!(open.ended.is_cancelled());
        assert!(here.sessions.list(None).await.unwrap().is_empty());
        assert_eq!(here.sessions.ran_out(&kept).await.unwrap(), Some(UserId::of("ada")));
    }
}

#[tokio::test]
async fn what_is_open_of_a_remembered_session_ends_with_it_though_nobody_asks() {
    for kind in STORES {
        let world = World { remember_me: Some(30 * DAY), ..World::new(kind).await };
        let gateway = world.gateway().await;
        let open = gateway.live(&log_in_for_long(&gateway).await).await;
        world.clock.advance(30 * DAY);
        assert!(ended(&open).await < 2 * BOUND);
    }
}

#[tokio::test]
async fn where_nobody_may_ask_a_remembered_session_is_one_like_any_other() {
    for kind in STORES {
        let world = World { remember_me: Some(30 * DAY), ..World::new(kind).await };
        let generous = world.gateway().await;
        let id = log_in_for_long(&generous).await;
        let strict = World {
            remember_me: None,
            durable: world.durable,
            redis: world.redis,
            ..World::new(Kind::Database).await
        };
        strict.clock.set(world.clock.now());
        let gateway = strict.gateway().await;
        let live = gateway.live(&id).await;
        assert_eq!(live.session.expires_at, live.session.created_at.plus(EXPIRATION));
        assert!(!gateway.sessions.list(None).await.unwrap()[0].remembered);
        strict.clock.advance(INACTIVITY);
        assert!(gateway.is_out(&id).await);
        let asked = log_in_for_long(&gateway).await;
        strict.clock.advance(INACTIVITY);
        assert!(gateway.is_out(&asked).await);
    }
}

#[tokio::test]
async fn a_record_of_before_anybody_was_remembered_still_opens() {
    let world = World { remember_me: Some(30 * DAY), ..World::new(Kind::Database).await };
    let gateway = world.gateway().await;
    let id = gateway.log_in("ada").await;
    let sealer = &gateway.sessions.sealer;
    let place = ["sessions", &id.to_hex()];
    let mut stored = gateway.sessions.store.load(&id).await.unwrap().unwrap();
    let plain = sealer.open(&place, &stored.record).unwrap();
    let plain = String::from_utf8(plain.to_vec()).unwrap();
    let old = plain.replace(",\"remembered\":false", "");
    assert_ne!(old, plain);
    stored.record = sealer.seal(&place, old.as_bytes());
    gateway.sessions.store.remove(&id).await.unwrap();
    gateway.sessions.store.insert(&stored).await.unwrap();
    eventually("it opens", async || gateway.sessions.load(&id, Use::Counts).await.unwrap().is_some()).await;
    assert!(!gateway.live(&id).await.session.remembered);
}

#[tokio::test]
async fn a_tunnel_that_carries_something_keeps_its_session() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let id = gateway.log_in("ada").await;
        let open = gateway.live(&id).await;
        for _ in 0..3 {
            world.clock.advance(INACTIVITY / 2);
            assert!(gateway.sessions.touch(&open));
        }
        assert!(gateway.cached(&id, Use::Counts).is_some());
        assert_eq!(gateway.live(&id).await.last_seen(), open.last_seen());
    }
}

#[tokio::test]
async fn what_does_not_count_is_served_and_keeps_no_session() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let id = gateway.log_in("ada").await;
        let first = gateway.sessions.load(&id, Use::Passive).await.unwrap().expect("good");
        let made = first.last_seen();
        world.clock.advance(NEARLY);
        assert!(gateway.cached(&id, Use::Passive).is_some());
        gateway.sessions.cache.forget(&id);
        assert!(gateway.sessions.load(&id, Use::Passive).await.unwrap().is_some());
        assert_eq!(first.last_seen(), made);
        let idle = world.idle_gateway_on(world.store().await).await;
        assert_eq!(idle.sessions.load(&id, Use::Passive).await.unwrap().unwrap().last_seen(), made);
        world.clock.advance(Duration::from_mins(1));
        assert!(gateway.cached(&id, Use::Passive).is_none());
        assert!(gateway.sessions.load(&id, Use::Passive).await.unwrap().is_none());
        assert!(first.ended.is_cancelled());
    }
}

#[tokio::test]
async fn a_session_in_use_at_another_gateway_is_not_idle_here() {
    for kind in STORES {
        let world = World::new(kind).await;
        let (here, there) = (world.gateway().await, world.gateway().await);
        let id = here.log_in("ada").await;
        let open = here.live(&id).await;
        world.clock.advance(INACTIVITY / 2);
        there.live(&id).await;
        // A gateway that stops stores the uses that it knows of.
        there.stop().await;
        world.clock.advance(INACTIVITY / 2);
        assert!(here.cached(&id, Use::Counts).is_none());
        here.live(&id).await;
        assert!(here.cached(&id, Use::Counts).is_some());
        assert!(!open.ended.is_cancelled());
    }
}

#[tokio::test]
async fn a_use_is_not_lost_when_the_session_is_evicted() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let id = gateway.log_in("ada").await;
        for _ in 0..3 {
            world.clock.advance(INACTIVITY / 2);
            gateway.live(&id).await;
            gateway.sessions.cache.forget(&id);
            gateway.sessions.cache.sweep(gateway.sessions.clock.now());
        }
        let seen = gateway.live(&id).await.last_seen();
        gateway.stop().await;
        assert_eq!(world.store().await.load(&id).await.unwrap().unwrap().last_seen, seen);
    }
}

#[tokio::test]
async fn what_is_over_and_not_held_on_to_is_forgotten() {
    let world = World::new(Kind::Database).await;
    let gateway = world.gateway().await;
    let id = gateway.log_in("ada").await;
    gateway.live(&id).await;
    world.clock.advance(EXPIRATION);
    eventually("nothing is remembered", async || gateway.sessions.cache.is_empty()).await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_makes_no_session_longer() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let id = gateway.log_in("ada").await;
        world.clock.advance(NEARLY);
        gateway.live(&id).await;
        world.clock.set(START);
        // It goes on from where it was, in real time.
        gateway.sessions.cache.forget(&id);
        gateway.live(&id).await;
        world.clock.advance(INACTIVITY);
        assert!(gateway.cached(&id, Use::Counts).is_none());
        assert!(gateway.is_out(&id).await);
    }
}

#[tokio::test]
async fn a_session_from_the_future_is_refused_after_a_restart() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let id = gateway.log_in("ada").await;
        gateway.stop().await;
        world.clock.set(START.minus(INACTIVITY));
        assert!(world.gateway().await.is_out(&id).await);
        // Gateways whose clocks differ by some seconds still work together.
        world.clock.set(START.minus(Duration::from_secs(30)));
        world.gateway().await.live(&id).await;
    }
}
