//! Sessions in a Redis that fails over: ended sessions stay ended, and the others go on.

use super::*;
use crate::redis_pool::test_fleet::{Cluster, SentinelFleet};

/// The promised time after a fail-over.
const BACK: Duration = Duration::from_secs(3);

async fn answers(gateway: &Gateway) -> Duration {
    eventually("Redis answers", async || gateway.sessions.ping().await.is_ok()).await
}

/// Ends one session, and all of one user.
async fn end_some(gateway: &Gateway, ended: &TokenHash, bobs: &TokenHash) {
    gateway.sessions.revoke(ended).await.unwrap();
    gateway.sessions.revoke_user(&UserId::of("bob")).await.unwrap();
    assert!(gateway.cached(ended, Use::Counts).is_none() && gateway.cached(bobs, Use::Counts).is_none());
}

/// Asks again and again while servers change: errors are ignored, but no wrong answer is.
async fn never_revived(gateways: [&Gateway; 2], out: [&TokenHash; 2], kept: &TokenHash, rounds: u32) {
    for _ in 0..rounds {
        for gateway in gateways {
            for id in out {
                if let Ok(found) = gateway.sessions.load(id, Use::Counts).await {
                    assert!(found.is_none(), "an ended session came back");
                }
            }
            if let Ok(found) = gateway.sessions.load(kept, Use::Counts).await {
                assert!(found.is_some(), "a session was lost");
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_master_that_goes_on_after_a_fail_over_revives_no_session() {
    let watched = SentinelFleet::start().await;
    let world = World { deadline: Duration::from_millis(250), ..World::at(watched.config()).await };
    let (here, there) = (world.gateway().await, world.gateway().await);
    let (ended, bobs, kept) = (here.log_in("ada").await, here.log_in("bob").await, here.log_in("ada").await);
    let open = there.live(&bobs).await;
    for id in [&ended, &kept] {
        there.live(id).await;
    }
    watched.master.copied().await;
    watched.master.freeze();
    eventually("it is noticed", async || here.sessions.ping().await.is_err()).await;
    // No store answers, and the end counts all the same.
    end_some(&here, &ended, &bobs).await;
    watched.replica_leads().await;
    assert!(answers(&here).await + answers(&there).await < BACK);
    assert!(ended_within(&open).await);
    assert!(here.is_out(&ended).await && there.is_out(&ended).await && there.is_out(&bobs).await);
    there.live(&kept).await;
    // It still has all sessions.
    watched.master.thaw();
    never_revived([&here, &there], [&ended, &bobs], &kept, 100).await;
}

async fn ended_within(live: &Live) -> bool {
    ended(live).await < BACK
}

#[tokio::test]
async fn an_end_that_no_replica_has_heard_of_survives_the_master() {
    let mut watched = SentinelFleet::start().await;
    let world = World { deadline: Duration::from_millis(250), ..World::at(watched.config()).await };
    let (here, there) = (world.gateway().await, world.gateway().await);
    let (ended, bobs, kept) = (here.log_in("ada").await, here.log_in("bob").await, here.log_in("ada").await);
    watched.master.copied().await;
    // The replica misses everything that follows, and is what remains.
    watched.replica.freeze();
    watched.master.command::<i64>(&["CLIENT", "KILL", "TYPE", "replica"]).await;
    end_some(&here, &ended, &bobs).await;
    watched.master.kill();
    watched.replica.thaw();
    watched.replica_leads().await;
    assert!(answers(&here).await.max(answers(&there).await) < BACK);
    let key = format!("portcullis:s:{}", ended.to_hex());
    assert_eq!(watched.replica.command::<i64>(&["EXISTS", &key]).await, 1, "the record has come back");
    assert!(here.is_out(&ended).await && there.is_out(&ended).await);
    assert!(here.is_out(&bobs).await && there.is_out(&bobs).await);
    here.live(&kept).await;
}

#[tokio::test]
async fn a_cluster_that_loses_a_master_revives_no_session_and_loses_none() {
    let mut cluster = Cluster::start(3, true).await;
    let world = World { deadline: Duration::from_millis(250), ..World::at(cluster.config()).await };
    let (here, there) = (world.gateway().await, world.gateway().await);
    let mut ids = Vec::new();
    for _ in 0..20 {
        let id = here.log_in("ada").await;
        there.live(&id).await;
        ids.push(id);
    }
    let bobs = here.log_in("bob").await;
    cluster.nodes[0].copied().await;
    let (out, kept) = ids.split_at(10);
    cluster.nodes[0].kill();
    for id in out {
        here.sessions.revoke(id).await.unwrap();
    }
    here.sessions.revoke_user(&UserId::of("bob")).await.unwrap();
    cluster.replica_leads().await;
    let start = tokio::time::Instant::now();
    for gateway in [&here, &there] {
        for id in out.iter().chain(kept).chain([&bobs]) {
            let good = kept.contains(id);
            eventually("the session can be judged", async || {
                match gateway.sessions.load(id, Use::Counts).await {
                    Ok(found) => {
                        assert_eq!(found.is_some(), good);
                        true
                    }
                    Err(_) => false,
                }
            })
            .await;
        }
    }
    assert!(start.elapsed() < BACK, "{:?}", start.elapsed());
}
