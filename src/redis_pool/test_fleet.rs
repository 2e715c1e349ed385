//! Several real servers: a master whose replica takes over when the sentinels agree, and a cluster.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{
    Config,
    test_server::{RedisServer, command_at},
};

/// Long enough for a busy machine, and never waited for in full.
const PATIENCE: Duration = Duration::from_secs(20);

async fn until<F: Future<Output = bool>>(what: &str, mut state: impl FnMut() -> F) {
    let waiting = async {
        while !state().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Sentinel {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Sentinel {
    fn start(master: u16, accounts: &str) -> Self {
        let port = free_port();
        Self::launch(port, &format!("port {port}"), &format!("127.0.0.1 {master}"), accounts)
    }

    /// Uses TLS everywhere, and announces names instead of addresses.
    fn start_encrypted(master: &RedisServer) -> Self {
        let (port, (certificate, key)) = (free_port(), master.identity());
        let listens = format!(
            "port 0\ntls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\n\
             tls-auth-clients no\ntls-replication yes\n\
             sentinel resolve-hostnames yes\nsentinel announce-hostnames yes",
            certificate.display(),
            key.display(),
            master.ca().display(),
        );
        Self::launch(port, &listens, &format!("localhost {}", master.port()), "")
    }

    fn launch(port: u16, listens: &str, master: &str, accounts: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "{listens}\nbind 127.0.0.1\ndir {}\nlogfile {}\nsentinel monitor main {master} 2\n\
             sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n{accounts}",
            folder.path().display(),
            folder.path().join("log").display(),
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(file).arg("--sentinel").stdout(Stdio::null()).stderr(Stdio::null());
        Self { process: command.spawn().expect("redis-server is installed"), port, _folder: folder }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// A master, a replica, and three sentinels, who call the master `main`.
pub(crate) struct SentinelFleet {
    pub(crate) master: RedisServer,
    pub(crate) replica: RedisServer,
    sentinels: Vec<Sentinel>,
}

impl SentinelFleet {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[], "").await
    }

    /// `accounts` are further lines of the sentinels' configuration.
    pub(crate) async fn start_with(arguments: &[&str], accounts: &str) -> Self {
        let quick = [&["--repl-diskless-sync-delay", "0"], arguments].concat();
        let master = RedisServer::start_with(&quick).await;
        let port = master.port().to_string();
        let following = [&quick[..], &["--replicaof", "127.0.0.1", &port]].concat();
        let replica = RedisServer::start_with(&following).await;
        let sentinels: Vec<_> = (0..3).map(|_| Sentinel::start(master.port(), accounts)).collect();
        let watched = Self { master, replica, sentinels };
        for sentinel in &watched.sentinels {
            until("the sentinels know each other and the replica", async || {
                let fields = command_at::<Vec<String>>(sentinel.port, &["SENTINEL", "MASTER", "main"]).await;
                let Ok(fields) = fields else { return false };
                let field = |name: &str| fields.iter().skip_while(|field| *field != name).nth(1).cloned();
                field("num-slaves").as_deref() == Some("1")
                    && field("num-other-sentinels").as_deref() == Some("2")
                    && field("flags").as_deref() == Some("master")
            })
            .await;
        }
        until("the replica follows", async || {
            let info = command_at::<String>(watched.master.port(), &["INFO", "replication"]).await;
            info.is_ok_and(|info| info.contains("state=online"))
        })
        .await;
        watched
    }

    pub(crate) fn config(&self) -> Config {
        let hosts: Vec<_> = self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port)).collect();
        let url = format!("redis+sentinel://{}/main", hosts.join(","));
        Config { url: url.into(), ..self.master.config() }
    }

    /// Leaves this many sentinels.
    pub(crate) fn leave(&mut self, sentinels: usize) {
        self.sentinels.truncate(sentinels);
    }

    /// Waits until the replica has become the master.
    pub(crate) async fn replica_leads(&self) {
        leads(&self.replica).await;
    }
}

/// The length of an election depends on the servers: a split one is repeated after seconds.
async fn leads(server: &RedisServer) {
    until("the replica leads", async || {
        let role = command_at::<Vec<redis::Value>>(server.port(), &["ROLE"]).await;
        role.is_ok_and(|role| role[0] == redis::Value::BulkString(b"master".to_vec()))
    })
    .await;
}

/// A master and three sentinels that use only TLS, with certificates of one authority.
pub(crate) struct Guarded {
    pub(crate) master: RedisServer,
    sentinels: Vec<Sentinel>,
}

impl Guarded {
    pub(crate) async fn start() -> Self {
        let master = RedisServer::start_encrypted().await;
        let sentinels = (0..3).map(|_| Sentinel::start_encrypted(&master)).collect();
        Self { master, sentinels }
    }

    pub(crate) fn config(&self) -> Config {
        let hosts: Vec<_> = self.sentinels.iter().map(|one| format!("localhost:{}", one.port)).collect();
        let url = format!("rediss+sentinel://{}/main", hosts.join(","));
        Config { url: url.into(), ..self.master.config() }
    }
}

/// Masters with an equal share of the slots each; the first may have a replica, which is the last node.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<RedisServer>,
    /// The authority of all nodes' certificates, and their TLS ports.
    encrypted: Option<(RedisServer, Vec<u16>)>,
}

