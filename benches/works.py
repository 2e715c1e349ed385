"""The works: what is done to the servers, and which figures come of it. Names and goals are in `report.py`."""

import dataclasses
import os
import random
import statistics
import time

from client import Client, is_open, websocket_answers
from lab import BIG
from load import h2load, http1, latencies
from report import BEFORE
from websocket_origin import websocket_origin

MIB = 1 << 20
MANY, FEW = 128, 32  # connections
CHECKING = {"nginx auth_request", "nginx auth_request kept", "HAProxy JWT"}
NEAREST = {"Portcullis", BEFORE, "nginx", "HAProxy"}


@dataclasses.dataclass
class Plan:
    """How much of everything."""

    rounds: int
    seconds: int  # of a round
    starts: int
    idle: int  # connections
    websockets: int
    long_body: int  # bytes


class Bench:
    """Servers, plan, and the figures so far: by name of the figure and of the server, one a round."""

    def __init__(self, lab, origin, servers, plan):
        self.lab, self.origin, self.servers, self.plan = lab, origin, servers, plan
        self.figures = {}

    def note(self, figure, server, value):
        self.figures.setdefault(figure, {}).setdefault(server.name, []).append(value)

    def client(self, server):
        return Client(server, self.lab.authority)

    def check_all(self):
        for server in self.servers:
            self.client(server).check()

    def in_turns(self, measure, servers):
        """Rounds are interleaved, each in an order of its own, so that what disturbs the machine disturbs everybody."""
        for _ in range(self.plan.rounds):
            for server in random.sample(servers, len(servers)):
                measure(server)

    @property
    def plain(self):
        """The gateway and those that check nothing."""
        return [server for server in self.servers if server.name not in CHECKING]

    @property
    def nearest(self):
        return [server for server in self.servers if server.name in NEAREST]


# --- what needs a server that has just been started -----------------------------------------------------------------


def starts(bench):
    """S10: from exec until one request is answered with 200, a handshake included, the same for everybody."""
    for server in bench.servers:
        client = bench.client(server)
        for _ in range(bench.plan.starts):
            began = time.monotonic()
            with server:
                client.wait(pause=0.0005)
                bench.note("start", server, (time.monotonic() - began) * 1e3)
        bench.note("size", server, os.stat(server.command[0]).st_size / 1e6)


def idle(bench):
    """S5: before any load, which would leave freed memory behind that idle connections could use."""
    for server in bench.servers:
        client = bench.client(server)
        with server:
            client.check()
            cost = client.idle_cost(bench.plan.idle, client.idle_connection, is_open)
            bench.note("idle", server, cost / 1024)
    with websocket_origin(bench.lab.websocket_port):
        for server in bench.nearest:
            client = bench.client(server)
            with server:
                client.check()
                cost = client.idle_cost(bench.plan.websockets, client.websocket, websocket_answers)
                bench.note("websocket", server, cost / 1024)


def long_body(bench):
    """S3: memory while a body passes that nobody could hold."""
    for server in bench.plain:
        client = bench.client(server)
        with server:
            client.check()
            client.download("/big", BIG)
            bench.note("growth", server, client.download("/long", bench.plan.long_body) / MIB)


# --- what is done to servers that all run ---------------------------------------------------------------------------


def spend(server, work):
    """Returns the seconds of CPU that the server spent on the work, and what the work returned."""
    before = server.cpu()
    done = work()
    return server.cpu() - before, done


def requests_h1(bench):
    """S1: 1 KiB answers on connections that are kept, as many as there are requests at once in S2; then on a few."""

    def ask(server, connections):
        return spend(server, lambda: http1(server, bench.lab.authority, bench.plan.seconds, connections))

    def measure(server):
        spent, load = ask(server, MANY)
        bench.note("h1 cpu", server, spent / load.requests * 1e6)
        bench.note("h1 rate", server, load.requests / load.seconds)
        bench.note("h1 p99", server, load.p99)
        bench.note("h1 busy", server, spent / load.seconds * 100)
        spent, load = ask(server, FEW)
        bench.note("h1 few", server, spent / load.requests * 1e6)

    bench.in_turns(measure, bench.servers)


def requests_h2(bench):
    """S2: the same over HTTP/2, 8 connections with 16 streams each."""
    seconds = bench.plan.seconds

    def measure(server):
        words = ["-t1", "-c8", "-m16", f"-D{seconds}"]
        spent, load = spend(server, lambda: h2load(server, *words, seconds=seconds))
        bench.note("h2 cpu", server, spent / load.requests * 1e6)
        bench.note("h2 rate", server, load.requests / load.seconds)

    bench.in_turns(measure, bench.servers)


def downloads(bench):
    """S3: 16 MiB answers, four at a time."""
    seconds = bench.plan.seconds

    def measure(server):
        spent, load = spend(server, lambda: http1(server, bench.lab.authority, seconds, 4, "/big"))
        bench.note("h1 bytes", server, spent / (load.size / MIB) * 1e6)
        words = ["-t1", "-c4", "-m1", f"-D{seconds}"]
        spent, load = spend(server, lambda: h2load(server, *words, path="/big", seconds=seconds))
        bench.note("h2 bytes", server, spent / (load.size / MIB) * 1e6)

    bench.in_turns(measure, bench.plain)


def handshakes(bench):
    """S4: new connections, 100 at a time, each a full handshake and one request. The client needs more CPU for one than
    any server does, so what is measured is the server's CPU; a core's rate follows from it.
    """

    def bursts(server):
        done, until = 0, time.monotonic() + bench.plan.seconds
        while time.monotonic() < until:
            done += h2load(server, "--h1", "-t1", "-c100", "-n100").requests
        return done

    def measure(server):
        spent, done = spend(server, lambda: bursts(server))
        bench.note("handshakes", server, done / spent)

    bench.in_turns(measure, bench.plain)
    for server in bench.plain:
        bench.note("resumption", server, bench.client(server).resumes())


def added_latency(bench):
    """S9: 200 requests a second, evenly spaced, through each proxy; less what the portal takes alone, without TLS."""

    def quantiles(server):
        all_of_them = latencies(server, 200, bench.plan.seconds)
        return statistics.median(all_of_them), all_of_them[int(len(all_of_them) * 0.99)]

    for _ in range(bench.plan.rounds):
        bare = quantiles(bench.origin)
        for server in bench.nearest:
            p50, p99 = quantiles(server)
            bench.note("added p50", server, p50 - bare[0])
            bench.note("added p99", server, p99 - bare[1])


# By what `--only` names: what starts its servers itself, and what needs them all running.
FRESH = {"s10": starts, "s5": idle, "s3": long_body}
RUNNING = {"s1": requests_h1, "s2": requests_h2, "s3": downloads, "s4": handshakes, "s9": added_latency}
