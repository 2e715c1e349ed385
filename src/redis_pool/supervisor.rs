//! Rounds: find the masters, reconnect to lost ones, and ask each whether it still is a master.
//!
//! A hanging server is noticed without a caller having to wait for it. A server that has lost its replicas is trusted
//! only while others confirm that it is the master: it may be the old one, cut off from the rest.

use std::{collections::HashSet, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    RedisError,
    connection::RedisConnector,
    error::Reason,
    routes::{Routes, Server},
    survey::{Master, Survey},
    url::Address,
};
use crate::{errors::Chain, random::Random};

/// How often the servers are checked.
const BEAT: Duration = Duration::from_millis(250);
/// Rounds between two surveys of a cluster without visible changes.
const ROUNDS: u32 = 4;
/// The pauses between two attempts grow from the first to the last of these.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(250);

/// The state of the servers after a round.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundReport {
    /// Rounds so far.
    pub(super) rounds: u64,
    /// Connections made so far: after a new one, a server may have lost data.
    pub connections: u64,
    /// All servers have answered a command that was sent at this time.
    pub asked: Option<Instant>,
}

/// What callers see of the rounds.
#[derive(Debug)]
pub(super) struct Shared {
    /// The name of the store, for messages.
    pub(super) store: Arc<str>,
    pub(super) routes: ArcSwap<Routes>,
    pub(super) report: watch::Sender<RoundReport>,
    /// Notified by callers when the result of the last round no longer holds.
    pub(super) wake: Arc<Notify>,
}

pub(super) struct Supervisor {
    shared: Arc<Shared>,
    survey: Survey,
    connector: RedisConnector,
    random: Arc<dyn Random>,
    /// Rounds until the next survey.
    until_survey: u32,
    /// Errors logged in this outage, so that each is logged once.
    complaints: HashSet<String>,
}

impl Supervisor {
    pub(super) fn new(
        survey: Survey,
        connector: RedisConnector,
        random: Arc<dyn Random>,
        store: Arc<str>,
    ) -> Self {
        let shared = Arc::new(Shared {
            store,
            routes: ArcSwap::default(),
            report: watch::Sender::default(),
            wake: Arc::clone(&connector.lost),
        });
        Self { shared, survey, connector, random, until_survey: 0, complaints: HashSet::new() }
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Runs for ever.
    pub(super) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        let mut well = true;
        loop {
            if well {
                let woken = timeout(BEAT, self.shared.wake.notified()).await.is_ok();
                if woken {
                    // Callers may wake us again and again.
                    self.until_survey = 0;
                    sleep(jittered(FIRST_PAUSE, self.random.as_ref())).await;
                }
            } else {
                sleep(jittered(pause, self.random.as_ref())).await;
            }
            well = match self.round().await {
                Ok(()) => {
                    self.content();
                    pause = FIRST_PAUSE;
                    true
                }
                Err(error) => {
                    self.complain(&error);
                    pause = (pause * 2).min(LAST_PAUSE);
                    false
                }
            };
        }
    }

    /// One round. An error says why not everything works.
    pub(super) async fn round(&mut self) -> Result<(), RedisError> {
        let asked = Instant::now();
        let found = if self.until_survey == 0 || self.survey.is_cheap() {
            self.survey.find().await.map(Some)
        } else {
            Ok(None)
        };
        self.until_survey = self.until_survey.checked_sub(1).unwrap_or(ROUNDS);
        let confirmed = found.is_ok();
        let mut outcome = match found {
            Ok(masters) => {
                if let Some(masters) = masters {
                    self.adopt(masters);
                }
                Ok(())
            }
            Err(reason) => Err(reason.at(&self.shared.store)),
        };
        let routes = self.shared.routes.load_full();
        let tended = join_all(routes.servers.iter().map(|server| self.tend(server, confirmed))).await;
        let mut made = 0;
        for (server, tended) in routes.servers.iter().zip(tended) {
            match tended {
                Ok(new) => made += u64::from(new),
                Err(reason) => outcome = outcome.and_then(|()| Err(self.named(reason, &server.address))),
            }
        }
        if outcome.is_ok() && !routes.complete() {
            outcome = Err(Reason::ClusterDown.at(&self.shared.store));
        }
        let well = routes.complete() && routes.servers.iter().all(|server| server.connection().is_some());
        if !well {
            self.until_survey = 0;
        }
        self.shared.report.send_modify(|report| {
            report.rounds += 1;
            report.connections += made;
            if well {
                report.asked = Some(asked);
            }
        });
        outcome
    }

    /// Applies the result of a survey. A server that is no longer a master is not used from now on.
    fn adopt(&self, masters: Vec<Master>) {
        let before = self.shared.routes.load_full();
        let mut known: Vec<(Arc<Server>, Vec<(u16, u16)>)> = masters
            .into_iter()
            .map(|master| {
                let known = before.servers.iter().find(|server| server.address == master.address);
                let server =
                    known.map_or_else(|| Arc::new(Server::new(master.address, master.names)), Arc::clone);
                (server, master.slots)
            })
            .collect();
        let routes = if self.survey.is_cluster() {
            Routes::to_many(known)
        } else {
            known.pop().map_or_else(Routes::default, |(server, _)| Routes::to_one(server))
        };
        for server in &before.servers {
            if routes.named(&server.address).is_none() {
                server.switch_off();
            }
        }
        self.shared.routes.store(Arc::new(routes));
    }

    /// Asks a server for its role, or connects to it. Returns whether there is a new connection.
    async fn tend(&self, server: &Server, confirmed: bool) -> Result<bool, Reason> {
        let known = server.connection();
        let new = known.is_none();
        let connection = match known {
            Some(connection) => connection,
            None if confirmed => self.connector.dial(&server.address).await?,
            None => return Err(Reason::Down),
        };
        let role = timeout(self.connector.deadline, connection.check_role()).await;
        let stranded = match role.unwrap_or(Err(Reason::Slow)) {
            Ok(replicas) => server.notes_replicas(replicas) && !confirmed,
            Err(error) => {
                server.switch_off();
                return Err(error);
            }
        };
        if stranded {
            server.switch_off();
            return Err(Reason::Isolated);
        }
        if new {
            server.switch_on(connection);
        }
        Ok(new)
    }

    /// Of several servers, names the one.
    fn named(&self, reason: Reason, server: &Address) -> RedisError {
        let store = &self.shared.store;
        if self.survey.is_of_many() {
            reason.at(&format!("{server} of {store}").into())
        } else {
            reason.at(store)
        }
    }

    fn content(&mut self) {
        if !self.complaints.is_empty() {
            tracing::info!(store = %self.shared.store, "connected to Redis");
            self.complaints.clear();
        }
    }

    pub(super) fn complain(&mut self, error: &RedisError) {
        // Once per outage: the following attempts would all report the same.
        if self.complaints.insert(Chain(error).to_string()) {
            tracing::warn!(error = %Chain(error), "Redis cannot be used, and will be tried again");
        }
    }
}

/// Between half of `pause` and all of it, so that many gateways do not reconnect in step.
fn jittered(pause: Duration, random: &dyn Random) -> Duration {
    let [byte] = random.bytes::<1>();
    pause / 2 + pause * u32::from(byte) / 512
}