impl Cluster {
    pub(crate) async fn start(masters: usize, replica: bool) -> Self {
        Self::start_with(masters, replica, &[]).await
    }

    /// Uses TLS with clients, each node on one more port, under the name `localhost`.
    pub(crate) async fn start_encrypted(masters: usize) -> Self {
        let authority = RedisServer::start_encrypted().await;
        let ports: Vec<_> = (0..masters).map(|_| free_port()).collect();
        let (certificate, key) = authority.identity();
        let text = |path: PathBuf| path.into_os_string().into_string().unwrap();
        let (certificate, key, ca) = (text(certificate), text(key), text(authority.ca()));
        let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
        let named =
            ["--tls-auth-clients", "no", "--tls-cluster", "yes", "--cluster-announce-hostname", "localhost"];
        let own = |number: usize| vec!["--tls-port".to_owned(), ports[number].to_string()];
        let cluster = Self::launch(masters, false, &[&files[..], &named].concat(), own).await;
        Self { encrypted: Some((authority, ports)), ..cluster }
    }

    pub(crate) async fn start_with(masters: usize, replica: bool, arguments: &[&str]) -> Self {
        Self::launch(masters, replica, arguments, |_| Vec::new()).await
    }

    async fn launch(
        masters: usize,
        replica: bool,
        arguments: &[&str],
        own: impl Fn(usize) -> Vec<String>,
    ) -> Self {
        let mut nodes = Vec::new();
        for number in 0..masters + usize::from(replica) {
            let bus = free_port().to_string();
            let clustered =
                ["--cluster-enabled", "yes", "--cluster-node-timeout", "600", "--cluster-port", &bus];
            let own = own(number);
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            let all = [&clustered[..], &["--repl-diskless-sync-delay", "0"], arguments, &own].concat();
            nodes.push((RedisServer::start_with(&all).await, bus));
        }
        let share = 16_384 / masters;
        for (number, (node, _)) in nodes.iter().enumerate() {
            node.command::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]).await;
            if number < masters {
                let last = if number + 1 == masters { 16_383 } else { (number + 1) * share - 1 };
                let (first, last) = ((number * share).to_string(), last.to_string());
                node.command::<()>(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
            }
            let (seed, bus) = &nodes[0];
            if number > 0 {
                let port = seed.port().to_string();
                node.command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await;
            }
        }
        let cluster = Self { nodes: nodes.into_iter().map(|(node, _)| node).collect(), encrypted: None };
        cluster.agrees().await;
        if replica {
            let id: String = cluster.nodes[0].command(&["CLUSTER", "MYID"]).await;
            let last = cluster.nodes.last().unwrap();
            last.command::<()>(&["CLUSTER", "REPLICATE", &id]).await;
            until("the replica follows", async || {
                let info = command_at::<String>(cluster.nodes[0].port(), &["INFO", "replication"]).await;
                info.is_ok_and(|info| info.contains("state=online"))
            })
            .await;
        }
        cluster
    }

    /// Waits until the last node has become a master.
    pub(crate) async fn replica_leads(&self) {
        leads(self.nodes.last().unwrap()).await;
    }

    /// Waits until every node knows all others.
    async fn agrees(&self) {
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        for node in &self.nodes {
            until("the cluster is well", async || {
                let info = command_at::<String>(node.port(), &["CLUSTER", "INFO"]).await;
                info.is_ok_and(|info| info.contains("cluster_state:ok") && info.contains(&known))
            })
            .await;
        }
    }

    pub(crate) fn config(&self) -> Config {
        if let Some((authority, ports)) = &self.encrypted {
            let url = format!("rediss+cluster://localhost:{}", ports[0]);
            return Config { url: url.into(), ..authority.config() };
        }
        let hosts: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        let url = format!("redis+cluster://{}", hosts.join(","));
        Config { url: url.into(), ..self.nodes[0].config() }
    }

    /// Moves a slot from one node to another: `begin`, and `finish` when all its keys have been moved.
    pub(crate) async fn begin_to_move(&self, slot: &str, from: usize, to: usize) {
        let id = async |node: usize| self.nodes[node].command::<String>(&["CLUSTER", "MYID"]).await;
        let (source, target) = (id(from).await, id(to).await);
        self.nodes[to].command::<()>(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &source]).await;
        self.nodes[from].command::<()>(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &target]).await;
    }

    pub(crate) async fn move_key(&self, key: &str, from: usize, to: usize) {
        let port = self.nodes[to].port().to_string();
        self.nodes[from].command::<()>(&["MIGRATE", "127.0.0.1", &port, key, "0", "1000"]).await;
    }

    pub(crate) async fn finish_to_move(&self, slot: &str, to: usize) {
        let id: String = self.nodes[to].command(&["CLUSTER", "MYID"]).await;
        self.nodes[to].command::<()>(&["CLUSTER", "SETSLOT", slot, "NODE", &id]).await;
        for node in &self.nodes {
            node.command::<()>(&["CLUSTER", "SETSLOT", slot, "NODE", &id]).await;
        }
    }
}
