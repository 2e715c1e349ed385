//! Counts in Redis, for all gateways together: one round trip an attempt.
//!
//! `PREFIXt:{NETWORK}…` and `PREFIXt:{USER}c` are hashes that Redis forgets when they have run out. What an attempt
//! takes from shares a tag, and so a master. Names and addresses stand in no key, not even to be guessed at.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::hmac;
use futures_util::future::{BoxFuture, FutureExt as _};

use super::store::{Counted, Key, Kind, Meter, Settlement, ThrottleError, ThrottleStore, Verdict};
use crate::{
    clock::Timestamp,
    redis_pool::{RedisError, RedisPool, Script},
    secret::hex,
};

static ADMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/admit.lua")));
static SETTLE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/settle.lua")));

/// The counts that many gateways share.
pub struct RedisThrottle {
    pool: Arc<RedisPool>,
    names: hmac::Key,
}

impl RedisThrottle {
    /// `names` makes the names of keys, alike on every gateway.
    pub fn new(pool: Arc<RedisPool>, names: hmac::Key) -> Self {
        Self { pool, names }
    }

    fn name(&self, together: &Key, kind: Kind, key: &Key) -> String {
        let digest = |key: &Key| hex(&hmac::sign(&self.names, key).as_ref()[..16]);
        let tag = digest(together);
        self.pool.key(&match kind {
            Kind::Pair => format!("t:{{{tag}}}p:{}", digest(key)),
            Kind::Network => format!("t:{{{tag}}}n"),
            Kind::Code => format!("t:{{{tag}}}c"),
        })
    }

    async fn admit(&self, together: &Key, meters: &[Meter], now: Timestamp) -> Result<Verdict, RedisError> {
        let names: Vec<_> = meters.iter().map(|meter| self.name(together, meter.kind, &meter.key)).collect();
        let mut call = ADMIT.on(names.iter().map(String::as_str)).arg(now.unix_millis());
        for Meter { budget, .. } in meters {
            call = call.arg(budget.failures).millis(budget.find_time).millis(budget.ban_time);
        }
        let (wait, windows): (u64, Vec<i64>) = self.pool.invoke(&call).await?;
        if wait > 0 {
            return Ok(Verdict::Wait(std::time::Duration::from_millis(wait)));
        }
        Ok(Verdict::Counted(windows.into_iter().map(Timestamp::from_unix_millis).collect()))
    }

    async fn settle(&self, counted: &[(Counted, Settlement)]) -> Result<(), RedisError> {
        let name = |(counted, _): &(Counted, _)| self.name(&counted.together, counted.kind, &counted.key);
        let names: Vec<_> = counted.iter().map(name).collect();
        let mut call = SETTLE.on(names.iter().map(String::as_str));
        for (Counted { window, .. }, settlement) in counted {
            call = match settlement {
                Settlement::Clear => call.arg("all"),
                Settlement::TakeBack => call.arg(window.unix_millis()),
            };
        }
        self.pool.invoke(&call).await
    }
}

impl ThrottleStore for RedisThrottle {
    fn admit<'a>(
        &'a self,
        together: &'a Key,
        meters: &'a [Meter],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Verdict, ThrottleError>> {
        async move { Ok(self.admit(together, meters, now).await?) }.boxed()
    }

    fn settle<'a>(
        &'a self,
        counted: &'a [(Counted, Settlement)],
    ) -> BoxFuture<'a, Result<(), ThrottleError>> {
        async move { Ok(self.settle(counted).await?) }.boxed()
    }
}
