//! Background work, each piece under a name.
//!
//! No piece may end before the gateway does: a gateway that no longer hears of ended sessions, for example, would go on
//! unnoticed. The first piece that ends is logged and stops the gateway, so that it can be restarted.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    task::{Id, JoinSet},
    time::{Instant, Interval, MissedTickBehavior, interval_at, timeout},
};
use tokio_util::sync::CancellationToken;

/// The time for requests in progress after a loss: as long as an ended session may be served.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// How often it is looked at what has to be known within a second.
pub const BEAT: Duration = Duration::from_millis(900);

/// From here all periods count: what has the same one is due at the same instants, and one wake-up of a thread serves it all.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Ticks every `period`, of at least a millisecond, the first time at once. A tick that is a whole period late is left out.
pub fn regularly(period: Duration) -> Interval {
    let period = period.max(Duration::from_millis(1));
    let mut ticks = interval_at(next_tick(period) - period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// The next instant at which everything of this period, of a millisecond at least, is due.
pub fn next_tick(period: Duration) -> Instant {
    let now = Instant::now();
    let into = now.saturating_duration_since(*ORIGIN).as_nanos() % period.as_nanos().max(1);
    now + period.saturating_sub(Duration::from_nanos(u64::try_from(into).unwrap_or(0)))
}

/// A piece of background work that ended although nobody stopped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("background work ended unexpectedly: {0}")]
pub struct Lost(&'static str);

/// The lost work so far, by name.
#[derive(Clone, Debug, Default)]
pub struct Losses(Arc<Mutex<Vec<&'static str>>>);

impl Losses {
    pub fn names(&self) -> Vec<&'static str> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, name: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    }
}

/// The background work of one gateway. It ends at once when this is dropped.
#[derive(Debug, Default)]
pub struct Background {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    losses: Losses,
}

impl Background {
    /// Starts work that never ends by itself. It is dropped when the gateway stops.
    pub fn run(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.run_until(name, |stop| async move {
            stop.run_until_cancelled(work).await;
        });
    }

    /// Starts work that ends soon after the token has been cancelled, and never before.
    pub fn run_until<W: Future<Output = ()> + Send + 'static>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(CancellationToken) -> W,
    ) {
        let task = self.tasks.spawn(work(self.stop.clone()));
        self.names.insert(task.id(), name);
    }

    /// The lost work, for health checks.
    pub fn losses(&self) -> Losses {
        self.losses.clone()
    }

    /// Runs `serving`, which ends once `drain` is cancelled, to its end or to the first loss. After a loss it has a
    /// second left.
    pub async fn beside<T>(
        &mut self,
        drain: &CancellationToken,
        serving: impl Future<Output = T>,
    ) -> Result<T, Lost> {
        let mut serving = pin!(serving);
        let lost = tokio::select! {
            served = &mut serving => return Ok(served),
            lost = self.next_loss() => lost,
        };
        tracing::error!(
            work = lost.0,
            "background work ended: stopping, so that a whole gateway can be started"
        );
        drain.cancel();
        let _ = timeout(LAST_REQUESTS, serving).await;
        Err(lost)
    }

    /// Stops everything, and waits for it at most for `patience`.
    pub async fn stop(mut self, patience: Duration) {
        self.stop.cancel();
        let _ = timeout(patience, async { while self.tasks.join_next().await.is_some() {} }).await;
    }

    async fn next_loss(&mut self) -> Lost {
        let id = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => error.id(),
            None => std::future::pending().await,
        };
        let name = self.names.get(&id).copied().unwrap_or("unnamed");
        self.losses.add(name);
        Lost(name)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn the_first_piece_that_ends_is_named_and_ends_the_serving() {
        let panicking = || async { panic!("on purpose") };
        for (name, panics) in [("returns", false), ("panics", true)] {
            let (mut background, drain) = (Background::default(), CancellationToken::new());
            let losses = background.losses();
            background.run("goes on", pending());
            if panics {
                background.run(name, panicking());
            } else {
                background.run(name, ready(()));
            }
            assert_eq!(losses.names(), [""; 0]);
            let drained = drain.clone();
            let served = background.beside(&drain, async move { drained.cancelled().await });
            assert_eq!(timeout(PATIENCE, served).await.unwrap(), Err(Lost(name)));
            assert_eq!(losses.names(), [name]);
            background.stop(PATIENCE).await;
        }
    }

    #[tokio::test]
    async fn serving_that_does_not_end_is_cut_off() {
        let mut background = Background::default();
        background.run("returns", ready(()));
        let drain = CancellationToken::new();
        let served = background.beside(&drain, pending::<()>());
        assert_eq!(timeout(PATIENCE, served).await.unwrap(), Err(Lost("returns")));
    }

    #[tokio::test]
    async fn what_is_stopped_is_not_lost_and_may_finish() {
        let mut background = Background::default();
        let losses = background.losses();
        let finished = Arc::new(Mutex::new(false));
        let finishing = Arc::clone(&finished);
        background.run("goes on", pending());
        background.run_until("finishes", |stop| async move {
            stop.cancelled().await;
            *finishing.lock().unwrap() = true;
        });
        assert_eq!(background.beside(&CancellationToken::new(), ready(7)).await, Ok(7));
        background.stop(PATIENCE).await;
        assert!(*finished.lock().unwrap());
        assert_eq!(losses.names(), [""; 0]);
    }
}
