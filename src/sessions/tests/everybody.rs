//! Ending all sessions at once: everybody is out everywhere within a second, whatever their store has lost, restored or
//! fails to answer, and later logins stay in.

use super::*;

/// Ends everybody as an operator does, and returns how many sessions could be counted.
async fn end_everybody(gateway: &Gateway) -> Option<usize> {
    let mut transaction = gateway.database.write().await.unwrap();
    gateway.sessions.end_all(&mut transaction).await.unwrap();
    transaction.commit().await.unwrap();
    gateway.sessions.clear_ended().await
}

#[tokio::test]
async fn everybody_is_out_everywhere_and_whoever_comes_next_is_in() {
    for kind in STORES {
        let world = World::new(kind).await;
        let (here, there) = (world.gateway().await, world.gateway().await);
        let operator = world.idle_gateway_on(world.store().await).await;
        // Including a user whose sessions have been ended before.
        here.sessions.revoke_user(&UserId::of("bob")).await.unwrap();
        let (adas, bobs) = (here.log_in("ada").await, there.log_in("bob").await);
        let mut open = Vec::new();
        for gateway in [&here, &there] {
            for id in [&adas, &bobs] {
                open.push(gateway.live(id).await);
            }
        }
        assert_eq!(end_everybody(&operator).await, Some(2), "{kind:?}");
        let next = here.log_in("ada").await;
        let fresh = [here.live(&next).await, there.live(&next).await];
        for live in &open {
            assert!(ended(live).await < BOUND);
        }
        for gateway in [&here, &there] {
            assert!(gateway.is_out(&adas).await && gateway.is_out(&bobs).await);
            gateway.live(&next).await;
        }
        assert!(fresh.iter().all(|live| !live.ended.is_cancelled()), "{kind:?}");
        assert_eq!(there.sessions.list(None).await.unwrap().len(), 1);
        assert_eq!(end_everybody(&operator).await, Some(1), "{kind:?}");
        assert_eq!(end_everybody(&operator).await, Some(0), "{kind:?}");
    }
}

#[tokio::test]
async fn a_session_that_was_on_its_way_into_the_store_is_out_as_well() {
    let world = World::new(Kind::Database).await;
    let gateway = world.gateway().await;
    let id = gateway.log_in("ada").await;
    // As if it had been written just after: the row is there again, and has the generation before.
    let kept = "CREATE TABLE kept AS SELECT * FROM sessions";
    sqlx::query(kept).execute(&gateway.database).await.unwrap();
    for all in [false, true] {
        if all {
            end_everybody(&gateway).await;
        } else {
            gateway.sessions.revoke_user(&UserId::of("ada")).await.unwrap();
        }
        sqlx::query("INSERT INTO sessions SELECT * FROM kept").execute(&gateway.database).await.unwrap();
        assert!(gateway.is_out(&id).await);
        assert!(gateway.sessions.list(Some(&UserId::of("ada"))).await.unwrap().is_empty());
        gateway.sessions.clear_ended().await.unwrap();
    }
}

#[tokio::test]
async fn what_redis_gets_back_from_an_old_dump_is_out() {
    let world = World::new(Kind::Redis).await;
    let (here, there) = (world.gateway().await, world.gateway().await);
    let server = world.redis.as_ref().unwrap();
    for all in [true, false] {
        let id = here.log_in("ada").await;
        let live = there.live(&id).await;
        let keys = [format!("portcullis:s:{}", id.to_hex()), format!("portcullis:u:{}", UserId::of("ada"))];
        for key in &keys {
            server.command::<i64>(&["COPY", key, &format!("dump:{key}"), "REPLACE"]).await;
        }
        for key in &keys {
            server.command::<i64>(&["DEL", key]).await;
        }
        if all {
            assert_eq!(end_everybody(&here).await, Some(0));
        } else {
            here.sessions.revoke_user(&UserId::of("ada")).await.unwrap();
        }
        for key in &keys {
            server.command::<i64>(&["COPY", &format!("dump:{key}"), key]).await;
        }
        assert!(ended(&live).await < BOUND);
        assert!(here.is_out(&id).await && there.is_out(&id).await);
        let restarted = world.gateway().await;
        assert!(restarted.is_out(&id).await);
        assert_eq!(restarted.sessions.list(None).await.unwrap().len(), 0);
    }
}

#[tokio::test]
async fn what_redis_has_lost_is_out_within_a_second() {
    for all in [true, false] {
        let world = World::new(Kind::Redis).await;
        let (here, there) = (world.gateway().await, world.gateway().await);
        let id = here.log_in("ada").await;
        let live = there.live(&id).await;
        world.redis.as_ref().unwrap().command::<()>(&["FLUSHDB"]).await;
        assert!(there.cached(&id, Use::Counts).is_some());
        if all {
            end_everybody(&here).await;
        } else {
            here.sessions.revoke_user(&UserId::of("ada")).await.unwrap();
        }
        assert!(ended(&live).await < BOUND);
        assert!(there.is_out(&id).await);
    }
}

