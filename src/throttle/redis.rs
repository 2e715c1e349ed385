//! Counts in Redis, shared by all gateways: one round trip per attempt, by Redis's clock.
//!
//! `PREFIXt:{t}…` are hashes that expire. All share one tag, and so a master: an attempt uses budgets of an account and
//! of networks at once. Keys contain no names or addresses, not even in a form that can be guessed.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use aws_lc_rs::hmac;
use futures_util::future::{BoxFuture, FutureExt as _};

use super::{
    budget::Budget,
    store::{Counted, Key, Kind, Meter, Settlement, ThrottleError, ThrottleStore, Verdict, Window},
};
use crate::{
    clock::{Clock, Timestamp},
    redis_pool::{RedisError, RedisPool, Script},
    secret::hex,
};

static ADMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/admit.lua")));
static SETTLE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/settle.lua")));

/// The counts that several gateways share.
pub struct RedisThrottle {
    pool: Arc<RedisPool>,
    names: hmac::Key,
    /// Replaces Redis's clock.
    pub(super) clock: Option<Arc<dyn Clock>>,
}

impl RedisThrottle {
    /// `names` derives the keys, the same on every gateway.
    pub fn new(pool: Arc<RedisPool>, names: hmac::Key) -> Self {
        Self { pool, names, clock: None }
    }

    fn name(&self, kind: Kind, key: &Key) -> String {
        let digest = hmac::sign(&self.names, key);
        let digest = hex(digest.as_ref().get(..16).unwrap_or_default());
        self.pool.key(&format!("t:{{t}}{}:{digest}", kind.letter()))
    }

    async fn admit(&self, meters: &[Meter]) -> Result<Verdict, RedisError> {
        let names: Vec<_> = meters.iter().map(|meter| self.name(meter.kind, &meter.key)).collect();
        let now = self.clock.as_ref().map_or(-1, |clock| clock.now().unix_millis());
        let mut call = ADMIT.on(names.iter().map(String::as_str)).arg(now);
        for Meter { budget, .. } in meters {
            call = match *budget {
                Budget::Window { failures, find_time, ban_time } => {
                    let few = find_time.max(Duration::from_millis(1));
                    call.arg(5).arg("w").millis(few).millis(ban_time).arg(failures).millis(ban_time)
                }
                Budget::Rising(ladder) => {
                    let call = call.arg(3 + 2 * ladder.steps.len()).arg("r");
                    let call = call.millis(ladder.few).millis(ladder.many);
                    ladder.steps.iter().fold(call, |call, (from, wait)| call.arg(*from).millis(*wait))
                }
            };
        }
        let (place, wait, windows): (usize, u64, Vec<(i64, i64, i64)>) = self.pool.invoke(&call).await?;
        if let Some(meter) = place.checked_sub(1) {
            return Ok(Verdict::Wait { meter, wait: Duration::from_millis(wait) });
        }
        let at = Timestamp::from_unix_millis;
        let windows = windows.into_iter();
        let windows = windows.map(|(first, last, before)| Window {
            first: at(first),
            last: at(last),
            before: at(before),
        });
        Ok(Verdict::Counted(windows.collect()))
    }

    async fn settle(&self, counted: &[(Counted, Settlement)]) -> Result<(), RedisError> {
        let settled: Vec<_> = counted
            .iter()
            .filter_map(|(Counted { kind, key, window }, settlement)| {
                let how = match settlement {
                    Settlement::Keep => return None,
                    Settlement::Clear => "clear",
                    Settlement::TakeBack => "one",
                    Settlement::TakeBackAll => "all",
                };
                Some((self.name(*kind, key), how, *window))
            })
            .collect();
        if settled.is_empty() {
            return Ok(());
        }
        let call = SETTLE.on(settled.iter().map(|(name, ..)| name.as_str()));
        let call = settled.iter().fold(call, |call, (_, how, Window { first, last, before })| {
            call.arg(*how).arg(first.unix_millis()).arg(last.unix_millis()).arg(before.unix_millis())
        });
        self.pool.invoke(&call).await
    }
}

impl ThrottleStore for RedisThrottle {
    fn admit<'a>(&'a self, meters: &'a [Meter]) -> BoxFuture<'a, Result<Verdict, ThrottleError>> {
        async move { Ok(self.admit(meters).await?) }.boxed()
    }

    fn settle<'a>(
        &'a self,
        counted: &'a [(Counted, Settlement)],
    ) -> BoxFuture<'a, Result<(), ThrottleError>> {
        async move { Ok(self.settle(counted).await?) }.boxed()
    }
}
