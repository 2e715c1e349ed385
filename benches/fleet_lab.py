"""What a fleet needs: Redis in three shapes, PostgreSQL, a portal, gateways that share them, HAProxy before those.

Nothing is measured here. Every server has its own port and folder and is stopped by its id.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from fleet_chaos import Chaos
from lab import Rooms, listens
from servers import Failure, Missing, Server, run, tool, wait_until

HERE = Path(__file__).resolve().parent
MASTER = "portcullis"  # as the Sentinels call it


class Process(Server):
    """A server on whatever core is free, which can be killed, frozen and started again on its port."""

    ends_within = 40  # seconds: a gateway drains for 30

    def __init__(self, name, folder, port, command):
        super().__init__(name, command, f"tcp://127.0.0.1:{port}", folder, core=None)

    def start(self):
        super().start()
        wait_until(lambda: self.must_run() or listens(self.port), f"{self.name} does not start")
        return self

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGCONT)
        super().stop()


class Rack(Rooms):
    """All that was started: stopped at the end, last first."""

    def __init__(self, folder):
        super().__init__(folder, 60)
        self.started = []

    def launch(self, process):
        self.started.append(process)
        return process.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.started):
            process.stop()


# --- Redis --------------------------------------------------------------------------------------------------------


def redis_cli(port, *words):
    return run(tool("redis-cli"), "-h", "127.0.0.1", "-p", port, *words).strip()


def redis_server(rack, name, *words):
    room, port = rack.room(name), rack.port()
    usual = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    command = [tool("redis-server"), "--port", port, "--dir", room, *usual, *words]
    return rack.launch(Process(name, room, port, command))


class Standalone:
    name = "redis"

    def __init__(self, rack):
        self.servers = [redis_server(rack, "redis")]

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.servers[0].port}/0"

    def masters(self):
        return self.servers


class Proxied(Standalone):
    """One Redis behind a way that can be spoilt."""

    name = "proxied"

    def __init__(self, rack):
        super().__init__(rack)
        self.chaos = Chaos(rack.port(), self.servers[0].port)

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.chaos.port}/0"


class Sentinel:
    """A master, two replicas, three Sentinels that agree by two."""

    name = "sentinel"

    def __init__(self, rack):
        master = redis_server(rack, "redis-0")
        follow = ["--replicaof", f"127.0.0.1 {master.port}"]
        self.servers = [master, *(redis_server(rack, f"redis-{number}", *follow) for number in (1, 2))]
        self.sentinels = []
        for number in range(3):
            room, port = rack.room(f"sentinel-{number}"), rack.port()
            file = room / "sentinel.conf"
            file.write_text(f"""
                port {port}
                bind 127.0.0.1
                dir {room}
                sentinel monitor {MASTER} 127.0.0.1 {master.port} 2
                sentinel down-after-milliseconds {MASTER} 500
                sentinel failover-timeout {MASTER} 3000
                sentinel parallel-syncs {MASTER} 2
                """)
            command = [tool("redis-server"), file, "--sentinel"]
            self.sentinels.append(rack.launch(Process(f"sentinel-{number}", room, port, command)))
        wait_until(self.is_whole, "the Sentinels do not find each other", 0.1)

    def is_whole(self):
        """Everybody knows everybody."""
        for sentinel in self.sentinels:
            words = redis_cli(sentinel.port, "sentinel", "master", MASTER).split("\n")
            facts = dict(zip(words[::2], words[1::2], strict=False))
            good = facts["flags"] == "master" and facts["num-slaves"] == "2" and facts["num-other-sentinels"] == "2"
            replicas = redis_cli(sentinel.port, "sentinel", "replicas", MASTER)
            if not good or "s_down" in replicas or "disconnected" in replicas:
                return False
        master = self.masters()[0]
        return redis_cli(master.port, "info", "replication").count("state=online") == 2

    @property
    def url(self):
        return f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in self.sentinels)}/{MASTER}/0"

    def masters(self):
        """As the Sentinels see it."""
        port = redis_cli(self.sentinels[0].port, "sentinel", "get-master-addr-by-name", MASTER).split("\n")[1]
        return [server for server in self.servers if server.port == int(port)]


class Cluster:
    """Three masters with a replica each."""

    name = "cluster"

    def __init__(self, rack):
        own = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0"]
        self.servers = [redis_server(rack, f"node-{number}", *own) for number in range(6)]
        addresses = [f"127.0.0.1:{server.port}" for server in self.servers]
        run(tool("redis-cli"), "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes")
        wait_until(self.is_whole, "the cluster does not form", 0.1)

    def is_whole(self):
        if any("cluster_state:ok" not in redis_cli(server.port, "cluster", "info") for server in self.servers):
            return False
        nodes = redis_cli(self.servers[0].port, "cluster", "nodes")
        replicas = [server for server in self.servers if "role:slave" in redis_cli(server.port, "info", "replication")]
        linked = all("master_link_status:up" in redis_cli(one.port, "info", "replication") for one in replicas)
        return len(replicas) == 3 and linked and "fail" not in nodes

    @property
    def url(self):
        return f"redis+cluster://{','.join(f'127.0.0.1:{one.port}' for one in self.servers)}"

    def masters(self):
        """Of the nodes that answer."""
        found = []
        for server in self.servers:
            try:
                if "role:master" in redis_cli(server.port, "info", "replication"):
                    found.append(server)
            except Failure:
                pass
        return found


SHAPES = {shape.name: shape for shape in (Standalone, Proxied, Sentinel, Cluster)}

# --- PostgreSQL ---------------------------------------------------------------------------------------------------


def postgres(rack, name="postgres"):
    """Its URL. Runs as `postgres` when we are root, whom it refuses."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not places:
        raise Missing("postgresql is not installed")
    room, port = rack.room(name), rack.port()
    data = room / "data"
    become = []
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        become = [tool("setpriv"), f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        data.mkdir()
        shutil.chown(data, user.pw_uid, user.pw_gid)
        for folder in (rack.folder, room):
            folder.chmod(0o755)
    run(*become, places[-1].with_name("initdb"), "-D", data, "-U", "portcullis", "-A", "trust", "--no-sync")
    words = ["-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    server = Process(name, room, port, [*become, places[-1], *words, "-c", "max_connections=200"])
    rack.launch(server)
    url = f"postgres://portcullis@127.0.0.1:{port}/postgres"
    wait_until(lambda: ready(url), "PostgreSQL does not start", 0.1)
    return url


def ready(url):
    try:
        return run(tool("psql"), url, "-c", "select 1")
    except Failure as error:
        raise OSError(str(error)) from error


def logs_statements(url):
    """From now on; for `statements`."""
    for statement in ("ALTER SYSTEM SET log_statement = 'all'", "SELECT pg_reload_conf()"):
        run(tool("psql"), "-XqAt", url, "-c", statement)


def statements(server):
    """How many PostgreSQL has logged."""
    return len(re.findall(r"LOG:  (?:execute|statement)", (server.folder / "output").read_text(errors="replace")))


# --- gateways, their portal, and HAProxy before them --------------------------------------------------------------


class Fleet:
    """`count` gateways behind HAProxy, which passes TLS on; all share one configuration but their ports."""

    def __init__(self, rack, lab, redis, database, binary, count=3):
        self.rack, self.lab, self.binary = rack, lab, Path(binary)
        self.entrance = rack.port()
        self.url = f"https://localhost:{self.entrance}"
        self.portal_port = rack.port()
        command = [sys.executable, HERE / "fleet_portal.py", self.portal_port]
        rack.launch(Process("portal", rack.room("portal"), self.portal_port, command))
        key = rack.folder / "portcullis.key"
        key.write_text(os.urandom(32).hex() + "\n")
        key.chmod(0o600)
        self.gateways, self.configurations, self.admin_ports = [], [], []
        for number in range(count):
            room, port, admin = rack.room(f"gateway-{number}"), rack.port(), rack.port()
            configuration = room / "portcullis.toml"
            configuration.write_text(f"""
                [server]
                listen = ["127.0.0.1:{port}"]
                public_url = "{self.url}"
                admin_listen = "127.0.0.1:{admin}"
                max_connections_per_network = 10000
                [tls]
                certificate = "{lab.certificate}"
                key = "{lab.key}"
                [portal]
                name = "Fleet"
                upstreams = ["http://127.0.0.1:{self.portal_port}"]
                [storage]
                database = "{database}"
                key_file = "{key}"
                [sessions]
                store = "{redis.url if redis else "database"}"
                [log]
                access = false
                """)
            command = [self.binary, "serve", "--config", configuration]
            self.gateways.append(Process(f"gateway-{number}", room, port, command))
            self.configurations.append(configuration)
            self.admin_ports.append(admin)

    def start(self):
        for gateway in self.gateways:
            self.rack.launch(gateway)
        self.haproxy()
        return self

    def haproxy(self):
        room = self.rack.room("haproxy")
        servers = "\n".join(
            f"server g{number} 127.0.0.1:{gateway.port} check inter 100ms fall 1 rise 1 port {admin}"
            for number, (gateway, admin) in enumerate(zip(self.gateways, self.admin_ports, strict=True))
        )
        (room / "haproxy.cfg").write_text(f"""
global
    maxconn 4000
defaults
    mode tcp
    timeout connect 2s
    timeout client 1h
    timeout server 1h
    retries 3
    option redispatch 1
listen gateways
    bind 127.0.0.1:{self.entrance}
    balance roundrobin
    option httpchk GET /ready
{servers}
""")
        command = [tool("haproxy"), "-db", "-f", room / "haproxy.cfg"]
        self.rack.launch(Process("haproxy", room, self.entrance, command))

    def cli(self, *words, number=0):
        return run(self.binary, *words, "--config", self.configurations[number])

    def seed(self, users, sessions):
        """Returns cookie value, id and e-mail of each session."""
        tokens = seed(self.rack.folder, self.configurations[0], users, sessions)
        return [line.split() for line in tokens.read_text().splitlines()]


def seed(folder, configuration, users, sessions):
    """Returns a file with cookie value, id and e-mail of a session on each line."""
    tokens = folder / f"tokens-{time.monotonic_ns()}"
    said = run(seed_program(), configuration, users, sessions, tokens)
    print(f"seeded  {said.strip()}", flush=True)
    return tokens


def seed_program():
    if path := os.environ.get("BENCH_SEED"):
        return Path(path).resolve(strict=True)
    words = ["cargo", "build", "--profile", "profiling", "--locked", "--features", "seed", "--example", "seed"]
    subprocess.run(words, cwd=HERE.parent, check=True)
    return HERE.parent / "target/profiling/examples/seed"
