//! Idle and absolute limits, and clocks that jump.

use super::*;

/// All but a minute of the inactivity that is allowed.
const NEARLY: Duration = Duration::from_mins(59);

#[tokio::test]
async fn a_session_nobody_uses_is_over_on_every_path() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let id = gateway.log_in("ada").await;
        let open = gateway.live(&id).await;
        world.clock.advance(NEARLY);
        assert!(gateway.sessions.cached(&id).is_some());
        world.clock.advance(INACTIVITY);
        assert!(gateway.sessions.cached(&id).is_none());
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
            // Limits are looked after once a second.
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
        assert!(gateway.sessions.cached(&id).is_none());
        assert!(gateway.is_out(&id).await);
    }
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
        assert!(gateway.sessions.cached(&id).is_some());
        assert_eq!(gateway.live(&id).await.last_seen(), open.last_seen());
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
        // A gateway that stops writes down what it knows of uses.
        there.stop().await;
        world.clock.advance(INACTIVITY / 2);
        assert!(here.sessions.cached(&id).is_none());
        here.live(&id).await;
        assert!(here.sessions.cached(&id).is_some());
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
            gateway.sessions.cache.sweep(gateway.sessions.steady.now(), gateway.sessions.limits);
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
        // It goes on, by the time that really passes, from where it was.
        gateway.sessions.cache.forget(&id);
        gateway.live(&id).await;
        world.clock.advance(INACTIVITY);
        assert!(gateway.sessions.cached(&id).is_none());
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
        // Gateways whose clocks are some seconds apart still get along.
        world.clock.set(START.minus(Duration::from_secs(30)));
        world.gateway().await.live(&id).await;
    }
}
