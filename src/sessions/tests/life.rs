//! From the login to the end on every gateway.

use super::*;

#[tokio::test]
async fn a_login_is_a_session_on_every_gateway_and_is_cached_there() {
    for kind in STORES {
        let world = World::new(kind).await;
        let (here, there) = (world.gateway().await, world.gateway().await);
        let id = here.log_in("ada").await;
        for gateway in [&here, &there] {
            assert!(gateway.cached(&id, Use::Counts).is_none());
            let live = gateway.live(&id).await;
            assert_eq!((live.session.id, &live.session.user), (id, &UserId::of("ada")));
            assert_eq!(live.session.level(), Level::Two);
            assert_eq!(live.session.expires_at, live.session.created_at.plus(EXPIRATION));
            assert_eq!(live.session.origin, origin());
            let cached = gateway.cached(&id, Use::Counts).expect("cached");
            assert!(Arc::ptr_eq(&live, &cached));
        }
        let csrf = async |gateway: &Gateway| gateway.live(&id).await.session.csrf;
        assert_eq!(csrf(&here).await, csrf(&there).await);
        here.sessions.ping().await.unwrap();
    }
}

#[tokio::test]
async fn no_two_sessions_share_a_token_or_what_forms_are_signed_with() {
    let world = World::new(Kind::Database).await;
    let gateway = world.gateway().await;
    let (one, two) = (gateway.log_in("ada").await, gateway.log_in("ada").await);
    assert_ne!(one, two);
    assert_ne!(gateway.live(&one).await.session.csrf, gateway.live(&two).await.session.csrf);
}

#[tokio::test]
async fn a_token_that_nobody_was_given_is_none_and_leaves_nothing_behind() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        for number in 0..100 {
            assert!(gateway.is_out(&TokenHash::from_bytes([number; 32])).await);
        }
        assert!(gateway.sessions.cache.is_empty());
    }
}

#[tokio::test]
async fn a_revoked_session_is_out_here_at_once_and_elsewhere_within_a_second() {
    for kind in STORES {
        let world = World::new(kind).await;
        let (here, there) = (world.gateway().await, world.gateway().await);
        let (id, other) = (here.log_in("ada").await, here.log_in("ada").await);
        let open = [here.live(&id).await, there.live(&id).await];
        let untouched = there.live(&other).await;

        here.sessions.revoke(&id).await.unwrap();
        assert!(open[0].ended.is_cancelled());
        assert!(here.cached(&id, Use::Counts).is_none());
        assert!(here.is_out(&id).await);
        assert!(ended(&open[1]).await < BOUND);
        assert!(there.cached(&id, Use::Counts).is_none());
        assert!(there.is_out(&id).await);
        assert!(!untouched.ended.is_cancelled());
        assert!(there.cached(&other, Use::Counts).is_some());
    }
}

#[tokio::test]
async fn a_revoked_user_is_out_everywhere_within_a_second_and_nobody_else_is() {
    for kind in STORES {
        let world = World::new(kind).await;
        let (here, there) = (world.gateway().await, world.gateway().await);
        let ids = [here.log_in("ada").await, there.log_in("ada").await];
        let bob = here.log_in("bob").await;
        let mut open = Vec::new();
        for id in &ids {
            open.push(there.live(id).await);
        }
        let bobs = there.live(&bob).await;

        assert_eq!(here.sessions.revoke_user(&UserId::of("ada")).await.unwrap(), 2);
        for live in &open {
            assert!(ended(live).await < BOUND);
        }
        for id in &ids {
            assert!(here.is_out(id).await && there.is_out(id).await);
        }
        assert!(!bobs.ended.is_cancelled());
        assert_eq!(here.sessions.revoke_user(&UserId::of("ada")).await.unwrap(), 0);
        // The user may log in again.
        let again = here.log_in("ada").await;
        there.live(&again).await;
    }
}

#[tokio::test]
async fn a_session_revoked_by_a_command_beside_the_gateway_is_out_within_a_second() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let id = gateway.log_in("ada").await;
        let open = gateway.live(&id).await;
        let command = world.idle_gateway_on(world.store().await).await;
        assert_eq!(command.sessions.list(None).await.unwrap().len(), 1);
        command.sessions.revoke(&id).await.unwrap();
        assert!(ended(&open).await < BOUND);
        assert!(gateway.is_out(&id).await);
    }
}

