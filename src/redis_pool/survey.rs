//! Surveys: asks a majority of the sentinels, or the nodes of a cluster, for the masters. Remembers only whom to ask.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwapOption;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use redis::{Cmd, FromRedisValue};
use tokio::time::timeout;

use super::{
    Config,
    connection::{RedisConnection, RedisConnector, RedisCredentials},
    error::Reason,
    url::{Address, RedisUrl, Shape},
};

/// Maximum number of nodes that are asked.
const MOST_ASKED: usize = 32;

/// A master that others vouch for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Master {
    pub(super) address: Address,
    pub(super) names: Vec<Address>,
    /// First and last slot of each range; only in a cluster.
    pub(super) slots: Vec<(u16, u16)>,
    /// Of two claims on a slot, the one with the higher epoch is newer.
    epoch: u64,
}

impl Master {
    fn alone(address: Address) -> Self {
        Self { names: vec![address.clone()], address, slots: Vec::new(), epoch: 0 }
    }
}

/// A server to ask.
struct Informant {
    address: Address,
    connection: ArcSwapOption<RedisConnection>,
}

/// Finds the masters.
pub(super) struct Survey {
    shape: Shape,
    encrypted: bool,
    connector: RedisConnector,
    informants: Vec<Informant>,
}

impl Survey {
    pub(super) fn new(config: &Config, url: &RedisUrl) -> Result<Self, Reason> {
        // The sentinels have users of their own, and no numbered databases.
        let (user, password, asked): (_, _, &[Address]) = match &url.shape {
            Shape::Single(_) => (None, None, &[]),
            Shape::Sentinel(sentinels, _) => {
                (config.sentinel_user.as_deref(), config.sentinel_password.as_ref(), sentinels)
            }
            Shape::Cluster(seeds) => (
                config.user.as_deref().or(url.user.as_deref()),
                config.password.as_ref().or(url.password.as_ref()),
                seeds,
            ),
        };
        let credentials = RedisCredentials { user, password, database: 0 };
        let connector = RedisConnector::new(config, url.encrypted, &credentials)?;
        let informants = asked.iter().cloned().map(Informant::new).collect();
        Ok(Self { shape: url.shape.clone(), encrypted: url.encrypted, connector, informants })
    }

    /// Whether the result may change without any server having failed.
    pub(super) fn is_cheap(&self) -> bool {
        !matches!(self.shape, Shape::Cluster(_))
    }

    pub(super) fn is_of_many(&self) -> bool {
        !matches!(self.shape, Shape::Single(_))
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.shape, Shape::Cluster(_))
    }

    /// The masters.
    pub(super) async fn find(&mut self) -> Result<Vec<Master>, Reason> {
        match &self.shape {
            Shape::Single(address) => Ok(vec![Master::alone(address.clone())]),
            Shape::Sentinel(_, name) => Ok(vec![Master::alone(self.elected(name).await?)]),
            Shape::Cluster(seeds) => {
                let (masters, nodes) = self.claimed().await?;
                let mut known = seeds.clone();
                known.extend(nodes.into_iter().filter(|node| !seeds.contains(node)).take(MOST_ASKED));
                self.informants.retain(|informant| known.contains(&informant.address));
                for address in known {
                    if !self.informants.iter().any(|informant| informant.address == address) {
                        self.informants.push(Informant::new(address));
                    }
                }
                Ok(masters)
            }
        }
    }

    /// The master named by more than half of the sentinels: fewer may be cut off from the others, together with a
    /// master that has been replaced.
    async fn elected(&self, name: &str) -> Result<Address, Reason> {
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let majority = self.informants.len() / 2 + 1;
        let mut votes: HashMap<Option<(String, u16)>, usize> = HashMap::new();
        let mut refusal = None;
        let mut answers = self.ask_all::<Option<(String, u16)>>(&question);
        while let Some((_, answer)) = answers.next().await {
            match answer {
                Ok(named) => {
                    let votes = votes.entry(named.clone()).or_default();
                    *votes += 1;
                    if *votes >= majority {
                        let (host, port) = named.ok_or(Reason::UnknownMaster)?;
                        return Ok(Address { host, port });
                    }
                }
                Err(refused @ Reason::Refused(_)) => refusal = Some(refused),
                Err(_) => {}
            }
        }
        Err(refusal.unwrap_or(Reason::NoMajority))
    }

    /// The masters by the newest claims, and all nodes. More than half of the known nodes are heard, if they answer in
    /// time: a single one may have been cut off.
    async fn claimed(&self) -> Result<(Vec<Master>, Vec<Address>), Reason> {
        let mut question = redis::cmd("CLUSTER");
        question.arg("NODES");
        let enough = self.informants.len() / 2 + 1;
        let (mut heard, mut failure) = (Vec::new(), Reason::Down);
        let mut answers = self.ask_all::<String>(&question);
        while let Some((informant, answer)) = answers.next().await {
            match answer {
                Ok(text) => heard.push(parse_nodes(&text, informant, self.encrypted)),
                Err(error) => failure = error,
            }
            if heard.len() >= enough {
                break;
            }
        }
        if heard.is_empty() {
            return Err(failure);
        }
        let nodes = heard.iter().flat_map(|view| view.nodes.iter().cloned()).collect();
        let mut claims: Vec<Master> = heard.into_iter().flat_map(|view| view.masters).collect();
        // Later routes win a slot.
        claims.sort_by_key(|claim| claim.epoch);
        let mut masters: Vec<Master> = Vec::new();
        for claim in claims {
            masters.retain(|master| master.address != claim.address);
            masters.push(claim);
        }
        Ok((masters, nodes))
    }

    fn ask_all<'a, T: FromRedisValue + 'a>(
        &'a self,
        question: &'a Cmd,
    ) -> FuturesUnordered<impl Future<Output = (&'a Address, Result<T, Reason>)>> {
        self.informants
            .iter()
            .map(|informant| async move {
                let answer = timeout(self.connector.deadline, informant.ask(&self.connector, question)).await;
                (&informant.address, answer.unwrap_or(Err(Reason::Slow)))
            })
            .collect()
    }
}

