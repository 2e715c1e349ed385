//! What ends a session with one factor: a device of its user, and the date for open connections.

use super::*;

const DATE: Timestamp = Timestamp::from_unix_seconds(1_700_007_200);

fn one_factor(user: &str) -> NewSession {
    NewSession { amr: vec![Method::Password], ..login(user) }
}

#[tokio::test]
async fn a_session_of_one_factor_is_over_once_its_user_has_a_device_on_every_gateway() {
    for kind in STORES {
        let world = World::new(kind).await;
        let (here, there) = (world.gateway().await, world.gateway().await);
        let one = here.sessions.create(one_factor("ada"), origin()).await.unwrap().hash();
        let two = here.log_in("ada").await;
        let others = here.sessions.create(one_factor("bob"), origin()).await.unwrap().hash();
        let open = [here.live(&one).await, there.live(&one).await];
        for id in [&two, &others] {
            there.live(id).await;
        }

        world.change_user("ada", Some(Profile { has_device: true, ..profile("ada", &[]) })).await;
        for live in &open {
            let took = ended(live).await;
            assert!(took < BOUND, "{kind:?}: {took:?}");
        }
        for gateway in [&here, &there] {
            assert!(gateway.is_out(&one).await, "{kind:?}");
            gateway.live(&two).await;
            gateway.live(&others).await;
        }
        // A session that is made after the device, by a login that was overtaken, never passes.
        let late = there.sessions.create(one_factor("ada"), origin()).await.unwrap().hash();
        assert!(here.is_out(&late).await && there.is_out(&late).await, "{kind:?}");
    }
}

#[tokio::test]
async fn what_one_factor_has_open_is_cut_at_the_date_and_the_session_goes_on() {
    for kind in STORES {
        let world = World { mandatory_from: Some(DATE), ..World::new(kind).await };
        world.clock.set(DATE.minus(Duration::from_mins(1)));
        let (here, there) = (world.gateway().await, world.gateway().await);
        let one = here.sessions.create(one_factor("ada"), origin()).await.unwrap().hash();
        let two = here.log_in("ada").await;
        let open = [here.live(&one).await, there.live(&one).await];
        let stays = there.live(&two).await;
        world.clock.set(DATE);
        for live in &open {
            let took = ended(live).await;
            assert!(took < BOUND, "{kind:?}: {took:?}");
        }
        // A clock that is set back restores nothing.
        world.clock.set(DATE.minus(Duration::from_hours(1)));
        for gateway in [&here, &there] {
            let live = gateway.live(&one).await;
            assert!(live.ended.is_cancelled(), "{kind:?}");
            assert!(gateway.sessions.now() >= DATE, "{kind:?}");
        }
        assert!(!stays.ended.is_cancelled(), "{kind:?}");
    }
}