#[tokio::test]
async fn many_are_out_within_a_second_while_redis_is_silent() {
    let world = World { deadline: Duration::from_millis(250), ..World::new(Kind::Redis).await };
    let (here, there) = (world.gateway().await, world.gateway().await);
    let mut open = Vec::new();
    for _ in 0..600 {
        let id = here.log_in("ada").await;
        open.push(there.live(&id).await);
    }
    let server = world.redis.as_ref().unwrap();
    server.freeze();
    let began = tokio::time::Instant::now();
    let mut transaction = here.database.write().await.unwrap();
    here.sessions.end_all(&mut transaction).await.unwrap();
    transaction.commit().await.unwrap();
    for live in &open {
        ended(live).await;
    }
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    assert_eq!(here.sessions.clear_ended().await, None, "nobody can count them");
    server.thaw();
    for gateway in [&here, &there] {
        eventually("Redis answers", async || gateway.sessions.ping().await.is_ok()).await;
    }
    assert!(there.is_out(&open[0].session.id).await);
    assert_eq!(here.sessions.clear_ended().await, Some(600));
}

#[tokio::test]
async fn a_foreign_key_among_ours_is_left_out_and_keeps_nobody_in() {
    let world = World::new(Kind::Redis).await;
    let gateway = world.gateway().await;
    let (ada, bob) = (gateway.log_in("ada").await, gateway.log_in("bob").await);
    let (adas, bobs) = (gateway.live(&ada).await, gateway.live(&bob).await);
    let server = world.redis.as_ref().unwrap();
    let foreign = ["aa", "bb", "cc"].map(|digits| format!("portcullis:s:{}", digits.repeat(32)));
    server.command::<()>(&["SET", &foreign[0], "somebody else's"]).await;
    server
        .command::<i64>(&[
            "HSET",
            &foreign[1],
            "user",
            UserId::of("ada").as_str(),
            "record",
            "x",
            "seen",
            "soon",
            "expires",
            "x",
            "generation",
            "x",
        ])
        .await;
    server.command::<i64>(&["LPUSH", &foreign[2], "x"]).await;
    server.command::<()>(&["SET", "portcullis:s:not-an-id", "x"]).await;
    server.command::<()>(&["SET", &format!("portcullis:u:{}", UserId::of("bob")), "not a set"]).await;
    let listed = gateway.sessions.list(None).await.unwrap();
    assert_eq!(listed.iter().map(|session| session.id).collect::<Vec<_>>(), [ada]);
    assert_eq!(gateway.sessions.beginning_with(&ada.to_hex()[..8]).await.unwrap().len(), 1);
    gateway.sessions.revoke_user(&UserId::of("bob")).await.unwrap();
    assert!(ended(&bobs).await < BOUND);
    end_everybody(&gateway).await.expect("what can be cleared is cleared");
    assert!(ended(&adas).await < BOUND);
    assert!(gateway.is_out(&ada).await);
    for key in &foreign {
        assert_eq!(server.command::<i64>(&["EXISTS", key]).await, 1, "what is not ours stays");
    }
}

#[tokio::test]
async fn no_clock_has_a_part_in_ending_everybody_or_one() {
    for kind in STORES {
        let world = World::new(kind).await;
        let gateway = world.gateway().await;
        let (one, other) = (gateway.log_in("ada").await, gateway.log_in("ada").await);
        let (live, others) = (gateway.live(&one).await, gateway.live(&other).await);
        // To a command whose clock is ahead they seem to have been unused for too long.
        let ahead = Arc::new(ManualClock::at(START.plus(2 * INACTIVITY)));
        let command = World { clock: ahead, ..World::new(Kind::Database).await };
        let command = World {
            durable: world.durable.again(),
            elsewhere: world.redis.as_ref().map(RedisServer::config),
            ..command
        };
        let command = command.idle_gateway_on(command.store().await).await;
        assert!(command.sessions.list(None).await.unwrap().is_empty(), "by its clock they are over");
        let found = command.sessions.beginning_with(&one.to_hex()[..8]).await.unwrap();
        assert_eq!(found, [(one, Some("ada@example.com".to_owned()))]);
        command.sessions.revoke(&one).await.unwrap();
        assert!(ended(&live).await < BOUND);
        assert_eq!(end_everybody(&command).await, Some(1));
        assert!(ended(&others).await < BOUND);
        assert!(gateway.is_out(&other).await);
    }
}

#[tokio::test]
async fn a_gateway_that_was_cut_off_from_the_database_learns_of_it_when_it_is_back() {
    for kind in [Kind::Postgres, Kind::Redis] {
        let world = World::new(kind).await;
        let (cut_off, there) = (world.gateway().await, world.gateway().await);
        let id = there.log_in("ada").await;
        let live = cut_off.live(&id).await;
        let (adas, bobs) = (there.live(&id).await, there.log_in("bob").await);
        cut_off.live(&bobs).await;
        cut_off.database.close().await;
        eventually("the cache is not believed", async || cut_off.cached(&id, Use::Counts).is_none()).await;
        end_everybody(&there).await;
        assert!(ended(&adas).await < BOUND);
        // It lets nobody in on its own knowledge, and logs nobody out whom it cannot ask about.
        assert!(cut_off.cached(&id, Use::Counts).is_none() && cut_off.cached(&bobs, Use::Counts).is_none());
        drop(live);
        let back = world.gateway().await;
        assert!(back.is_out(&id).await && back.is_out(&bobs).await);
    }
}
