//! The background work of sessions: following changes, checking doubtful sessions, storing uses, deleting old records.

use std::{collections::HashSet, future::pending, sync::Arc, time::Duration};

use futures_util::stream::{self, StreamExt as _};
use tokio::time::{sleep, timeout};

use super::{
    Sessions,
    feed::{FRESH, FeedEvent, FeedSource, apply, follow_database},
};
use crate::{
    background::{BEAT, Background, regularly},
    errors::Chain,
};

/// The wait before a failed check is repeated.
const RETRY: Duration = Duration::from_millis(200);
/// Concurrent checks of doubtful sessions.
const AT_ONCE: usize = 32;
/// The maximum delay of uses in the store.
const FLUSH: Duration = Duration::from_secs(10);
/// Uses stored in one call.
const BATCH: usize = 1000;
const PURGE: Duration = Duration::from_hours(1);
/// How long expired sessions and old announcements are stored: a gateway with a wrong clock must not delete what others
/// still use.
const GRACE: Duration = Duration::from_hours(24);
/// A clock that is set back by more than this is logged.
const STEP: Duration = Duration::from_secs(5);

impl Sessions {
    /// Starts the background work. Without it nothing is cached, and open connections do not end. The last uses are
    /// stored at shutdown.
    pub fn maintain(self: &Arc<Self>, background: &mut Background) {
        let sessions = || Arc::clone(self);
        let mine = sessions();
        background.run("hearing of changes in the database", async move { mine.follow_database().await });
        let mine = sessions();
        background.run("watching the store of sessions", async move { mine.follow_store().await });
        let mine = sessions();
        background.run("checking sessions that may have ended", async move { mine.resolve_doubts().await });
        let mine = sessions();
        background.run("ending sessions whose time is up", async move { mine.sweep_regularly().await });
        let mine = sessions();
        background.run("purging old sessions", async move { mine.purge_regularly().await });
        let mine = sessions();
        background.run_until("writing down when sessions were used", |stop| async move {
            stop.run_until_cancelled(mine.flush_regularly()).await;
            mine.flush().await;
        });
    }

    async fn follow_database(&self) {
        follow_database(&self.database, &self.freshness, &|event| {
            // First, or the other listener's cache would be trusted for a moment too long.
            if let Some(listener) = self.listener.get() {
                listener(&event);
            }
            self.hear(FeedSource::Database, event);
        })
        .await;
    }

    async fn follow_store(&self) {
        match self.store.follow(&|event| self.hear(FeedSource::Store, event)) {
            Some(following) => following.await,
            None => {
                self.freshness.waive(FeedSource::Store);
                pending::<()>().await;
            }
        }
    }

    fn hear(&self, source: FeedSource, event: FeedEvent) {
        match event {
            FeedEvent::Gap => {
                self.freshness.end(source);
                self.cache.doubt_all();
            }
            FeedEvent::Changed(changes) => apply(changes, &self.cache),
            FeedEvent::Current(asked) => self.freshness.extend(source, asked),
        }
    }

    /// Checks doubtful sessions in use until the store answers.
    async fn resolve_doubts(&self) {
        loop {
            tokio::select! {
                () = self.cache.doubted() => {}
                () = sleep(RETRY), if self.cache.has_doubts() => {}
            }
            let mut doubted = self.cache.take_doubted();
            // The database's own knowledge comes first: there may be many sessions, and their store may not answer.
            let known: Vec<_> = doubted.iter().filter_map(|id| Some((*id, self.cache.facts(id)?))).collect();
            if let Ok(Ok(ended)) = timeout(FRESH, self.revocations.ended_among(&known)).await {
                self.cache.end(&ended);
                let ended: HashSet<_> = ended.into_iter().collect();
                doubted.retain(|id| !ended.contains(id));
            }
            stream::iter(doubted)
                .for_each_concurrent(AT_ONCE, async |id| {
                    // A look-up ends a session that no longer exists; after an error it stays doubtful.
                    if self.ask_in_time(&id).await.is_ok() {
                        return;
                    }
                    let over = timeout(RETRY, self.has_lost_its_user(&id)).await;
                    if matches!(over, Ok(Ok(true))) {
                        self.cache.end(&[id]);
                    } else {
                        self.cache.still_doubted(id);
                    }
                })
                .await;
        }
    }

    async fn sweep_regularly(&self) {
        let mut sweeps = regularly(BEAT.min(self.limits.inactivity));
        let mut complained = false;
        loop {
            sweeps.tick().await;
            self.cache.sweep(self.clock.now());
            // The watermark follows the clock only while it is read.
            self.watermark.behind();
            let set_back = self.clock.set_back();
            if set_back >= STEP && !complained {
                tracing::warn!(
                    seconds = set_back.as_secs(),
                    "the machine's clock was set back: sessions go on by the time that really passes, and beyond \
                     half a minute no one-time code counts until it has caught up; if the clock was wrong before and is right now, restart this gateway"
                );
            }
            complained = set_back >= STEP;
        }
    }

    async fn flush_regularly(&self) {
        let mut flushes = regularly(FLUSH.min(self.limits.inactivity / 10));
        loop {
            flushes.tick().await;
            self.flush().await;
        }
    }

    /// Stores the uses that the store does not know of; failed ones are tried again the next time. A missing session
    /// here is the only sign that the store has lost it.
    pub(super) async fn flush(&self) {
        for batch in self.cache.unstored().chunks(BATCH) {
            match self.store.touch(batch).await {
                Ok(missing) => {
                    self.cache.stored(batch);
                    self.cache.doubt_sessions(&missing);
                }
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "cannot write down when sessions were used");
                    return;
                }
            }
        }
    }

    async fn purge_regularly(&self) {
        let mut purges = regularly(PURGE);
        loop {
            purges.tick().await;
            let before = self.clock.now().minus(GRACE);
            if let Err(error) = self.store.purge(before).await {
                tracing::warn!(error = %Chain(&error), "cannot purge sessions that are over");
            }
            if let Err(error) = self.database.forget_changes(before).await {
                tracing::warn!(error = %Chain(&error), "cannot purge old announcements");
            }
        }
    }
}