impl Informant {
    fn new(address: Address) -> Self {
        Self { address, connection: ArcSwapOption::empty() }
    }

    async fn ask<T: FromRedisValue>(&self, connector: &RedisConnector, question: &Cmd) -> Result<T, Reason> {
        let known = self.connection.swap(None).filter(|connection| !connection.is_cut());
        let connection = match known {
            Some(connection) => connection,
            None => connector.dial(&self.address).await?,
        };
        let answer = connection.send(question, false).await.map_err(Reason::connecting)?;
        // A connection without a reply in time is not used again.
        self.connection.store(Some(Arc::clone(&connection)));
        redis::from_redis_value(answer).map_err(|error| Reason::Failed(error.into()))
    }
}

/// A cluster, as one of its nodes sees it.
struct View {
    masters: Vec<Master>,
    nodes: Vec<Address>,
}

/// Parses the reply to `CLUSTER NODES`: `id ip:port@bus,name flags master ping pong epoch link slot…`.
fn parse_nodes(text: &str, informant: &Address, encrypted: bool) -> View {
    let mut view = View { masters: Vec::new(), nodes: Vec::new() };
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let &[_id, endpoint, flags, _master, _ping, _pong, epoch, _link, ref slots @ ..] = &*words else {
            continue;
        };
        let has = |wanted| flags.split(',').any(|flag| flag == wanted);
        let (endpoint, bus) = endpoint.split_once('@').unwrap_or((endpoint, ""));
        let Some(mut address) = Address::announced(endpoint).filter(|_| !has("noaddr") && !has("handshake"))
        else {
            continue;
        };
        if address.host.is_empty() {
            // A node that does not know its own address is where we asked it.
            address.host.clone_from(&informant.host);
        }
        let mut names = vec![address.clone()];
        if let Some(host) = bus.split(',').nth(1).filter(|host| !host.is_empty()) {
            let by_name = Address { host: host.to_owned(), port: address.port };
            names.push(by_name.clone());
            if encrypted {
                // Certificates contain names.
                address = by_name;
            }
        }
        if has("fail") {
            continue;
        }
        view.nodes.push(address.clone());
        if has("master") {
            let slots = slots.iter().filter_map(|range| parse_range(range)).collect();
            view.masters.push(Master { address, names, slots, epoch: epoch.parse().unwrap_or(0) });
        }
    }
    view
}

/// `None` for `[93-<-ID]`, a slot that is being moved.
fn parse_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_of_a_cluster_are_read() {
        let asked = Address { host: "seed".into(), port: 7000 };
        let text = "a :7000@17000 myself,master - 0 0 5 connected 0-5460 5462 [93-<-b]\n\
                    b 10.0.0.2:7001@17001,two master - 0 0 7 connected 5463-16383\n\
                    c 10.0.0.3:7002@17002 slave b 0 0 7 connected\n\
                    d 10.0.0.4:7003@17003 master,fail - 0 0 3 connected 5461\n\
                    e :0@0 master,noaddr - 0 0 3 disconnected\n\
                    nonsense\n";
        let at = |host: &str, port| Address { host: host.into(), port };
        let view = parse_nodes(text, &asked, false);
        let slots: Vec<_> = view.masters.iter().map(|master| (&master.address, &*master.slots)).collect();
        assert_eq!(
            slots,
            [(&at("seed", 7000), &[(0, 5460), (5462, 5462)][..]), (&at("10.0.0.2", 7001), &[(5463, 16_383)])]
        );
        assert_eq!(view.nodes, [at("seed", 7000), at("10.0.0.2", 7001), at("10.0.0.3", 7002)]);
        let named = parse_nodes(text, &asked, true).masters.remove(1);
        assert_eq!((named.address, named.names[0].clone()), (at("two", 7001), at("10.0.0.2", 7001)));
    }
}