#[tokio::test]
async fn a_session_that_was_evicted_from_the_cache_still_ends() {
    for kind in STORES {
        let world = World::new(kind).await;
        let (here, there) = (world.gateway().await, world.gateway().await);
        let id = here.log_in("ada").await;
        let open = there.live(&id).await;
        there.sessions.cache.forget(&id);
        here.sessions.revoke(&id).await.unwrap();
        assert!(ended(&open).await < BOUND);
    }
}

#[tokio::test]
async fn a_disabled_user_is_out_within_a_second_and_in_again_when_enabled() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let id = gateway.log_in("ada").await;
        let open = gateway.live(&id).await;
        world.change_user("ada", None).await;
        assert!(ended(&open).await < BOUND);
        assert!(gateway.cached(&id, Use::Counts).is_none());
        assert!(gateway.is_out(&id).await);

        drop(open);
        world.change_user("ada", Some(profile("ada", &[]))).await;
        eventually("the session is good again", async || !gateway.is_out(&id).await).await;
    }
}

#[tokio::test]
async fn changed_rights_hold_within_a_second_and_end_nothing() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let id = gateway.log_in("ada").await;
        let open = gateway.live(&id).await;
        assert_eq!(open.session.groups, [""; 0]);
        world.change_user("ada", Some(profile("ada", &["admins"]))).await;
        let took = eventually("the new group is seen", async || {
            gateway.live(&id).await.session.groups == ["admins"]
        });
        assert!(took.await < BOUND);
        assert!(!open.ended.is_cancelled());

        // Both stand for the same session, and end with it.
        let renewed = gateway.live(&id).await;
        assert!(!Arc::ptr_eq(&open, &renewed));
        gateway.sessions.revoke(&id).await.unwrap();
        assert!(open.ended.is_cancelled() && renewed.ended.is_cancelled());
    }
}

#[tokio::test]
async fn a_list_shows_what_is_good_the_latest_first() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let idle = gateway.log_in("ada").await;
        world.clock.advance(INACTIVITY / 2);
        let first = gateway.log_in("bob").await;
        world.clock.advance(INACTIVITY / 4);
        let second = gateway.log_in("ada").await;
        let ada = UserId::of("ada");
        let ids = async |user| {
            let list = gateway.sessions.list(user).await.unwrap();
            list.iter().map(|summary| summary.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(None).await, [second, first, idle]);
        assert_eq!(ids(Some(&ada)).await, [second, idle]);
        world.clock.advance(INACTIVITY / 4);
        assert_eq!(ids(None).await, [second, first]);

        let summary = &gateway.sessions.list(Some(&UserId::of("ada"))).await.unwrap()[0];
        assert_eq!((&summary.user, summary.name.as_str()), (&UserId::of("ada"), "ada@example.com"));
        assert_eq!(summary.amr, [Method::Password, Method::Totp]);
        assert_eq!(summary.origin, origin());
    }
}

#[tokio::test]
async fn a_damaged_or_moved_record_is_no_session() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let id = gateway.log_in("ada").await;
        let store = world.store().await;
        let good = store.load(&id).await.unwrap().unwrap();
        let mut flipped = good.record.clone();
        flipped[20] ^= 1;
        let foreign = Sealer::from_key(&[8; 32])
            .seal(&["sessions", &TokenHash::from_bytes([4; 32]).to_hex()], b"\x01{}");
        let records = [good.record.clone(), flipped, vec![], good.record[..30].to_vec(), foreign];
        for (number, record) in (0_u8..).zip(records) {
            let id = TokenHash::from_bytes([number; 32]);
            store.insert(&StoredSession { id, record, ..good.clone() }).await.unwrap();
            assert!(gateway.is_out(&id).await, "record {number}");
        }
        // A session listed under another user, with whom it would not be ended, is not valid either.
        store.remove(&id).await.unwrap();
        store.insert(&StoredSession { user: UserId::of("bob"), ..good }).await.unwrap();
        assert!(gateway.is_out(&id).await);
    }
}

#[tokio::test]
async fn a_restarted_gateway_keeps_its_sessions() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let id = gateway.log_in("ada").await;
        let csrf = gateway.live(&id).await.session.csrf;
        gateway.stop().await;
        assert_eq!(world.gateway().await.live(&id).await.session.csrf, csrf);
    }
}
