//! How many users are how far with their first device, for the metrics.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use crate::{
    clock::Clock,
    errors::Chain,
    rollout::{Config, StageCounts, Standing},
    users::{User, Users, UsersError},
};

/// How long a result is used: every user is read for it.
const GOOD_FOR: Duration = Duration::from_mins(5);

/// StageCounts users when somebody asks for the metrics.
pub struct Enrolments {
    users: Users,
    rollout: Config,
    clock: Arc<dyn Clock>,
    last: Mutex<Option<(Instant, StageCounts)>>,
}

impl Enrolments {
    pub fn new(users: Users, rollout: Config, clock: Arc<dyn Clock>) -> Self {
        Self { users, rollout, clock, last: Mutex::default() }
    }

    /// `None` if the users cannot be read.
    pub(super) async fn counts(&self) -> Option<StageCounts> {
        let mut last = self.last.lock().await;
        if let Some((at, counts)) = &*last
            && at.elapsed() < GOOD_FOR
        {
            return Some(counts.clone());
        }
        match self.count().await {
            Ok(counts) => {
                *last = Some((Instant::now(), counts.clone()));
                Some(counts)
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "the metrics lack how far users are with their devices");
                None
            }
        }
    }

    async fn count(&self) -> Result<StageCounts, UsersError> {
        let (now, mut counts) = (self.clock.now(), StageCounts::default());
        let take = |user: User, devices| {
            if let Some(standing) = Standing::of(&user, devices, &self.rollout, now) {
                counts.add(standing);
            }
        };
        self.users.each(take).await?;
        Ok(counts)
    }
}
